"""The catalog: which files catalogued volumes have, in which versions, and all changes in order."""

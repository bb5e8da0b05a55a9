"""The cache node, built on the library."""

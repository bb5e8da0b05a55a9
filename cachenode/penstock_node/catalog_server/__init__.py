"""The process `penstock catalog`: answers for the catalog's database, and imports into it."""

"""The steps by which a database comes to have the catalog's tables."""

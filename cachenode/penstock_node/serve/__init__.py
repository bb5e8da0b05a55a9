"""What the node serves, one module a port or service; each only translates and delegates."""

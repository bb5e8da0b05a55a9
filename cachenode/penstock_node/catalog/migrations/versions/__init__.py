"""One module a step; see `penstock_node.catalog.migrations`."""

"""Who is in the cluster: views of it, and where they come from."""

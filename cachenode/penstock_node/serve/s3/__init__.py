"""The S3 gateway: any S3 client reads a cluster's volumes through a node, and cannot write."""

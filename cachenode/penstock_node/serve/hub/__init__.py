"""The hub: clients of the Hugging Face Hub read a cluster's volumes through a node."""

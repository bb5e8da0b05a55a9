"""What a node asks Kubernetes: whose token that is, and what becomes of the machine it runs on."""

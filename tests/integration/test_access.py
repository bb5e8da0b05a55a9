"""Who may do what at nodes that ask for tokens: real processes, over a real etcd."""

"""What a process tells of itself to whoever looks for a fault: never a secret."""

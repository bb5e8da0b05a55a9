"""Sockets of readers: one pool of workers for all of them, whatever protocol they speak."""

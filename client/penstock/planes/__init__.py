"""The planes: ways to move a chunk's blocks from a node into a caller's buffer."""

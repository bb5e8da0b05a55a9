"""Snapshots: an object, or everything below a prefix, as files in a local directory."""

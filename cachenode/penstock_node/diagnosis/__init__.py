"""What a node tells of itself to `penstock doctor`: facts and figures, each within a bound of time.

Whatever hangs is told as hanging and not waited for. Nothing here judges, and nothing here changes
what the node does: it writes one small file a disk, and removes it.
"""

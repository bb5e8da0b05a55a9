"""`make soak`: minutes of mixed work with faults on a real cluster, in which nothing grows.

Responsible for: the work, the faults, and the judgement of what processes hold: memory,
descriptors, threads, disks. ``python -m penstock_node.testbed.soak --help``.
"""

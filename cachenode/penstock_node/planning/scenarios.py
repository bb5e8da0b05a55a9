"""What a cluster could be: more bytes on its disks, a node more or less, more copies.

Responsible for: the arithmetic from the curve of a cluster's reads to what each would find.
Not responsible for: the curve (`curve`), asking the cluster, printing.

Chunks are spread by hash, so that each node is a sample of its cluster: one with a fifth of the
ring and some capacity finds the same share of its reads as a cluster of five times the capacity.
Copies take room: with two, half of the capacity is for different bytes.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from penstock.units import format_size
from penstock_node.planning.curve import Curve

TB = 10**12
STEPS_TB = (1, 2, 4)
SMALL_BYTES = TB // 2
"""A cluster below it is told of multiples of itself instead: a terabyte would hold everything."""
STEPS_SMALL = (0.5, 1.0, 3.0)
"""Of the present capacity, on top of it."""


@dataclass(frozen=True, slots=True)
class PlannedNode:
    """A node that owns a part of the ring."""

    id: str
    capacity_bytes: float
    share: float
    """Of the ring; all nodes of a cluster have 1 together."""


@dataclass(frozen=True, slots=True)
class PlannedCluster:
    """Nodes, and how many of them keep each chunk."""

    name: str
    nodes: tuple[PlannedNode, ...]
    replicas: int = 1

    @property
    def capacity_bytes(self) -> float:
        """Of all nodes."""
        return sum(node.capacity_bytes for node in self.nodes)

    @property
    def copies(self) -> int:
        """How many of a chunk there are."""
        return max(1, min(self.replicas, len(self.nodes)))

    def room_of(self, node: PlannedNode) -> float:
        """Return the different bytes of a cluster that is as well off as a node."""
        return node.capacity_bytes / node.share / self.copies

    @property
    def distinct_bytes(self) -> float:
        """Of the capacity, what is for different bytes."""
        return self.capacity_bytes / self.copies


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a cluster would find."""

    name: str
    capacity_bytes: float
    hit_ratio: float
    error: float
    origin_bytes_per_day: float


def steps_for(capacity_bytes: float) -> list[float]:
    """Return what to add when nobody says what: terabytes, or multiples of a small cluster."""
    if capacity_bytes >= SMALL_BYTES:
        return [float(step * TB) for step in STEPS_TB]
    return [step * capacity_bytes for step in STEPS_SMALL]


def clusters_to_compare(now: PlannedCluster, *, added: Sequence[float]) -> list[PlannedCluster]:
    """Return the present cluster, and what it could be."""
    found = [now]
    found += [grown(now, size) for size in added]
    found.append(with_another(now))
    if len(now.nodes) > 1:
        found.append(without_largest(now))
        copies = 2 if now.copies == 1 else 1
        found.append(replace(now, name=_copies(copies), replicas=copies))
    return found


def grown(now: PlannedCluster, added_bytes: float) -> PlannedCluster:
    """Return the cluster with more bytes, on each node in proportion to what it has."""
    factor = 1.0 + added_bytes / now.capacity_bytes
    nodes = [replace(node, capacity_bytes=node.capacity_bytes * factor) for node in now.nodes]
    return replace(now, name=f"+ {format_size(added_bytes)}", nodes=tuple(nodes))


def with_another(now: PlannedCluster) -> PlannedCluster:
    """Return the cluster with one more node, like the median one."""
    capacity = statistics.median(node.capacity_bytes for node in now.nodes)
    share = statistics.median(node.share for node in now.nodes)
    nodes = [replace(node, share=node.share / (1.0 + share)) for node in now.nodes]
    nodes.append(PlannedNode("", capacity, share / (1.0 + share)))
    return replace(now, name=f"+ 1 node of {format_size(capacity)}", nodes=tuple(nodes))


def without_largest(now: PlannedCluster) -> PlannedCluster:
    """Return the cluster when its largest node is lost, and all chunks have found new owners."""
    lost = max(now.nodes, key=lambda node: (node.share, node.id))
    rest = [node for node in now.nodes if node is not lost]
    nodes = [replace(node, share=node.share / (1.0 - lost.share)) for node in rest]
    return replace(now, name=f"- 1 node of {format_size(lost.capacity_bytes)}", nodes=tuple(nodes))


def _copies(count: int) -> str:
    return f"replicas = {count}"


def outlook(cluster: PlannedCluster, curve: Curve) -> Outlook:
    """Return what a cluster would find of the reads that the curve tells of."""
    points = [(node.share, curve.at(cluster.room_of(node))) for node in cluster.nodes]
    origin = sum(share * point.origin_ratio for share, point in points)
    return Outlook(
        cluster.name,
        cluster.capacity_bytes,
        sum(share * point.hit_ratio for share, point in points),
        max(point.error for _, point in points),
        origin * curve.read_bytes_per_day,
    )

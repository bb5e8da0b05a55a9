"""A fleet's links as fluids: many transfers at once, each as fast as both of its ends let it.

Responsible for: rates. Every link's bandwidth is shared equally by the transfers on it; a transfer
gets the lesser of its shares at both ends. What one end leaves over nobody else gets meanwhile, so
that times are never better than with a fairer share.
Not responsible for: who transfers what (`cold_start`).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Links:
    """Bandwidths, in bytes by the second."""

    node_bytes_per_s: float
    """Of each node, in and out alike, at the same time."""
    origin_bytes_per_s: float
    """Of the origin, to all nodes together."""
    stream_bytes_per_s: float
    """Of one read of the origin."""


def rates(
    links: Links, *, sources: Places, targets: Places, fillers: Places, nodes: int
) -> tuple[Numbers, Numbers]:
    """Return how fast transfers between nodes go, and reads of the origin.

    Args:
        links: The bandwidths.
        sources: The node that each transfer comes from.
        targets: The node that it goes to.
        fillers: The node of each read of the origin.
        nodes: How many there are.
    """
    leaving = np.bincount(sources, minlength=nodes)
    coming = np.bincount(targets, minlength=nodes) + np.bincount(fillers, minlength=nodes)
    node = links.node_bytes_per_s
    moving: Numbers = node / np.maximum(leaving[sources], coming[targets])
    origin = min(links.stream_bytes_per_s, links.origin_bytes_per_s / max(1, len(fillers)))
    filling: Numbers = np.minimum(origin, node / coming[fillers])
    return moving, filling

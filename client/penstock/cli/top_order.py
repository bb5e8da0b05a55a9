"""In which order `penstock top` shows nodes."""

from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.overview import NodeLine


class Sort(StrEnum):
    """A column to sort by: names from A on, all others from the most on."""

    NODE = "node"
    STATE = "state"
    WEIGHT = "weight"
    FILL = "fill"
    HIT = "hit"
    SERVED = "served"
    ORIGIN = "origin"
    HANDOVER = "handover"


_STATES = ("away", "draining", "drained", "cordoned", "alive")
"""First what wants to be looked at."""
_KEYS: "dict[Sort, Callable[[NodeLine], float]]" = {
    Sort.NODE: lambda _node: 0.0,
    Sort.STATE: lambda node: -_STATES.index(node.state) if node.state in _STATES else 0,
    Sort.WEIGHT: lambda node: node.weight,
    Sort.FILL: lambda node: fill(node) or 0.0,
    Sort.HIT: lambda node: -1.0 if (hit := node.hit_ratio) is None else hit,
    Sort.SERVED: lambda node: node.told.rates.served,
    Sort.ORIGIN: lambda node: node.told.rates.origin_bytes,
    Sort.HANDOVER: lambda node: node.told.handoff_waiting_bytes,
}


def fill(node: "NodeLine") -> float | None:
    """Return how full its tiers are together, 0 to 1; None: it has none, or did not tell."""
    capacity = node.capacity_bytes
    return min(1.0, node.used_bytes / capacity) if capacity else None


def in_order(nodes: "Iterable[NodeLine]", sort: Sort) -> "list[NodeLine]":
    """Return nodes in order; equal ones by their names."""
    return sorted(nodes, key=lambda node: (-_KEYS[sort](node), node.id))

"""What a change of weights would move: shares of the key space, and cached bytes.

Responsible for: the placement that a change would give, and this node's part of what moves.
Not responsible for: asking the other nodes (`operations`), moving anything.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from penstock.errors import InvalidRequest
from penstock.placement import PlacedNode, Placement, auto_weight, check_weight
from penstock.ring import Ring
from penstock_node.coordination.state import ClusterState
from penstock_node.store.store import Store


@dataclass(frozen=True, slots=True)
class Moved:
    """What goes from one node to another."""

    source: str
    target: str
    share: float = 0.0
    """Of the key space, 0 to 1."""
    cached_bytes: int = 0
    cached_chunks: int = 0


def proposed_nodes(
    state: ClusterState, changes: Mapping[str, int | None]
) -> tuple[PlacedNode, ...]:
    """Return the nodes as ``changes`` would have them; None as a weight means automatic.

    Raises:
        InvalidRequest: A node is not on the ring, or a weight is out of bounds.
    """
    assert state.placement is not None, "the cluster has formed"
    placed = {node.id: node for node in state.placement.nodes}
    for node_id, weight in changes.items():
        if node_id not in placed:
            known = ", ".join(sorted(placed)) or "none"
            raise InvalidRequest(f"no node {node_id!r} is on the ring; known are: {known}")
        if weight is not None:
            check_weight(weight)
        wanted = _auto_weight(state, node_id) if weight is None else weight
        placed[node_id] = replace(placed[node_id], weight=wanted)
    return tuple(placed[node_id] for node_id in sorted(placed))


def _auto_weight(state: ClusterState, node_id: str) -> int:
    assert state.settings is not None, "settings are written when the cluster forms"
    return auto_weight(state.nodes[node_id].owned_capacity_bytes, state.settings.weight_unit_bytes)


def proposed_ring(ring: Ring, placement: Placement, nodes: tuple[PlacedNode, ...]) -> Ring:
    """Return the ring of ``nodes``, made from the one in force."""
    return ring if nodes == placement.nodes else ring.changed_to(nodes)


def cached_moves(store: Store, node_id: str, ring: Ring, *, present: Ring) -> list[Moved]:
    """Return what this node would hand over to others under ``ring``.

    Only of the chunks that are its own under ``present``, the ring in force: what it holds of
    others' already, from earlier changes, a new change does not move.
    """
    chunks = list(store.owned_chunks())
    present_owners = present.first_owners([chunk_id for chunk_id, _ in chunks])
    chunks = [
        chunk for chunk, owner in zip(chunks, present_owners, strict=True) if owner == node_id
    ]
    owners = ring.first_owners([chunk_id for chunk_id, _ in chunks])
    size: Counter[str] = Counter()
    count: Counter[str] = Counter()
    for (_, length), owner in zip(chunks, owners, strict=True):
        if owner != node_id:
            size[owner] += length
            count[owner] += 1
    return [
        Moved(node_id, target, cached_bytes=size[target], cached_chunks=count[target])
        for target in sorted(size)
    ]

"""What a node holds of others' chunks, by who should have them.

Responsible for: going through the owned tiers once for a placement.
Not responsible for: telling the others (`giving`), what they do with it (`taking`).

A list is ids alone, 16 bytes a chunk: what a chunk is stands in its own file.
"""

from collections import defaultdict
from collections.abc import Iterator, Set
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from penstock.objects import CHUNK_ID_BYTES
from penstock.ring import Ring, positions_of
from penstock.ring_walk import NOBODY, Labels
from penstock.routing import SPARE_OWNERS
from penstock_node.store.listed import Listed, split_ids

Places = npt.NDArray[np.int64]

CHUNKS_AT_ONCE = 1 << 16
"""Bounds what making lists takes besides the lists."""


@dataclass(slots=True)
class Share:
    """Chunks that one other node owns and this one holds."""

    ids: bytearray = field(default_factory=bytearray)
    """One after another, the most worth keeping first."""
    size_bytes: int = 0
    """What their files take."""

    @property
    def chunks(self) -> int:
        """How many."""
        return len(self.ids) // CHUNK_ID_BYTES

    def page(self, start: int, *, chunks_max: int) -> bytes:
        """Return ids from the ``start``-th on."""
        stop = start + chunks_max
        return bytes(self.ids[start * CHUNK_ID_BYTES : stop * CHUNK_ID_BYTES])


def shares_of_others(
    held: Listed,
    ring: Ring,
    *,
    node_id: str,
    replicas: int,
    absent: Set[str] = frozenset(),
) -> dict[str, Share]:
    """Return what this node holds of each other node's chunks. Takes a second for a million.

    Args:
        held: Its owned chunks, in the order in which they should go.
        ring: The owners.
        node_id: This node.
        replicas: How many owners keep a chunk, at most: a list knows no objects, and who is
            offered a chunk that it keeps no copy of passes it over. Who owns it beside this
            node is listed as well.
        absent: Owners that are away: who keeps a copy in their stead is listed, beside them.
    """
    shares: defaultdict[str, Share] = defaultdict(Share)
    for first in range(0, len(held), CHUNKS_AT_ONCE):
        part = held.at(np.arange(first, min(first + CHUNKS_AT_ONCE, len(held))))
        for at, rows in _by_owner(_keepers(part, ring, replicas, absent)):
            theirs = part.at(rows)
            shares[ring.nodes[at].id].ids += theirs.ids
            shares[ring.nodes[at].id].size_bytes += theirs.total_bytes
    shares.pop(node_id, None)
    return dict(shares)


def _keepers(part: Listed, ring: Ring, replicas: int, absent: Set[str]) -> Labels:
    """Return numbers of nodes in ``ring``: a row for each chunk, of those that should have it."""
    positions = positions_of(split_ids(part.ids))
    if not absent:
        return ring.owner_table(positions, replicas)
    owners = ring.owner_table(positions, replicas + SPARE_OWNERS)
    is_absent = np.array([node.id in absent for node in ring.nodes])
    is_there = (owners != NOBODY) & ~is_absent[owners]
    keeps = is_there & (is_there.cumsum(axis=1) <= replicas)
    keeps[:, :replicas] = True
    return np.where(keeps, owners, NOBODY)


def _by_owner(owners: Labels) -> Iterator[tuple[int, Places]]:
    """Yield each number in a table but `NOBODY`, and the rows that it stands in, in order."""
    flat = owners.reshape(-1)
    order = flat.argsort(kind="stable")
    begins = np.flatnonzero(np.diff(flat[order], prepend=NOBODY - 1))
    for run in np.split(order, begins[1:]):
        if len(run) and flat[run[0]] != NOBODY:
            yield int(flat[run[0]]), run // owners.shape[1]

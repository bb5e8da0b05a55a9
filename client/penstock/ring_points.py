"""The ring's points: where on the circle of 2^64 positions each node stands.

Responsible for: generating points and keeping them sorted as nodes come, go and change weight.
A node of weight w has ``round(points_per_100 * w / 100)`` points, at least one unless w is 0;
the k-th stands at xxh3-64 of ``{id}-{k}``. These are the points of `uhashring`'s ring with the
same hash and `vnodes`, so anyone can recompute them.
Not responsible for: who owns a key (`ring`).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import xxhash

from penstock.placement import WEIGHT_UNIT, PlacedNode

Positions = npt.NDArray[np.uint64]
Members = npt.NDArray[np.unsignedinteger[Any]]
"""Indexes into the sorted nodes; 16 bits each while they fit, to halve what a ring takes."""

_SUFFIXES_AT_ONCE = 4096
_T = TypeVar("_T", bound=np.generic)


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """Sorted positions and who stands there. Never changes.

    Where several nodes stand on one position (once in 10^6 rings of 4 million points), the last
    id comes first, because that is the one `uhashring` keeps.
    """

    positions: Positions
    members: Members

    def __len__(self) -> int:
        return len(self.positions)

    def first_at(self, position: int) -> int:
        """Return the index of the point that owns ``position``: the next one clockwise."""
        # np.uint64, because numpy would take a small int for int64 and compare as floats.
        index = int(self.positions.searchsorted(np.uint64(position), "right"))
        return index if index < len(self.positions) else 0

    def first_at_each(self, positions: Positions) -> npt.NDArray[np.intp]:
        """As `first_at`, for many positions."""
        indexes = self.positions.searchsorted(positions, "right")
        indexes[indexes == len(self.positions)] = 0
        return indexes


def point_count(node: PlacedNode, points_per_100: int) -> int:
    """Return how many points ``node`` has."""
    return max(round(points_per_100 * node.weight / WEIGHT_UNIT), 1 if node.weight > 0 else 0)


def build_points(nodes: Sequence[PlacedNode], points_per_100: int) -> Points:
    """Return the points of ``nodes``, which are sorted by id."""
    return _sorted_points(_grown([], nodes, points_per_100), len(nodes))


def change_points(
    points: Points,
    old_nodes: Sequence[PlacedNode],
    new_nodes: Sequence[PlacedNode],
    points_per_100: int,
) -> Points:
    """Return the points of ``new_nodes``, made from those of ``old_nodes``; both sorted by id.

    Equal to a fresh build bit for bit, and costs a copy instead of hashing and sorting all.
    """
    removed = _sorted_points(_grown(new_nodes, old_nodes, points_per_100), len(old_nodes))
    added = _sorted_points(_grown(old_nodes, new_nodes, points_per_100), len(new_nodes))
    renumbering = _renumbering(old_nodes, new_nodes)
    changed = replace_points(points, removed=removed, added=added, renumbering=renumbering)
    return build_points(new_nodes, points_per_100) if changed is None else changed


def replace_points(
    points: Points, *, removed: Points, added: Points, renumbering: Members | None
) -> Points | None:
    """Return ``points`` without ``removed``, with ``added``; None where two share a position.

    Which of two comes first depends on ids, and it happens too rarely to be worth a rule here.

    Args:
        points: Left as they are.
        removed: All of them are in ``points``.
        added: With indexes into the new nodes.
        renumbering: New index of each old node; None when all stay the same.
    """
    removed_at = points.positions.searchsorted(removed.positions)
    if _any_equal(points.positions, removed_at + 1, removed.positions):
        return None
    # One array after the other: at 4 million points each copy of the positions takes 33 MB.
    positions = _without(points.positions, removed_at)
    added_at = positions.searchsorted(added.positions)
    repeated = bool((np.diff(added.positions) == 0).any())
    if repeated or _any_equal(positions, added_at, added.positions):
        return None
    positions = _with(positions, added_at, added.positions)
    members = _without(points.members, removed_at)
    members = members if renumbering is None else renumbering[members]
    return _frozen(positions, _with(members, added_at, added.members))


def _any_equal(positions: Positions, indexes: npt.NDArray[np.intp], values: Positions) -> bool:
    inside = indexes < len(positions)
    return bool((positions[indexes[inside]] == values[inside]).any())


def _without(array: npt.NDArray[_T], indexes: npt.NDArray[np.intp]) -> npt.NDArray[_T]:
    return np.delete(array, indexes) if len(indexes) else array


def _with(
    array: npt.NDArray[_T], indexes: npt.NDArray[np.intp], values: npt.NDArray[_T]
) -> npt.NDArray[_T]:
    return np.insert(array, indexes, values) if len(indexes) else array


def _frozen(positions: Positions, members: Members) -> Points:
    assert len(positions) == len(members), f"{len(positions)} positions, {len(members)} members"
    positions.flags.writeable = members.flags.writeable = False
    return Points(positions, members)


@dataclass(frozen=True, slots=True)
class _Span:
    """The points ``first`` to ``stop`` - 1 of a node."""

    node_id: str
    index: int
    first: int
    stop: int


def _grown(
    before: Sequence[PlacedNode], after: Sequence[PlacedNode], points_per_100: int
) -> list[_Span]:
    """Return what nodes have in ``after`` and had not in ``before``, the last id first."""
    had = {node.id: point_count(node, points_per_100) for node in before}
    spans = (
        _Span(node.id, index, had.get(node.id, 0), point_count(node, points_per_100))
        for index, node in enumerate(after)
    )
    return [span for span in spans if span.first < span.stop][::-1]


def _sorted_points(spans: Sequence[_Span], node_count: int) -> Points:
    counts = [span.stop - span.first for span in spans]
    unsorted = np.fromiter(_hashes(spans), np.uint64, sum(counts))
    order = unsorted.argsort(kind="stable")  # Stable: ties stay in the order of the spans.
    positions = unsorted[order]
    del unsorted  # A third of what a large ring takes while it is built.
    indexes = np.array([span.index for span in spans], _member_type(node_count))
    return _frozen(positions, np.repeat(indexes, counts)[order])


def _hashes(spans: Iterable[_Span]) -> Iterator[int]:
    return chain.from_iterable(_span_hashes(span) for span in spans)


def _span_hashes(span: _Span) -> Iterator[int]:
    prefix = span.node_id.encode().__add__
    at = span.first
    while at < span.stop:
        block, start = divmod(at, _SUFFIXES_AT_ONCE)
        suffixes = _suffixes(block)[start : start + span.stop - at]
        # Maps over C functions: 4 million points take 0.7 s, a third of what a loop takes.
        yield from map(xxhash.xxh3_64_intdigest, map(prefix, suffixes))
        at += len(suffixes)


@lru_cache(maxsize=4)
def _suffixes(block: int) -> list[bytes]:
    first = block * _SUFFIXES_AT_ONCE
    return [b"-%d" % k for k in range(first, first + _SUFFIXES_AT_ONCE)]


def _member_type(node_count: int) -> type[np.unsignedinteger[Any]]:
    return np.uint16 if node_count <= np.iinfo(np.uint16).max + 1 else np.uint32


def _renumbering(old: Sequence[PlacedNode], new: Sequence[PlacedNode]) -> Members | None:
    if [node.id for node in old] == [node.id for node in new]:
        return None
    index_of = {node.id: index for index, node in enumerate(new)}
    # A node that left has no points any more, so its entry is never read.
    return np.array([index_of.get(node.id, 0) for node in old], _member_type(len(new)))

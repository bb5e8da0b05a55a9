"""The ring: which nodes own a chunk, as a function of the placement.

Responsible for: owners of chunks, each node's share of the key space, and what moves from whom
to whom when the placement changes. A key is a chunk id; it stands at its xxh3-64, and belongs
to the next point clockwise, exactly as in `uhashring` with the points of `ring_points`.
Further owners spread over zones, then hosts, then members (`ring_walk`).
Not responsible for: who is on the ring (`placement`), who answers (`routing`).
"""

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xxhash

from penstock.placement import PlacedNode
from penstock.ring_points import Points, Positions, build_points, change_points
from penstock.ring_walk import NOBODY, Indexes, Labels, make_level, walk, walk_each

CIRCLE = 1 << 64
"""How many positions there are."""
_ARCS_AT_ONCE = 1 << 18
"""Bounds what `diff` takes besides the rings: tables of this many rows."""

Shares = npt.NDArray[np.float64]
"""Parts of the key space, each 0 to 1."""
_Sums = defaultdict[tuple[int, int, int], float]
"""Share by rank, number of the source, number of the target."""


@dataclass(frozen=True, slots=True)
class Move:
    """A share of the key space that ``target`` begins to own."""

    source: str
    """Who owned it and does not any more, else who was its first owner; "" where nobody was."""
    target: str
    share: float
    """Of the whole key space, 0 to 1."""
    rank: int
    """As which owner ``target`` gets it: 0 is the first."""


class Ring:
    """The owners of every key. Never changes: `changed_to` makes another.

    Built from the same nodes it is the same everywhere, whatever their order. At 1,000 nodes of
    weight 100 with 4,096 points it takes 41 MB, and the first build 1.5 s: keep both off an
    event loop.
    """

    __slots__ = ("_ids", "_levels", "_points", "nodes", "points_per_100")

    def __init__(self, nodes: Sequence[PlacedNode], points_per_100: int, points: Points) -> None:
        self.nodes = tuple(nodes)
        """Sorted by id, those of weight 0 too."""
        self.points_per_100 = points_per_100
        self._points = points
        self._ids = [node.id for node in nodes]
        has_points = [node.weight > 0 for node in nodes]
        names = ([n.zone for n in nodes], [n.host for n in nodes], self._ids)
        self._levels = tuple(make_level(each, has_points) for each in names)

    @classmethod
    def build(cls, nodes: Sequence[PlacedNode], points_per_100: int) -> "Ring":
        """Return the ring of ``nodes``, whose ids differ, with that many points a weight of 100."""
        nodes = _by_id(nodes)
        return cls(nodes, points_per_100, build_points(nodes, points_per_100))

    def changed_to(self, nodes: Sequence[PlacedNode]) -> "Ring":
        """Return the ring of ``nodes``: as `build`, in the time that the differences take."""
        nodes = _by_id(nodes)
        points = change_points(self._points, self.nodes, nodes, self.points_per_100)
        return Ring(nodes, self.points_per_100, points)

    @property
    def point_count(self) -> int:
        """How many points all nodes have together."""
        return len(self._points)

    def __repr__(self) -> str:
        return f"<Ring of {len(self.nodes)} nodes, {self.point_count} points>"

    def owners(self, chunk_id: bytes, n: int) -> list[str]:
        """Return the ids of up to ``n`` different owners, in order; none if the ring is empty.

        The owners for ``n`` begin those for any larger ``n``.
        """
        assert n >= 1, f"n={n}: ask for at least one owner"
        if not self.point_count:
            return []
        first = self._points.first_at(xxhash.xxh3_64_intdigest(chunk_id))
        if n == 1:
            return [self._ids[self._points.members[first]]]
        return [self._ids[i] for i in walk(self._points.members, first, n, self._levels)]

    def owners_each(self, chunk_ids: Sequence[bytes], n: int) -> list[list[str]]:
        """As `owners`, for many chunks at once: several times faster than one by one."""
        assert n >= 1, f"n={n}: ask for at least one owner"
        rows = self.owner_table(positions_of(chunk_ids), n).tolist()
        return [[self._ids[i] for i in row if i != NOBODY] for row in rows]

    def first_owners(self, chunk_ids: Sequence[bytes]) -> list[str]:
        """Return the first owner's id for each chunk; "" for all if the ring is empty."""
        if not self.point_count:
            return [""] * len(chunk_ids)
        firsts = self._points.first_at_each(positions_of(chunk_ids))
        return [self._ids[i] for i in self._points.members[firsts].tolist()]

    def shares(self) -> dict[str, float]:
        """Return the share of the key space whose first owner each node is, from 0 to 1."""
        positions = self._points.positions
        lengths = np.diff(positions, prepend=positions[-1:]) / float(CIRCLE)
        if len(positions) == 1:
            lengths[0] = 1.0  # From itself around to itself.
        sums = np.bincount(self._points.members, lengths, minlength=len(self.nodes))
        return dict(zip(self._ids, sums.tolist(), strict=True))

    def owner_table(self, positions: Positions, n: int) -> Labels:
        """Return indexes into ``nodes``: a row of ``n`` owners for each of ``positions``.

        `NOBODY` stands where there are fewer.
        """
        if not self.point_count:
            return np.full((len(positions), n), NOBODY, np.int32)
        firsts = self._points.first_at_each(positions)
        return walk_each(self._points.members, firsts, n, self._levels)

    def positions_between(self, start: int, stop: int) -> Positions:
        """Return the sorted positions of the points from ``start`` to before ``stop``."""
        first = self._points.positions.searchsorted(np.uint64(start))
        last = (
            self.point_count
            if stop == CIRCLE
            else self._points.positions.searchsorted(np.uint64(stop))
        )
        return self._points.positions[first:last]


def diff(old: Ring, new: Ring, *, replicas: int = 1) -> list[Move]:
    """Return what share of the key space moves from whom to whom, sorted by rank, source, target.

    Exact, to the rounding of floats: it compares the owners of every arc between two points.
    Where an arc gains several owners they are paired in order with those that it loses, then
    with its old first owner, which goes on owning it. Nothing moves to an empty ring.

    Args:
        old: The ring until now.
        new: The ring from now on; it may have other nodes and another ``points_per_100``.
        replicas: How many owners keep a chunk, in both.
    """
    assert replicas >= 1, f"replicas={replicas}: every chunk has an owner"
    ids = sorted({node.id for node in (*old.nodes, *new.nodes)})
    old_numbers, new_numbers = _numbers(old, ids), _numbers(new, ids)
    sums: _Sums = defaultdict(float)
    for starts, shares in _arcs(old, new):
        before = old_numbers[old.owner_table(starts, replicas)]
        after = new_numbers[new.owner_table(starts, replicas)]
        changed = (before != after).any(axis=1)
        _add_moves(sums, before[changed], after[changed], shares[changed])
    names = [*ids, ""]  # The source NOBODY, -1, is the last.
    moves = [Move(names[a], names[b], share, rank) for (rank, a, b), share in sums.items()]
    return sorted(moves, key=lambda move: (move.rank, move.source, move.target))


def _by_id(nodes: Sequence[PlacedNode]) -> list[PlacedNode]:
    assert len({node.id for node in nodes}) == len(nodes), "two nodes with one id"
    return sorted(nodes, key=lambda node: node.id)


def positions_of(chunk_ids: Sequence[bytes]) -> Positions:
    """Return where chunks stand on the circle."""
    return np.fromiter(map(xxhash.xxh3_64_intdigest, chunk_ids), np.uint64, len(chunk_ids))


def _numbers(ring: Ring, ids: Sequence[str]) -> Labels:
    """Return the number in ``ids`` of each node of ``ring``; of `NOBODY` it is `NOBODY`."""
    number_of = {node_id: number for number, node_id in enumerate(ids)}
    return np.array([*(number_of[node.id] for node in ring.nodes), NOBODY], np.int32)


def _arcs(*rings: Ring) -> Iterator[tuple[Positions, Shares]]:
    """Yield where arcs begin and their shares; within an arc no ring's owners change.

    They come in bounded batches, because two large rings together make 8 million.
    """
    point_count = sum(ring.point_count for ring in rings)
    batches = -(-point_count // _ARCS_AT_ONCE)
    edges = [CIRCLE * number // batches for number in range(1, batches)]
    before = _last_position(rings)
    for start, stop in itertools.pairwise([0, *edges, CIRCLE]):
        ends = np.unique(np.concatenate([ring.positions_between(start, stop) for ring in rings]))
        starts = np.concatenate((before, ends))[:-1]
        shares = (ends - starts) / float(CIRCLE)  # The first wraps, as unsigned numbers do.
        shares[shares == 0.0] = 1.0  # One point alone: from itself around to itself.
        yield starts, shares
        before = ends[-1:] if len(ends) else before


def _last_position(rings: Sequence[Ring]) -> Positions:
    lasts = [ring.positions_between(0, CIRCLE)[-1:] for ring in rings]
    return np.sort(np.concatenate(lasts))[-1:]


def _add_moves(sums: _Sums, before: Labels, after: Labels, shares: Shares) -> None:
    """Add to ``sums`` by (rank, source, target) what the arcs' owners ``after`` gain."""
    for rank, (sources, gained) in enumerate(_pairs(before, after)):
        keys = np.stack((sources, after[gained, rank]))
        pairs, inverse = np.unique(keys, axis=1, return_inverse=True)
        totals = np.bincount(inverse.reshape(-1), shares[gained], minlength=pairs.shape[1])
        for source, target, total in zip(*pairs.tolist(), totals.tolist(), strict=True):
            sums[rank, source, target] += total


def _pairs(before: Labels, after: Labels) -> Iterator[tuple[Labels, Indexes]]:
    """Yield for each rank the rows whose owner is new, and from whom each takes over."""
    is_lost = ~_contains(after, before) & (before != NOBODY)
    is_new = ~_contains(before, after) & (after != NOBODY)
    lost_first = np.argsort(~is_lost, axis=1, kind="stable")
    lost = np.take_along_axis(before, lost_first, axis=1)
    lost_count = np.count_nonzero(is_lost, axis=1)
    turns = np.cumsum(is_new, axis=1) - 1
    for rank in range(after.shape[1]):
        rows = np.flatnonzero(is_new[:, rank])
        turn = turns[rows, rank]
        yield np.where(turn < lost_count[rows], lost[rows, turn], before[rows, 0]), rows


def _contains(table: Labels, values: Labels) -> npt.NDArray[np.bool_]:
    """Tell for each of ``values`` whether it stands in the same row of ``table``."""
    found: npt.NDArray[np.bool_] = (values[:, :, np.newaxis] == table[:, np.newaxis, :]).any(axis=2)
    return found

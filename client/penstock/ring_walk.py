"""Walking the ring clockwise: which members a key's owners are.

The rule: the first owner is the member at the key's point. The others are found in passes over
the ring, each from that point on: first members of zones not chosen yet, then of hosts not
chosen yet, then members not chosen yet. A pass ends when every zone (host, member) is chosen.
Responsible for: that rule twice, for one key in Python and for many with numpy.
Not responsible for: points (`ring_points`), ids (`ring`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from penstock.ring_points import Members

Labels = npt.NDArray[np.int32]
Indexes = npt.NDArray[np.intp]

NOBODY = -1
"""In tables: there is no further owner."""

_WINDOW_FIRST = 16
_WINDOW_GROWTH = 8
_WINDOW_MAX = 1 << 16
_STEPS_MAX = 32


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """A number for each member's zone, or host, or for the member itself."""

    labels: tuple[int, ...]
    table: Labels
    """The same for numpy, and `NOBODY` at its end, where the index `NOBODY` finds it."""
    count: int
    """How many different labels the members with points have."""


def make_level(names: Sequence[str], has_points: Sequence[bool]) -> Level:
    """Number the ``names`` of the members' zones, hosts or ids."""
    numbers = {name: number for number, name in enumerate(sorted(set(names)))}
    labels = tuple(numbers[name] for name in names)
    live = {label for label, has in zip(labels, has_points, strict=True) if has}
    return Level(labels, np.array([*labels, NOBODY], np.int32), len(live))


def walk(members: Members, first: int, count: int, levels: Sequence[Level]) -> list[int]:
    """Return up to ``count`` different members, from the point ``first`` on.

    Args:
        members: Who stands at each point, in the order of the ring.
        first: Index of the key's point.
        count: At least 1; fewer are returned when there are fewer.
        levels: Zones, hosts, members.
    """
    chosen = [int(members[first])]
    for level in levels:
        taken = {level.labels[member] for member in chosen}
        windows = _windows(members, first)
        while len(chosen) < count and len(taken) < level.count:
            _choose(next(windows), level, chosen, taken, count)
    return chosen


def _windows(members: Members, first: int) -> Iterator[Members]:
    """Yield the members from ``first`` once around the ring, in growing pieces."""
    size = _WINDOW_FIRST
    for start, stop in ((first, len(members)), (0, first)):
        at = start
        while at < stop:
            yield members[at : min(at + size, stop)]
            at += size
            size = min(size * _WINDOW_GROWTH, _WINDOW_MAX)


def _choose(window: Members, level: Level, chosen: list[int], taken: set[int], count: int) -> None:
    """Append the window's members with new labels to ``chosen``, their labels to ``taken``."""
    if len(window) > _WINDOW_FIRST:
        window = _members_of_new_labels(window, level, taken)
    for member in window.tolist():
        label = level.labels[member]
        if label not in taken:
            chosen.append(member)
            taken.add(label)
            if len(chosen) == count or len(taken) == level.count:
                return


def _members_of_new_labels(window: Members, level: Level, taken: set[int]) -> Members:
    """Return the first member in ``window`` of each label not taken, in order."""
    labels = level.table[window]
    is_taken = np.zeros(len(level.table), np.bool_)
    is_taken[list(taken)] = True
    new = np.flatnonzero(~is_taken[labels])
    _, first_of_each = np.unique(labels[new], return_index=True)
    return window[new[np.sort(first_of_each)]]


def walk_each(members: Members, firsts: Indexes, count: int, levels: Sequence[Level]) -> Labels:
    """Return a table of members: a row as `walk` for each of ``firsts``, `NOBODY` at its end."""
    chosen = np.full((len(firsts), count), NOBODY, np.int32)
    chosen[:, 0] = members[firsts]
    lengths = np.ones(len(firsts), np.intp)
    for level in levels:
        if level.count > 1:
            _extend_each(members, firsts, chosen, lengths, level)
    return chosen


def _extend_each(
    members: Members, firsts: Indexes, chosen: Labels, lengths: Indexes, level: Level
) -> None:
    """Make one pass for all rows: append to ``chosen`` and count in ``lengths``, in place."""
    at = firsts.copy()
    for _ in range(1, chosen.shape[1]):
        taken = level.table[chosen]
        rows = np.flatnonzero((lengths < chosen.shape[1]) & (_distinct_each(taken) < level.count))
        if not len(rows):
            return
        at[rows] = _next_new(members, level.table, at[rows], taken[rows])
        chosen[rows, lengths[rows]] = members[at[rows]]
        lengths[rows] += 1


def _distinct_each(taken: Labels) -> Indexes:
    """Return how many different labels each row has, `NOBODY` aside."""
    ordered = np.sort(taken, axis=1)
    begins = np.ones(ordered.shape, np.bool_)
    begins[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    counts: Indexes = np.count_nonzero(begins & (ordered != NOBODY), axis=1)
    return counts


def _next_new(members: Members, table: Labels, starts: Indexes, taken: Labels) -> Indexes:
    """Return for each row the first index from its start on, clockwise, of a label not taken.

    There must be one. Rows that meet none within some steps stand among labels that fill most
    of the ring, such as one large zone beside a tiny one: those look at the ring without it.
    """
    found, rows = _step(members, table, starts, taken)
    while len(rows):
        crowd = _most_frequent(taken[rows])
        kept = np.flatnonzero(table[members] != crowd)
        inside = (taken[rows] == crowd).any(axis=1)
        moved = rows[inside]
        restarts = kept.searchsorted(starts[moved]) % len(kept)
        others = np.where(taken[moved] == crowd, NOBODY, taken[moved])
        found[moved] = kept[_next_new(members[kept], table, restarts, others)]
        rows = rows[~inside]
    return found


def _step(
    members: Members, table: Labels, starts: Indexes, taken: Labels
) -> tuple[Indexes, Indexes]:
    """Return what the rows find within a few steps, and the rows that find nothing."""
    found = np.empty(len(starts), np.intp)
    rows = np.arange(len(starts))
    for step in range(min(_STEPS_MAX, len(members))):
        at = (starts[rows] + step) % len(members)
        is_taken = (taken[rows] == table[members[at], np.newaxis]).any(axis=1)
        found[rows[~is_taken]] = at[~is_taken]
        rows = rows[is_taken]
        if not len(rows):
            break
    return found, rows


def _most_frequent(labels: Labels) -> int:
    return int(np.bincount(labels[labels != NOBODY]).argmax())

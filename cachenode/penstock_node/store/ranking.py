"""How much each object is worth keeping: from what was read of it, and how predictions fared.

Responsible for: the worth of objects by several notions at once (read last; read often, by three
half-lives), judging which of them would have kept what was read next, and the order that follows.
Not responsible for: chunks, and which of an object go first (`eviction`).
Ideas: LRFU (Lee et al., 2001), a use counts for less the longer ago it is; LeCaR (Vietri et al.,
2018), experts are followed by how they did. Here each use is of a part of a whole object, and
every expert is judged on every read: a model of what it would hold is kept by object, in shares.

Time is counted in bytes read, in units of the capacity: after one, LRU has replaced all. Reading
only adds to a sum; all else is done at once for all objects, once in a hundredth of that time.

A *group* is a number that stands for an object: its hash. Objects with the same one are treated
as one object.
"""

from array import array

import numpy as np
import numpy.typing as npt

GROUPS = 1 << 16
"""About 120 bytes each, here and in the queues, for those that are used."""
GROUPS_MIN = 1 << 12
GROUPS_PER_PAGE = 8
"""A small tier has fewer groups: no more objects lie in it than pages, and few others matter."""
INTERVAL_SHARE = 0.01
"""Of the capacity is read between two rankings."""
READS_MIN = 32
"""Between two rankings, however few groups there are: one costs as much as some such reads."""
READS_PER_GROUP = 0.25
"""Between two rankings of many groups, for the same reason."""
UNKNOWN = 0
"""The group of chunks whose object is not known: found on disk, and not read since. Taken
together for an object that fills the tier."""
HALF_LIVES = np.array([4.0, 1.0, 16.0])
"""In capacities, of the experts that count reads; one more goes by the last read. The first is
followed until another does better: alone, it does best."""
CREDIT_HALF_LIFE = 32.0
"""In capacities: for how long it matters what an expert would have held."""
PAUSE_RANKINGS = 1
"""An object that was not read for longer is being read anew."""
WORTHLESS = 1e-3
"""Fewer readings than this are forgotten."""

_EXPERTS = len(HALF_LIVES) + 1
_FIRST, _LAST = 0, _EXPERTS - 1
_SLOWEST = int(HALF_LIVES.argmax())

Groups = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.float64]


def groups_for(capacity_bytes: int, *, page_bytes: int) -> int:
    """Return how many groups a tier of a capacity has: a power of two."""
    wanted = GROUPS_PER_PAGE * capacity_bytes // page_bytes
    return max(GROUPS_MIN, min(GROUPS, 1 << wanted.bit_length()))


def _column(count: int) -> tuple["array[float]", Numbers]:
    """Return numbers that are quick to change one by one, and the same for many at once."""
    single = array("d", bytes(8 * count))
    return single, np.frombuffer(single, np.float64)


class Ranking:
    """What was read of each group, and their order. Not thread-safe."""

    def __init__(self, *, capacity_bytes: int, groups: int = GROUPS, sampled: float = 1.0) -> None:
        """Know of no group yet.

        Args:
            capacity_bytes: Of the tier.
            groups: How many there are.
            sampled: The part of the reads that it is told of: the miniature of a tier ranks as
                often as that.
        """
        self._capacity_bytes = capacity_bytes
        self._sampled = sampled
        self._interval_bytes = int(capacity_bytes * INTERVAL_SHARE)
        self._new, self._new_all = _column(groups)  # Bytes since the last ranking.
        self._whole, self._whole_all = _column(groups)  # Bytes of the object; 0: not known yet.
        self._known = [UNKNOWN]
        self._worth = np.zeros((_EXPERTS, groups))
        self._held = np.zeros((_EXPERTS, groups), np.float32)  # Share that the expert would hold,
        self._held_before = np.zeros((_EXPERTS, groups), np.float32)  # when its reading began.
        self._read_at, self._read_at_all = _column(groups)  # The last ranking that saw it read.
        self._credits = np.zeros(_EXPERTS)
        self._expert = 0
        self._share = 1.0
        self._whole[UNKNOWN] = capacity_bytes
        self._rankings = 1 + PAUSE_RANKINGS  # Nothing seems to be read already.
        self._reads = self._read_bytes = 0  # Since the last ranking.
        self._reads_due = self._least_reads()

    @property
    def expert(self) -> int:
        """The one that is followed: of `HALF_LIVES`, or after them the last read."""
        return self._expert

    @property
    def share(self) -> float:
        """Of an object's bytes, what comes to this tier at all, as far as it was measured."""
        return self._share

    def knows(self, group: int) -> bool:
        """Tell whether the size of a group's object is known."""
        return self._whole[group] > 0.0

    def meet(self, group: int, *, object_bytes: int) -> None:
        """Learn how large a group's object is, wherever its chunks are."""
        assert object_bytes > 0, f"group {group} has no bytes"
        self._known.append(group)
        self._whole[group] = object_bytes

    def note(self, group: int, size_bytes: int) -> bool:
        """Note that bytes of a group that is known were read; tell whether to `rank` anew."""
        self._new[group] += size_bytes
        self._read_bytes += size_bytes
        self._reads += 1
        return self._reads >= self._reads_due and self._read_bytes >= self._interval_bytes

    def readings(self, group: int) -> float:
        """Return how often the object of a known group was read of late, the last reading as 1.

        Of what comes to this tier; the same object has the same number on every node.
        """
        part = self._worth[_FIRST, group] + self._new[group] / self._whole[group]
        return float(part / self._share)

    def raise_to(self, group: int, readings: float) -> None:
        """Have a known group count as read at least so often of late: on another node it was."""
        missing = readings * self._share - self._worth[_FIRST, group]
        self._new[group] = max(self._new[group], float(missing * self._whole[group]))

    def is_being_read(self, group: int) -> bool:
        """Tell whether a group was being read when groups were last ranked."""
        return self._read_at[group] == self._rankings

    def was_read(self, group: int) -> bool:
        """Tell whether a group was read since groups were last ranked."""
        return self._new[group] > 0.0

    @property
    def were_read(self) -> npt.NDArray[np.bool_]:
        """As `was_read`, of every group."""
        return self._new_all > 0.0

    def rank(self, resident_bytes: npt.NDArray[np.uint64]) -> Groups:
        """Rank anew: the known groups, the one to give up first in front.

        Args:
            resident_bytes: What is here, by group.
        """
        self._whole[UNKNOWN] = self._capacity_bytes / self._share
        groups = np.array(self._known, np.int64)
        new, whole = self._new_all[groups], self._whole_all[groups]
        parts = new / whole  # A reading, as a tier sees it that gets a share of each object.
        self._rankings += 1
        self._judge(groups, new)
        self._count(groups, parts)
        self._hold(groups, parts / self._share, whole * self._share)
        self._expert = int(self._credits.argmax())
        order: Groups = groups[self._worth[self._expert, groups].argsort(kind="stable")]
        self._measure_share(order[::-1], resident_bytes)
        self._new_all[groups] = 0.0
        self._forget(groups, resident_bytes)
        self._reads = self._read_bytes = 0
        self._reads_due = self._least_reads()
        return order

    def _least_reads(self) -> int:
        """Return how many reads there are between two rankings, at least."""
        wanted = max(READS_MIN, int(READS_PER_GROUP * len(self._known)))
        return max(1, round(wanted * self._sampled))

    def _judge(self, groups: Groups, new: Numbers) -> None:
        """Give experts credit for what they would have held when its reading began."""
        is_read = new > 0.0
        begins = is_read & (self._rankings - self._read_at_all[groups] > PAUSE_RANKINGS)
        begun, read = groups[begins], groups[is_read]
        self._held_before[:, begun] = self._held[:, begun]
        self._credits *= 0.5 ** (self._elapsed / CREDIT_HALF_LIFE)
        self._credits += (self._held_before[:, read] * new[is_read]).sum(axis=1)
        self._read_at_all[read] = self._rankings

    @property
    def _elapsed(self) -> float:
        """Since the last ranking, in capacities."""
        return self._read_bytes / self._capacity_bytes

    def _count(self, groups: Groups, parts: Numbers) -> None:
        fading = 0.5 ** (self._elapsed / HALF_LIVES)
        self._worth[:_LAST, groups] = self._worth[:_LAST, groups] * fading[:, np.newaxis] + parts
        is_read = parts > 0.0
        # Of those read since the last ranking, the one read more is the later one.
        self._worth[_LAST, groups[is_read]] = self._rankings + np.minimum(parts[is_read], 1) / 2

    def _hold(self, groups: Groups, readings: Numbers, expected: Numbers) -> None:
        """Model what each expert holds: what was read of its best objects, until it is full."""
        best = self._worth[:, groups].argsort(axis=1, kind="stable")[:, ::-1]
        of = np.arange(_EXPERTS)[:, np.newaxis], groups[best]
        sizes = expected[best]
        wanted = np.minimum(self._held[of] + readings[best], 1.0) * sizes
        room = self._capacity_bytes - (wanted.cumsum(axis=1) - wanted)
        self._held[of] = np.minimum(np.maximum(room, 0.0), wanted) / sizes

    def _measure_share(self, best: Groups, resident_bytes: npt.NDArray[np.uint64]) -> None:
        """Learn which share of its objects a node gets: the best of them are here as a whole."""
        resident = resident_bytes[best].astype(np.float64)
        is_best = resident.cumsum() <= resident.sum() / 2
        is_best[:1] = True
        is_counted = is_best & (best != UNKNOWN)
        whole_bytes = self._whole_all[best[is_counted]].sum()
        if whole_bytes > 0.0 and resident[is_counted].sum() > 0.0:
            self._share = min(1.0, resident[is_counted].sum() / whole_bytes)

    def _forget(self, groups: Groups, resident_bytes: npt.NDArray[np.uint64]) -> None:
        """Forget the groups that are not here and were not read for long."""
        is_kept = (resident_bytes[groups] > 0) | (
            self._worth[_SLOWEST, groups] > WORTHLESS * self._share
        )
        is_kept |= groups == UNKNOWN
        gone = groups[~is_kept]
        self._whole_all[gone] = 0.0
        self._worth[:, gone] = 0.0
        self._held[:, gone] = self._held_before[:, gone] = 0.0
        self._known = groups[is_kept].tolist()

"""Which chunks a tier gives up when it needs room.

Responsible for: a tier's chunks, each with its size and whether it is verified, and the order of
their eviction, in memory alone; deciding is apart from unlinking.
Not responsible for: files, budgets, locks (its caller holds one), what is pinned and why.

Models are read as a whole, again and again, so that a chunk's future is its object's. Chunks
queue by object; objects are ranked by what is read of them (`ranking`), and the last one gives
up its chunks one by one. While it is being read, those that came last go first: an object that is
not worth its place then passes through a few chunks' room, and one that is too large for the
cache keeps a part that its next reader finds. Else those that came first go first.
"""

import heapq
import math
from array import array
from collections.abc import Callable, Container, Iterable, Mapping
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from penstock.objects import ObjectId
from penstock.sampled_reads import digest_of
from penstock_node.store.chunk_file import PAGE_BYTES
from penstock_node.store.index import Flags, Index
from penstock_node.store.listed import Listed
from penstock_node.store.queues import Queues
from penstock_node.store.ranking import GROUPS, UNKNOWN, Groups, Ranking, groups_for

Reason: TypeAlias = Literal["read", "warmup", "handoff", "repair", "restart"]
"""Why a chunk comes in. ``restart``: it was found on disk when the node started, and it is not
verified."""

READINGS: Mapping[Reason, int] = {"read": 1, "handoff": 0, "warmup": 2, "repair": 2, "restart": 2}
"""As if read how often a chunk counts when it comes in. The first reader of what was asked for has
not come yet. What was handed over is worth what its former owner tells: see `raise_readings`."""
_GROUP_MASK = GROUPS - 1
_RANK = GROUPS
"""Keys of the heap are rank times this, plus group."""
_PINNED = 1 << 40
"""Added to the rank of what goes after all else. Far more than there are ranks."""


class Victim(NamedTuple):
    """A chunk, and what it takes of the budget."""

    chunk_id: bytes
    size_bytes: int


class EvictionOrder:
    """The chunks of a tier, and their order of eviction. Not thread-safe: its caller locks.

    `victims` returns only chunks that were inserted and not removed since, none of them twice,
    none that is in use, and forgets them: the caller unlinks them, or inserts them again.
    Every method takes amortised constant time a chunk, `chunks` aside.
    """

    def __init__(
        self,
        *,
        capacity_bytes: int,
        sampled: float = 1.0,
        digest: Callable[[ObjectId], int] = digest_of,
    ) -> None:
        """Know of no chunk yet.

        Args:
            capacity_bytes: Of the tier.
            sampled: The part of all reads that comes here: see `Ranking`.
            digest: 64 bits of an object: they say which group it is in.
        """
        self._digest = digest
        self._group_count = groups_for(capacity_bytes, page_bytes=PAGE_BYTES)
        self._index = Index()
        self._queues = Queues(self._index, count=self._group_count)
        self._ranking = Ranking(
            capacity_bytes=capacity_bytes, groups=self._group_count, sampled=sampled
        )
        self._ranks = array("Q", bytes(8 * self._group_count))
        self._ranked = self._rank_next = 1  # What began to be read since goes after these.
        self._pinned = array("q", bytes(8 * self._group_count))  # What is added to ranks.
        self._heap: list[int] = []  # A key for each group that is listed.
        self._listed = bytearray(self._group_count)
        self._used_bytes = 0

    @property
    def used_bytes(self) -> int:
        """The sizes of all chunks together."""
        return self._used_bytes

    @property
    def memory_bytes(self) -> int:
        """What chunks take of memory, spare room included; about 10 MB for groups come on top."""
        return self._index.memory_bytes

    def __len__(self) -> int:
        return len(self._index)

    def size_of(self, chunk_id: bytes) -> int | None:
        """Return a chunk's size in bytes; None if it is not here."""
        row = self._index.find(chunk_id)
        return self._index.size_of(row) if row else None

    def chunks(self) -> list[Victim]:
        """Return every chunk, as it is now."""
        index = self._index
        return [Victim(index.id_of(row), index.size_of(row)) for row in index.rows()]

    def worths(self) -> tuple[Listed, Groups]:
        """Return every chunk, as it is now, and a number for each: of more worth, the higher."""
        high, low, sizes, groups = self._index.columns()
        ranks = np.frombuffer(self._ranks, np.int64).copy()
        # What was read since groups were ranked goes last: see `_put_off`.
        ranks[(ranks < self._ranked) & self._ranking.were_read] = self._rank_next
        ranks += np.frombuffer(self._pinned, np.int64)
        return Listed(high, low, sizes), ranks[groups]

    def insert(
        self, chunk_id: bytes, size_bytes: int, *, reason: Reason, of: ObjectId | None = None
    ) -> None:
        """Take in a chunk that is not here.

        Args:
            chunk_id: The chunk.
            size_bytes: What it takes of the budget.
            reason: Why it comes in: what was asked for is no scan.
            of: Its object; None if that is not known before it is read.
        """
        row = self._index.add(chunk_id, size_bytes)
        if reason == "restart":
            self._index.mark(row)
        self._used_bytes += size_bytes
        group = UNKNOWN if of is None else self._group(of)
        self._queues.push(group, row)
        self._note(group, READINGS[reason] * size_bytes)

    def insert_found(self, found: Listed) -> None:
        """Take in chunks found on disk, by ``restart``: none is here, none is there twice."""
        if len(found) == 0:
            return
        rows = self._index.add_many(found.high, found.low, found.sizes, is_marked=True)
        self._used_bytes += found.total_bytes
        self._queues.push_many(UNKNOWN, rows)
        self._note(UNKNOWN, READINGS["restart"] * found.total_bytes)

    def may_hold(self, listed: Listed) -> Flags:
        """Tell of listed chunks whether they can be here: all that are, and seldom another."""
        return listed.may_be_among(self._index.lows_beside(listed.high))

    def touch(self, chunk_id: bytes, *, of: ObjectId | None = None) -> int | None:
        """Note a use of a chunk, and what object it is of; return its size, None if not here."""
        row = self._index.find(chunk_id)
        if not row:
            return None
        queue = self._queues.queue_of(row)
        group = queue if of is None else self._group(of)
        if group != queue:
            self._queues.leave(row)
            self._queues.push(group, row)
        size_bytes = self._index.size_of(row)
        self._note(group, size_bytes)
        return size_bytes

    def readings_of(self, chunk_id: bytes) -> float | None:
        """Return how often a chunk's object was read of late; None if the chunk is not here."""
        row = self._index.find(chunk_id)
        return self._ranking.readings(self._queues.queue_of(row)) if row else None

    def raise_readings(self, chunk_id: bytes, readings: float) -> None:
        """Have the object of a chunk that may be here count as read at least so often of late."""
        row = self._index.find(chunk_id)
        if row:
            self._ranking.raise_to(self._queues.queue_of(row), readings)

    def least_readings(self) -> float:
        """Return `readings_of` the chunk that goes next; 0 if there is none.

        Infinity if it is pinned, and so are all others.
        """
        group = self._next_group()
        if group is None:
            return 0.0
        return math.inf if self._pinned[group] else self._ranking.readings(group)

    def pin(self, objects: Iterable[ObjectId]) -> None:
        """Have chunks of these objects, and of no others, go after all else."""
        pinned = np.frombuffer(self._pinned, np.int64)
        pinned[:] = 0
        for of in objects:
            pinned[self._group(of)] = _PINNED
        self._list(np.arange(self._group_count))

    def attribute(self, chunk_id: bytes, *, of: ObjectId) -> bool:
        """Note what object a chunk is of, which a restart forgets; tell whether it is here.

        Counts as no use.
        """
        row = self._index.find(chunk_id)
        if not row:
            return False
        group = self._group(of)
        if group != self._queues.queue_of(row):
            self._queues.leave(row)
            self._queues.push(group, row)
            self._note(group, 0)
        return True

    def remove(self, chunk_id: bytes) -> int:
        """Forget a chunk that is here, for reasons of the caller's; return its size in bytes."""
        row = self._index.find(chunk_id)
        assert row, f"{chunk_id.hex()} is not here"
        size_bytes = self._index.size_of(row)
        self._queues.leave(row)
        self._index.remove(row)
        self._used_bytes -= size_bytes
        return size_bytes

    def is_unverified(self, chunk_id: bytes) -> bool:
        """Tell whether a chunk came in by ``restart`` and was not `verified` since."""
        return self._index.is_marked(self._index.find(chunk_id))

    def verified(self, chunk_id: bytes) -> None:
        """Note that a chunk that is here is right."""
        self._index.unmark(self._index.find(chunk_id))

    def victims(self, bytes_wanted: int, *, in_use: Container[bytes]) -> list[Victim]:
        """Give up chunks of at least ``bytes_wanted`` together; fewer when there are no more."""
        doomed: list[Victim] = []
        missing = self._doom(doomed, bytes_wanted, in_use) if bytes_wanted > 0 else 0
        if missing > 0:
            self._list(np.arange(self._group_count))  # Chunks that were in use may be no more.
            self._doom(doomed, missing, in_use)
        return doomed

    # Groups.

    def _group(self, of: ObjectId) -> int:
        group = 1 + self._digest(of) % (self._group_count - 1)
        if not self._ranking.knows(group):
            # Every file takes whole pages, and small objects are known by that too.
            self._ranking.meet(group, object_bytes=of.size + PAGE_BYTES * of.chunk_count)
        return group

    def _note(self, group: int, read_bytes: int) -> None:
        """Note what was read of a group that has chunks."""
        if not self._listed[group]:
            self._listed[group] = True
            heapq.heappush(self._heap, self._key(group, self._ranks[group]))
        if self._ranking.note(group, read_bytes):
            order = self._ranking.rank(self._queues.used_bytes)
            np.frombuffer(self._ranks, np.int64)[order] = np.arange(len(order))
            self._ranked = self._rank_next = len(order)
            self._list(order)

    def _list(self, groups: Groups) -> None:
        """List those of some groups that have chunks, and no other."""
        groups = groups[self._queues.has_rows[groups]]
        ranks = np.frombuffer(self._ranks, np.int64) + np.frombuffer(self._pinned, np.int64)
        keys = ranks[groups] * _RANK + groups
        keys.sort()
        self._heap = keys.tolist()  # What is sorted is a heap.
        self._listed = bytearray(self._group_count)
        np.frombuffer(self._listed, np.uint8)[groups] = True

    def _key(self, group: int, rank: int) -> int:
        return (rank + self._pinned[group]) * _RANK + group

    # Victims.

    def _doom(self, doomed: list[Victim], missing: int, in_use: Container[bytes]) -> int:
        """Give up chunks of listed groups, lowest rank first; return the bytes still missing."""
        while missing > 0 and (group := self._next_group()) is not None:
            missing = self._doom_of(group, doomed, missing, in_use)
        return missing

    def _next_group(self) -> int | None:
        """Return the listed group that goes next; None if there is none."""
        while self._heap:
            group = self._heap[0] & _GROUP_MASK
            if not self._queues.newest(group):
                self._unlist_next()
            elif not self._ranking.is_being_read(group) and self._is_unjudged(group):
                self._put_off(group)
            else:
                return group
        return None

    def _unlist_next(self) -> None:
        group = heapq.heappop(self._heap) & _GROUP_MASK
        self._listed[group] = False

    def _is_unjudged(self, group: int) -> bool:
        """Tell whether a group began to be read after groups were ranked."""
        return self._ranks[group] < self._ranked and self._ranking.was_read(group)

    def _put_off(self, group: int) -> None:
        """Have a group go after all others, until it is ranked."""
        self._ranks[group] = self._rank_next
        heapq.heapreplace(self._heap, self._key(group, self._rank_next))
        self._rank_next += 1

    def _doom_of(
        self,
        group: int,
        doomed: list[Victim],
        missing: int,
        in_use: Container[bytes],
    ) -> int:
        index, queues = self._index, self._queues
        are_newest_first = self._ranking.is_being_read(group)
        following = queues.newest if are_newest_first else queues.oldest
        spared: list[int] = []  # Set aside, so that each is met only once.
        while missing > 0 and (row := following(group)):
            queues.leave(row)
            victim = Victim(index.id_of(row), index.size_of(row))
            if victim.chunk_id in in_use:
                spared.append(row)
                continue
            index.remove(row)
            doomed.append(victim)
            missing -= victim.size_bytes
            self._used_bytes -= victim.size_bytes
        if missing > 0:  # None is left but those in use.
            self._unlist_next()
        if spared and are_newest_first:  # To the other end, so that none is met again soon.
            queues.push_ahead(group, spared)
        else:
            for row in spared:
                queues.push(group, row)
        return missing

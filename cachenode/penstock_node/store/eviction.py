"""Which chunks a tier gives up when it needs room.

Responsible for: the order of eviction, in memory alone; deciding is apart from unlinking.
Not responsible for: files, budgets, locks (its caller holds one), pins.
Idea: S3-FIFO, of "FIFO queues are all you need for cache eviction" (Yang et al., SOSP 2023).
What differs: queues are measured in bytes, and an insert says why it happens.
"""

from collections import OrderedDict
from collections.abc import Container, Iterator
from typing import Literal, NamedTuple, Protocol, TypeAlias

Reason: TypeAlias = Literal["read", "warmup", "handoff", "repair", "restart"]
"""Why a chunk comes in. ``restart``: it was found on disk when the node started."""

SMALL_SHARE = 0.1
"""Of the capacity: where chunks prove themselves, as the paper has it."""
GHOSTS_MAX = 1_000_000
"""Remembered ids of evicted chunks, about 200 bytes each: what 4 TB of 4 MiB chunks make."""
USES_MAX = 3
PROVEN_USES = 2
"""A chunk read this often on probation is kept; one reading is what a scan does too."""


class Victim(NamedTuple):
    """A chunk, and what it takes of the budget."""

    chunk_id: bytes
    size_bytes: int


class EvictionPolicy(Protocol):
    """An order of eviction over chunks. Not thread-safe: its caller locks.

    `victims` returns only chunks that were inserted and not removed since, none of them twice,
    none that is in use, and forgets them: the caller unlinks them, or inserts them again.
    Every method takes amortised constant time a chunk, `chunks` aside.
    """

    @property
    def used_bytes(self) -> int:
        """The sizes of all chunks together."""

    def __len__(self) -> int:
        """Return how many chunks there are."""

    def size_of(self, chunk_id: bytes) -> int | None:
        """Return a chunk's size in bytes; None if it is not here."""

    def insert(self, chunk_id: bytes, size_bytes: int, *, reason: Reason) -> None:
        """Take in a chunk that is not here."""

    def touch(self, chunk_id: bytes) -> None:
        """Note a use of a chunk that is here."""

    def remove(self, chunk_id: bytes) -> int:
        """Forget a chunk that is here, for reasons of the caller's; return its size in bytes."""

    def victims(self, bytes_wanted: int, *, in_use: Container[bytes]) -> list[Victim]:
        """Give up chunks of at least ``bytes_wanted`` together; fewer when there are no more."""

    def chunks(self) -> list[Victim]:
        """Return every chunk, as it is now."""


class _Queue:
    """Chunks in order of arrival, and their bytes."""

    def __init__(self) -> None:
        # Ordered: its oldest is found at once. A plain dict rescans the holes that removals left.
        self._sizes: OrderedDict[bytes, int] = OrderedDict()
        self.used_bytes = 0

    def __len__(self) -> int:
        return len(self._sizes)

    def __iter__(self) -> Iterator[Victim]:
        return (Victim(chunk_id, size) for chunk_id, size in self._sizes.items())

    def size_of(self, chunk_id: bytes) -> int | None:
        return self._sizes.get(chunk_id)

    def push(self, victim: Victim) -> None:
        assert victim.chunk_id not in self._sizes, f"{victim.chunk_id.hex()} is queued twice"
        self._sizes[victim.chunk_id] = victim.size_bytes
        self.used_bytes += victim.size_bytes

    def pop_oldest(self) -> Victim:
        victim = Victim(*self._sizes.popitem(last=False))
        self.used_bytes -= victim.size_bytes
        return victim

    def discard(self, chunk_id: bytes) -> int | None:
        size_bytes = self._sizes.pop(chunk_id, None)
        self.used_bytes -= size_bytes or 0
        return size_bytes


class S3Fifo:
    """The `EvictionPolicy` of every tier.

    Read chunks enter a small queue; those used again there go on to the main one, the others
    leave and are remembered as ghosts: coming back soon takes them straight to the main queue.
    Warmed, handed-over and repaired chunks enter the main queue: they were asked for, and their
    first reader has not come yet.
    """

    def __init__(self, *, capacity_bytes: int) -> None:
        self._small_bytes_max = int(capacity_bytes * SMALL_SHARE)
        self._ghost_bytes_max = capacity_bytes - self._small_bytes_max
        self._small, self._main, self._ghosts = _Queue(), _Queue(), _Queue()
        self._uses: dict[bytes, int] = {}  # Chunks that were never used have no entry.

    @property
    def used_bytes(self) -> int:
        """The sizes of all chunks together."""
        return self._small.used_bytes + self._main.used_bytes

    def __len__(self) -> int:
        return len(self._small) + len(self._main)

    def size_of(self, chunk_id: bytes) -> int | None:
        """Return a chunk's size in bytes; None if it is not here."""
        size_bytes = self._main.size_of(chunk_id)
        return self._small.size_of(chunk_id) if size_bytes is None else size_bytes

    def insert(self, chunk_id: bytes, size_bytes: int, *, reason: Reason) -> None:
        """Take in a chunk that is not here."""
        assert self.size_of(chunk_id) is None, f"{chunk_id.hex()} is inserted twice"
        was_ghost = self._ghosts.discard(chunk_id) is not None
        queue = self._small if reason == "read" and not was_ghost else self._main
        queue.push(Victim(chunk_id, size_bytes))

    def touch(self, chunk_id: bytes) -> None:
        """Note a use of a chunk that is here."""
        uses = self._uses.get(chunk_id, 0)
        if uses < USES_MAX:
            self._uses[chunk_id] = uses + 1

    def remove(self, chunk_id: bytes) -> int:
        """Forget a chunk that is here, and leave no ghost of it; return its size in bytes."""
        self._uses.pop(chunk_id, None)
        size_bytes = self._small.discard(chunk_id)
        if size_bytes is None:
            size_bytes = self._main.discard(chunk_id)
        assert size_bytes is not None, f"{chunk_id.hex()} is not here"
        return size_bytes

    def victims(self, bytes_wanted: int, *, in_use: Container[bytes]) -> list[Victim]:
        """Give up chunks of at least ``bytes_wanted`` together; fewer when there are no more."""
        doomed: list[Victim] = []
        spared: list[tuple[_Queue, Victim]] = []  # Set aside, so that each is met only once.
        while bytes_wanted > 0 and len(self) > 0:
            queue = self._queue_to_shrink()
            victim = queue.pop_oldest()
            if self._has_earned_main(queue, victim.chunk_id):
                self._main.push(victim)
            elif victim.chunk_id in in_use:
                spared.append((queue, victim))
            else:
                self._bury(queue, victim)
                doomed.append(victim)
                bytes_wanted -= victim.size_bytes
        for queue, victim in spared:
            queue.push(victim)
        return doomed

    def chunks(self) -> list[Victim]:
        """Return every chunk, as it is now."""
        return [*self._small, *self._main]

    def _queue_to_shrink(self) -> _Queue:
        small_is_due = self._small.used_bytes > self._small_bytes_max
        return self._small if small_is_due or len(self._main) == 0 else self._main

    def _has_earned_main(self, queue: _Queue, chunk_id: bytes) -> bool:
        uses = self._uses.pop(chunk_id, 0)
        if queue is self._small:
            return uses >= PROVEN_USES
        if uses > 1:
            self._uses[chunk_id] = uses - 1
        return uses > 0

    def _bury(self, queue: _Queue, victim: Victim) -> None:
        if queue is not self._small:
            return
        self._ghosts.push(victim)
        while self._ghosts.used_bytes > self._ghost_bytes_max or len(self._ghosts) > GHOSTS_MAX:
            self._ghosts.pop_oldest()

"""Spreading what many want at once: more nodes than the ring says have it for a while.

Responsible for: when the next owners in line are told to take a copy, and sending readers on to
them, once they have it, instead of serving all.
Not responsible for: counting (`heat`), telling (`copying`), keeping such copies (`guests`).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from penstock.errors import Overloaded
from penstock_node.chunk import Chunk
from penstock_node.cluster import Cluster
from penstock_node.heat import Heat

AGAIN_S = 10.0
"""Until they are asked for again: one may have been evicted, or its node restarted."""


@dataclass(frozen=True, slots=True)
class SpreadChunk:
    """A chunk that so much is asked for that other nodes take copies."""

    chunk: Chunk
    wanted: int
    """How many nodes should have it."""
    made: int
    """How many do."""
    age_s: float
    """Since they were last asked to."""


@dataclass(slots=True)
class _Spread:
    """How many nodes should have a chunk, since when, and how many do."""

    chunk: Chunk
    wanted: int
    asked_at: float
    made: int = 1


class Spreading:
    """See the module. `served` and `check` are called by workers, from any thread."""

    def __init__(
        self,
        *,
        cluster: Cluster,
        make_copies: Callable[[Sequence[str], Chunk], Awaitable[int]],
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Put the parts together.

        Args:
            cluster: Who is next in line.
            make_copies: Has nodes take a copy of a chunk; returns how many have one.
            loop: The node's.
            clock: Seconds, from anywhere on.
        """
        self._cluster = cluster
        self._make_copies = make_copies
        self._loop = loop
        self._clock = clock
        self._heat = Heat(clock=clock)
        self._spread: dict[bytes, _Spread] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def served(self, chunk: Chunk, length: int) -> int:
        """Count an answer of ``length`` bytes; return how many owners have the chunk by now."""
        copies = self._cluster.replicas_of(chunk.object.key)
        wanted = self._heat.note(chunk.id, length)
        if wanted == 1:
            if self._spread:
                self._spread.pop(chunk.id, None)
            return copies
        return max(copies, self._made(chunk, wanted))

    def hot(self) -> list[SpreadChunk]:
        """Return the chunks that more nodes have than the ring says, or are to have."""
        now = self._clock()
        return [
            SpreadChunk(spread.chunk, spread.wanted, spread.made, now - spread.asked_at)
            for spread in list(self._spread.values())
            if not self._is_stale(spread)
        ]

    def check(self, chunk: Chunk, length: int) -> None:
        """Send a reader of ``length`` bytes on that has not chosen among all that have the chunk.

        Raises:
            Overloaded: It should choose among the others of ``copies``.
        """
        spread = self._spread.get(chunk.id)
        if spread is None or spread.made == 1 or self._is_stale(spread):
            return
        self.served(chunk, length // spread.made)  # Its part of what all copies are asked.
        error = Overloaded(f"{spread.made} nodes have the chunk: ask another", retry_after_s=0.0)
        error.copies = spread.made
        raise error

    def _made(self, chunk: Chunk, wanted: int) -> int:
        """Return how many nodes have the chunk by now; have more take copies if need be."""
        spread = self._spread.get(chunk.id)
        if spread is None or spread.wanted < wanted or self._clock() > spread.asked_at + AGAIN_S:
            made = spread.made if spread else 1
            self._forget()
            spread = self._spread[chunk.id] = _Spread(chunk, wanted, self._clock(), made)
            self._loop.call_soon_threadsafe(self._begin, chunk, spread)
        elif spread.wanted > wanted:  # Those that are asked less drop theirs in a while.
            spread.wanted, spread.made = wanted, min(wanted, spread.made)
        return spread.made

    def _is_stale(self, spread: _Spread) -> bool:
        """Tell whether nobody has asked for it since: whoever asks now is told anew."""
        return self._clock() > spread.asked_at + 2 * AGAIN_S

    def _forget(self) -> None:
        for chunk_id, spread in list(self._spread.items()):
            if self._is_stale(spread):
                self._spread.pop(chunk_id, None)

    def _begin(self, chunk: Chunk, spread: _Spread) -> None:
        making = self._loop.create_task(self._make(chunk, spread), name="spread")
        self._tasks.add(making)
        making.add_done_callback(self._tasks.discard)

    async def _make(self, chunk: Chunk, spread: _Spread) -> None:
        owners = self._cluster.ring.owners(chunk.id, spread.wanted)
        others = [owner for owner in owners if owner != self._cluster.node_id]
        made = await self._make_copies(others, chunk)
        if others and 2 * made >= len(others):  # Who finds none where it looks comes back.
            spread.made = min(spread.wanted, len(owners))

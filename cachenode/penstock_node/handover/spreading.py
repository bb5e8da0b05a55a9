"""Spreading what many want at once: more nodes than the ring says have it for a while.

Responsible for: when the next owners in line are told to take a copy, and sending readers on to
them instead of serving all.
Not responsible for: counting (`heat`), telling (`copying`), keeping such copies (`guests`).
"""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from penstock.errors import Overloaded
from penstock_node.chunk import Chunk
from penstock_node.cluster import Cluster
from penstock_node.heat import Heat

READY_S = 0.3
"""After copies were asked for, until readers are sent to them: a chunk of 4 MiB is there."""
AGAIN_S = 10.0
"""Until they are asked for again: one may have been evicted, or its node restarted."""


@dataclass(frozen=True, slots=True)
class _Spread:
    """How many nodes have a chunk, and when that was asked for."""

    copies: int
    asked_at: float
    copies_before: int


class Spreading:
    """See the module. `served` and `check` are called by workers, from any thread."""

    def __init__(
        self,
        *,
        cluster: Cluster,
        tell: Callable[[Sequence[str], Chunk], None],
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        """Put the parts together.

        Args:
            cluster: Who is next in line.
            tell: Called on ``loop`` with nodes that should have a chunk.
            loop: The node's.
            clock: Seconds, from anywhere on.
            rng: Decides who is sent on.
        """
        self._cluster = cluster
        self._tell = tell
        self._loop = loop
        self._clock = clock
        self._rng = rng or random.Random()  # noqa: S311 - spreads load, guards nothing
        self._heat = Heat(clock=clock)
        self._spread: dict[bytes, _Spread] = {}

    def served(self, chunk: Chunk, length: int) -> int:
        """Count an answer of ``length`` bytes; return how many owners have the chunk by now."""
        copies = self._cluster.replicas_of(chunk.object.key)
        wanted = self._heat.note(chunk.id, length)
        if wanted == 1:
            if self._spread:
                self._spread.pop(chunk.id, None)
            return copies
        return max(copies, self._made(chunk, wanted))

    def check(self, chunk: Chunk) -> None:
        """Send a reader on who has not chosen among all that have the chunk.

        Raises:
            Overloaded: It should, among ``copies``.
        """
        spread = self._spread.get(chunk.id)
        copies = self._ready(spread) if spread else 1
        if copies > 1 and self._rng.randrange(copies):
            self.served(chunk, 0)
            error = Overloaded(f"{copies} nodes have the chunk: ask any", retry_after_s=0.0)
            error.copies = copies
            raise error

    def _made(self, chunk: Chunk, wanted: int) -> int:
        """Return how many nodes have the chunk by now; have more make copies if need be."""
        now, spread = self._clock(), self._spread.get(chunk.id)
        if spread is None or spread.copies < wanted or now > spread.asked_at + AGAIN_S:
            before = self._ready(spread) if spread else 1
            self._forget(now)
            spread = self._spread[chunk.id] = _Spread(wanted, now, before)
            self._loop.call_soon_threadsafe(self._ask, chunk, wanted)
        elif spread.copies > wanted:  # Those that are asked less drop theirs in a while.
            spread = self._spread[chunk.id] = _Spread(wanted, spread.asked_at, wanted)
        return self._ready(spread)

    def _forget(self, now: float) -> None:
        """Drop what nobody has asked for since: who asks is told anew."""
        for chunk_id, spread in list(self._spread.items()):
            if now > spread.asked_at + 2 * AGAIN_S:
                self._spread.pop(chunk_id, None)

    def _ready(self, spread: _Spread) -> int:
        is_ready = self._clock() >= spread.asked_at + READY_S
        return spread.copies if is_ready else spread.copies_before

    def _ask(self, chunk: Chunk, copies: int) -> None:
        owners = self._cluster.ring.owners(chunk.id, copies)
        self._tell([owner for owner in owners if owner != self._cluster.node_id], chunk)

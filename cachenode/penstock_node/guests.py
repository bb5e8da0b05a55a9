"""Copies of others' chunks that many want at once: kept while they are asked for.

Responsible for: bringing them in from the node that told of them, and dropping them after.
Not responsible for: who tells, and when (`handover.spreading`).

They lie in the owned tiers, as what was handed over and not evicted yet does: within the budget,
and the first to go. After a restart they are no more than that.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

from penstock.errors import PenstockError
from penstock.membership.view import Member
from penstock_node.chunk import Chunk, Filled
from penstock_node.flights import Flight
from penstock_node.ownership import Duty
from penstock_node.store.store import Store

KEPT_S = 30.0
"""How long one is kept that nobody asks for."""
LOOK_S = 5.0
TAKE_S = 5.0
"""How long whoever told of one waits until it is here."""
GUESTS_MAX = 1024


@dataclass(slots=True)
class _Guest:
    chunk: Chunk
    asked_at: float


class Guests:
    """See the module. On the event loop, but for `asked`."""

    def __init__(
        self,
        *,
        is_kept: Callable[[Chunk], bool],
        bring: Callable[[Chunk, Duty], Flight[Filled]],
        store: Store,
        threads: Executor,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Put the parts together.

        Args:
            is_kept: Tells whether a chunk is this node's own.
            bring: Begins to bring a chunk in: see `Filler.start`.
            store: Where they lie.
            threads: For disk work.
            clock: Seconds, from anywhere on.
        """
        self._is_kept = is_kept
        self._bring = bring
        self._store = store
        self._threads = threads
        self._clock = clock
        self._guests: dict[bytes, _Guest] = {}

    def __len__(self) -> int:
        return len(self._guests)

    def asked(self, chunk_id: bytes) -> None:
        """Take note that somebody asks for a chunk. From any thread."""
        guest = self._guests.get(chunk_id)
        if guest is not None:
            guest.asked_at = self._clock()

    async def take(self, member: Member, chunk: Chunk) -> bool:
        """Have a copy of a chunk that ``member`` has, if there is room for more; tell whether."""
        if self._is_kept(chunk):
            return chunk.id in self._store.owned
        if len(self._guests) >= GUESTS_MAX:
            return False
        self._guests[chunk.id] = _Guest(chunk, self._clock())
        if chunk.id in self._store.owned:
            return True
        try:
            flight = self._bring(chunk, Duty(member, is_guest=True))
            return await flight.wait(TAKE_S) is not None
        except PenstockError:  # Readers go back to who sent them.
            return False

    async def run(self) -> None:
        """Drop what is asked for no more, for ever."""
        while True:
            await asyncio.sleep(LOOK_S)
            await self.drop_unasked()

    async def drop_unasked(self) -> None:
        """Drop those that nobody has asked for of late, but for what is this node's own by now."""
        oldest_at = self._clock() - KEPT_S
        for chunk_id, guest in list(self._guests.items()):
            if guest.asked_at > oldest_at:
                continue
            del self._guests[chunk_id]
            if not self._is_kept(guest.chunk):
                await asyncio.get_running_loop().run_in_executor(
                    self._threads, self._drop, guest.chunk
                )

    def _drop(self, chunk: Chunk) -> None:
        with contextlib.suppress(PenstockError):  # A disk hangs: it is evicted some time.
            self._store.owned.drop(chunk.object, chunk.index)

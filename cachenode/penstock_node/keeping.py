"""Keeping what comes in, while its readers are answered.

Responsible for: nothing comes in that is here; when readers of a chunk that is being written are
answered, and from what: its file as soon as a tier has it, its bytes in memory if that takes long
or no tier takes it.
Not responsible for: writing (`store`), bringing chunks in (`fill`, `host_reads`).

A chunk's flight ends when its writes have: nobody begins another while the bytes are still here.
"""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from functools import partial
from typing import TypeVar

from penstock import tracing
from penstock_node.chunk import Arrival, Chunk, Filled, Payload
from penstock_node.flights import Flight
from penstock_node.store.eviction import Reason
from penstock_node.store.store import Putting, Store

T = TypeVar("T")

FILE_PATIENCE_S = 0.2
"""How long readers wait for the file, which costs less to send than bytes in memory do."""


class Keeping:
    """Puts what has come in into the store; see the module."""

    def __init__(self, *, store: Store, threads: Executor) -> None:
        """Put the parts together; checksums are made in ``threads``."""
        self._store = store
        self._threads = threads

    async def bring(
        self,
        chunk: Chunk,
        fetch: Callable[[], Awaitable[Arrival]],
        *,
        owned: bool,
        flight: Flight[Filled],
        reason: Reason = "read",
    ) -> Filled:
        """Return what ``fetch`` brings, once it is known which tiers have it.

        Args:
            chunk: Which one.
            fetch: Brings all of its bytes; not called if a tier has them.
            owned: It is of this node's share.
            flight: Its readers wait for the chunk; it lands before the writes are over.
            reason: Why it comes in: see `store.eviction`.
        """
        # Whoever looked before a flight was over, and asks after it, begins another.
        if await self._holds(chunk):
            return Filled("disk")
        begin = partial(self._begin, owned=owned, reason=reason)
        arrival = await fetch()
        with tracing.span("store") as span:
            span.add_bytes(chunk.length)
            return await self._keep(chunk, arrival, begin, flight)

    async def _holds(self, chunk: Chunk) -> bool:
        if self._store.knows_all:
            return self._store.holds(chunk.object, chunk.index)
        return await self._in_thread(lambda: self._store.holds(chunk.object, chunk.index))

    async def _keep(
        self,
        chunk: Chunk,
        arrival: Arrival,
        begin: Callable[[Chunk, Arrival], Putting],
        flight: Flight[Filled],
    ) -> Filled:
        putting = await self._in_thread(lambda: begin(chunk, arrival))
        payload = Payload(arrival.data, putting.checksums, arrival.loan)
        writes = [asyncio.wrap_future(each) for each in putting.writes]
        pending = set(writes)
        timeout_s: float | None = FILE_PATIENCE_S
        while pending:
            done, pending = await asyncio.wait(
                pending, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
            if any(write.result() for write in done):
                flight.land(Filled(arrival.source))
            elif not done:
                flight.land(Filled(arrival.source, payload))
                timeout_s = None
        is_kept = any(write.result() for write in writes)
        return Filled(arrival.source, None if is_kept else payload)

    def _begin(self, chunk: Chunk, arrival: Arrival, *, owned: bool, reason: Reason) -> Putting:
        return self._store.begin_put(
            chunk.object, chunk.index, arrival.data, owned=owned, reason=reason
        )

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

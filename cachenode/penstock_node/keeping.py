"""Keeping what has come in, while its readers are answered.

Responsible for: when readers of a chunk that is being written are answered, and from what: its
file as soon as a tier has it, its bytes in memory if that takes long or no tier takes it.
Not responsible for: writing (`store`), bringing chunks in (`fill`, `host_reads`).

A chunk's flight ends when its writes have: nobody begins another while the bytes are still here.
"""

import asyncio
from concurrent.futures import Executor

from penstock_node.chunk import Arrival, Chunk, Filled, Payload
from penstock_node.flights import Flight
from penstock_node.store.store import Putting, Store

FILE_PATIENCE_S = 0.2
"""How long readers wait for the file, which costs less to send than bytes in memory do."""


class Keeping:
    """Puts what has come in into the store; see the module."""

    def __init__(self, *, store: Store, threads: Executor) -> None:
        """Put the parts together; checksums are made in ``threads``."""
        self._store = store
        self._threads = threads

    async def keep(
        self, chunk: Chunk, arrival: Arrival, *, owned: bool, flight: Flight[Filled]
    ) -> Filled:
        """Return what has come in, once it is known which tiers have it; ``flight`` lands before.

        Args:
            chunk: Which one.
            arrival: All of its bytes.
            owned: It is of this node's share.
            flight: Its readers wait for it.
        """
        loop = asyncio.get_running_loop()
        putting = await loop.run_in_executor(self._threads, self._begin, chunk, arrival, owned)
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

    def _begin(self, chunk: Chunk, arrival: Arrival, owned: bool) -> Putting:
        return self._store.begin_put(
            chunk.object, chunk.index, arrival.data, owned=owned, reason="read"
        )

"""Filling: bringing a missing chunk in, from a peer that has it, else from the origin.

Responsible for: one flight a chunk, the order of sources, bounded memory, and storing what
came. Only the first live owner of a chunk reads the origin; the others fill from it.
Not responsible for: deciding whose chunk it is (`ownership`), reading origins (`origin`).
"""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import replace
from typing import TypeVar

import structlog

from penstock.checksums import block_checksums
from penstock.errors import NodeUnavailable, PenstockError, Retryable
from penstock_node.chunk import Chunk, Payload
from penstock_node.cluster import Cluster
from penstock_node.flights import Flight, Flights
from penstock_node.metrics import NodeMetrics
from penstock_node.origin import Origins
from penstock_node.ownership import Duty
from penstock_node.peers import Peers
from penstock_node.store.store import Store

_log = structlog.get_logger(__name__)

T = TypeVar("T")

SLOTS = 16
"""Chunks in memory at once on their way in: with 4 MiB chunks, 64 MiB."""
FLIGHTS_MAX = 1024
"""Chunks being filled or waiting for a slot; beyond it, readers are asked to come back."""


class Filler:
    """Brings missing chunks in; see the module."""

    def __init__(
        self,
        *,
        cluster: Cluster,
        store: Store,
        peers: Peers,
        origins: Origins,
        threads: Executor,
        metrics: NodeMetrics,
        on_changed: Callable[[Chunk], Awaitable[None]],
    ) -> None:
        """Put the parts together.

        Args:
            cluster: Who may have a chunk.
            store: Where it goes.
            peers: Other nodes.
            origins: The object stores.
            threads: For disk work.
            metrics: What is counted.
            on_changed: Called when the origin turns out to have another version by now.
        """
        self._cluster = cluster
        self._store = store
        self._peers = peers
        self._origins = origins
        self._threads = threads
        self._metrics = metrics
        self._on_changed = on_changed
        self._slots = asyncio.Semaphore(SLOTS)
        self._flights: Flights[bytes, Payload] = Flights(
            flights_max=FLIGHTS_MAX, lingers=lambda payload: not payload.kept
        )

    def running(self, chunk: Chunk) -> Flight[Payload] | None:
        """Return the flight that is bringing the chunk in, if there is one."""
        return self._flights.get(chunk.id)

    def start(self, chunk: Chunk, duty: Duty) -> Flight[Payload]:
        """Return the flight that brings the chunk in, begun now unless it is under way.

        Raises:
            Overloaded: Too many chunks are being filled.
        """
        return self._flights.start(chunk.id, lambda: self._fill(chunk, duty))

    async def close(self) -> None:
        """End all flights."""
        await self._flights.cancel_all()

    async def _fill(self, chunk: Chunk, duty: Duty) -> Payload:
        async with self._slots:
            with self._metrics.filling(chunk.length):
                payload = await self._stored(chunk) or await self._fetch(chunk, duty)
                return payload if payload.kept else await self._keep(chunk, payload)

    async def _stored(self, chunk: Chunk) -> Payload | None:
        """Return the chunk if a flight that ended a moment ago has stored it."""
        return await self._in_thread(lambda: _read_stored(self._store, chunk))

    async def _fetch(self, chunk: Chunk, duty: Duty) -> Payload:
        if duty.fills_from is not None:
            try:
                return await self._peers.fetch(duty.fills_from, chunk, only_if_cached=False)
            except NodeUnavailable:
                # Tried once and agreed: this owner acts as the first from here on.
                self._cluster.routing.suspect(duty.fills_from.id)
        return await self._from_former_owners(chunk) or await self._from_origin(chunk)

    async def _from_former_owners(self, chunk: Chunk) -> Payload | None:
        for member in self._cluster.former_owners(chunk.id):
            try:
                return await self._peers.fetch(member, chunk, only_if_cached=True)
            except PenstockError as error:  # It does not have it, or not well: ask the next.
                _log.debug("former owner passed over", node=member.id, error=error.name)
        return None

    async def _from_origin(self, chunk: Chunk) -> Payload:
        location = self._cluster.location_of(chunk.volume, chunk.object.key)
        origin = self._origins.get(location.volume)
        try:
            data = await origin.read(
                location.path,
                chunk.object.version,
                chunk.object.size,
                chunk.start,
                chunk.start + chunk.length,
            )
        except PenstockError as error:
            if not isinstance(error, Retryable):
                await self._on_changed(chunk)
            raise
        view = memoryview(data)
        checksums = await self._in_thread(lambda: block_checksums(view))
        return Payload(view, checksums, "origin")

    async def _keep(self, chunk: Chunk, payload: Payload) -> Payload:
        kept = await self._in_thread(
            lambda: self._store.put(
                chunk.object,
                chunk.index,
                payload.data,
                checksums=payload.checksums,
                owned=True,
                reason="read",
            )
        )
        return replace(payload, kept=kept)

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)


def _read_stored(store: Store, chunk: Chunk) -> Payload | None:
    stored = store.get(chunk.object, chunk.index)
    if stored is None:
        return None
    with stored:
        data = memoryview(stored.read(0, stored.length))
        return Payload(data, stored.checksums, stored.source, kept=True)

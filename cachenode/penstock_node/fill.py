"""Filling: bringing a missing chunk in, from a peer that has it, else from the origin.

Responsible for: one flight a chunk, the order of sources, bounded memory, and storing what
came. Only the first live owner of a chunk reads the origin; the others fill from it.
Not responsible for: deciding whose chunk it is (`ownership`), reading origins (`origin`).
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

import structlog

from penstock import tracing
from penstock.errors import (
    NodeUnavailable,
    NotOwner,
    OriginUnavailable,
    Overloaded,
    PenstockError,
    Retryable,
)
from penstock.membership.view import Member
from penstock_node.chunk import Arrival, Chunk, Filled
from penstock_node.cluster import Cluster
from penstock_node.demand import Demand
from penstock_node.flights import Flight, Flights
from penstock_node.incoming import Incoming
from penstock_node.inflight import Inflight, Lane, Loan
from penstock_node.keeping import Keeping
from penstock_node.metrics import NodeMetrics
from penstock_node.origin import Origins
from penstock_node.origin.interface import Buffer
from penstock_node.ownership import Duty
from penstock_node.peers import PROBES, Peers
from penstock_node.store.eviction import Reason
from penstock_node.traces import Traces

_log = structlog.get_logger(__name__)

LOOK_TIMEOUT_S = 10.0
"""For a node that may have a chunk, or not: one that is silent is given up long before."""
LOOKS_MAX = 5
"""How often one that is silent, but answers a probe, or has too much to do, is asked: the origin
costs more."""
LAPSED_PROBES = 3
"""How often one is asked whose lease has ended, which says already that it was silent for long."""
FETCH_TIMEOUT_S = 45.0
"""For an owner that may have to read the origin first; less than a client's own patience."""
FLIGHTS_MAX = 1024
"""Chunks being filled or waiting for memory; beyond it, readers are asked to come back."""


class Filler:
    """Brings missing chunks in; see the module."""

    def __init__(
        self,
        *,
        cluster: Cluster,
        keeping: Keeping,
        peers: Peers,
        origins: Origins,
        inflight: Inflight,
        incoming: Incoming,
        metrics: NodeMetrics,
        traces: Traces,
        demand: Demand,
        on_changed: Callable[[Chunk], Awaitable[None]],
    ) -> None:
        """Put the parts together.

        Args:
            cluster: Who may have a chunk.
            keeping: Where it goes.
            peers: Other nodes.
            origins: The object stores.
            inflight: The memory that chunks take on their way in.
            incoming: Told of what is on its way, by which placement.
            metrics: What is counted.
            traces: What each fill does.
            demand: Told what comes from the origin.
            on_changed: Called when the origin turns out to have another version by now.
        """
        self._cluster = cluster
        self._peers = peers
        self._origins = origins
        self._keeping = keeping
        self._incoming = incoming
        self._metrics = metrics
        self._traces = traces
        self.demand = demand
        self._on_changed = on_changed
        self._inflight = inflight
        self._alone: set[bytes] = set()
        """Chunks whose flights wait for no other node any more, but for an origin or a disk."""
        self._flights: Flights[bytes, Filled] = Flights(
            flights_max=FLIGHTS_MAX, lingers=lambda filled: filled.payload is not None
        )

    def running(self, chunk: Chunk, *, without_peers: bool = False) -> Flight[Filled] | None:
        """Return the flight that is bringing the chunk in, if there is one.

        Args:
            chunk: Which one.
            without_peers: Only if it does not wait for another node: two nodes that ask each
                other for what both miss would wait for each other.
        """
        flight = self._flights.get(chunk.id)
        if flight is None or not without_peers:
            return flight
        return flight if flight.has_landed or chunk.id in self._alone else None

    def start(self, chunk: Chunk, duty: Duty, *, reason: Reason = "read") -> Flight[Filled]:
        """Return the flight that brings the chunk in, begun now unless it is under way.

        Args:
            chunk: Which one.
            duty: What this node has to do with it.
            reason: Why it comes in: see `store.eviction`.

        Raises:
            Overloaded: Too many chunks are being filled.
        """

        def begin(flight: Flight[Filled]) -> Coroutine[Any, Any, Filled]:
            end = self._incoming.begin(self._cluster.epoch)
            return self._fill(chunk, duty, flight, end, reason)

        return self._flights.start(chunk.id, begin)

    @property
    def flight_count(self) -> int:
        """How many chunks are being filled, or wait for memory."""
        return len(self._flights)

    async def close(self) -> None:
        """End all flights."""
        await self._flights.cancel_all()

    async def _fill(
        self,
        chunk: Chunk,
        duty: Duty,
        flight: Flight[Filled],
        end: Callable[[], None],
        reason: Reason,
    ) -> Filled:
        try:
            with self._traces.filling(
                url=chunk.object.key, chunk=chunk.index, volume=chunk.volume, reason=reason
            ) as flight.trace:
                filled = await self._keeping.bring(
                    chunk,
                    partial(self._fetch, chunk, duty, reason),
                    owned=True,
                    flight=flight,
                    reason=reason,
                )
                tracing.here().note(source=filled.source)
                tracing.here().add_bytes(chunk.length)
        finally:
            end()
            self._alone.discard(chunk.id)
        if duty.missed_by:
            self._incoming.missed(duty.missed_by, chunk)
        # Not the first owner alone: it may have had no room, while it scans its disks.
        if duty.others and filled.source != "disk" and filled.payload is None:
            self._incoming.came(duty.others, chunk)
        return filled

    async def _memory(self, lane: Lane, chunk: Chunk) -> Loan:
        if lane.is_contended:  # What nobody kept is dropped before anyone waits for its memory.
            self._flights.forget_landed()
        with tracing.here().queued(), self._metrics.stage("memory"):
            return await lane.acquire(chunk.length)

    async def _fetch(self, chunk: Chunk, duty: Duty, reason: Reason) -> Arrival:
        with self._metrics.filling():
            arrival = await self._from_anywhere(chunk, duty)
        if arrival.source == "origin":
            self.demand.came(chunk.object, chunk.index, is_asked_for=reason == "read")
        self._alone.add(chunk.id)
        return arrival

    async def _from_anywhere(self, chunk: Chunk, duty: Duty) -> Arrival:
        if duty.fills_from is not None:
            arrival = await self._unless_away(duty.fills_from, chunk, is_guest=duty.is_guest)
            if arrival is not None:
                return arrival
        return await self._as_first(chunk, duty)

    async def _unless_away(self, first: Member, chunk: Chunk, *, is_guest: bool) -> Arrival | None:
        """Return the chunk from its first owner; None: this one acts in its stead from here on."""
        has_lapsed = first.id in self._cluster.lapsed
        try:
            return await self._from_first(first, chunk, is_guest=is_guest)
        except NodeUnavailable:
            if is_guest:
                raise
            if await self._peers.answers(first, probes=LAPSED_PROBES if has_lapsed else PROBES):
                raise Overloaded(f"{first.id} takes its time") from None
            self._cluster.finds_away(first.id)
            return None
        except (NotOwner, OriginUnavailable):
            if is_guest or not has_lapsed:
                raise
            return None  # Cut off, as it seems: from etcd, so it knows no newer owners, or more.

    # No frame that an error has passed may hold a loan: whoever keeps the error keeps both.

    async def _as_first(self, chunk: Chunk, duty: Duty) -> Arrival:
        loan = await self._memory(self._inflight.origin, chunk)
        with loan.unless_it_fails():
            data = await self._from_holders(chunk, duty)
            if data is not None:
                return Arrival(data, "peer", loan)
            return Arrival(memoryview(await self._from_origin(chunk)), "origin", loan)

    async def _from_first(self, member: Member, chunk: Chunk, *, is_guest: bool) -> Arrival:
        loan = await self._memory(self._inflight.copies, chunk)
        with loan.unless_it_fails(), self._metrics.stage("peer"):
            data = await self._peers.fetch(
                member, chunk, only_if_cached=is_guest, timeout_s=FETCH_TIMEOUT_S
            )
        return Arrival(data, "peer", loan)

    async def _from_holders(self, chunk: Chunk, duty: Duty) -> memoryview | None:
        """Return the chunk from who keeps a copy too, or kept it before; None: nobody has it."""
        members = self._cluster.view.members
        others = {other: members[other] for other in duty.others if other in members}
        others |= {member.id: member for member in self._cluster.former_owners(chunk)}
        for member in others.values():
            data = await self._look(member, chunk)
            if data is not None:
                return data
        return None

    async def _look(self, member: Member, chunk: Chunk) -> memoryview | None:
        """Return the chunk if a node has it. One that is alive is waited for, however starved."""
        was_silent = self._cluster.away.is_suspected(member.id)  # It may be back since.
        for _ in range(1 if was_silent else LOOKS_MAX):
            try:
                with self._metrics.stage("peer"):
                    return await self._peers.fetch(
                        member, chunk, only_if_cached=True, timeout_s=LOOK_TIMEOUT_S
                    )
            except NodeUnavailable as error:
                _log.info(
                    "a node that may have a chunk is silent", peer=member.id, error=str(error)
                )
                if not was_silent and not await self._peers.answers(member):
                    self._cluster.finds_away(member.id)
                    return None
            except Overloaded as error:  # It may have it.
                await asyncio.sleep(error.retry_after_s)
            except PenstockError as error:  # It has not got it, or not well.
                _log.debug("a node has not got a chunk", peer=member.id, error=error.name)
                return None
        return None

    async def _from_origin(self, chunk: Chunk) -> Buffer:
        self._alone.add(chunk.id)
        location = self._cluster.location_of(chunk.volume, chunk.object.key)
        origin = self._origins.get(location.volume)
        try:
            with self._metrics.stage("origin"):
                return await origin.read(
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

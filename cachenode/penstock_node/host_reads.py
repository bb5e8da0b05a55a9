"""What this machine's readers ask of their node: any chunk, whoever owns it.

Responsible for: one fetch a chunk for the whole machine, however many processes ask, from the
owner through the library's own reader; what comes stays in the memory and local tiers.
Not responsible for: chunks that this node owns (`chunks`), how an answer travels (`serve`).
"""

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import TypeVar

from penstock import tracing
from penstock.errors import NotCached
from penstock.membership.nodes import Nodes
from penstock.memory import new_memory
from penstock.object_info import OpenedObject
from penstock.objects import ObjectId
from penstock.opens import Handle
from penstock.reader import Reader
from penstock_node.chunk import Arrival, Chunk, Filled
from penstock_node.chunks import ChunkAnswer, Chunks
from penstock_node.cluster import Cluster
from penstock_node.flights import Flight, Flights
from penstock_node.inflight import Inflight
from penstock_node.keeping import Keeping
from penstock_node.metrics import NodeMetrics
from penstock_node.store.eviction import Reason
from penstock_node.store.store import Store
from penstock_node.tasks import in_thread
from penstock_node.traces import Traces

FETCHES_MAX = 1024
"""Chunks being fetched or waiting for memory; beyond it, readers are asked to come back."""

T = TypeVar("T")


class HostReads:
    """Chunks for the readers of this machine; see the module."""

    def __init__(
        self,
        *,
        cluster: Cluster,
        chunks: Chunks,
        store: Store,
        keeping: Keeping,
        reader: Reader,
        nodes: Nodes,
        inflight: Inflight,
        traces: Traces,
        metrics: NodeMetrics,
        threads: Executor,
    ) -> None:
        """Put the parts together.

        Args:
            cluster: Tickets, and who owns what.
            chunks: Answers for those that this node owns.
            store: Tells whether copies are kept.
            keeping: Keeps them.
            reader: Reads from owners.
            nodes: Renews tickets, should a fetch outlast its own.
            inflight: The memory that chunks take on their way in.
            traces: What each fetch does.
            metrics: What is counted.
            threads: Where the reader's blocking calls run.
        """
        self._cluster = cluster
        self._chunks = chunks
        self._store = store
        self._reader = reader
        self._nodes = nodes
        self._inflight = inflight
        self._metrics = metrics
        self._keeping = keeping
        self._traces = traces
        self._threads = threads
        self._fetches: Flights[bytes, Filled] = Flights(
            flights_max=FETCHES_MAX, lingers=lambda filled: filled.payload is not None
        )

    @property
    def fetch_count(self) -> int:
        """How many chunks of others are being fetched, or wait for memory."""
        return len(self._fetches)

    @property
    def keeps_copies(self) -> bool:
        """Whether there is a tier for chunks that others own."""
        return self._store.keeps_copies

    def is_kept(self, chunk: Chunk) -> bool:
        """Tell whether the chunk stays here when it has come. On the event loop."""
        return self.keeps_copies or self._chunks.is_kept(chunk)

    def at_hand(self, chunk: Chunk, *, recheck: bool = False) -> ChunkAnswer | None:
        """Return the chunk from any tier, None if it is not here. Blocks; for threads."""
        return self._chunks.at_hand(chunk, recheck=recheck)

    def were_read(self, obj: ObjectId, pieces: Sequence[tuple[int, int]]) -> None:
        """Note that a reader of this machine was given parts of chunks. Thread-safe.

        If others own a chunk, they are told when a copy of it is asked for.

        Args:
            obj: The object.
            pieces: Indexes of its chunks, and how many bytes of each.
        """
        self._chunks.demand.read_each(obj, pieces, if_owned=True)

    async def answer(self, chunk: Chunk, *, only_if_cached: bool = False) -> ChunkAnswer | None:
        """Return the chunk, or None when it is still under way after 200 ms: ask again.

        Args:
            chunk: One that the asker may read.
            only_if_cached: Begin no fetch.

        Raises:
            NotCached: With ``only_if_cached``: it is not here and not on its way.
            PenstockError: What filling or reading it raised.
        """
        if self._fetches.get(chunk.id) is None:  # Else it is not here yet, or in memory alone.
            found = await self._chunks.look(chunk)
            if found is not None:
                return found
        return await self._chunks.land(chunk, self._flight(chunk, only_if_cached))

    def _flight(self, chunk: Chunk, only_if_cached: bool) -> Flight[Filled]:
        known = self._fetches.get(chunk.id)
        if known is not None:
            return known
        if only_if_cached:
            raise NotCached(f"{self._cluster.node_id} does not have the chunk")
        return self._begun(chunk, "read")

    def warm_flight(self, chunk: Chunk) -> Flight[Filled]:
        """Return the flight that brings the chunk in for this machine's readers to come.

        Raises:
            Overloaded: Too much to do at this moment.
        """
        return self._fetches.get(chunk.id) or self._begun(chunk, "warmup")

    def _begun(self, chunk: Chunk, reason: Reason) -> Flight[Filled]:
        own = self._chunks.own_flight(chunk, reason=reason)
        return own or self._fetches.start(
            chunk.id, lambda flight: self._bring(chunk, flight, reason)
        )

    async def _bring(self, chunk: Chunk, flight: Flight[Filled], reason: Reason) -> Filled:
        with self._traces.filling(
            url=chunk.object.key, chunk=chunk.index, volume=chunk.volume, reason=reason
        ) as flight.trace:
            filled = await self._keeping.bring(
                chunk, lambda: self._fetch(chunk), owned=False, flight=flight, reason=reason
            )
            tracing.here().note(source=filled.source)
            tracing.here().add_bytes(chunk.length)
        self._make_room()
        return filled

    async def _fetch(self, chunk: Chunk) -> Arrival:
        self._make_room()
        with tracing.here().queued(), self._metrics.stage("memory"):
            loan = await self._inflight.peer.acquire(chunk.length)
        with loan.unless_it_fails(), self._metrics.stage("owner"):
            data = await self._in_thread(lambda: self._read(chunk))
        return Arrival(data, "peer", loan)

    def _read(self, chunk: Chunk) -> memoryview:
        data = new_memory(chunk.length)
        reopen = functools.partial(self._opened, chunk)
        handle = Handle(reopen(), self._nodes, reopen=reopen)
        self._reader.read_into(handle, data, chunk.start)
        return data.toreadonly()

    def _make_room(self) -> None:
        """Drop what nobody kept and nobody reads now, where others wait for its memory."""
        if self._inflight.peer.is_contended:
            self._fetches.forget_landed()

    def _opened(self, chunk: Chunk) -> OpenedObject:
        ticket = self._cluster.sign(chunk.object, chunk.volume)
        return OpenedObject(
            url=chunk.object.key,
            volume=chunk.volume,
            id=chunk.object,
            modified=None,
            ticket=ticket.text,
            ticket_expires_at=ticket.expires_at,
            fresh_for_s=0.0,
            replicas=self._cluster.replicas_of(chunk.object.key),
        )

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await in_thread(self._threads, call)

    async def close(self) -> None:
        """End all fetches."""
        await self._fetches.cancel_all()

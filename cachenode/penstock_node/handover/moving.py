"""Bringing in chunks that another node owned until now.

Responsible for: a few chunks at a time, within a rate; each only if it is worth its room here.
Not responsible for: which chunks, from whom (`taking`).
"""

import asyncio
import contextlib
import weakref
from collections.abc import Iterable
from concurrent.futures import Executor

from penstock.errors import CorruptData, NotCached
from penstock.membership.view import Member
from penstock.objects import ObjectId
from penstock.v1 import handover_pb2
from penstock_node.chunk import Arrival, Chunk
from penstock_node.cluster import Cluster
from penstock_node.fill import Filler
from penstock_node.handover.giving import NOTHING, Left
from penstock_node.incoming import Incoming
from penstock_node.inflight import Inflight
from penstock_node.metrics import NodeMetrics
from penstock_node.ownership import duty_of
from penstock_node.pace import Pace
from penstock_node.peers import Peers
from penstock_node.store import Described, Store

CHUNKS_AT_ONCE = 4
"""From all nodes together: enough to keep a link busy, and few beside the readers' own."""
TAKE_TIMEOUT_S = 30.0
READINGS_MAX = 1e6
"""More than anybody reads: what a node tells beyond it counts for nothing."""
LOOK_S = 0.05
"""Between looks whether a fill of the same chunk is over."""
SCAN_LOOK_S = 0.5
"""Between looks whether the start-up scan is over."""
FILL_TIMEOUT_S = 60.0
"""How long a fill of the same chunk is waited for."""


class Mover:
    """Brings chunks in; see the module. On the event loop."""

    def __init__(
        self,
        *,
        cluster: Cluster,
        store: Store,
        filler: Filler,
        peers: Peers,
        inflight: Inflight,
        pace: Pace,
        incoming: Incoming,
        metrics: NodeMetrics,
        threads: Executor,
    ) -> None:
        """Put the parts together.

        Args:
            cluster: Whose chunks are whose.
            store: Where chunks go.
            filler: What it brings in for readers is not moved as well.
            peers: Fetches chunks.
            inflight: The memory that chunks take on their way in.
            pace: The rate.
            incoming: Told of what is on its way, by which placement.
            metrics: What is counted.
            threads: For disk work.
        """
        self._cluster = cluster
        self._store = store
        self._filler = filler
        self._peers = peers
        self._inflight = inflight
        self._pace = pace
        self._incoming = incoming
        self._metrics = metrics
        self._threads = threads
        self._turns = asyncio.Semaphore(CHUNKS_AT_ONCE)
        self._moves: weakref.WeakValueDictionary[bytes, asyncio.Lock] = (
            weakref.WeakValueDictionary()
        )

    async def take_all(
        self, member: Member, told: Iterable[handover_pb2.DescribedChunk], *, epoch: int
    ) -> Left:
        """Take chunks from a node that has described them; return what there was no room for.

        Raises:
            PenstockError: It does not answer, or not well. What came before stays.
        """
        wanted = [described(each) for each in told]
        # Until then nobody knows what there is room for, and nothing is kept.
        while not self._store.is_scanned:  # noqa: ASYNC110 - a thread ends it
            await asyncio.sleep(SCAN_LOOK_S)
        taken = await asyncio.gather(
            *(self._take(member, each, epoch) for each in wanted),
            return_exceptions=True,  # None goes on by itself after this.
        )
        left = NOTHING
        for outcome in taken:
            if isinstance(outcome, BaseException):
                raise outcome
            left = left.plus(outcome)
        return left

    async def _take(self, member: Member, wanted: Described, epoch: int) -> Left:
        chunk = chunk_of(wanted)
        if not self.is_kept(chunk):
            return NOTHING
        await self._fill_is_over(chunk)  # Before its turn: a fill may take long.
        # With more than one copy, each of its former owners offers it.
        async with self._moves.setdefault(chunk.id, asyncio.Lock()), self._turns:
            if chunk.id in self._store.owned:
                return NOTHING
            if not self._store.owned.has_room_for(wanted):
                return Left(1, self._store.owned.size_of(wanted))
            await self._pace.wait(chunk.length)
            with contextlib.ExitStack() as on_its_way:
                on_its_way.callback(self._incoming.begin(epoch))
                arrival = await self._fetch(member, chunk)
                if arrival is None:
                    return NOTHING
                writing = self._keep(wanted, arrival)
                # A thread cannot be called off: it is on its way until that is done.
                ending = on_its_way.pop_all()
                writing.add_done_callback(lambda _: ending.close())
            if not await asyncio.shield(writing):
                return Left(1, self._store.owned.size_of(wanted))
            self._metrics.handoff_bytes.inc(chunk.length)
            return NOTHING

    def is_kept(self, chunk: Chunk) -> bool:
        """Tell whether this node should have the chunk: nobody else is believed in that."""
        cluster = self._cluster
        duty = duty_of(
            cluster.node_id,
            cluster.owners(chunk.id),
            members=cluster.view.members,
            unreachable=(),
            replicas=cluster.replicas_of(chunk.object.key),
        )
        return duty is not None

    async def _fill_is_over(self, chunk: Chunk) -> None:
        """Wait for a fill of the chunk: one that has landed may be about to be written."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FILL_TIMEOUT_S):
                # Nobody is told when a write is over.
                while chunk.id not in self._store.owned and self._filler.running(chunk):  # noqa: ASYNC110
                    await asyncio.sleep(LOOK_S)

    async def _fetch(self, member: Member, chunk: Chunk) -> Arrival | None:
        """Return the chunk; None if the node does not have it any more."""
        loan = await self._inflight.peer.acquire(chunk.length)
        try:
            with loan.unless_it_fails():
                data = await self._peers.fetch(
                    member, chunk, only_if_cached=True, timeout_s=TAKE_TIMEOUT_S
                )
            return Arrival(data, "peer", loan)
        except (NotCached, CorruptData):  # It has left, or was bad and is no more.
            return None

    def _keep(self, wanted: Described, arrival: Arrival) -> "asyncio.Future[bool]":
        return asyncio.get_running_loop().run_in_executor(
            self._threads,
            lambda: self._store.owned.take(wanted, arrival.data),  # Holds the memory's loan.
        )


def chunk_of(wanted: Described) -> Chunk:
    """Return which chunk that is; its volume, which matters to origins alone, is not told."""
    return Chunk(wanted.object, "", wanted.index)


def described(told: handover_pb2.DescribedChunk) -> Described:
    """Return what a node tells of a chunk.

    Raises:
        InvalidRequest: It is none.
    """
    subject = ObjectId(told.key, told.version, told.size, told.chunk_size)
    is_number = 0.0 <= told.readings <= READINGS_MAX
    return Described(subject, told.index, told.readings if is_number else 0.0)

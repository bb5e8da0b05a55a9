"""Answering for chunks: what this node says to a reader who asks for one.

Responsible for: the decision, the same on every plane: serve what is here, fill what is ours,
else say who we are not. Tickets, epochs and suspects are judged here.
Not responsible for: how an answer travels (`serve`), how a chunk is brought in (`fill`), chunks
of others for this machine's own readers (`host_reads`).
"""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from penstock import tracing
from penstock.errors import NotCached, NotOwner, Overloaded
from penstock.membership.view import Member
from penstock.objects import check_blocks
from penstock.planes.plane import Source
from penstock_node.chunk import Chunk, Filled, Payload
from penstock_node.cluster import Cluster
from penstock_node.coordination import Coordination
from penstock_node.fill import Filler
from penstock_node.flights import Flight
from penstock_node.ownership import Duty, duty_of
from penstock_node.peers import Peers
from penstock_node.store.eviction import Reason
from penstock_node.store.store import Store, StoredChunk
from penstock_node.traces import Traces

INTERIM_S = 0.2
"""How long a reader waits for a fill before it is told that the fill is under way."""
CATCH_UP_S = 1.0
LOOK_S = 2.0
"""How long a disk may take. One that hangs is left out soon after: whoever asks again is served."""
PROMOTIONS_MAX = 4
"""Chunks on their way from disk to memory at once: what is read again comes by again."""


@dataclass(frozen=True, slots=True)
class ChunkRequest:
    """What a reader asks: whole blocks ``start`` to ``stop`` of one chunk."""

    ticket: str
    index: int
    start: int
    stop: int | None
    """None: to the chunk's end."""
    epoch: int = 0
    only_if_cached: bool = False
    suspects: Sequence[str] = ()
    recheck: bool = False
    on_behalf: bool = False
    goes_to_holder: bool = False

    def span(self, chunk: Chunk) -> tuple[int, int]:
        """Return the bytes of ``chunk`` that are asked for."""
        return self.start, chunk.length if self.stop is None else self.stop


@dataclass(frozen=True, slots=True)
class ChunkAnswer:
    """A chunk that is here: an open file of the store, or bytes that have just come in.

    Whoever gets one closes it, also when the reader is gone by then.
    """

    chunk: Chunk
    content: StoredChunk | Payload
    source: Source
    """Where it came from."""

    def close(self) -> None:
        """Let go of the file; again does nothing."""
        if isinstance(self.content, StoredChunk):
            self.content.close()


class Chunks:
    """Answers for chunks; see the module."""

    def __init__(
        self,
        *,
        cluster: Cluster,
        coordination: Coordination,
        store: Store,
        filler: Filler,
        peers: Peers,
        traces: Traces,
        threads: Executor,
    ) -> None:
        self._cluster = cluster
        self._coordination = coordination
        self._store = store
        self._filler = filler
        self._peers = peers
        self._traces = traces
        self.demand = filler.demand
        """What was read of this node's own chunks, and of those it stood in for."""
        self._threads = threads
        self._promoting: set[bytes] = set()
        self._probing: set[asyncio.Task[None]] = set()

    def requested(self, request: ChunkRequest) -> Chunk:
        """Return the chunk that ``request`` may read.

        Raises:
            TicketExpired: The ticket's time is over.
            NotPermitted: It is forged, or another cluster's.
            InvalidRequest: There is no such chunk.
            InvalidRange: The range is not whole blocks.
        """
        ticket = self._cluster.verify(request.ticket)
        chunk = Chunk(ticket.object, ticket.volume, request.index)
        check_blocks(*request.span(chunk), chunk.length)
        return chunk

    def at_hand(self, chunk: Chunk, *, recheck: bool = False) -> ChunkAnswer | None:
        """Return the chunk from any tier, None if it is not here. Blocks; for threads.

        Args:
            chunk: Which one.
            recheck: The reader got wrong bytes: look at the copies first.
        """
        begun = time.perf_counter()
        # Most is not traced: not even a span that does nothing, then.
        look = self._stored if tracing.current() is None else self._traced_look
        stored = look(chunk, recheck=recheck)
        if stored is None:
            return None
        took_s = time.perf_counter() - begun
        if self._traces.is_slow(took_s):
            url, disk = chunk.object.key, stored.disk.path
            self._traces.took("look", took_s, url=url, chunk=chunk.index, disk=disk)
        if stored.source == "disk" and self._store.has_memory:
            self._promote(chunk)
        return ChunkAnswer(chunk, stored, stored.source)

    def _promote(self, chunk: Chunk) -> None:
        """Copy the chunk into memory when a thread is free; a few at a time, the rest not."""
        if len(self._promoting) >= PROMOTIONS_MAX or chunk.id in self._promoting:
            return
        if not self._store.wants_in_memory(chunk.id):
            return
        self._promoting.add(chunk.id)
        promotion = self._threads.submit(self._store.promote, chunk.object, chunk.index)
        promotion.add_done_callback(lambda _: self._promoting.discard(chunk.id))

    def check_handed_over(self, chunk: Chunk, request: ChunkRequest) -> None:
        """Send a reader of a chunk that is not here to who has to hand it over, where it is quick.

        Raises:
            Overloaded: With that node's name.
        """
        is_behind = request.epoch > self._cluster.epoch
        if not request.goes_to_holder or request.only_if_cached or is_behind:
            return
        holder = self._cluster.handed_over_by(chunk)
        if holder is not None and self.is_kept(chunk) and not self._filler.running(chunk):
            error = Overloaded(f"{holder.id} has the chunk still", retry_after_s=0.0)
            error.held_by = holder.id
            raise error

    async def answer(self, request: ChunkRequest) -> ChunkAnswer | None:
        """Return the chunk, or None when it is being filled: the reader asks again.

        Raises:
            PenstockError: What `requested` raises.
            NotCached: Asked only for what is here.
            NotOwner: Others keep this chunk, at the epoch named.
            ObjectChanged: The object was overwritten at its origin.
            OriginUnavailable: It is not here and the origin does not answer.
            Overloaded: Too much to do at this moment.
        """
        chunk = self.requested(request)
        return await self.look(chunk, recheck=request.recheck) or await self.fill(chunk, request)

    async def fill(self, chunk: Chunk, request: ChunkRequest) -> ChunkAnswer | None:
        """As `answer`, for a chunk that was not here a moment ago."""
        await self.catch_up(request.epoch)
        self.check_handed_over(chunk, request)  # It may have heard just now that it owns it.
        return await self.land(chunk, await self._flight(chunk, request))

    def _traced_look(self, chunk: Chunk, *, recheck: bool) -> StoredChunk | None:
        with tracing.span("look", chunk=chunk.index) as span:
            stored = self._stored(chunk, recheck=recheck)
            if stored is not None:
                span.note(source=stored.source, disk=stored.disk.path)
            return stored

    def _stored(self, chunk: Chunk, *, recheck: bool) -> StoredChunk | None:
        if recheck:
            self._store.recheck(chunk.object, chunk.index)
        return self._store.get(chunk.object, chunk.index)

    async def look(self, chunk: Chunk, *, recheck: bool = False) -> ChunkAnswer | None:
        """As `at_hand`, on the event loop."""
        looking = asyncio.get_running_loop().run_in_executor(
            self._threads, tracing.carried(lambda: self.at_hand(chunk, recheck=recheck))
        )
        try:
            async with asyncio.timeout(LOOK_S):
                return await asyncio.shield(looking)
        except (asyncio.CancelledError, TimeoutError) as error:
            # Nobody waits any more and the thread goes on: nobody else closes what it opens.
            looking.add_done_callback(_close_found)
            if isinstance(error, TimeoutError):
                raise Overloaded("a disk does not answer; try again later") from error
            raise

    async def land(self, chunk: Chunk, flight: Flight[Filled]) -> ChunkAnswer | None:
        """Return what a flight brings, or None when it is not there after `INTERIM_S`."""
        filled = await _followed(flight)
        if filled is None:
            return None
        if filled.payload is not None:
            return ChunkAnswer(chunk, filled.payload, filled.source)
        found = await self.look(chunk)
        # Evicted as soon as it was stored: whoever asks again fills it again.
        return ChunkAnswer(chunk, found.content, filled.source) if found else None

    async def catch_up(self, epoch: int) -> None:
        """Learn of a placement that the sender has and this node has not."""
        if epoch <= self._cluster.epoch:
            return
        with contextlib.suppress(TimeoutError), tracing.span("catch up", epoch=epoch):
            # Without an answer this node goes on with what it knows, and says at which epoch.
            async with asyncio.timeout(CATCH_UP_S):
                state = await self._coordination.catch_up(epoch, timeout_s=CATCH_UP_S)
                await self._cluster.reached(min(epoch, state.epoch))

    async def _flight(self, chunk: Chunk, request: ChunkRequest) -> Flight[Filled]:
        running = self._filler.running(chunk, without_peers=request.only_if_cached)
        if running is not None:
            return running
        if request.only_if_cached:
            raise NotCached(f"{self._cluster.node_id} does not have the chunk")
        duty = await self._duty(chunk, request.suspects)
        epoch = self._cluster.epoch
        if duty is None:
            raise NotOwner(f"{self._cluster.node_id} does not keep the chunk", epoch=epoch)
        if request.on_behalf and duty.fills_from is not None:
            raise NotOwner(f"{duty.fills_from.id} comes first for the chunk", epoch=epoch)
        return self._filler.start(chunk, duty)

    def own_flight(self, chunk: Chunk, *, reason: Reason = "read") -> Flight[Filled] | None:
        """Return the flight that brings in a chunk which this node keeps; None if others do.

        Args:
            chunk: Which one.
            reason: Why it comes in: see `store.eviction`.

        Raises:
            Overloaded: Too much to do at this moment.
        """
        running = self._filler.running(chunk)
        duty = None if running else self._known_duty(chunk)
        return self._filler.start(chunk, duty, reason=reason) if duty else running

    async def warm_flight(self, chunk: Chunk, *, suspects: Sequence[str]) -> Flight[Filled]:
        """Return the flight that brings a chunk of this node's in for readers to come.

        Raises:
            NotOwner: Others keep the chunk, at the epoch named.
            Overloaded: Too much to do at this moment.
        """
        running = self._filler.running(chunk)
        if running is not None:
            return running
        duty = await self._duty(chunk, suspects)
        if duty is None:
            node_id, epoch = self._cluster.node_id, self._cluster.epoch
            raise NotOwner(f"{node_id} does not keep the chunk", epoch=epoch)
        return self._filler.start(chunk, duty, reason="warmup")

    def is_kept(self, chunk: Chunk) -> bool:
        """Tell whether this node is one of those that keep the chunk."""
        return self._known_duty(chunk) is not None

    def was_read(self, chunk: Chunk, length: int) -> None:
        """Note that a reader was given ``length`` bytes of a chunk. Thread-safe."""
        self.demand.read(chunk.object, chunk.index, length=length)

    async def _duty(self, chunk: Chunk, suspects: Sequence[str]) -> Duty | None:
        await self._try_suspects(set(suspects) & set(self._cluster.owners(chunk.id)))
        return self._known_duty(chunk)

    def _known_duty(self, chunk: Chunk) -> Duty | None:
        owners = self._cluster.owners(chunk.id)
        away = self._cluster.away
        return duty_of(
            self._cluster.node_id,
            owners,
            members=self._cluster.view.members,
            unreachable={owner for owner in owners if away.is_suspected(owner)},
            replicas=self._cluster.replicas_of(chunk.object.key),
            lapsed=self._cluster.lapsed,
        )

    async def _try_suspects(self, suspects: set[str]) -> None:
        """Ask each node that the reader could not reach: is it away from here too?"""
        members = self._cluster.view.members
        asked = sorted(node_id for node_id in suspects if node_id in members)
        await asyncio.gather(*(self._try(members[each]) for each in asked))

    async def _try(self, member: Member) -> None:
        away = self._cluster.away
        if member.id == self._cluster.node_id or away.is_suspected(member.id):
            return
        was_away = away.find_out(member.id)
        finding_out = asyncio.create_task(self._find_out(member))
        self._probing.add(finding_out)
        finding_out.add_done_callback(self._probing.discard)
        if not was_away:  # Else readers are served as before until it is known to be back.
            await asyncio.shield(finding_out)

    async def _find_out(self, member: Member) -> None:
        if await self._peers.answers(member):
            self._cluster.away.trust([member.id])
        else:
            self._cluster.finds_away(member.id)

    def holds(self, ticket_text: str) -> list[int]:
        """Return the indexes of the chunks of a ticket's object that are here. Blocks briefly."""
        ticket = self._cluster.verify(ticket_text)
        subject = ticket.object
        return [i for i in range(subject.chunk_count) if self._store.holds(subject, i)]


async def _followed(flight: Flight[Filled]) -> Filled | None:
    """Return what a flight has landed, None after `INTERIM_S`; its trace is the waiter's too."""
    with tracing.span("wait for the fill") as waiting:
        try:
            return await flight.wait(INTERIM_S)
        finally:
            place, trace = tracing.current(), flight.trace
            if trace:
                waiting.note(waits_for=trace.spans[0].id)
            if place and trace and trace.id != place.trace.id and flight.has_landed:
                place.trace.adopt(trace, waiting)


def _close_found(looking: "asyncio.Future[ChunkAnswer | None]") -> None:
    if looking.cancelled() or looking.exception() is not None:
        return
    found = looking.result()
    if found is not None:
        found.close()

"""The host plane: chunks as open files for the programs of this machine, over a Unix socket.

Responsible for: frames to requests and answers to frames, who is given files, and counting the
chunks that readers have as in use until they say that they are done.
Not responsible for: sockets (`transport`), where chunks come from (`host_chunks`).
"""

import asyncio
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import Any

import structlog
from google.protobuf.message import DecodeError
from prometheus_client.core import Metric

from penstock import tracing, wire
from penstock.errors import InvalidRequest, Overloaded, PenstockError, Unauthenticated
from penstock.host_frames import HEAD_BYTES, INDEXES_MAX, REQUEST_BYTES_MAX, frame, frame_bytes
from penstock.planes.plane import Source
from penstock.ticket import Ticket
from penstock.v1 import cache_pb2, host_pb2
from penstock_node.access.gate import Gate
from penstock_node.access.grants import CALLER
from penstock_node.chunk import Chunk
from penstock_node.cluster import Cluster
from penstock_node.metrics import NodeMetrics, gauge
from penstock_node.serve.believed_tickets import BelievedTickets
from penstock_node.serve.calls import Calls
from penstock_node.serve.host_chunks import Found, Given, HostChunks, Wanted
from penstock_node.serve.peer_process import peer_process, sees_our_files
from penstock_node.serve.traced import traced
from penstock_node.traces import Traces
from penstock_node.transport.reply import Descriptors, Octets, OpenFile, Outcome, Part, Reply

PLANE = "host"
HOLDS_MAX = 1024 * 1024
"""Chunks in use by readers at once, of all connections: enough for views of 4 TB."""
FIRST_PART_CHUNKS = 1
PART_GROWTH = 8
"""Of an answer in parts: the reader reads one while the next is looked for, and is woken seldom."""
PART_CHUNKS_MAX = 32
"""A reader has as many files open at once, in each of its threads."""
RETRY_AFTER_S = 0.2
_WORKING = frame(host_pb2.HostResponse(working=host_pb2.HostWorking()))

_log = structlog.get_logger(__name__)


class HostService:
    """Answers requests of the socket, on the engine's workers and the event loop."""

    def __init__(
        self,
        *,
        chunks: HostChunks,
        calls: Calls,
        cluster: Cluster,
        metrics: NodeMetrics,
        traces: Traces,
        loop: asyncio.AbstractEventLoop,
        bulk_address: str,
        bulk_speaks_tls: bool = False,
        gives_to_all: bool,
        keeps_copies: bool,
        gate: Gate | None,
    ) -> None:
        """Put the parts together.

        Args:
            chunks: Finds them.
            calls: Answers what is not a chunk.
            cluster: Tickets, and the epoch.
            metrics: What is counted.
            traces: What requests do that are traced.
            loop: Where fills and calls run.
            bulk_address: Where those read who are given no files.
            bulk_speaks_tls: Whether they need TLS for it.
            gives_to_all: All tiers have a read-only path, so that anybody is given files.
            keeps_copies: Whether the node keeps chunks that others own.
            gate: Lets those in who show a token; None: whoever may enter the directory.
        """
        self.gate = gate
        self.chunks = chunks
        self.calls = calls
        self.cluster = cluster
        self.metrics = metrics
        self.traces = traces
        self.loop = loop
        self.over_bulk = host_pb2.HostOverBulk(address=bulk_address, speaks_tls=bulk_speaks_tls)
        self.gives_to_all = gives_to_all
        self.keeps_copies = keeps_copies
        self.tickets = BelievedTickets(cluster)
        self._lock = threading.Lock()
        self._held = 0
        metrics.waits(PLANE, lambda: chunks.waiting)
        metrics.scrape_from(self._collect)

    @property
    def held(self) -> int:
        """How many chunks count as in use by readers of the host plane."""
        return self._held

    def _collect(self) -> Iterable[Metric]:
        text = "Chunks that readers of the host plane have in use."
        yield gauge("penstock_host_held_chunks", text, [((), self._held)])

    def hold(self, change: int) -> None:
        """Count chunks as in use, or as no longer so."""
        with self._lock:
            self._held += change

    def open_session(self, sock: socket.socket) -> "HostSession":
        """Return what a new connection speaks."""
        peer, sees = peer_process(sock), sees_our_files(sock)
        _log.debug("a reader connects", pid=peer.pid, uid=peer.uid, sees_our_files=sees)
        return HostSession(self, sees_our_files=sees)


class HostSession:
    """One connection of the host plane; see `penstock_node.transport.connection.Session`."""

    is_last = False

    def __init__(self, service: HostService, *, sees_our_files: bool) -> None:
        self._service = service
        self._sees_our_files = sees_our_files
        self.interim = b""
        """See `Session.interim`: of the request in hand."""
        self._is_greeted = False
        self._shown: str | None = None
        """The header with the reader's token, where one is asked for."""
        self._begun = 0.0
        """When the request in hand was there, or its next part was begun with."""
        self._holds: list[Callable[[], None]] = []

    def step(self, inbox: bytearray) -> Outcome | None:
        """See `Session.step`."""
        if len(inbox) < HEAD_BYTES:
            return None
        size = frame_bytes(inbox)
        if size > HEAD_BYTES + REQUEST_BYTES_MAX:
            return _refuse(InvalidRequest(f"a request of {size} bytes"), ends=True)
        if len(inbox) < size:
            return None
        data = bytes(inbox[HEAD_BYTES:size])
        del inbox[:size]
        return self._answer(data)

    def _answer(self, data: bytes) -> Outcome:
        try:
            request = host_pb2.HostRequest.FromString(data)
        except DecodeError:
            return _refuse(InvalidRequest("not a request of the host plane"), ends=True)
        self.interim = _WORKING if request.tell_working else b""
        kind = request.WhichOneof("request")
        if kind is None or not (self._is_greeted or kind == "hello"):
            return _refuse(InvalidRequest(f"{kind}: want hello, then requests"), ends=True)
        try:
            match kind:
                case "hello":
                    return self._greet(request.hello)
                case "read":
                    return traced(
                        self._service.traces,
                        request.read.traceparent,
                        partial(self._read, request.read),
                        plane=PLANE,
                    )
                case "call":
                    return self._later(self._called(request.call))
                case "done":
                    return self._done()
        except PenstockError as error:
            return _refuse(error)

    def _greet(self, hello: host_pb2.HostHello) -> Outcome:
        gate = self._service.gate
        return self._welcome() if gate is None else self._later(self._let_in(gate, hello.token))

    async def _let_in(self, gate: Gate, token: str) -> Reply:
        shown = f"Bearer {token}"
        try:
            await gate.identify(shown, plane=PLANE)
        except PenstockError as error:
            return _refuse(error, ends=True)
        self._shown = shown
        return self._welcome()

    def _welcome(self) -> Reply:
        self._is_greeted = True
        service = self._service
        welcome = host_pb2.HostWelcome(
            node=service.cluster.node_id,
            cluster_uid=service.cluster.view.placement.cluster_uid,
            gives_files=self._sees_our_files or service.gives_to_all,
            keeps_copies=service.keeps_copies,
        )
        return _reply(host_pb2.HostResponse(welcome=welcome))

    async def _called(self, call: host_pb2.HostCall) -> Reply:
        try:
            called = await self._service.calls.call(
                call.method, call.request, authorization=self._shown, plane=PLANE
            )
        except PenstockError as error:
            return _refuse(error)
        return _reply(host_pb2.HostResponse(called=called))

    # Chunks.

    def _read(self, read: host_pb2.HostRead) -> Outcome:
        self._begun = time.monotonic()
        self._check(read)
        if not read.ticket:
            return self._later(self._read_url(read))
        wanted = _wanted(read, self._service.tickets.verify(read.ticket))
        return self._read_next(wanted, FIRST_PART_CHUNKS if read.in_parts else len(wanted.chunks))

    def _read_next(self, wanted: Wanted, count: int) -> Outcome:
        """Answer for ``count`` chunks and have the rest follow; for all, if one is missing."""
        part, rest = wanted.cut(0, count), wanted.cut(count, INDEXES_MAX)
        found = self._service.chunks.at_hand(part)
        if None in found:
            found += self._service.chunks.at_hand(rest)
            return self._later(self._read_rest(wanted, found))
        reply = self._chunks(part, found, more=bool(rest.chunks))
        if rest.chunks:
            next_count = min(PART_CHUNKS_MAX, count * PART_GROWTH)
            reply.then = lambda: self._go_on(rest, next_count)
        return reply

    def _go_on(self, wanted: Wanted, count: int) -> Outcome:
        self._begun = time.monotonic()
        return self._read_next(wanted, count)

    def _check(self, read: host_pb2.HostRead) -> None:
        count = len(read.indexes)
        if not 0 < count <= INDEXES_MAX:
            raise InvalidRequest(f"{count} chunks in one request: want 1 to {INDEXES_MAX}")
        if read.lengths and len(read.lengths) != count:
            raise InvalidRequest(f"{len(read.lengths)} lengths for {count} chunks")
        if self._service.held + count > HOLDS_MAX:
            raise Overloaded(
                f"readers have {self._service.held} chunks in use", retry_after_s=RETRY_AFTER_S
            )

    def _later(self, answering: Coroutine[Any, Any, Reply]) -> Outcome:
        return asyncio.run_coroutine_threadsafe(answering, self._service.loop)

    async def _read_rest(self, wanted: Wanted, found: list[Found]) -> Reply:
        try:
            return self._chunks(wanted, await self._service.chunks.wait(wanted, found))
        except PenstockError as error:
            return _refuse(error)

    async def _read_url(self, read: host_pb2.HostRead) -> Reply:
        chunks = self._service.chunks
        try:
            if (gate := self._service.gate) is not None:
                CALLER.set(await gate.identify(self._shown or "", plane=PLANE))
            opened = await self._open(read.url)
            wanted = _wanted(read, self._service.tickets.verify(opened.ticket))
            found = await chunks.look(wanted)
            if None in found:
                found = await chunks.wait(wanted, found)
        except PenstockError as error:
            return _refuse(error)
        return self._chunks(wanted, found, opened=opened)

    async def _open(self, url: str) -> cache_pb2.Object:
        response = await self._service.calls.open(cache_pb2.OpenRequest(urls=[url]))
        (result,) = response.results
        if result.WhichOneof("result") == "error":
            raise wire.error_from_proto(result.error)
        return result.object

    def _chunks(
        self,
        wanted: Wanted,
        found: Sequence[Found],
        *,
        more: bool = False,
        opened: cache_pb2.Object | None = None,
    ) -> Reply:
        """Return the answer; the files in it are closed when it is sent, or cannot be."""
        given: list[tuple[Given, int]] = []
        told = [
            self._tell(chunk.index, one, length, given)
            for chunk, one, length in zip(
                wanted.chunks, found, wanted.lengths or [0] * len(found), strict=True
            )
        ]
        self._count(given)
        tracing.here().note(chunks=len(wanted.chunks), missing=sum(one is None for one in found))
        files = [_GivenFile(one, self._hold) for one, _length in given]
        epoch = self._service.cluster.epoch
        chunks = host_pb2.HostChunks(chunks=told, epoch=epoch, object=opened, more=more)
        return _reply(host_pb2.HostResponse(chunks=chunks), files)

    def _tell(
        self, index: int, one: Found, length: int, given: list[tuple[Given, int]]
    ) -> host_pb2.HostChunk:
        if one is None:
            return host_pb2.HostChunk(index=index, filling=host_pb2.HostFilling())
        if isinstance(one, PenstockError):
            self._service.metrics.chunk_read_failures.labels(error=one.name).inc()
            return host_pb2.HostChunk(index=index, error=wire.error_to_proto(one))
        if not (self._sees_our_files or one.is_passable):
            one.content.close()
            over_bulk = self._service.over_bulk
            return host_pb2.HostChunk(index=index, over_bulk=over_bulk)
        whole = one.chunk.length
        given.append((one, min(length, whole) or whole))
        file = host_pb2.HostFile(length=whole, checksums=one.checksums, source=one.source)
        return host_pb2.HostChunk(index=index, file=file)

    def _count(self, given: Sequence[tuple[Given, int]]) -> None:
        """Count what is given away: chunks of one object."""
        if not given:
            return
        obj = given[0][0].chunk.object
        self._service.chunks.were_read(obj, [(one.chunk.index, length) for one, length in given])
        reads, read_bytes = Counter[Source](), Counter[Source]()
        for one, length in given:
            reads[one.source] += 1
            read_bytes[one.source] += length
        seconds = time.monotonic() - self._begun
        for source, count in reads.items():
            self._service.metrics.served(
                plane=PLANE,
                source=source,
                key=obj.key,
                length=read_bytes[source],
                seconds=seconds,
                reads=count,
            )

    def _hold(self, release: Callable[[], None]) -> None:
        self._holds.append(release)
        self._service.hold(1)

    def _done(self) -> Reply:
        holds, self._holds = self._holds, []
        for release in holds:
            release()
        self._service.hold(-len(holds))
        return Reply()

    def close(self) -> None:
        """See `Session.close`."""
        self._done()


class _GivenFile:
    """A file on its way to a reader; once it is sent, the reader's hold on the chunk is left."""

    __slots__ = ("_content", "_hold")

    def __init__(self, given: Given, hold: Callable[[Callable[[], None]], None]) -> None:
        self._content = given.content
        self._hold = hold

    def fileno(self) -> int:
        return self._content.fileno()

    def close(self) -> None:
        self._hold(self._content.detach())


def _wanted(read: host_pb2.HostRead, ticket: Ticket) -> Wanted:
    return Wanted(
        [Chunk(ticket.object, ticket.volume, index) for index in read.indexes],
        lengths=tuple(read.lengths),
        only_if_cached=read.only_if_cached,
        recheck=read.recheck,
        into_memory=read.into_memory,
    )


def _reply(response: host_pb2.HostResponse, files: Sequence[OpenFile] = ()) -> Reply:
    data = frame(response)
    part: Part = Descriptors(data, files) if files else Octets(data)
    return Reply([part])


def _refuse(error: PenstockError, *, ends: bool = False) -> Reply:
    reply = _reply(host_pb2.HostResponse(error=wire.error_to_proto(error)))
    # A reader whose token is good no more may have another by now: it greets with that.
    reply.ends = ends or isinstance(error, Unauthenticated)
    return reply

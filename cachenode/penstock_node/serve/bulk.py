"""The bulk port: blocks of chunks by HTTP and sendfile, and the calls that readers need.

Responsible for: `GET /v1/chunk/{index}`, `POST /v1/call/{service}/{method}` and, for who measures a
link, `GET /v1/transfer/{bytes}`, from requests to replies. It serves what this node owns or holds,
and never proxies.
Not responsible for: HTTP itself (`transport.http`), the decision (`chunks`).
"""

import asyncio
import base64
import functools
import os
import time
from collections.abc import Callable
from functools import partial
from http import HTTPStatus

from penstock import tracing, wire
from penstock.bulk_http import (
    CALL_PATH,
    CHECKSUMS,
    CHUNK_PATH,
    COPIES,
    EPOCH,
    ERROR,
    HOLDER,
    HOLDER_ASKED,
    IF,
    IF_CACHED,
    LOAD,
    ON_BEHALF,
    RECHECK,
    SOURCE,
    SPREAD,
    SUSPECTS,
    TICKET_SCHEME,
    TRACEPARENT,
    TRANSFER_BYTES_MAX,
    TRANSFER_PATH,
    parse_range,
)
from penstock.checksums import checksums_between
from penstock.errors import (
    InvalidRequest,
    NodeUnavailable,
    NotPermitted,
    Overloaded,
    PenstockError,
    Unauthenticated,
)
from penstock_node.chunk import Chunk, Payload
from penstock_node.chunks import ChunkAnswer, ChunkRequest, Chunks
from penstock_node.cluster import Cluster
from penstock_node.guests import Guests
from penstock_node.handover.spreading import Spreading
from penstock_node.metrics import NodeMetrics
from penstock_node.serve.calls import Calls
from penstock_node.serve.traced import traced
from penstock_node.traces import Traces
from penstock_node.transport.http import HttpRequest, reply, reply_with
from penstock_node.transport.reply import FileSpan, Octets, Outcome, Part, Reply

PLANE = "bulk"
FILLING_MAX = 1024
"""Requests that wait for a fill at once; beyond it, readers are asked to come back."""
FILL_S = 60.0
"""Longest that a request waits for a fill."""
RETRY_AFTER_S = 0.1
SUSPECTS_MAX = 16
FILLER_BYTES = 1024 * 1024
NUMBER_DIGITS_MAX = 19


class BulkService:
    """Answers requests of the bulk port, on the engine's workers."""

    def __init__(
        self,
        *,
        chunks: Chunks,
        calls: Calls,
        cluster: Cluster,
        metrics: NodeMetrics,
        spreading: Spreading,
        guests: Guests,
        load: Callable[[], int],
        traces: Traces,
        loop: asyncio.AbstractEventLoop,
        opens_here: bool,
    ) -> None:
        """Put the parts together.

        Args:
            chunks: The decisions.
            calls: Answers what is not a chunk.
            cluster: The epoch.
            metrics: What is counted.
            spreading: Sends readers on who all want the same.
            guests: Told of what is asked for.
            load: How many requests are in hand, told to readers with each answer.
            traces: What requests do that are traced.
            loop: Where fills and calls run.
            opens_here: Whether calls are answered, as on the gRPC port: not where that has TLS.
        """
        self._chunks = chunks
        self._calls = calls
        self._cluster = cluster
        self._metrics = metrics
        self._spreading = spreading
        self._guests = guests
        self._load = load
        self._traces = traces
        self._loop = loop
        self._opens_here = opens_here
        self._waiting = 0
        metrics.waits(PLANE, lambda: self._waiting)

    def __call__(self, request: HttpRequest) -> Outcome:
        """Answer one request; see `transport.http.Handler`."""
        traceparent = request.headers.get(TRACEPARENT, "")
        return traced(self._traces, traceparent, partial(self._answer, request), plane=PLANE)

    def _answer(self, request: HttpRequest) -> Outcome:
        try:
            return self._route(request)
        except PenstockError as error:
            return self._refuse(error)

    def _route(self, request: HttpRequest) -> Outcome:
        path = request.target.partition("?")[0]
        if request.method == "GET" and path.startswith(CHUNK_PATH):
            may_be_sent_on = request.headers.get(SPREAD.lower()) == "1"
            return self._chunk(_chunk_request(request, path), may_be_sent_on=may_be_sent_on)
        if request.method == "GET" and path.startswith(TRANSFER_PATH):
            return self._transfer(request, path)
        if request.method == "POST" and path.startswith(CALL_PATH):
            if "origin" in request.headers:
                raise NotPermitted("a web page may not call a node")
            return self._call("/" + path.removeprefix(CALL_PATH), request)
        text = f"GET {CHUNK_PATH}INDEX and POST {CALL_PATH}SERVICE/METHOD are answered here\n"
        # Whoever asks for a head alone would take a body for the next answer.
        body = b"" if request.method == "HEAD" else text.encode()
        return reply(HTTPStatus.NOT_FOUND, [("Content-Type", "text/plain")], body)

    # Chunks.

    def _chunk(self, request: ChunkRequest, *, may_be_sent_on: bool) -> Outcome:
        begun = time.monotonic()
        chunk = self._chunks.requested(request)
        if may_be_sent_on:
            start, stop = request.span(chunk)
            self._spreading.check(chunk, stop - start)
        answer = self._chunks.at_hand(chunk, recheck=request.recheck)
        if answer is not None:
            return self._send(answer, request, begun)
        self._chunks.check_handed_over(chunk, request)
        return asyncio.run_coroutine_threadsafe(self._filled(chunk, request, begun), self._loop)

    async def _filled(self, chunk: Chunk, request: ChunkRequest, begun: float) -> Reply:
        try:
            return self._send(await self._fill(chunk, request), request, begun)
        except PenstockError as error:
            return self._refuse(error)

    async def _fill(self, chunk: Chunk, request: ChunkRequest) -> ChunkAnswer:
        if self._waiting >= FILLING_MAX:
            raise Overloaded(f"{FILLING_MAX} readers wait for chunks", retry_after_s=RETRY_AFTER_S)
        self._waiting += 1
        try:
            async with asyncio.timeout(FILL_S):
                while (answer := await self._chunks.fill(chunk, request)) is None:
                    pass  # The connection says meanwhile that the chunk is on its way.
            return answer
        except TimeoutError as error:
            raise NodeUnavailable(f"the chunk did not come within {FILL_S:.0f} s") from error
        finally:
            self._waiting -= 1

    def _send(self, answer: ChunkAnswer, request: ChunkRequest, begun: float) -> Reply:
        start, stop = request.span(answer.chunk)
        content = answer.content
        copies = self._spreading.served(answer.chunk, stop - start)
        self._guests.asked(answer.chunk.id)
        if not request.on_behalf:
            self._chunks.was_read(answer.chunk, stop - start)
        self._metrics.served(
            plane=PLANE,
            source=answer.source,
            key=answer.chunk.object.key,
            length=stop - start,
            seconds=time.monotonic() - begun,
        )
        if tracing.current() is not None:
            _tell_trace(answer, start, stop)
        body: Part
        if isinstance(content, Payload):
            body = Octets(content.data[start:stop], holds=content)
        else:
            body = FileSpan(content, start, stop)
        checksums = base64.b64encode(checksums_between(content.checksums, start, stop))
        headers = [
            (CHECKSUMS, checksums.decode()),
            (SOURCE, answer.source),
            (EPOCH, str(self._cluster.epoch)),
            (LOAD, str(self._load())),
            (COPIES, str(copies)),
        ]
        return reply_with(HTTPStatus.PARTIAL_CONTENT, headers, stop - start, [body])

    # Measuring.

    def _transfer(self, request: HttpRequest, path: str) -> Outcome:
        """Send bytes of no chunk: they cost no disk and, but for one buffer, no memory."""
        self._cluster.verify(_ticket(request))
        length = _number(path.removeprefix(TRANSFER_PATH), "how much to send")
        if length > TRANSFER_BYTES_MAX:
            raise InvalidRequest(f"{length} bytes: at most {TRANSFER_BYTES_MAX}")
        whole, rest = divmod(length, len(_filler()))
        parts: list[Part] = [Octets(_filler()) for _ in range(whole)]
        return reply_with(HTTPStatus.OK, [], length, [*parts, Octets(_filler()[:rest])])

    # Calls.

    def _call(self, path: str, request: HttpRequest) -> Outcome:
        if not self._opens_here:
            raise NotPermitted("this node asks for credentials: call its gRPC port")
        return asyncio.run_coroutine_threadsafe(self._called(path, request), self._loop)

    async def _called(self, path: str, request: HttpRequest) -> Reply:
        shown = request.headers.get("authorization", "")
        try:
            called = await self._calls.call(path, request.body, authorization=shown, plane=PLANE)
            return reply(HTTPStatus.OK, body=called)
        except PenstockError as error:
            return self._refuse(error)

    def _refuse(self, error: PenstockError) -> Reply:
        if not (isinstance(error, Overloaded) and error.is_sent_on):
            self._metrics.chunk_read_failures.labels(error=error.name).inc()
        tracing.note_error(tracing.here(), error)
        headers = [(ERROR, error.name), (EPOCH, str(self._cluster.epoch))]
        if isinstance(error, Unauthenticated):
            headers.append(("WWW-Authenticate", "Bearer"))
        if isinstance(error, Overloaded):
            headers.append(("Retry-After", f"{error.retry_after_s:g}"))
            if error.copies:
                headers.append((COPIES, str(error.copies)))
            if error.held_by:
                headers.append((HOLDER, error.held_by))
        body = wire.error_to_proto(error).SerializeToString()
        return reply(error.http_status, headers, body)


def _tell_trace(answer: ChunkAnswer, start: int, stop: int) -> None:
    """Note what is about to be sent, and read it: so the trace tells the disk from the network."""
    here, content = tracing.here(), answer.content
    here.note(url=answer.chunk.object.key, chunk=answer.chunk.index, source=answer.source)
    here.add_bytes(stop - start)
    if isinstance(content, Payload):
        return
    with tracing.span("disk", disk=content.disk.path) as span:
        content.read_through(start, stop)
        span.add_bytes(stop - start)


def _chunk_request(request: HttpRequest, path: str) -> ChunkRequest:
    """Return what is asked for.

    Raises:
        NotPermitted: No ticket is shown.
        InvalidRequest: A header cannot be read.
        InvalidRange: The range cannot.
    """
    headers, ticket = request.headers, _ticket(request)
    start, stop = parse_range(headers.get("range", "bytes=0-"))
    suspects = headers.get(SUSPECTS.lower(), "")
    return ChunkRequest(
        ticket=ticket,
        index=_number(path.removeprefix(CHUNK_PATH), "the chunk's index"),
        start=start,
        stop=stop,
        epoch=_number(headers.get(EPOCH.lower(), "0"), EPOCH),
        only_if_cached=headers.get(IF.lower()) == IF_CACHED,
        suspects=suspects.split(",")[:SUSPECTS_MAX] if suspects else (),
        recheck=headers.get(RECHECK.lower()) == "1",
        on_behalf=headers.get(ON_BEHALF.lower()) == "1",
        goes_to_holder=headers.get(HOLDER.lower()) == HOLDER_ASKED,
    )


def _ticket(request: HttpRequest) -> str:
    ticket = request.headers.get("authorization", "")
    if not ticket.startswith(TICKET_SCHEME):
        raise NotPermitted(f"show a ticket: Authorization: {TICKET_SCHEME}TICKET; `Open` gives one")
    return ticket.removeprefix(TICKET_SCHEME)


@functools.cache
def _filler() -> memoryview:
    """Return bytes that no link on the way can make fewer of."""
    return memoryview(os.urandom(FILLER_BYTES))


def _number(text: str, what: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= NUMBER_DIGITS_MAX):
        raise InvalidRequest(f"{what} is {text[:40]!r}: want a number")
    return int(text)

"""What comes over sockets: HTTP both ways, the host plane both ways, tickets and tokens."""

import base64
import contextlib
import re
import socket
import struct
from collections.abc import Coroutine, Iterator
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any, cast

from penstock import tracing
from penstock.bulk_calls import error_of
from penstock.bulk_connection import BulkConnection, Head, parse_head
from penstock.bulk_http import LOAD, format_range, parse_range
from penstock.deadline import Deadline
from penstock.errors import (
    InvalidRange,
    InvalidRequest,
    NodeUnavailable,
    NotPermitted,
    PenstockError,
    Unauthenticated,
)
from penstock.host_connection import Answer, HostConnection
from penstock.host_frames import HEAD_BYTES, frame
from penstock.objects import ObjectId
from penstock.planes.bulk import _checksums
from penstock.ticket import Ticket, TicketKey, TicketKeys, _encode, _text_of, parse
from penstock.v1 import cache_pb2, host_pb2
from penstock_node.access.callers import Callers
from penstock_node.access.grants import Grant
from penstock_node.access.node_tokens import NodeTokens
from penstock_node.serve.bulk import _chunk_request
from penstock_node.serve.host import HostService, HostSession
from penstock_node.serve.own_names import OwnNames
from penstock_node.traces import Traces
from penstock_node.transport.http import BadRequest, HttpRequest, HttpSession, reply
from penstock_node.transport.http import parse_head as parse_request_head
from penstock_node.transport.reply import Reply
from tests.fuzz.target import Target

OBJECT = ObjectId("s3://bucket/key", '"etag"', size=200_000, chunk_size=65_536)
TICKET = Ticket("ab" * 16, "models", OBJECT, 2_000_000_000)
TOKEN = _text_of(_encode(TICKET, "k1") + bytes(32))

# HTTP requests, as a stream that comes in parts.

_OK = HTTPStatus.OK
_HEAD_END = b"\r\n\r\n"
_SPLITS = struct.Struct("<HH")
"""Before the stream: where it is cut for a second look at it."""
STREAMS = [
    b"GET /v1/chunk/3 HTTP/1.1\r\nHost: n:7401\r\nRange: bytes=0-65535\r\n\r\n",
    b"POST /v1/call/a.B/C HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.0\r\n\r\n",
    b"HEAD /b/k?x=y HTTP/1.1\r\nHost: h\r\nConnection: close\r\nX: 1\r\nX: 2\r\n\r\n",
    b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"GET / HTTP/1.1\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
]
HTTP_WORDS = [
    *(b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\n\n", b": ", b" ", b"\t", b"\0", b",", b";", b"%2F"),
    *(b"GET ", b"POST ", b"HEAD ", b"CONNECT ", b"PRI * HTTP/2.0\r\n", b" HTTP/1.1", b" HTTP/1.0"),
    *(b"Content-Length: ", b"Transfer-Encoding: chunked", b"Connection: keep-alive", b"Host: "),
    *(b"Connection: close", b"Upgrade: ", b"Expect: 100-continue", b"Range: bytes=", b"Cookie: "),
    *(b"Authorization: Penstock ", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 102 Processing\r\n\r\n"),
]


def _answers(parts: list[bytes]) -> list[Any]:
    """Return what a session makes of a stream: requests, and at last perhaps a refusal."""
    told: list[Any] = []

    def take(request: HttpRequest) -> Reply:
        told.append(request)
        return reply(_OK)

    session = HttpSession(take)
    inbox = bytearray()
    for part in parts:
        inbox += part
        while (answer := session.step(inbox)) is not None:
            assert isinstance(answer, Reply)
            if answer.ends:
                return [*told, answer.ends]
            if session.is_last:
                return told
    return [*told, bytes(inbox)]


def _stream(data: bytes) -> list[Any]:
    return _answers([data[_SPLITS.size :]])


def _is_same_in_parts(data: bytes, whole: list[Any]) -> None:
    stream = data[_SPLITS.size :]
    cuts = _SPLITS.unpack(data[: _SPLITS.size].ljust(_SPLITS.size))
    first, second = sorted(at % (len(stream) + 1) for at in cuts)
    assert _answers([stream[:first], stream[first:second], stream[second:]]) == whole


_NAME = re.compile(rb"([^:\s]+)\s*:")


def _is_as_its_lines_say(head: bytes, request: HttpRequest) -> None:
    """No head is understood otherwise than by its lines: nothing is smuggled in."""
    # Empty lines before it are passed over, as RFC 9112 2.2 has it.
    first, *lines = head.lstrip(b"\r\n").split(b"\r\n")[:-2]
    words = first.split()
    assert words[:2] == [request.method.encode(), request.target.encode("latin-1")]
    names = [found[1] for line in lines if (found := _NAME.match(line))]
    assert {name.decode("latin-1").lower() for name in names} == set(request.headers)
    assert not any(c in value for value in request.headers.values() for c in "\r\n\0")


# What the bulk port makes of a request.


def _bulk_request(data: bytes) -> Any:
    lines = data.decode("latin-1").split("\n")
    index, *headers = lines
    pairs = (line.partition(": ") for line in headers)
    request = HttpRequest("GET", f"/v1/chunk/{index}", {name: value for name, _, value in pairs})
    return _chunk_request(request, request.target)


def _is_bounded(_data: bytes, request: Any) -> None:
    assert request.index >= 0
    assert request.epoch >= 0
    assert 0 <= request.start <= 10**10
    assert request.stop is None or request.stop <= 10**10
    assert len(request.suspects) <= 16


# What a node's bulk port answers.


def _bulk_answer(data: bytes) -> tuple[Head, bytes]:
    head, end, body = data.partition(b"\r\n\r\n")
    found = parse_head(head + end)
    assert 0 <= found.number(LOAD) < 10**19
    with contextlib.suppress(NodeUnavailable):
        _checksums(found)
    length = found.length
    assert length >= 0
    return found, body


def _tells_an_error(_data: bytes, answer: tuple[Head, bytes]) -> None:
    head, body = answer
    connection = cast("BulkConnection", SimpleNamespace(address="host:1"))
    assert isinstance(error_of(head, body, connection), PenstockError)


# The host plane.

HELLO = host_pb2.HostRequest(hello=host_pb2.HostHello(token="t"))
READ = host_pb2.HostRequest(read=host_pb2.HostRead(ticket=TOKEN, indexes=[0, 1], lengths=[5, 6]))
DONE = host_pb2.HostRequest(done=host_pb2.HostDone())
CALL = host_pb2.HostRequest(call=host_pb2.HostCall(method="/a/B", request=b"x"))
CHUNKS = host_pb2.HostResponse(
    chunks=host_pb2.HostChunks(
        chunks=[host_pb2.HostChunk(index=1, filling=host_pb2.HostFilling())], epoch=3
    )
)
FAILED = host_pb2.HostResponse(error=cache_pb2.Error(name="NotOwner", message="x", epoch=7))
WORKING = host_pb2.HostResponse(working=host_pb2.HostWorking())
_ANSWER_S = 5.0


@contextlib.contextmanager
def _connection(sent: list[bytes]) -> Iterator[HostConnection]:
    """A connection that has greeted, to a node that has sent all that it will ever send."""
    ours, theirs = socket.socketpair()
    connection = HostConnection.__new__(HostConnection)
    connection.address, connection.is_reused = "/socket", False
    connection._ahead, connection._next = b"", Answer(host_pb2.HostResponse())
    connection._socket = ours
    try:
        for part in sent:
            theirs.sendall(part)
        theirs.close()
        yield connection
    finally:
        connection.close()


def _host_answer(data: bytes) -> list[host_pb2.HostResponse]:
    with _connection([data]) as connection:
        deadline, told = Deadline.after(_ANSWER_S), []
        while True:
            try:
                with connection.receive(deadline) as answer:
                    told.append(answer.message)
            except NodeUnavailable:
                if not told:
                    raise
                return told


def _is_framed_again(data: bytes, told: list[host_pb2.HostResponse]) -> None:
    sizes = sum(HEAD_BYTES + message.ByteSize() for message in told)
    assert len(told) <= len(data) // HEAD_BYTES
    assert sizes >= HEAD_BYTES * len(told)


class _Session(HostSession):
    """A session in which nothing takes time: what would be waited for is refused."""

    def _later(self, answering: Coroutine[Any, Any, Reply]) -> Reply:
        answering.close()
        return Reply()


class _NoTickets:
    """No ticket is genuine."""

    def verify(self, token: str) -> Ticket:
        raise NotPermitted(f"{len(token)} characters")


def _host_replies(parts: list[bytes]) -> list[Any]:
    """Return what a node answers to a stream on its socket: whether each ends the connection."""
    view = SimpleNamespace(placement=SimpleNamespace(cluster_uid="ab" * 16))
    service = SimpleNamespace(
        gate=None,
        traces=Traces("n1"),
        cluster=SimpleNamespace(node_id="n1", view=view),
        gives_to_all=False,
        keeps_copies=False,
        held=0,
        hold=lambda count: None,
        tickets=_NoTickets(),
    )
    session = _Session(cast("HostService", service), sees_our_files=True)
    inbox, told = bytearray(), []
    for part in parts:
        inbox += part
        while (answer := session.step(inbox)) is not None:
            assert isinstance(answer, Reply)
            told.append(answer.ends)
            if answer.ends:
                return told
    return [*told, bytes(inbox)]


def _replies_alike_in_parts(data: bytes, whole: list[Any]) -> None:
    stream = data[_SPLITS.size :]
    cuts = _SPLITS.unpack(data[: _SPLITS.size].ljust(_SPLITS.size))
    first, second = sorted(at % (len(stream) + 1) for at in cuts)
    assert _host_replies([stream[:first], stream[first:second], stream[second:]]) == whole


# Tickets.


def _is_written_again(data: bytes, found: tuple[Ticket, str, bytes, bytes]) -> None:
    ticket, key_id, payload, mac = found
    assert _encode(ticket, key_id) == payload
    assert _text_of(payload + mac).encode() == data


def _mended_ticket(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _is_formatted_again(_data: bytes, found: tuple[int, int | None]) -> None:
    start, stop = found
    if stop is not None and stop > start:
        assert parse_range(format_range(start, stop)) == found


def _is_its_own(_data: bytes, found: tracing.Traceparent | None) -> None:
    assert found is None or tracing.parse_traceparent(str(found)) == found


# Who asks, and by which name.

_NOW = 2_000_000_000.0
_NODE_TOKENS = NodeTokens(
    "node-1", keys=lambda: TicketKeys([TicketKey("k1", bytes(32), 0.0)]), clock=lambda: _NOW
)
_CALLERS = Callers(tokens=None, nodes=_NODE_TOKENS, clock=lambda: _NOW)
_AUTHORIZATION = _NODE_TOKENS.authorization().encode()
_OWN_NAMES = OwnNames(["gpu-17"], domain="s3.internal")


def _shows_a_genuine_token(data: bytes, grant: Grant | None) -> None:
    if grant is None:
        return
    # Whoever has no key finds no other than was made, in whichever way it is shown.
    shown = data.partition(b" ")[2].strip(b" \t")
    if data[:5].lower() == b"basic":
        shown = base64.b64decode(shown).partition(b":")[2]
    assert shown == _AUTHORIZATION.partition(b" ")[2]


def _names_of_a_request(data: bytes) -> tuple[str, str]:
    host, _, origin = data.decode("latin-1").partition("\n")
    _OWN_NAMES.check(host)
    _OWN_NAMES.check_origin(origin, host=host)
    return host, origin


TARGETS = (
    Target(
        "http-stream",
        "penstock_node.transport.http",
        _stream,
        holds=_is_same_in_parts,
        seeds=[_SPLITS.pack(20, 40) + stream for stream in STREAMS],
        words=HTTP_WORDS,
    ),
    Target(
        "http-heads",
        "penstock_node.transport.http",
        lambda data: parse_request_head(data.partition(_HEAD_END)[0] + _HEAD_END),
        (BadRequest,),
        lambda data, found: _is_as_its_lines_say(data.partition(_HEAD_END)[0] + _HEAD_END, found),
        seeds=[stream.partition(_HEAD_END)[0] for stream in STREAMS[:3]],
        words=HTTP_WORDS,
        large_bytes=32 * 1024,
    ),
    Target(
        "bulk-requests",
        "penstock_node.serve.bulk penstock.bulk_http",
        _bulk_request,
        (InvalidRequest, NotPermitted),
        _is_bounded,
        seeds=[
            b"3\nauthorization: Penstock " + TOKEN.encode() + b"\nrange: bytes=0-65535",
            b"0\nauthorization: Penstock x\npenstock-epoch: 4\npenstock-suspects: a,b,c",
        ],
        words=[b"range: bytes=", b"penstock-if: cached", b"penstock-recheck: 1", b"99999999999"],
    ),
    Target(
        "bulk-ranges",
        "penstock.bulk_http",
        lambda data: parse_range(data.decode("latin-1")),
        (InvalidRange,),
        _is_formatted_again,
        seeds=[b"bytes=0-65535", b"bytes=65536-"],
        words=[b"bytes=", b"-", b","],
        bytes_max=64,
    ),
    Target(
        "bulk-answers",
        "penstock.bulk_connection penstock.planes.bulk penstock.bulk_calls penstock.wire",
        _bulk_answer,
        (NodeUnavailable,),
        _tells_an_error,
        seeds=[
            b"HTTP/1.1 206 Partial Content\r\nPenstock-Checksums: AAAAAAAAAAA=\r\n"
            b"Penstock-Load: 3\r\nContent-Length: 5\r\n\r\nhello",
            b"HTTP/1.1 421 Misdirected Request\r\nPenstock-Error: NotOwner\r\n"
            b"Content-Length: 20\r\n\r\n"
            + cache_pb2.Error(name="NotOwner", message="m", epoch=4).SerializeToString(),
        ],
        words=[*HTTP_WORDS, b"Content-Length: ", b"0" * 5000, b"Penstock-Error: Overloaded\r\n"],
    ),
    Target(
        "host-requests",
        "penstock_node.serve.host penstock.host_frames",
        lambda data: _host_replies([data[_SPLITS.size :]]),
        holds=_replies_alike_in_parts,
        seeds=[
            _SPLITS.pack(5, 9) + frame(HELLO) + frame(READ),
            _SPLITS.pack(1, 9) + frame(HELLO) + frame(CALL) + frame(DONE),
        ],
    ),
    Target(
        "host-answers",
        "penstock.host_connection penstock.host_frames penstock.wire",
        _host_answer,
        (PenstockError,),
        _is_framed_again,
        seeds=[
            frame(CHUNKS),
            frame(WORKING) + frame(CHUNKS),
            frame(CHUNKS) + frame(FAILED),
            frame(CHUNKS) + frame(CHUNKS),
        ],
    ),
    Target(
        "tickets",
        "penstock.ticket penstock.objects",
        lambda data: parse(data.decode("latin-1")),
        (NotPermitted,),
        _is_written_again,
        seeds=[TOKEN.encode()],
    ),
    Target(
        "ticket-payloads",
        "penstock.ticket penstock.objects",
        lambda data: parse(_mended_ticket(data).decode()),
        (NotPermitted,),
        lambda data, found: _is_written_again(_mended_ticket(data), found),
        seeds=[_encode(TICKET, "k1") + bytes(32)],
    ),
    Target(
        "traceparents",
        "penstock.tracing",
        lambda data: tracing.parse_traceparent(data.decode("latin-1")),
        holds=_is_its_own,
        seeds=[b"00-" + b"1a" * 16 + b"-" + b"2b" * 8 + b"-01", b"cc-" + b"1a" * 16],
        words=[b"00-", b"ff-", b"-01", b" "],
        bytes_max=256,
    ),
    Target(
        "authorizations",
        "penstock_node.access.callers penstock_node.access.node_tokens",
        lambda data: _CALLERS.known_here(data.decode("latin-1")),
        (Unauthenticated, NodeUnavailable),
        _shows_a_genuine_token,
        seeds=[_AUTHORIZATION, b"Basic " + base64.b64encode(b"me:" + _AUTHORIZATION[7:])],
        words=[b"Bearer ", b"Basic ", b"penstock-node.", b".", b"2000000900", b"k1", b":"],
    ),
    Target(
        "own-names",
        "penstock_node.serve.own_names",
        _names_of_a_request,
        (NotPermitted,),
        seeds=[b"127.0.0.1:7402\n", b"[::1]:7402\nhttp://[::1]:7402", b"a.s3.internal\nnull"],
        words=[b"http://", b"https://", b"[", b"]", b":", b"@", b".", b"localhost", b"gpu-17"],
        bytes_max=512,
    ),
)

"""The bulk port as HTTP sees it: statuses, headers, and what is no request."""

import base64
import http.client
import random
import resource
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from http import HTTPStatus
from pathlib import Path
from typing import Any

import grpc
import pytest

import penstock
from penstock import errors, rpc
from penstock.checksums import BLOCK_BYTES, verify_blocks
from penstock.rpc import Channels
from penstock.v1 import cache_pb2, cache_pb2_grpc
from penstock_node.fill import FLIGHTS_MAX
from penstock_node.testbed.certificates import Authority
from penstock_node.testbed.cluster import LocalCluster, NodeProcess, NodeSpec, TierSpec
from penstock_node.testbed.odd_origin import OddObject, OddOrigin
from penstock_node.testbed.processes import wait_until
from penstock_node.testbed.wire import Wire, call_request, chunk_request, open_chunk_files
from penstock_node.transport.engine import WORKERS

CHUNK_BYTES = 1024 * 1024
OBJECT = random.Random(1).randbytes(4 * CHUNK_BYTES + 777)
URL = "penstock://data/object"


@pytest.fixture(scope="module")
def odd() -> Iterator[OddOrigin]:
    with OddOrigin() as server:
        yield server


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, odd: OddOrigin) -> Iterator[NodeProcess]:
    directory = tmp_path_factory.mktemp("bulk")
    origin = directory / "origin"
    origin.mkdir()
    (origin / "object").write_bytes(OBJECT)
    with LocalCluster(
        directory,
        [
            NodeSpec(
                "node",
                (TierSpec("owned", 256 * CHUNK_BYTES),),
                config={"allow_file_roots": [str(origin)]},
            )
        ],
        etcd=None,
        settings={"chunk_size": CHUNK_BYTES},
        volumes={
            "data": {"url": f"file://{origin}/"},
            "odd": {"url": odd.url, "options": {"allow_http": True}},
        },
    ) as cluster:
        yield cluster["node"]


@pytest.fixture
def client(node: NodeProcess) -> Iterator[Wire]:
    with Wire(node.file.bulk_address) as made:
        yield made


@pytest.fixture(scope="module", autouse=True)
def slow_request(node: NodeProcess) -> Iterator["Future[bool]"]:
    """Slow-loris, meanwhile: whether a node ends a request that comes a header now and then."""
    with Wire(node.file.bulk_address) as wire, ThreadPoolExecutor(1) as threads:
        yield threads.submit(outlast, wire)


def outlast(wire: Wire) -> bool:
    wire.socket.settimeout(0.5)
    wire.send(b"GET / HTTP/1.1\r\n")
    for _ in range(80):
        try:
            wire.send(b"A: b\r\n")
            return wire.ends()
        except TimeoutError:
            continue
        except ConnectionError:
            return True
    return False


def ticket(node: NodeProcess, url: str = URL) -> str:
    channels = Channels()
    answer = channels.call(node.address, rpc.OPEN, cache_pb2.OpenRequest(urls=[url]))
    channels.close()
    return answer.results[0].object.ticket


def serves(node: NodeProcess) -> bool:
    with penstock.connect(node.address, plane="bulk") as cache:
        return cache.read(URL) == OBJECT


def test_blocks_come_with_checksums_and_where_they_were(node: NodeProcess, client: Wire) -> None:
    span = f"Range: bytes={BLOCK_BYTES}-{3 * BLOCK_BYTES - 1}"

    answer = client.ask(chunk_request(1, ticket(node), span))

    start = CHUNK_BYTES + BLOCK_BYTES
    assert answer.status == HTTPStatus.PARTIAL_CONTENT
    assert answer.body == OBJECT[start : start + 2 * BLOCK_BYTES]
    verify_blocks(answer.body, base64.b64decode(answer.headers["penstock-checksums"]))
    assert answer.headers["penstock-source"] in ("origin", "disk")
    assert int(answer.headers["penstock-epoch"]) >= 1
    assert {"penstock-load", "penstock-copies"} <= answer.headers.keys()


def test_without_a_range_the_whole_chunk_comes(node: NodeProcess, client: Wire) -> None:
    assert client.ask(chunk_request(4, ticket(node))).body == OBJECT[4 * CHUNK_BYTES :]


def test_requests_sent_without_waiting_are_answered_in_order(
    node: NodeProcess, client: Wire
) -> None:
    shown = ticket(node)
    client.send(b"".join(chunk_request(index, shown) for index in (3, 0, 2, 1)))

    bodies = [client.answer().body for _ in range(4)]

    assert bodies == [OBJECT[i * CHUNK_BYTES : (i + 1) * CHUNK_BYTES] for i in (3, 0, 2, 1)]


def test_while_it_fills_the_node_says_so(node: NodeProcess, client: Wire, odd: OddOrigin) -> None:
    held = threading.Event()
    odd.put("slow", OddObject(OBJECT, etag='"1"', held_until=held))
    client.send(chunk_request(0, ticket(node, "penstock://odd/slow")))

    said = [client.interim() for _ in range(3)]
    held.set()
    answer = client.answer()

    assert said == [HTTPStatus.PROCESSING] * 3
    assert answer.status == HTTPStatus.PARTIAL_CONTENT
    assert answer.headers["penstock-source"] == "origin"


def test_readers_that_are_gone_before_their_chunk_comes_leave_nothing_open(
    node: NodeProcess, odd: OddOrigin
) -> None:
    held = threading.Event()
    odd.put("late", OddObject(OBJECT, etag='"1"', held_until=held))
    shown = ticket(node, "penstock://odd/late")
    with ExitStack() as leaving:
        gone = [leaving.enter_context(Wire(node.file.bulk_address)) for _ in range(20)]
        for wire in gone:
            wire.send(chunk_request(0, shown) * 3)
        assert {wire.interim() for wire in gone} == {HTTPStatus.PROCESSING}

    held.set()

    with Wire(node.file.bulk_address) as patient:
        assert patient.ask(chunk_request(0, shown)).body == OBJECT[:CHUNK_BYTES]
    wait_until(lambda: not open_chunk_files(node), deadline_s=20, what="all is closed")


def test_an_ordinary_http_client_reads_a_chunk(node: NodeProcess) -> None:
    assert serves(node)
    shown = {"Authorization": f"Penstock {ticket(node)}", "Range": "bytes=65536-131071"}
    with closing(http.client.HTTPConnection(node.file.bulk_address, timeout=20)) as connection:
        for _ in range(2):  # On one connection.
            connection.request("GET", "/v1/chunk/2", headers=shown)
            answer = connection.getresponse()

            assert answer.status == HTTPStatus.PARTIAL_CONTENT
            assert answer.read() == OBJECT[2 * CHUNK_BYTES + 65_536 : 2 * CHUNK_BYTES + 131_072]


@pytest.mark.parametrize(
    ("span", "status"),
    [
        ("bytes=0-65535", HTTPStatus.PARTIAL_CONTENT),
        ("bytes=1-65535", HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE),
        ("bytes=0-65536", HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE),
        ("bytes=65536-65535", HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE),
        ("bytes=1048576-1114111", HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE),
        ("bytes=0-99999999999999999999", HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE),
        ("bytes=-65536", HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE),
        ("bytes=0-65535,131072-196607", HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE),
        ("bytes=0-65535,0-65535", HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE),
        ("chunks=0-1", HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE),
        ("bytes=\u0660-65535", HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE),
    ],
)
def test_a_range_is_whole_blocks_or_416(
    node: NodeProcess, client: Wire, span: str, status: HTTPStatus
) -> None:
    sent = chunk_request(0, ticket(node), "Range: \0").replace(b"\0", span.encode())

    answer = client.ask(sent)

    assert answer.status == status
    assert answer.error == ("" if status == HTTPStatus.PARTIAL_CONTENT else "InvalidRange")


@pytest.mark.parametrize("index", ["5", "-1", "1e3", "99999999999999999999", "", "0/../1", "x"])
def test_a_chunk_that_is_not_there_is_refused(node: NodeProcess, client: Wire, index: str) -> None:
    answer = client.ask(chunk_request(index, ticket(node)))

    assert (answer.status, answer.error) == (HTTPStatus.BAD_REQUEST, "InvalidRequest")


def test_no_ticket_no_bytes(node: NodeProcess, client: Wire) -> None:
    client.send(b"GET /v1/chunk/0 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert client.answer().status == HTTPStatus.FORBIDDEN

    client.send(chunk_request(0, "nonsense"))
    assert client.answer().error == "NotPermitted"


def test_what_is_not_cached_is_404_to_who_asks_only_for_that(
    node: NodeProcess, client: Wire, odd: OddOrigin
) -> None:
    odd.put("never", OddObject(OBJECT, etag='"1"'))
    shown = ticket(node, "penstock://odd/never")

    answer = client.ask(chunk_request(0, shown, "Penstock-If: cached"))

    assert (answer.status, answer.error) == (HTTPStatus.NOT_FOUND, "NotCached")


def test_an_origin_that_fails_is_502_and_one_that_changed_409(
    node: NodeProcess, client: Wire, odd: OddOrigin
) -> None:
    odd.put("broken", OddObject(OBJECT, etag='"1"'))
    odd.put("changed", OddObject(OBJECT, etag='"1"'))
    broken, changed = (ticket(node, f"penstock://odd/{name}") for name in ("broken", "changed"))
    odd.put("broken", OddObject(OBJECT, etag='"1"', status=503))
    odd.put("changed", OddObject(OBJECT[::-1], etag='"2"'))

    answers = [client.ask(chunk_request(0, shown)) for shown in (broken, changed)]

    assert [answer.status for answer in answers] == [502, 409]
    assert [answer.error for answer in answers] == ["OriginUnavailable", "ObjectChanged"]


def test_calls_are_answered_as_by_grpc(node: NodeProcess, client: Wire) -> None:
    message = cache_pb2.OpenRequest(urls=[URL, "penstock://data/absent"])

    answer = client.ask(call_request("penstock.v1.Cache/Open", message.SerializeToString()))

    opened, absent = cache_pb2.OpenResponse.FromString(answer.body).results
    assert answer.status == HTTPStatus.OK
    assert opened.object.size == len(OBJECT)
    assert absent.error.name == "ObjectNotFound"


@pytest.mark.parametrize("method", [rpc.LIST, rpc.GET_PLACEMENT], ids=["List", "Get"])
def test_other_calls_of_readers_are_answered_as_by_grpc_too(
    node: NodeProcess, client: Wire, method: rpc.Method[Any, Any]
) -> None:
    fields = {"url": "penstock://data/", "page_size": 10} if method is rpc.LIST else {}
    message = method.request(**fields)

    answer = client.ask(call_request(method.path[1:], message.SerializeToString()))

    with closing(Channels()) as channels:
        expected = channels.call(node.address, method, message)
    assert answer.status == HTTPStatus.OK
    assert method.response.FromString(answer.body) == expected
    assert expected.ByteSize() > 0


def test_a_ticket_is_renewed_and_a_forged_one_not(node: NodeProcess, client: Wire) -> None:
    shown = ticket(node)
    good, forged = (
        call_request(
            "penstock.v1.Cache/Renew", cache_pb2.RenewRequest(ticket=t).SerializeToString()
        )
        for t in (shown, "forged")
    )

    renewed = cache_pb2.RenewResponse.FromString(client.ask(good).body)
    refused = client.ask(forged)

    assert client.ask(chunk_request(4, renewed.ticket)).body == OBJECT[4 * CHUNK_BYTES :]
    assert (refused.status, refused.error) == (HTTPStatus.FORBIDDEN, "NotPermitted")


def test_a_call_that_is_no_message_is_refused(client: Wire) -> None:
    answer = client.ask(call_request("penstock.v1.Cache/Open", b"\xff" * 100))

    assert (answer.status, answer.error) == (HTTPStatus.BAD_REQUEST, "InvalidRequest")


@pytest.mark.parametrize("path", ["penstock.v1.Operator/Evict", "x", "../chunk/0"])
def test_other_calls_are_refused(client: Wire, path: str) -> None:
    client.send(f"POST /v1/call/{path} HTTP/1.1\r\nContent-Length: 0\r\n\r\n".encode())

    assert client.answer().error == "InvalidRequest"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\0\0\0\0\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 505),
        (b"GET / HTTP/3.0\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", 413),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nAuthorization: a\r\nauthorization: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nRange: bytes=0-1\r\nRange: bytes=0-2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
        (b"GET / HTTP/1.1\r\nA: " + b"x" * 40_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 100 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 10_000, 431),
    ],
)
def test_what_is_no_request_is_refused_and_its_connection_ends(
    node: NodeProcess, client: Wire, sent: bytes, status: int
) -> None:
    answer = client.ask(sent)

    assert answer.status == status
    assert client.ends()


def test_junk_behind_a_request_costs_that_request_nothing(node: NodeProcess, client: Wire) -> None:
    client.send(chunk_request(4, ticket(node)) + b"\x16\x03\x01 junk\r\n\r\n" * 50)

    answers = client.answer(), client.answer()

    assert answers[0].body == OBJECT[4 * CHUNK_BYTES :]
    assert answers[1].status == HTTPStatus.BAD_REQUEST
    assert client.ends()


@pytest.mark.parametrize("line", ["GET /", "DELETE /v1/chunk/0", "PUT /v1/call/x", "OPTIONS *"])
def test_unknown_places_are_404_and_the_connection_goes_on(
    node: NodeProcess, client: Wire, line: str
) -> None:
    answer = client.ask(f"{line} HTTP/1.1\r\n\r\n".encode())

    assert answer.status == HTTPStatus.NOT_FOUND
    assert client.ask(chunk_request(4, ticket(node))).body == OBJECT[4 * CHUNK_BYTES :]


def test_an_answer_to_head_has_no_body(node: NodeProcess, client: Wire) -> None:
    client.send(b"HEAD /v1/chunk/0 HTTP/1.1\r\n\r\n" + chunk_request(4, ticket(node)))
    with client.socket.makefile("rb") as lines:
        head = list(iter(lines.readline, b"\r\n"))

        assert head[0].startswith(b"HTTP/1.1 404 ")
        assert lines.readline().startswith(b"HTTP/1.1 206 ")


def test_a_connection_that_was_asked_to_close_does(node: NodeProcess, client: Wire) -> None:
    answer = client.ask(chunk_request(0, ticket(node), "Connection: close"))

    assert answer.body == OBJECT[:CHUNK_BYTES]
    assert client.ends()


def test_readers_that_stop_reading_hold_nobody_up(node: NodeProcess) -> None:
    assert serves(node)
    shown = ticket(node)
    stuck = [Wire(node.file.bulk_address) for _ in range(4 * WORKERS)]
    for client in stuck:
        client.send(b"".join(chunk_request(index % 4, shown) for index in range(16)))

    assert all(serves(node) for _ in range(3))

    for client in stuck:
        client.socket.close()
    wait_until(lambda: not open_chunk_files(node), deadline_s=20, what="all chunk files are closed")


def test_ten_thousand_connections_at_once_are_survived(node: NodeProcess) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(10_000, hard - 1_000)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    host, _, port = node.file.bulk_address.rpartition(":")
    clients: list[socket.socket] = []
    try:
        while len(clients) < count:
            clients.append(socket.create_connection((host, int(port)), timeout=20))
        assert serves(node)
    finally:
        for sock in clients:
            sock.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert serves(node)


def test_a_node_that_was_frozen_goes_on(node: NodeProcess, client: Wire) -> None:
    shown = ticket(node)
    node.process.signal(signal.SIGSTOP)
    client.send(chunk_request(0, shown))
    node.process.signal(signal.SIGCONT)

    assert client.answer().body == OBJECT[:CHUNK_BYTES]


def test_a_node_that_wants_certificates_opens_nothing_here_and_still_serves_tickets(
    tmp_path: Path,
) -> None:
    origin = tmp_path / "origin"
    origin.mkdir()
    (origin / "object").write_bytes(OBJECT)
    authority = Authority(tmp_path)
    authority.create()
    cert, key = authority.issue("node")
    tls = {"cert": str(cert), "key": str(key), "ca": str(authority.ca)}
    trusted = penstock.Tls(authority.ca, *authority.issue("client"))
    cluster = LocalCluster(
        tmp_path / "cluster",
        [NodeSpec("node", config={"allow_file_roots": [str(origin)], "tls": tls})],
        etcd=None,
        settings={"chunk_size": CHUNK_BYTES},
        volumes={"data": {"url": f"file://{origin}/"}},
    )
    with cluster["node"] as node:
        for method in ("Cache/Open", "Cache/Renew", "Cache/List", "Placements/Get", "x"):
            with Wire(node.file.bulk_address) as client:
                answer = client.ask(call_request(f"penstock.v1.{method}", b""))
            assert (answer.status, answer.error) == (HTTPStatus.FORBIDDEN, "NotPermitted")

        with penstock.connect(node.address, tls=trusted, plane="bulk") as cache:
            assert cache.read(URL) == OBJECT
            assert set(cache.stats()["plane"]) == {"bulk"}


@pytest.fixture
def busy(tmp_path: Path, odd: OddOrigin) -> Iterator[NodeProcess]:
    """A node that has as many chunks on their way as it takes, of an object with more."""
    gate = threading.Event()
    odd.put("held", OddObject(bytes((FLIGHTS_MAX + 1) * BLOCK_BYTES), etag='"1"', held_until=gate))
    cluster = LocalCluster(
        tmp_path,
        [NodeSpec("node")],
        etcd=None,
        settings={"chunk_size": BLOCK_BYTES},
        volumes={"odd": {"url": odd.url}},
    )
    with cluster:
        begin_fills(cluster["node"])
        yield cluster["node"]
        cluster["node"].kill()  # Else it would wait for what never comes.
    gate.set()


def begin_fills(node: NodeProcess) -> None:
    shown = ticket(node, "penstock://odd/held")
    with grpc.insecure_channel(node.address) as channel:
        get = cache_pb2_grpc.ChunksStub(channel).Get
        for first in (0, FLIGHTS_MAX // 2):  # Fewer than it takes at once.
            calls = [
                get.future(cache_pb2.GetChunkRequest(ticket=shown, index=i, stop=BLOCK_BYTES))
                for i in range(first, first + FLIGHTS_MAX // 2)
            ]
            assert all(call.result(timeout=20).filling for call in calls)


def test_a_node_with_too_much_to_do_asks_to_come_back_on_every_plane(busy: NodeProcess) -> None:
    shown = ticket(busy, "penstock://odd/held")
    request = cache_pb2.GetChunkRequest(ticket=shown, index=FLIGHTS_MAX, stop=BLOCK_BYTES)

    with Wire(busy.file.bulk_address) as client:
        answer = client.ask(chunk_request(FLIGHTS_MAX, shown))
    with closing(Channels()) as channels, pytest.raises(errors.Overloaded) as raised:
        channels.call(busy.address, rpc.GET_CHUNK, request)

    assert (answer.status, answer.error) == (HTTPStatus.SERVICE_UNAVAILABLE, "Overloaded")
    assert float(answer.headers["retry-after"]) > 0
    assert raised.value.retry_after_s > 0


def test_a_request_that_never_ends_is_ended(
    node: NodeProcess, slow_request: "Future[bool]"
) -> None:
    assert slow_request.result(40)
    assert serves(node)

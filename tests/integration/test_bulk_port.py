"""The bulk port as HTTP sees it: statuses, headers, and what is no request."""

import base64
import random
import resource
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import pytest

import penstock
from penstock import rpc
from penstock.bulk_connection import parse_head
from penstock.checksums import BLOCK_BYTES, verify_blocks
from penstock.rpc import Channels
from penstock.v1 import cache_pb2
from penstock_node.testbed.certificates import Authority
from penstock_node.testbed.cluster import LocalCluster, NodeProcess, NodeSpec, TierSpec
from penstock_node.testbed.odd_origin import OddObject, OddOrigin
from penstock_node.testbed.processes import wait_until
from penstock_node.transport.engine import WORKERS

CHUNK_BYTES = 1024 * 1024
OBJECT = random.Random(1).randbytes(4 * CHUNK_BYTES + 777)
URL = "penstock://data/object"


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    interims: int = 0

    @property
    def error(self) -> str:
        return self.headers.get("penstock-error", "")


class Client:
    """A plain HTTP client on one connection."""

    def __init__(self, node: NodeProcess) -> None:
        host, _, port = node.file.bulk_address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=20)
        self._data = b""

    def send(self, data: bytes) -> "Client":
        self.socket.sendall(data)
        return self

    def _more(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise EOFError
        self._data += data

    def receive(self) -> Answer:
        """Return the next answer, interim ones counted."""
        interims = 0
        while True:
            while b"\r\n\r\n" not in self._data:
                self._more()
            raw, _, self._data = self._data.partition(b"\r\n\r\n")
            head = parse_head(raw + b"\r\n\r\n")
            if head.status != HTTPStatus.PROCESSING:
                break
            interims += 1
        while len(self._data) < head.length:
            self._more()
        body, self._data = self._data[: head.length], self._data[head.length :]
        return Answer(head.status, head.headers, body, interims)

    def is_closed(self) -> bool:
        """Whether the node has closed the connection, once all it sent is read."""
        try:
            while self.socket.recv(65536):
                pass
        except ConnectionResetError:
            return True
        return True

    def close(self) -> None:
        self.socket.close()


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
def client(node: NodeProcess) -> Iterator[Client]:
    made = Client(node)
    yield made
    made.close()


def ticket(node: NodeProcess, url: str = URL) -> str:
    channels = Channels()
    answer = channels.call(node.address, rpc.OPEN, cache_pb2.OpenRequest(urls=[url]))
    channels.close()
    return answer.results[0].object.ticket


def get(index: object, ticket: str, *headers: str) -> bytes:
    lines = [f"GET /v1/chunk/{index} HTTP/1.1", "Host: x", f"Authorization: Penstock {ticket}"]
    return ("\r\n".join([*lines, *headers]) + "\r\n\r\n").encode("latin-1")


def open_chunks(node: NodeProcess) -> int:
    links = Path(f"/proc/{node.process.pid}/fd").iterdir()
    count = 0
    for link in links:
        try:
            count += "/chunks/" in str(link.readlink())
        except FileNotFoundError:  # Closed since it was listed.
            continue
    return count


def serves(node: NodeProcess) -> bool:
    with penstock.connect(node.address, plane="bulk") as cache:
        return cache.read(URL) == OBJECT


def test_blocks_come_with_checksums_and_where_they_were(node: NodeProcess, client: Client) -> None:
    span = f"Range: bytes={BLOCK_BYTES}-{3 * BLOCK_BYTES - 1}"

    answer = client.send(get(1, ticket(node), span)).receive()

    start = CHUNK_BYTES + BLOCK_BYTES
    assert answer.status == HTTPStatus.PARTIAL_CONTENT
    assert answer.body == OBJECT[start : start + 2 * BLOCK_BYTES]
    verify_blocks(answer.body, base64.b64decode(answer.headers["penstock-checksums"]))
    assert answer.headers["penstock-source"] in ("origin", "disk")
    assert int(answer.headers["penstock-epoch"]) >= 1
    assert {"penstock-load", "penstock-copies"} <= answer.headers.keys()


def test_without_a_range_the_whole_chunk_comes(node: NodeProcess, client: Client) -> None:
    assert client.send(get(4, ticket(node))).receive().body == OBJECT[4 * CHUNK_BYTES :]


def test_requests_sent_without_waiting_are_answered_in_order(
    node: NodeProcess, client: Client
) -> None:
    shown = ticket(node)
    client.send(b"".join(get(index, shown) for index in (3, 0, 2, 1)))

    bodies = [client.receive().body for _ in range(4)]

    assert bodies == [OBJECT[i * CHUNK_BYTES : (i + 1) * CHUNK_BYTES] for i in (3, 0, 2, 1)]


def test_while_it_fills_the_node_says_so(node: NodeProcess, client: Client, odd: OddOrigin) -> None:
    held = threading.Event()
    odd.put("slow", OddObject(OBJECT, etag='"1"', held_until=held))
    client.send(get(0, ticket(node, "penstock://odd/slow")))
    release = threading.Timer(1.1, held.set)
    release.start()

    answer = client.receive()

    release.join()
    assert answer.status == HTTPStatus.PARTIAL_CONTENT
    assert answer.interims >= 3


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
    node: NodeProcess, client: Client, span: str, status: HTTPStatus
) -> None:
    sent = get(0, ticket(node), "Range: \0").replace(b"\0", span.encode())

    answer = client.send(sent).receive()

    assert answer.status == status
    assert answer.error == ("" if status == HTTPStatus.PARTIAL_CONTENT else "InvalidRange")


@pytest.mark.parametrize("index", ["5", "-1", "1e3", "99999999999999999999", "", "0/../1", "x"])
def test_a_chunk_that_is_not_there_is_refused(
    node: NodeProcess, client: Client, index: str
) -> None:
    answer = client.send(get(index, ticket(node))).receive()

    assert (answer.status, answer.error) == (HTTPStatus.BAD_REQUEST, "InvalidRequest")


def test_no_ticket_no_bytes(node: NodeProcess, client: Client) -> None:
    client.send(b"GET /v1/chunk/0 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert client.receive().status == HTTPStatus.FORBIDDEN

    client.send(get(0, "nonsense"))
    assert client.receive().error == "NotPermitted"


def test_what_is_not_cached_is_404_to_who_asks_only_for_that(
    node: NodeProcess, client: Client, odd: OddOrigin
) -> None:
    odd.put("never", OddObject(OBJECT, etag='"1"'))
    shown = ticket(node, "penstock://odd/never")

    answer = client.send(get(0, shown, "Penstock-If: cached")).receive()

    assert (answer.status, answer.error) == (HTTPStatus.NOT_FOUND, "NotCached")


def test_an_origin_that_fails_is_502_and_one_that_changed_409(
    node: NodeProcess, client: Client, odd: OddOrigin
) -> None:
    odd.put("broken", OddObject(OBJECT, etag='"1"'))
    odd.put("changed", OddObject(OBJECT, etag='"1"'))
    broken, changed = (ticket(node, f"penstock://odd/{name}") for name in ("broken", "changed"))
    odd.put("broken", OddObject(OBJECT, etag='"1"', status=503))
    odd.put("changed", OddObject(OBJECT[::-1], etag='"2"'))

    answers = [client.send(get(0, shown)).receive() for shown in (broken, changed)]

    assert [answer.status for answer in answers] == [502, 409]
    assert [answer.error for answer in answers] == ["OriginUnavailable", "ObjectChanged"]


def test_calls_are_answered_as_by_grpc(node: NodeProcess, client: Client) -> None:
    body = cache_pb2.OpenRequest(urls=[URL, "penstock://data/absent"]).SerializeToString()
    head = f"POST /v1/call/penstock.v1.Cache/Open HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n"

    answer = client.send(head.encode() + body).receive()

    opened, absent = cache_pb2.OpenResponse.FromString(answer.body).results
    assert answer.status == HTTPStatus.OK
    assert opened.object.size == len(OBJECT)
    assert absent.error.name == "ObjectNotFound"


@pytest.mark.parametrize("path", ["penstock.v1.Operator/Evict", "x", "../chunk/0"])
def test_other_calls_are_refused(client: Client, path: str) -> None:
    client.send(f"POST /v1/call/{path} HTTP/1.1\r\nContent-Length: 0\r\n\r\n".encode())

    assert client.receive().error == "InvalidRequest"


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
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
        (b"GET / HTTP/1.1\r\nA: " + b"x" * 40_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 100 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 10_000, 431),
    ],
)
def test_what_is_no_request_is_refused_and_its_connection_ends(
    node: NodeProcess, client: Client, sent: bytes, status: int
) -> None:
    answer = client.send(sent).receive()

    assert answer.status == status
    assert client.is_closed()


def test_unknown_places_are_404_and_the_connection_goes_on(
    node: NodeProcess, client: Client
) -> None:
    for sent in (b"GET / HTTP/1.1\r\n\r\n", b"DELETE /v1/chunk/0 HTTP/1.1\r\n\r\n"):
        assert client.send(sent).receive().status == HTTPStatus.NOT_FOUND
    assert client.send(get(4, ticket(node))).receive().body == OBJECT[4 * CHUNK_BYTES :]


def test_a_connection_that_was_asked_to_close_does(node: NodeProcess, client: Client) -> None:
    answer = client.send(get(0, ticket(node), "Connection: close")).receive()

    assert answer.body == OBJECT[:CHUNK_BYTES]
    assert client.is_closed()


def test_a_request_that_never_ends_is_ended(node: NodeProcess, client: Client) -> None:
    """Slow-loris: a byte now and then does not keep a connection."""
    client.send(b"GET / HTTP/1.1\r\n")
    begun, is_open = time.monotonic(), True
    client.socket.settimeout(0.5)
    while is_open and time.monotonic() - begun < 40:
        try:
            client.send(b"A: b\r\n")
            is_open = bool(client.socket.recv(100))
        except TimeoutError:
            continue
        except ConnectionError:
            is_open = False

    assert not is_open
    assert serves(node)


def test_readers_that_stop_reading_hold_nobody_up(node: NodeProcess) -> None:
    assert serves(node)
    shown = ticket(node)
    stuck = [Client(node) for _ in range(4 * WORKERS)]
    for client in stuck:
        client.send(b"".join(get(index % 4, shown) for index in range(16)))

    assert all(serves(node) for _ in range(3))

    for client in stuck:
        client.close()
    wait_until(lambda: open_chunks(node) == 0, deadline_s=20, what="all chunk files are closed")


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


def test_a_node_that_was_frozen_goes_on(node: NodeProcess, client: Client) -> None:
    shown = ticket(node)
    node.process.signal(signal.SIGSTOP)
    client.send(get(0, shown))
    node.process.signal(signal.SIGCONT)

    assert client.receive().body == OBJECT[:CHUNK_BYTES]


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
        client = Client(node)
        client.send(b"POST /v1/call/penstock.v1.Cache/Open HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
        assert client.receive().error == "NotPermitted"
        client.close()

        with penstock.connect(node.address, tls=trusted, plane="bulk") as cache:
            assert cache.read(URL) == OBJECT
            assert set(cache.stats()["plane"]) == {"bulk"}

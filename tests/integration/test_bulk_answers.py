"""What the bulk plane makes of answers that no node should give: an error, never an exception,
never unverified bytes, and no wait beyond its patience."""

import base64
import contextlib
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from penstock import errors
from penstock.bulk_calls import BulkCalls
from penstock.bulk_connection import BulkConnections
from penstock.checksums import BLOCK_BYTES, block_checksums
from penstock.deadline import Deadline
from penstock.membership.view import Member
from penstock.objects import ObjectId
from penstock.planes.bulk import BulkPlane, requests
from penstock.planes.plane import Landed, Outcome, PieceRequest, ReadContext
from penstock.rpc import GET_PLACEMENT
from penstock.v1 import placement_pb2

DATA = random.Random(6).randbytes(2 * BLOCK_BYTES)
SUMS = base64.b64encode(block_checksums(DATA)).decode()
OBJECT = ObjectId("key", "version", 4 * len(DATA), len(DATA))
GOOD_HEAD = f"HTTP/1.1 206 OK\r\nContent-Length: {len(DATA)}\r\nPenstock-Checksums: {SUMS}\r\n\r\n"
GOOD = GOOD_HEAD.encode() + DATA
DEADLINE_S = 10.0
DRIP_S = 0.02


class Liar:
    """A server that answers each connection's first bytes with the same bytes, and closes it
    unless it is told to stay."""

    def __init__(self, answer: bytes, *, stays: bool = False, drips: bool = False) -> None:
        self._answer, self._stays, self._drips = answer, stays, drips
        self._is_over = threading.Event()
        self._kept: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # It is over.
                return
            self._kept.append(connection)
            with contextlib.suppress(OSError):  # The reader has seen enough.
                self._answer_on(connection)

    def _answer_on(self, connection: socket.socket) -> None:
        connection.recv(65_536)
        if self._drips:
            self._drip(connection)
        else:
            connection.sendall(self._answer)
        if not self._stays:
            connection.shutdown(socket.SHUT_WR)

    def _drip(self, connection: socket.socket) -> None:
        rest = memoryview(self._answer)
        while rest and not self._is_over.wait(DRIP_S):
            connection.send(rest[:10])
            rest = rest[10:]

    def close(self) -> None:
        self._is_over.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        for sock in (self._listener, *self._kept):
            sock.close()


@pytest.fixture
def connections() -> Iterator[BulkConnections]:
    with closing(BulkConnections()) as made:
        yield made


def read(
    answer: bytes,
    connections: BulkConnections,
    *,
    count: int = 1,
    stays: bool = False,
    drips: bool = False,
    deadline_s: float = DEADLINE_S,
) -> tuple[list[Outcome], list[bytes]]:
    pieces = [PieceRequest(i, 0, len(DATA), memoryview(bytearray(len(DATA)))) for i in range(count)]
    with closing(Liar(answer, stays=stays, drips=drips)) as liar:
        member = Member("liar", "here", bulk_address=liar.address)
        outcomes = BulkPlane(connections).read(
            member,
            ReadContext("ticket", OBJECT, 1),
            pieces,
            deadline=Deadline.after(deadline_s),
        )
    return outcomes, [bytes(piece.into) for piece in pieces]


def test_a_request_says_all_that_a_node_has_to_know() -> None:
    piece = PieceRequest(3, BLOCK_BYTES + 1, BLOCK_BYTES + 2, memoryview(bytearray(1)))
    plain = ReadContext("ticket", OBJECT, 7)
    full = ReadContext(
        "ticket",
        OBJECT,
        8,
        only_if_cached=True,
        suspects=("n1", "n2"),
        recheck=True,
        on_behalf=True,
        goes_to_holder=True,
        traceparent="00-1-2-01",
    )

    least = requests("host:1", plain, [piece])
    most = requests("host:1", full, [piece, piece])

    start = b"GET /v1/chunk/3 HTTP/1.1\r\nHost: host:1\r\nAuthorization: Penstock ticket\r\n"
    end = b"Range: bytes=65536-131071\r\n\r\n"
    more = (
        b"Penstock-Epoch: 8\r\nPenstock-If: cached\r\nPenstock-Suspects: n1,n2\r\n"
        b"Penstock-Recheck: 1\r\nPenstock-On-Behalf: 1\r\n"
        b"Penstock-Holder: ask\r\ntraceparent: 00-1-2-01\r\n"
    )
    assert least == start + b"Penstock-Epoch: 7\r\n" + end
    assert most == 2 * (start + more + end)


def changed(old: str, new: str) -> bytes:
    assert old in GOOD_HEAD
    return GOOD_HEAD.replace(old, new).encode() + DATA


def test_an_answer_as_it_should_be_lands(connections: BulkConnections) -> None:
    (outcome,), (data,) = read(GOOD, connections)

    assert isinstance(outcome, Landed)
    assert data == DATA


def test_what_a_later_version_adds_does_no_harm(connections: BulkConnections) -> None:
    more = "Penstock-Source: moon\r\nPenstock-Load: ?\r\nX-New: 1\r\n\r\n"

    (outcome,), _ = read(changed("\r\n\r\n", f"\r\n{more}"), connections)

    assert isinstance(outcome, Landed)
    assert (outcome.source, outcome.load) == ("disk", 0)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", errors.NodeUnavailable),
        (b"SSH-2.0-OpenSSH_9\r\n\r\n", errors.NodeUnavailable),
        (b"\0" * 100_000, errors.NodeUnavailable),
        (GOOD[: len(GOOD_HEAD) - 5], errors.NodeUnavailable),
        (GOOD[: len(GOOD_HEAD)], errors.NodeUnavailable),
        (GOOD[:-1], errors.NodeUnavailable),
        (b"HTTP/1.1 206 OK\r\nA: " + b"x" * 100_000, errors.NodeUnavailable),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", None),
        (b"HTTP/1.1 102 Processing\r\n\r\n" * 5, errors.NodeUnavailable),
        (changed("206 OK", "999 What"), None),
        (changed("206 OK", "200 OK"), None),
        (b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n", errors.PenstockError),
        (b"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\nPenstock-Error: Moon\r\n\r\nhm", None),
        (b"HTTP/1.1 503 Oh\r\nContent-Length: 2\r\nPenstock-Error: Overloaded\r\n\r\nhm", None),
        (changed(f"Length: {len(DATA)}", "Length: 0"), errors.NodeUnavailable),
        (changed(f"Length: {len(DATA)}", f"Length: {len(DATA) + 1}"), errors.NodeUnavailable),
        (changed(f"Length: {len(DATA)}", "Length: -1"), errors.NodeUnavailable),
        (changed(f"Length: {len(DATA)}", "Length: 1" + 4000 * "0"), errors.NodeUnavailable),
        (changed(f"Length: {len(DATA)}", "Length: " + 9000 * "9"), errors.NodeUnavailable),
        (changed("Content-Length", "Content-Lengtx"), errors.NodeUnavailable),
        (changed(f"Penstock-Checksums: {SUMS}", "Penstock-Checksums: *"), None),
        (changed(f"Penstock-Checksums: {SUMS}", "X: y"), None),
        (changed(f"Penstock-Checksums: {SUMS}", f"Penstock-Checksums: {SUMS[:16]}"), None),
        (changed("\r\n\r\n", "\r\nPenstock-Epoch: " + 9000 * "9" + "\r\n\r\n"), None),
        (b"HTTP/1.1 404 No\r\nContent-Length: " + b"9" * 15 + b"\r\n\r\n", None),
        (GOOD[:-1] + bytes([DATA[-1] ^ 1]), errors.CorruptData),
        (changed(SUMS, base64.b64encode(bytes(16)).decode()), errors.CorruptData),
    ],
)
def test_what_no_node_says_is_an_error(
    connections: BulkConnections, answer: bytes, error: type[errors.PenstockError] | None
) -> None:
    (outcome,), _ = read(answer, connections)

    if isinstance(outcome, Landed):
        assert error is None
        assert b"Epoch" in answer, "the bytes were right, only a number was not"
    else:
        assert isinstance(outcome, error or errors.PenstockError)


def test_of_several_pieces_those_before_the_trouble_have_landed(
    connections: BulkConnections,
) -> None:
    wrong = GOOD[:-1] + bytes([DATA[-1] ^ 1])

    outcomes, data = read(GOOD + wrong + GOOD + GOOD[:-1], connections, count=4)

    kinds = [type(outcome) for outcome in outcomes]
    assert kinds == [Landed, errors.CorruptData, Landed, errors.NodeUnavailable]
    assert data[0] == data[2] == DATA


def test_a_kept_connection_that_was_closed_meanwhile_costs_a_new_one_and_no_error(
    connections: BulkConnections,
) -> None:
    with closing(Liar(GOOD)) as liar:
        member = Member("liar", "here", bulk_address=liar.address)
        for _ in range(3):  # Each time the one that was kept is closed by then.
            into = memoryview(bytearray(len(DATA)))
            (outcome,) = BulkPlane(connections).read(
                member,
                ReadContext("ticket", OBJECT, 1),
                [PieceRequest(0, 0, len(DATA), into)],
                deadline=Deadline.after(DEADLINE_S),
            )
            assert isinstance(outcome, Landed)


@pytest.mark.parametrize("answer", [b"", GOOD[:5], GOOD[:-1], b"HTTP/1.1 102 Processing\r\n\r\n"])
def test_a_deadline_ends_the_wait_wherever_the_answer_stops(
    connections: BulkConnections, answer: bytes
) -> None:
    outcomes, _ = read(answer, connections, count=3, stays=True, deadline_s=0.2)

    assert [type(outcome) for outcome in outcomes] == [errors.NodeUnavailable] * 3


@pytest.mark.parametrize("answer", [GOOD, b"HTTP/1.1 206 OK\r\nA: " + b"x" * 30_000])
def test_a_deadline_ends_an_answer_that_drips(connections: BulkConnections, answer: bytes) -> None:
    outcomes, _ = read(answer, connections, drips=True, deadline_s=0.3)

    assert [type(outcome) for outcome in outcomes] == [errors.NodeUnavailable]


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"junk\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n\xff\xff\xff",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 15 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 9000 + b"\r\n\r\n",
        b"HTTP/1.1 500 Oh\r\nContent-Length: 1\r\n\r\n\xff",
    ],
)
def test_a_call_that_is_answered_with_nonsense_is_an_error(
    connections: BulkConnections, answer: bytes
) -> None:
    with closing(Liar(answer)) as liar, pytest.raises(errors.PenstockError):
        BulkCalls(connections).call(
            liar.address, GET_PLACEMENT, placement_pb2.GetPlacementRequest(), timeout_s=DEADLINE_S
        )

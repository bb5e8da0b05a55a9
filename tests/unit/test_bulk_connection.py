"""Connections to bulk ports: patience that ends, heads that come in bits, and what is kept."""

import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from penstock import connection_pool
from penstock.bulk_calls import BulkCalls
from penstock.bulk_connection import (
    HEAD_BYTES_MAX,
    BulkConnection,
    BulkConnections,
    parse_head,
)
from penstock.bulk_http import WORKING
from penstock.connection_pool import IDLE_MAX, IDLE_S, Stale
from penstock.deadline import Deadline
from penstock.errors import NodeUnavailable, NotOwner, PenstockError
from penstock.patience import LOOK_S, SILENT_LOOKS, Slow
from penstock.rpc import GET_PLACEMENT
from penstock.v1 import placement_pb2
from penstock.wire import MESSAGE_BYTES_MAX, error_to_proto
from penstock_node.testbed.processes import free_port, wait_until

SOON_S = 10.0
BODY = random.Random(7).randbytes(300_000)

Script = Callable[[socket.socket], None]


def answer(body: bytes = BODY, *headers: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def sends(*pieces: bytes) -> Script:
    def send(sock: socket.socket) -> None:
        for piece in pieces:
            sock.sendall(piece)

    return send


def is_silent(_sock: socket.socket) -> None:
    pass


def ends(sock: socket.socket) -> None:
    sock.shutdown(socket.SHUT_RDWR)


class ScriptedNode:
    """Does with each request, on whatever connection, as the script says; the last one stays."""

    def __init__(self) -> None:
        self.scripts: list[Script] = [sends(answer())]
        self.requests: list[bytes] = []
        self.accepted: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:  # The test is over.
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.accepted.append(sock)
            self._threads.append(threading.Thread(target=self._serve, args=(sock,)))
            self._threads[-1].start()

    def _serve(self, sock: socket.socket) -> None:
        try:
            while data := sock.recv(65_536):
                self.requests.append(data)
                script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
                script(sock)
        except OSError:  # The other end has seen enough.
            pass

    def hang_up(self) -> None:
        """Close all connections, as a node does that stops."""
        for sock in self.accepted:
            sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for sock in self.accepted:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:  # It has ended already.
                continue
        for thread in self._threads:
            thread.join()
        for sock in (self._listener, *self.accepted):
            sock.close()


@pytest.fixture
def node() -> Iterator[ScriptedNode]:
    made = ScriptedNode()
    yield made
    made.close()


@pytest.fixture
def pool() -> Iterator[BulkConnections]:
    made = BulkConnections()
    yield made
    made.close()


def soon() -> Deadline:
    return Deadline.after(SOON_S)


def exchange(connection: BulkConnection, *, deadline: Deadline | None = None) -> bytes:
    """Ask for something and return the answer's body; interim answers are passed over."""
    connection.send(b"GET /\r\n\r\n")
    head = connection.receive_head(deadline or soon())
    while head.status == 102:
        head = connection.receive_head(deadline or soon())
    return connection.receive_body(head.length, deadline or soon())


def ask(pool: BulkConnections, address: str, *, deadline: Deadline | None = None) -> bytes:
    with pool.borrow(address) as connection:
        return exchange(connection, deadline=deadline)


# Answers ------------------------------------------------------------------------------------


def test_heads_and_bodies_are_told_apart_wherever_they_are_cut(
    node: ScriptedNode, pool: BulkConnections
) -> None:
    whole = WORKING + WORKING + answer(b"first", "Penstock-Epoch: 3")
    with pool.borrow(node.address) as connection:
        for cut in range(1, len(whole)):
            node.scripts = [sends(whole[:cut], whole[cut:])]

            assert exchange(connection) == b"first", f"cut at {cut}"


def test_answers_that_come_together_are_taken_one_by_one(
    node: ScriptedNode, pool: BulkConnections
) -> None:
    bodies = [b"", b"x", BODY[:900], BODY[:70_000], b"", b"end"]
    node.scripts = [sends(b"".join(WORKING + answer(body) for body in bodies))]
    with pool.borrow(node.address) as connection:
        connection.send(b"all of it")
        for body in bodies:
            head = connection.receive_head(soon())
            into = memoryview(bytearray(head.length))
            for at in range(0, len(into), 997):
                connection.receive_into(into[at : at + 997], soon())

            assert into == body


def test_names_of_headers_are_in_small_letters() -> None:
    head = parse_head(b"HTTP/1.1 206 Partial Content\r\nPenstock-EPOCH: 7\r\nA: B\r\n\r\n")

    assert (head.status, head.headers) == (206, {"penstock-epoch": "7", "a": "B"})


@pytest.mark.parametrize(
    "data",
    [
        b"junk\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"\x16\x03\x01\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
    ],
)
def test_what_does_not_speak_http_is_no_node(data: bytes) -> None:
    with pytest.raises(NodeUnavailable, match="does not speak HTTP"):
        parse_head(data)


@pytest.mark.parametrize("told", ["", "Content-Length: \u00b2\r\n", "Content-Length: -1\r\n"])
def test_an_answer_that_does_not_say_how_long_it_is_is_no_nodes(told: str) -> None:
    with pytest.raises(NodeUnavailable):
        _ = parse_head(f"HTTP/1.1 200 OK\r\n{told}\r\n".encode("latin-1")).length


def test_an_endless_head_is_given_up(node: ScriptedNode, pool: BulkConnections) -> None:
    node.scripts = [sends(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * HEAD_BYTES_MAX)]

    with pytest.raises(NodeUnavailable, match="endless head"):
        ask(pool, node.address)


def test_a_message_that_is_too_large_is_not_waited_for(
    node: ScriptedNode, pool: BulkConnections
) -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {MESSAGE_BYTES_MAX + 1}\r\n\r\n"
    node.scripts = [sends(head.encode())]

    with pytest.raises(NodeUnavailable, match="announces"):
        ask(pool, node.address)


# Patience -----------------------------------------------------------------------------------

BEGUN = [b"", b"HTTP/1.1 20", WORKING, answer()[:-1]]


@pytest.mark.parametrize("begun", BEGUN)
def test_a_node_that_falls_silent_is_given_up(
    node: ScriptedNode, pool: BulkConnections, begun: bytes
) -> None:
    node.scripts = [sends(begun)]

    with pytest.raises(NodeUnavailable, match="silent"):
        ask(pool, node.address)


@pytest.mark.parametrize("begun", BEGUN)
def test_the_deadline_ends_a_wait(node: ScriptedNode, pool: BulkConnections, begun: bytes) -> None:
    node.scripts = [sends(begun)]

    with pytest.raises(NodeUnavailable, match="deadline"):
        ask(pool, node.address, deadline=Deadline.after(0.1))


@pytest.mark.parametrize("begun", BEGUN)
def test_a_wait_ends_when_nobody_wants_its_end_any_more(
    node: ScriptedNode, pool: BulkConnections, begun: bytes
) -> None:
    over = threading.Event()

    def give_up(sock: socket.socket) -> None:
        sock.sendall(begun)
        over.set()

    node.scripts = [give_up]

    with pytest.raises(NodeUnavailable, match="deadline"):
        ask(pool, node.address, deadline=Deadline.after(3600, is_over=over.is_set))


def test_bytes_that_drip_do_not_put_the_end_off(node: ScriptedNode, pool: BulkConnections) -> None:
    over, seen = threading.Event(), threading.Event()

    def drip(sock: socket.socket) -> None:
        sock.sendall(answer()[:-200_000])
        while not over.wait(LOOK_S / 10):
            sock.sendall(b"x")
            seen.set()

    node.scripts = [drip]
    try:
        with pytest.raises(NodeUnavailable, match="deadline"):
            ask(pool, node.address, deadline=Deadline.after(3600, is_over=seen.is_set))
    finally:
        over.set()


def test_a_slow_answer_that_goes_on_is_waited_for(
    node: ScriptedNode, pool: BulkConnections
) -> None:
    """Longer than the silence that is given up: each word begins it anew."""
    pause, said, silence_s = threading.Event(), list[float](), SILENT_LOOKS * LOOK_S

    def fill(sock: socket.socket) -> None:
        begun = time.monotonic()
        while time.monotonic() < begun + 2 * silence_s:
            sock.sendall(WORKING)
            said.append(time.monotonic())
            pause.wait(LOOK_S / 5)
        sock.sendall(answer())

    node.scripts = [fill]

    assert ask(pool, node.address) == BODY
    assert said[-1] - said[0] > silence_s


@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 20", WORKING])
def test_whoever_knows_another_node_gives_a_slow_one_up_before_it_is_silent(
    node: ScriptedNode, pool: BulkConnections, begun: bytes
) -> None:
    node.scripts = [sends(begun)]

    with pool.borrow(node.address) as connection:
        connection.send(b"GET / HTTP/1.1\r\n\r\n")
        with pytest.raises(Slow):
            connection.receive_head(Deadline.after(3600), gives_up=lambda: True)


def test_nobody_listens_there(pool: BulkConnections) -> None:
    with pytest.raises(NodeUnavailable, match="does not answer"):
        ask(pool, f"127.0.0.1:{free_port()}")


def test_an_address_may_be_of_the_sixth_version() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
        connection = BulkConnection(f"[::1]:{listener.getsockname()[1]}")
        connection.close()


# What is kept -------------------------------------------------------------------------------


def test_a_connection_is_used_again(node: ScriptedNode, pool: BulkConnections) -> None:
    for _ in range(5):
        assert ask(pool, node.address) == BODY

    assert len(node.accepted) == 1


def test_a_connection_that_failed_is_not(node: ScriptedNode, pool: BulkConnections) -> None:
    node.scripts = [sends(b"junk\r\n\r\n"), sends(answer())]
    with pytest.raises(NodeUnavailable):
        ask(pool, node.address)

    assert ask(pool, node.address) == BODY
    assert len(node.accepted) == 2


def test_what_is_left_of_an_answer_is_nobodys_next_answer(
    node: ScriptedNode, pool: BulkConnections
) -> None:
    """Whoever fails to take all of it, for whatever reason of its own."""

    def fail_in_the_middle() -> None:
        with pool.borrow(node.address) as connection:
            connection.send(b"x")
            connection.receive_head(soon())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_in_the_middle()

    assert ask(pool, node.address) == BODY


def test_each_borrower_has_a_connection_of_its_own_and_few_are_kept(
    node: ScriptedNode, pool: BulkConnections
) -> None:
    count = IDLE_MAX + 5
    together = threading.Barrier(count)

    def borrow(_at: int) -> bytes:
        with pool.borrow(node.address) as connection:
            together.wait(SOON_S)
            return exchange(connection)

    with ThreadPoolExecutor(count) as threads:
        assert list(threads.map(borrow, range(count))) == [BODY] * count

    assert len(node.accepted) == count
    assert len(pool._idle[node.address]) == IDLE_MAX
    assert not pool._busy


def test_a_connection_that_was_idle_for_long_is_not_used(
    node: ScriptedNode, pool: BulkConnections
) -> None:
    assert ask(pool, node.address) == BODY
    (idle,) = pool._idle[node.address]
    idle.idle_since -= IDLE_S + 1

    assert ask(pool, node.address) == BODY
    assert len(node.accepted) == 2


def test_a_connection_is_kept_for_less_long_than_a_node_keeps_it() -> None:
    from penstock_node.transport import engine

    assert connection_pool.IDLE_S < engine.IDLE_S


# Connections that went stale ----------------------------------------------------------------


def call(pool: BulkConnections, node: ScriptedNode, *, timeout_s: float = SOON_S) -> str:
    request = placement_pb2.GetPlacementRequest()
    return BulkCalls(pool).call(node.address, GET_PLACEMENT, request, timeout_s=timeout_s).cluster


PLACEMENT = answer(placement_pb2.GetPlacementResponse(cluster="c").SerializeToString())


def test_a_kept_connection_that_the_node_closed_costs_a_new_one(
    node: ScriptedNode, pool: BulkConnections
) -> None:
    node.scripts = [sends(PLACEMENT)]
    assert call(pool, node) == "c"
    node.hang_up()

    assert call(pool, node) == "c"
    assert len(node.accepted) == 2


def test_a_call_is_made_at_most_twice(node: ScriptedNode, pool: BulkConnections) -> None:
    node.scripts = [sends(PLACEMENT), ends]
    assert call(pool, node) == "c"

    with pytest.raises(NodeUnavailable) as raised:
        call(pool, node)

    assert not isinstance(raised.value, Stale)
    assert len(node.requests) == 3


def test_a_new_connection_that_breaks_is_not_tried_again(
    node: ScriptedNode, pool: BulkConnections
) -> None:
    node.scripts = [ends]

    with pytest.raises(NodeUnavailable):
        call(pool, node)

    assert len(node.requests) == 1


def test_a_node_that_is_silent_on_a_kept_connection_is_not_asked_again(
    node: ScriptedNode, pool: BulkConnections
) -> None:
    node.scripts = [sends(PLACEMENT), is_silent]
    assert call(pool, node) == "c"

    with pytest.raises(NodeUnavailable, match="silent"):
        call(pool, node)

    assert len(node.requests) == 2


def test_an_error_has_its_own_class_and_the_next_call_is_answered(
    node: ScriptedNode, pool: BulkConnections
) -> None:
    error: PenstockError = NotOwner("not mine", epoch=9)
    body = error_to_proto(error).SerializeToString()
    node.scripts = [
        sends(answer(body, "Penstock-Error: NotOwner", status="421 Misdirected Request")),
        sends(PLACEMENT),
    ]

    with pytest.raises(NotOwner, match="not mine") as raised:
        call(pool, node)

    assert raised.value.epoch == 9
    assert call(pool, node) == "c"


# The end ------------------------------------------------------------------------------------


def test_closing_a_pool_ends_whoever_waits(node: ScriptedNode, pool: BulkConnections) -> None:
    begun = threading.Event()
    node.scripts = [lambda _sock: begun.set()]
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(ask, pool, node.address)
        assert begun.wait(SOON_S)

        pool.close()

        with pytest.raises(NodeUnavailable, match="closed the connection"):
            waiting.result(SOON_S)


def test_after_closing_nothing_is_kept(node: ScriptedNode, pool: BulkConnections) -> None:
    with pool.borrow(node.address) as connection:
        pool.close()
        connection.shut_down()

    assert not any(pool._idle.values())


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_reads_by_connections_of_its_own_and_leaves_its_parents_alone(
    node: ScriptedNode, pool: BulkConnections
) -> None:
    assert ask(pool, node.address) == BODY
    child = os.fork()
    if child == 0:
        try:
            pool.abandon()
            os._exit(0 if ask(pool, node.address) == BODY else 1)
        finally:
            os._exit(2)

    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    assert ask(pool, node.address) == BODY
    wait_until(lambda: len(node.requests) == 3, deadline_s=SOON_S, what="all is told")
    assert len(node.accepted) == 2

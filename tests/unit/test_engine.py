"""Workers and the connections that they serve, over real sockets on loopback."""

import contextlib
import gc
import itertools
import os
import resource
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager
from http import HTTPStatus
from pathlib import Path

import pytest

from penstock_node.testbed.processes import wait_until
from penstock_node.transport import engine as module
from penstock_node.transport.connection import Session, Wants
from penstock_node.transport.engine import WORKERS, WORKERS_MAX, Engine
from penstock_node.transport.http import HttpRequest, HttpSession, reply, reply_with
from penstock_node.transport.listening import bind
from penstock_node.transport.reply import FileSpan, Outcome, Reply

SOON_S = 10.0
FILE_BYTES = 8 * 1024 * 1024
CROWD = 2_000


class OpenedFile:
    """A file that is sent, as the store opens it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")

    def fileno(self) -> int:
        return self._file.fileno()

    def working(self) -> AbstractContextManager[None]:
        return contextlib.nullcontext()

    def failed(self, error: OSError) -> None:
        raise AssertionError(error)

    def close(self) -> None:
        self._file.close()


class Serving:
    """An engine that speaks HTTP on a port of loopback, and does as the path says."""

    def __init__(self, directory: Path, *, connections_max: int = module.CONNECTIONS_MAX) -> None:
        self._path = directory / "big"
        with self._path.open("wb") as file:
            file.truncate(FILE_BYTES)
        self._is_stopped = False
        self.release = threading.Event()
        """Ends the requests for ``/held``."""
        self.held = 0
        self.later: list[Future[Reply]] = []
        """The answers to ``/later``, for the test to give."""
        self.open_session: Callable[[socket.socket], Session] = lambda _: HttpSession(self)
        self.engine = Engine(connections_max=connections_max)
        listener = bind("127.0.0.1", [0], key="port")
        self.address: tuple[str, int] = listener.getsockname()
        self.engine.listen(listener, lambda sock: self.open_session(sock))
        self.engine.start()
        self._workers = list(self.engine._workers)

    def __call__(self, request: HttpRequest) -> Outcome:
        match request.target:
            case "/big":
                span = FileSpan(OpenedFile(self._path), 0, FILE_BYTES)
                return reply_with(HTTPStatus.OK, [], FILE_BYTES, [span])
            case "/held":
                self.held += 1
                assert self.release.wait(60), "the test lets it go"
            case "/later":
                self.later.append(Future())
                return self.later[-1]
            case "/bug":
                raise RuntimeError("a bug in a handler")
        return reply(HTTPStatus.OK, body=request.target.encode())

    def connect(self, *, window_bytes: int = 4096) -> "Client":
        return Client(self.address, window_bytes=window_bytes)

    def settle(self) -> None:
        """Wait until there are as many workers as ever: one that a busy machine holds up for a
        moment is replaced, and the surplus retires when it next has something to do."""
        wait_until(
            lambda: self.answers() and self.engine.worker_count == WORKERS,
            deadline_s=SOON_S,
            what="the surplus has retired",
        )

    def answers(self) -> bool:
        """Tell whether a new reader is served."""
        with self.connect() as client:
            return client.ask("/small") == b"/small"

    def listens(self) -> bool:
        """Tell whether connections are taken."""
        with socket.socket() as knocking:
            return knocking.connect_ex(self.address) == 0

    def counts(self, count: int) -> None:
        """Wait until there are ``count`` connections."""
        wait_until(
            lambda: self.engine.connection_count == count,
            deadline_s=SOON_S,
            what=f"{count} connections",
        )

    def wait_stuck(self, count: int) -> None:
        """Wait until ``count`` connections wait for their readers to read."""
        wait_until(
            lambda: (
                [c.wants for c in list(self.engine._connections.values())].count(Wants.OUTPUT)
                == count
            ),
            deadline_s=SOON_S,
            what=f"{count} readers are stuck",
        )

    def stop(self, *, grace_s: float) -> None:
        if not self._is_stopped:
            self._is_stopped = True
            self.engine.stop(grace_s=grace_s)

    def close(self) -> None:
        self.release.set()
        workers = list(self.engine._workers)
        self.stop(grace_s=0)
        wait_until(lambda: not self.engine.worker_count, deadline_s=SOON_S, what="all have ended")
        for worker in (*self._workers, *workers):  # What ends one is this test's, not the next's.
            worker.join(SOON_S)


class Client:
    """A reader that does as little as it is told."""

    def __init__(self, address: tuple[str, int], *, window_bytes: int) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window_bytes)
        self.socket.settimeout(SOON_S)
        try:
            self.socket.connect(address)
        except OSError:
            self.socket.close()
            raise

    def send(self, path: str, *headers: str) -> None:
        lines = [f"GET {path} HTTP/1.1", *headers]
        self.socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())

    def receive(self) -> bytes:
        """Return the next answer's body."""
        received = b""
        while b"\r\n\r\n" not in received:
            received += self._some()
        head, _, body = received.partition(b"\r\n\r\n")
        length = int(head.partition(b"Content-Length: ")[2].split(b"\r\n")[0])
        while len(body) < length:
            body += self._some()
        assert len(body) == length, "more came than was asked for"
        return body

    def _some(self) -> bytes:
        data = self.socket.recv(1 << 16)
        if not data:
            raise ConnectionError("the connection ended")
        return data

    def ask(self, path: str) -> bytes:
        self.send(path)
        return self.receive()

    def is_ended(self) -> bool:
        """Read to the end; false if that does not come."""
        try:
            while self.socket.recv(1 << 16):
                pass
        except ConnectionError:
            return True
        except TimeoutError:
            return False
        return True

    def kill(self) -> None:
        """End as a process that is killed with unread data does: by a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_error: object) -> None:
        self.socket.close()


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    made = Serving(tmp_path)
    yield made
    made.close()


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as made:
        yield made


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names are all that is wanted


def descriptors_without_garbage() -> int:
    """Return how many there are once what earlier tests left is closed."""
    gc.collect()
    return descriptors()


def wait_descriptors(count: int) -> None:
    """Wait for so many: an ended connection is counted no more before its files are closed."""
    wait_until(lambda: descriptors() == count, deadline_s=SOON_S, what=f"{count} descriptors")


def limit_with_free(count: int) -> int:
    """Return the limit of descriptors that leaves ``count`` of them free."""
    used = {int(name) for name in os.listdir("/proc/self/fd")}  # noqa: PTH208 - as above
    free = (number for number in itertools.count() if number not in used)
    return next(itertools.islice(free, count, None))


# Readers that do not read, and such as do not write -----------------------------------------


def test_nothing_is_paced_between_programs_of_one_machine(serving: Serving) -> None:
    with serving.connect() as client:
        assert client.ask("/small") == b"/small"
        (connection,) = serving.engine._connections.values()
        algorithm = connection.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)

    assert algorithm.rstrip(b"\0") == b"reno"


def test_readers_that_stop_reading_hold_no_worker(
    serving: Serving, stack: contextlib.ExitStack
) -> None:
    for _ in range(4 * WORKERS):
        stack.enter_context(serving.connect()).send("/big")
    serving.wait_stuck(4 * WORKERS)

    assert serving.answers()
    serving.settle()


def test_a_reader_that_goes_on_reading_gets_the_rest(serving: Serving) -> None:
    with serving.connect(window_bytes=256 * 1024) as client:
        client.send("/big")
        serving.wait_stuck(1)

        assert client.receive() == bytes(FILE_BYTES)
        assert client.ask("/small") == b"/small"


def test_a_reader_that_takes_nothing_for_too_long_is_ended(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = descriptors_without_garbage()
    with serving.connect() as client:
        client.send("/big")
        serving.wait_stuck(1)
        monkeypatch.setattr(module, "SEND_S", 0.0)

        serving.counts(0)

        assert client.is_ended()
    wait_descriptors(before)


@pytest.mark.parametrize(
    "begun",
    [b"GET / HTTP/1.1\r\nX: ", b"POST / HTTP/1.1\r\nContent-Length: 99\r\n\r\n"],
    ids=["head", "body"],
)
def test_a_request_that_comes_too_slowly_is_ended_and_an_idle_connection_is_not(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr(module, "RECEIVE_S", 0.3)
    monkeypatch.setattr(module, "SWEEP_S", 0.05)
    with serving.connect() as idle, serving.connect() as slow:
        assert idle.ask("/small") == b"/small"
        slow.socket.sendall(begun)
        over = threading.Event()

        def drip() -> None:
            with contextlib.suppress(OSError):
                while not over.wait(0.02):
                    slow.socket.send(b"x")

        dripper = threading.Thread(target=drip)
        dripper.start()
        ended = slow.is_ended()
        over.set()
        dripper.join()

        assert ended
        assert idle.ask("/small") == b"/small"


def test_a_head_without_its_body_is_no_idle_connection(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RECEIVE_S", 0.1)
    monkeypatch.setattr(module, "SWEEP_S", 0.05)
    with serving.connect() as client:
        client.socket.sendall(b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n")

        assert client.is_ended()


def test_who_is_refused_and_does_not_leave_is_ended(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RECEIVE_S", 0.1)
    monkeypatch.setattr(module, "SWEEP_S", 0.05)
    with serving.connect() as client:
        client.socket.sendall(b"PUT / HTTP/1.1\r\nContent-Length: 9\r\n\r\n")
        assert client.is_ended()

        wait_until(
            lambda: serving.engine.connection_count == 0, deadline_s=SOON_S, what="it is closed"
        )


def test_a_connection_that_is_idle_for_too_long_is_ended(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SWEEP_S", 0.05)
    with serving.connect() as client:
        assert client.ask("/small") == b"/small"
        monkeypatch.setattr(module, "IDLE_S", 0.0)

        assert client.is_ended()


def test_a_reader_killed_in_the_middle_of_an_answer_leaves_nothing_open(serving: Serving) -> None:
    before = descriptors_without_garbage()
    clients = [serving.connect() for _ in range(20)]
    for client in clients:
        client.send("/big")
    serving.wait_stuck(len(clients))
    assert descriptors() > before + 2 * len(clients)

    for client in clients:
        client.kill()

    serving.counts(0)
    wait_until(lambda: descriptors() == before, deadline_s=SOON_S, what="all files are closed")
    assert serving.answers()


# Many ---------------------------------------------------------------------------------------


def test_two_thousand_connections_at_once_need_no_thread_each(
    serving: Serving, stack: contextlib.ExitStack
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 3 * CROWD)), hard))
    stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
    threads = threading.active_count()

    clients = [stack.enter_context(serving.connect()) for _ in range(CROWD)]
    serving.counts(CROWD)
    for client in clients:
        client.send("/small")

    assert all(client.receive() == b"/small" for client in clients)
    serving.counts(CROWD)
    serving.settle()
    assert threading.active_count() <= threads


def test_a_process_without_descriptors_accepts_again_when_it_has_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stack: contextlib.ExitStack
) -> None:
    monkeypatch.setattr(module, "SWEEP_S", 1000.0)
    serving = Serving(tmp_path)
    stack.callback(serving.close)
    assert serving.answers()
    serving.counts(0)
    clients = [stack.enter_context(socket.socket()) for _ in range(20)]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit_with_free(5), hard))
    stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
    for client in clients:
        client.settimeout(SOON_S)
        client.connect(serving.address)
        client.sendall(b"GET /small HTTP/1.1\r\n\r\n")
    wait_until(lambda: _listener(serving).is_paused, deadline_s=SOON_S, what="it is out of them")
    # Until the next look: it does not try again and again in vain.
    assert all(_listener(serving).is_paused for _ in range(100_000))
    assert serving.engine.connection_count < len(clients)

    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    serving.engine._sweep(time.monotonic())

    assert all(client.recv(1 << 16).endswith(b"/small") for client in clients)


def test_a_failure_while_accepting_ends_neither_the_listener_nor_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stack: contextlib.ExitStack
) -> None:
    monkeypatch.setattr(module, "SWEEP_S", 0.05)
    serving = Serving(tmp_path)
    stack.callback(serving.close)
    open_connection, failures = serving.engine._open, iter([OSError("a bug")])

    def fail_once(sock: socket.socket, listener: module._Listener) -> None:
        for failure in failures:
            sock.close()
            raise failure
        open_connection(sock, listener)

    monkeypatch.setattr(serving.engine, "_open", fail_once)
    with serving.connect() as unlucky:
        assert unlucky.is_ended()

    assert serving.answers()


def test_a_connection_that_cannot_be_watched_is_closed_and_others_are_accepted(
    serving: Serving,
) -> None:
    opens, before = serving.open_session, descriptors()

    def watched_already(sock: socket.socket) -> Session:
        serving.engine._epoll.register(sock.fileno(), 0)
        return opens(sock)

    serving.open_session = watched_already
    with serving.connect() as client:
        assert client.is_ended()

    serving.open_session = opens
    assert serving.answers()
    wait_descriptors(before)


def _listener(serving: Serving) -> module._Listener:
    (listener,) = serving.engine._listeners.values()
    return listener


def test_beyond_the_most_connections_readers_wait_for_one_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stack: contextlib.ExitStack
) -> None:
    monkeypatch.setattr(module, "SWEEP_S", 0.05)
    serving = Serving(tmp_path, connections_max=3)
    stack.callback(serving.close)
    clients = [stack.enter_context(serving.connect()) for _ in range(3)]
    assert all(client.ask("/small") for client in clients)
    waiting = stack.enter_context(serving.connect())
    waiting.send("/small")
    wait_until(lambda: _listener(serving).is_paused, deadline_s=SOON_S, what="it is full")
    assert serving.engine.connection_count == 3

    clients[0].socket.close()

    assert waiting.receive() == b"/small"


# Workers that are held ----------------------------------------------------------------------


def test_workers_that_are_held_are_replaced_and_retire_when_they_are_back(
    serving: Serving, stack: contextlib.ExitStack
) -> None:
    held = [stack.enter_context(serving.connect()) for _ in range(2 * WORKERS)]
    for client in held:
        client.send("/held")
    wait_until(lambda: serving.held == len(held), deadline_s=SOON_S, what="all are begun")

    assert serving.answers()
    wait_until(
        lambda: serving.engine.worker_count == len(held) + WORKERS,
        deadline_s=SOON_S,
        what="as many as ever are free",
    )
    serving.release.set()

    assert all(client.receive() == b"/held" for client in held)
    serving.settle()


def test_there_are_never_more_workers_than_the_most(
    serving: Serving, stack: contextlib.ExitStack
) -> None:
    held = [stack.enter_context(serving.connect()) for _ in range(WORKERS_MAX + 10)]
    for client in held:
        client.send("/held")
    wait_until(lambda: serving.held == WORKERS_MAX, deadline_s=SOON_S, what="all are held")
    assert serving.engine.worker_count == WORKERS_MAX

    serving.release.set()

    assert all(client.receive() == b"/held" for client in held)


# Requests that fail -------------------------------------------------------------------------


def fail(answer: "Future[Reply]") -> None:
    answer.set_exception(RuntimeError("a bug in a service"))


def give_up(answer: "Future[Reply]") -> None:
    answer.cancel()


@pytest.mark.parametrize("end", [fail, give_up])
def test_an_answer_that_never_comes_ends_its_connection_alone(
    serving: Serving, end: "Callable[[Future[Reply]], None]"
) -> None:
    with serving.connect() as client, serving.connect() as other:
        client.send("/later")
        wait_until(lambda: bool(serving.later), deadline_s=SOON_S, what="it is asked")

        end(serving.later[0])

        assert client.is_ended()
        assert other.ask("/small") == b"/small"
        serving.counts(1)


def test_a_bug_in_a_handler_ends_its_connection_alone(serving: Serving) -> None:
    with serving.connect() as other:
        with serving.connect() as client:
            client.send("/bug")
            assert client.is_ended()

        assert other.ask("/small") == b"/small"


def test_a_connection_that_cannot_be_opened_is_closed_and_others_are_accepted(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SWEEP_S", 1000.0)
    opens, before = serving.open_session, descriptors()

    def cannot_open(_sock: socket.socket) -> Session:
        raise PermissionError("its process cannot be looked at")

    serving.open_session = cannot_open
    with serving.connect() as client:
        assert client.is_ended()

    serving.open_session = opens
    assert serving.answers()
    wait_descriptors(before)


# The end ------------------------------------------------------------------------------------


def test_a_request_in_hand_is_answered_before_the_engine_stops(serving: Serving) -> None:
    with serving.connect() as client, serving.connect() as idle:
        assert idle.ask("/small") == b"/small"
        client.send("/later")
        wait_until(lambda: bool(serving.later), deadline_s=SOON_S, what="it is asked")
        stopping = threading.Thread(target=serving.stop, kwargs={"grace_s": 60.0})
        stopping.start()
        wait_until(lambda: not serving.listens(), deadline_s=SOON_S, what="nobody new is let in")
        assert all(idle.ask("/small") == b"/small" for _ in range(300))

        serving.later[0].set_result(reply(HTTPStatus.OK, body=b"just in time"))

        assert client.receive() == b"just in time"
        stopping.join(SOON_S)
        assert not stopping.is_alive()
        assert client.is_ended()
        assert idle.is_ended()


def test_a_request_that_takes_longer_than_the_grace_is_given_up(serving: Serving) -> None:
    with serving.connect() as client, serving.connect() as stuck, serving.connect() as held:
        held.send("/held")
        client.send("/later")
        stuck.send("/big")
        serving.wait_stuck(1)
        wait_until(lambda: bool(serving.later and serving.held), deadline_s=SOON_S, what="asked")

        serving.stop(grace_s=0.1)

        assert serving.later[0].cancelled()
        assert client.is_ended()
        assert stuck.is_ended()
        assert held.is_ended()


def test_an_engine_that_stopped_leaves_no_thread_and_no_file(tmp_path: Path) -> None:
    threads, files = set(threading.enumerate()), descriptors_without_garbage()
    serving = Serving(tmp_path)
    with serving.connect() as client:
        assert client.ask("/small") == b"/small"

        serving.close()

    assert set(threading.enumerate()) <= threads
    assert descriptors() == files

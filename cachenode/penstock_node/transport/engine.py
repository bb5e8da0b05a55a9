"""Workers that serve thousands of connections: a few threads over one epoll.

Responsible for: waiting for sockets, giving each that is ready to a free worker, accepting,
ending connections that do not get on, and replacing workers that a slow disk holds.
Not responsible for: what is spoken on a connection (`connection`, protocols).

Every socket is non-blocking and armed for one event at a time, so one worker has it at once, and
a reader that stops reading costs no thread. A worker may still be held inside a disk: one that
is held for `HELD_S` is replaced, so that there are always `WORKERS` that are free or get on.
Measured beside threads per connection, a hand-off queue and an event loop: `docs/decisions`.
"""

import contextlib
import errno
import math
import os
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass

import structlog

from penstock_node.transport.connection import Connection, Session, Wants
from penstock_node.transport.reply import Reply
from penstock_node.transport.tls import Context, speak_tls

WORKERS = 8
WORKERS_MAX = 64
"""With those that are held by disks; beyond it, readers wait until a disk answers."""
HELD_S = 0.1
LOOK_S = 0.05
"""Between looks at the workers, and at the requests in hand; every `SWEEP_S` at all connections."""
SWEEP_S = 1.0
ACCEPTS_A_TURN = 64
CONNECTIONS_MAX = 16_384
IDLE_S = 900.0
"""Longest that a connection may say nothing between requests. On this machine it may for ever:
the kernel tells of a reader that is gone, and one that maps chunks has nothing to say."""
GREET_S = 10.0
"""Longest that a reader may take to agree upon TLS."""
RECEIVE_S = 10.0
"""Longest that a request may take to come in, from its first byte."""
SEND_S = 30.0
"""Longest that a reader may take nothing of what is sent to it."""

_INPUT = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLONESHOT
_OUTPUT = select.EPOLLOUT | select.EPOLLONESHOT
_NO_DESCRIPTORS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

_log = structlog.get_logger("penstock.transport")


@dataclass(slots=True)
class _Listener:
    bound: socket.socket
    open_session: Callable[[socket.socket], Session]
    name: str
    tls: Context | None
    is_paused: bool = False
    """It is not armed, for lack of room or a failure: the overseer arms it in its next round."""


class _Worker(threading.Thread):
    """One thread, and since when it has been busy with one connection; 0 when it is not."""

    def __init__(self, serve: Callable[["_Worker"], None]) -> None:
        super().__init__(name="penstock-worker", daemon=True)
        self._serve = serve
        self.busy_since = 0.0

    def run(self) -> None:
        self._serve(self)


class Engine:
    """Serves the connections of any number of listeners. Thread-safe."""

    def __init__(self, *, connections_max: int = CONNECTIONS_MAX) -> None:
        self._connections_max = connections_max
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._listeners: dict[int, _Listener] = {}
        self._connections: dict[int, Connection] = {}
        self._busy: set[Connection] = set()
        """Those that a worker has, or that are not done with a request."""
        self._workers: set[_Worker] = set()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._overseer = threading.Thread(
            target=self._oversee, name="penstock-overseer", daemon=True
        )

    @property
    def connection_count(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    def connections_by_name(self) -> dict[str, int]:
        """Return how many are open of each listener, by its name."""
        names = {listener.name: 0 for listener in self._listeners.values()}
        return names | Counter(each.name for each in list(self._connections.values()))

    @property
    def connections_max(self) -> int:
        """How many may be open: beyond it none is accepted."""
        return self._connections_max

    @property
    def held_count(self) -> int:
        """How many workers a disk has held for `HELD_S` or longer."""
        return sum(map(_held, list(self._workers)))

    @property
    def busy_count(self) -> int:
        """How many have a request in hand, or an answer that is not through."""
        return len(self._busy)

    @property
    def worker_count(self) -> int:
        """How many workers there are, those held by disks among them."""
        return len(self._workers)

    def listen(
        self,
        listener: socket.socket,
        open_session: Callable[[socket.socket], Session],
        *,
        name: str = "",
        tls: Context | None = None,
    ) -> None:
        """Accept connections of ``listener``, which is the engine's from now on.

        Args:
            listener: A bound socket.
            open_session: Called for each connection.
            name: What its connections are counted under.
            tls: Gives what each is accepted with; None: plain text is spoken.
        """
        listener.setblocking(False)
        listener.listen(4096)
        self._listeners[listener.fileno()] = _Listener(listener, open_session, name, tls)
        self._epoll.register(listener.fileno(), _INPUT)

    def start(self) -> None:
        """Start the workers."""
        for _ in range(WORKERS):
            self._add_worker()
        self._overseer.start()

    def stop(self, *, grace_s: float) -> None:
        """Take no new connections, let requests in hand finish within ``grace_s``, end the rest."""
        for listener in self._listeners.values():
            listener.bound.close()
        deadline = time.monotonic() + grace_s
        while time.monotonic() < deadline and not self._all_idle():
            time.sleep(LOOK_S)
        self._stopping.set()
        os.eventfd_write(self._wake, 1)
        self._overseer.join()  # First: it may be about to start another worker.
        for worker in list(self._workers):
            worker.join(timeout=HELD_S if _held(worker) else 5.0)
        for connection in list(self._connections.values()):
            connection.close()
        self._connections.clear()
        self._busy.clear()
        if not self._workers:  # One that a disk holds may come back to them.
            self._epoll.close()
            os.close(self._wake)

    def _all_idle(self) -> bool:
        return all(connection.is_idle for connection in list(self._connections.values()))

    # Workers.

    def _add_worker(self) -> None:
        worker = _Worker(self._work)
        with self._lock:
            self._workers.add(worker)
        worker.start()

    def _work(self, worker: _Worker) -> None:
        try:
            while not self._stopping.is_set() and not self._is_surplus(worker):
                for descriptor, _event in self._epoll.poll(maxevents=1):
                    worker.busy_since = time.monotonic()
                    self._serve(descriptor)
                worker.busy_since = 0.0
        finally:
            with self._lock:
                self._workers.discard(worker)

    def _is_surplus(self, worker: _Worker) -> bool:
        """Tell whether a worker that was held is replaced by now and one too many."""
        if len(self._workers) <= WORKERS:
            return False
        with self._lock:
            free = [one for one in self._workers if not _held(one)]
            if len(free) <= WORKERS:
                return False
            self._workers.discard(worker)
            return True

    def _serve(self, descriptor: int) -> None:
        connection = self._connections.get(descriptor)
        if connection is not None:
            self._advance(connection)
        elif descriptor in self._listeners:
            self._accept(self._listeners[descriptor])

    def _advance(self, connection: Connection) -> None:
        self._busy.add(connection)  # A disk may hold it.
        try:
            wants = connection.advance()
        except OSError as error:
            _log.debug("a connection broke", error=str(error))
            wants = Wants.END
        except Exception as error:  # noqa: BLE001 - one reader's trouble ends no worker
            _log.error("a request failed inside the node", exc_info=error)
            wants = Wants.END
        match wants:
            case Wants.INPUT:
                self._busy.discard(connection)  # First: from the next line on another may have it.
                self._arm(connection, _INPUT)
            case Wants.OUTPUT | Wants.TURN:
                self._arm(connection, _OUTPUT)
            case Wants.ANSWER:
                self._park(connection)
            case Wants.END:
                self._end(connection)

    def _arm(self, connection: Connection, events: int) -> None:
        self._epoll.modify(connection.socket.fileno(), events)

    def _park(self, connection: Connection) -> None:
        """Let the answer's future bring the connection back. It is not ours after this."""
        waiting = connection.waiting
        assert waiting is not None, "parked for nothing"
        waiting.add_done_callback(lambda answer: self._resume(connection, answer))

    def _resume(self, connection: Connection, answer: "Future[Reply]") -> None:
        if connection.waiting is None:  # It was closed meanwhile.
            return
        connection.waiting = None
        connection.answer(_reply_of(answer))
        connection.wants = Wants.OUTPUT
        with contextlib.suppress(OSError, ValueError):  # The engine has stopped meanwhile.
            self._arm(connection, _OUTPUT)

    def _end(self, connection: Connection) -> None:
        self._connections.pop(connection.socket.fileno(), None)
        self._busy.discard(connection)
        connection.close()

    # Accepting.

    def _accept(self, listener: _Listener) -> None:
        has_room = False
        try:
            has_room = self._accept_some(listener)
        except Exception as error:  # noqa: BLE001 - one reader's trouble ends no worker
            _log.error("cannot accept", exc_info=error)
        # Whatever happens, the listener is armed or the overseer will arm it.
        if has_room:
            self._rearm(listener)
        else:
            listener.is_paused = True

    def _accept_some(self, listener: _Listener) -> bool:
        """Accept a turn's worth of connections; tell whether there is room for more."""
        for _ in range(ACCEPTS_A_TURN):
            if len(self._connections) >= self._connections_max:
                return False
            try:
                sock, _address = listener.bound.accept()
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno in _NO_DESCRIPTORS:
                    _log.warning("cannot accept", error=error.strerror)
                    return False
                if self._stopping.is_set() or listener.bound.fileno() < 0:
                    return False
                continue  # That one connection was gone again.
            self._open(sock, listener)
        return True

    def _rearm(self, listener: _Listener) -> None:
        listener.is_paused = False  # First: from the next line on another worker may pause it.
        with contextlib.suppress(OSError, ValueError):  # Closed: the engine stops.
            self._epoll.modify(listener.bound.fileno(), _INPUT)

    def _open(self, sock: socket.socket, listener: _Listener) -> None:
        try:
            _set_up(sock)
            if listener.tls is not None:
                sock = speak_tls(sock, listener.tls())
            connection = Connection(sock, listener.open_session(sock), name=listener.name)
        except Exception as error:  # noqa: BLE001 - one reader's trouble ends no worker
            _log.error("a connection could not be opened", exc_info=error)
            sock.close()
            return
        self._connections[sock.fileno()] = connection
        try:
            self._epoll.register(sock.fileno(), _INPUT)
        except OSError as error:  # The kernel watches only so many for one user.
            _log.error("a connection cannot be waited for", error=error.strerror)
            self._end(connection)

    # The overseer.

    def _oversee(self) -> None:
        sweep_at = time.monotonic() + SWEEP_S
        while not self._stopping.wait(LOOK_S):
            self._replace_held()
            now = time.monotonic()
            for connection in list(self._busy):
                connection.say_working(now)
            if now >= sweep_at:
                sweep_at = now + SWEEP_S
                self._sweep(now)

    def _replace_held(self) -> None:
        with self._lock:
            total, held = len(self._workers), sum(map(_held, self._workers))
        for _ in range(min(WORKERS - (total - held), WORKERS_MAX - total)):
            self._add_worker()

    def _sweep(self, now: float) -> None:
        for connection in _overdue(list(self._connections.values()), now):
            # Its worker, if it has one, or the next event sees the end and closes it.
            with contextlib.suppress(OSError):
                connection.socket.shutdown(socket.SHUT_RDWR)
        for listener in self._listeners.values():
            if listener.is_paused:
                self._rearm(listener)


def _reply_of(answer: "Future[Reply]") -> Reply:
    """Return the answer; one that failed, or was given up, ends its connection."""
    if answer.cancelled():
        return Reply(ends=True)
    error = answer.exception()
    if error is None:
        return answer.result()
    _log.error("a request failed inside the node", exc_info=error)
    return Reply(ends=True)


def _set_up(sock: socket.socket) -> None:
    sock.setblocking(False)
    if sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sock.getpeername()[0] == sock.getsockname()[0]:
        # Within a machine nothing congests, and a machine's choice for its network may pace what
        # is sent: measured with BBR, 2.2 GB/s on one connection instead of 4.1.
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")


def _held(worker: _Worker) -> bool:
    since = worker.busy_since
    return since > 0 and time.monotonic() - since > HELD_S


def _overdue(connections: list[Connection], now: float) -> Iterator[Connection]:
    for connection in connections:
        match connection.wants:
            case Wants.INPUT | Wants.OUTPUT if connection.is_greeting:
                limit_s = GREET_S
            case Wants.INPUT if connection.is_idle and not connection.is_ending:
                limit_s = math.inf if connection.socket.family == socket.AF_UNIX else IDLE_S
            case Wants.INPUT:
                limit_s = RECEIVE_S
            case Wants.OUTPUT:
                limit_s = SEND_S
            case _:
                continue
        if now - connection.since > limit_s:
            yield connection

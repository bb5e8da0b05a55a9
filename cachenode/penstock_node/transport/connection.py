"""One connection, and the protocol that is spoken on it.

Responsible for: bytes in and out of one non-blocking socket, one request after another; saying
that a request is worked on, for as long as it is; that a refusal can be read before the end.
Not responsible for: waiting for sockets (`engine`). Used by one thread at a time: a worker, or
while it is parked whoever answers the request; but for `say_working`.
"""

import contextlib
import enum
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol

from penstock_node.transport.reply import Octets, Outcome, Part, Reply
from penstock_node.transport.tls import TlsSocket

RECEIVE_BYTES = 64 * 1024
DISCARDED_MAX = 64 * 1024 * 1024
"""Of what was refused unread: an upload, say. For `engine.RECEIVE_S` at most."""
DISCARDS_A_TURN = 64
REQUESTS_A_TURN = 8
"""Answered before other connections have their turn, of a reader that sends without waiting."""
INTERIM_S = 0.2
"""How often a reader is told that its request is worked on."""
HELD_MAX_S = 2.0
"""Longest that it is told so while a disk holds the worker: a disk that hangs is left out by then,
and whoever asks again is served without it."""


class Session(Protocol):
    """What one connection speaks."""

    @property
    def is_last(self) -> bool:
        """Whether the connection ends with the answer to the request in hand."""

    @property
    def interim(self) -> bytes:
        """What says that the request in hand is worked on; empty: its sender is not told."""

    def step(self, inbox: bytearray) -> Outcome | None:
        """Take one request out of ``inbox`` and answer it; None: it is not all there yet.

        What is wrong with a request is said in the reply, with ``ends`` where what follows
        cannot be made out. An answer that takes time is a future.
        """

    def close(self) -> None:
        """The connection has ended."""


class Wants(enum.Enum):
    """What a connection waits for."""

    INPUT = enum.auto()
    OUTPUT = enum.auto()
    ANSWER = enum.auto()
    TURN = enum.auto()
    """Nothing: it has more to do, after others."""
    END = enum.auto()


class Connection:
    """A socket, its session, and what is on the way between them."""

    __slots__ = (
        "_discarded",
        "_discards",
        "_ends",
        "_inbox",
        "_outbox",
        "_saying",
        "_session",
        "_then",
        "_told_at",
        "_work_since",
        "is_greeting",
        "name",
        "since",
        "socket",
        "waiting",
        "wants",
    )

    def __init__(self, sock: socket.socket, session: Session, *, name: str = "") -> None:
        self.socket = sock
        self.name = name
        """Of the listener that it came by."""
        self.is_greeting = isinstance(sock, TlsSocket)
        """Whether TLS is still being agreed upon."""
        self.waiting: Future[Reply] | None = None
        """The answer that the connection is parked for."""
        self.wants = Wants.INPUT
        self.since = time.monotonic()
        """When it last got on: took in the first byte of a request, sent something, ended one."""
        self._session = session
        self._inbox = bytearray()
        self._outbox: deque[Part] = deque()
        self._then: Callable[[], Outcome] | None = None
        self._ends = False
        self._discards = False
        """Whether what still comes is thrown away: the last answer was a refusal of it."""
        self._discarded = 0
        self._saying = threading.Lock()
        self._told_at = 0.0
        """When work on the request in hand began, or its sender was last told; 0: none is."""
        self._work_since = 0.0

    @property
    def is_idle(self) -> bool:
        """Whether it is between requests."""
        return self.wants is Wants.INPUT and not self._inbox

    @property
    def is_ending(self) -> bool:
        """Whether all is answered that will be."""
        return self._ends

    def advance(self) -> Wants:
        """Send and receive all that can be without waiting; return what to wait for.

        Raises:
            OSError: The connection is broken.
        """
        self.wants = (self._greet() if self.is_greeting else None) or self._advance()
        return self.wants

    def _greet(self) -> Wants | None:
        """Go on with TLS' handshake; None when it is done."""
        assert isinstance(self.socket, TlsSocket)
        try:
            self.socket.do_handshake()
        except ssl.SSLWantReadError:
            return Wants.INPUT
        except ssl.SSLWantWriteError:
            return Wants.OUTPUT
        self.is_greeting, self.since = False, time.monotonic()
        return None

    def _advance(self) -> Wants:
        for _ in range(REQUESTS_A_TURN):
            if not self._flush():
                return Wants.OUTPUT
            if self._then is None and self._ends:
                return self._discard() if self._discards else Wants.END
            outcome = self._next()
            if outcome is None:
                return Wants.INPUT if not self._ends else Wants.END
            if isinstance(outcome, Future):
                self.waiting = outcome
                return Wants.ANSWER
            self.answer(outcome)
        return Wants.TURN

    def _next(self) -> Outcome | None:
        if self._then is not None:
            then, self._then = self._then, None
            return self._work(then)
        if self._inbox:  # Sent without waiting for the answer before.
            outcome = self._work(self._step)
            if outcome is not None:
                return outcome
        return self._receive()

    def _step(self) -> Outcome | None:
        return self._session.step(self._inbox)

    def _work(self, step: Callable[[], Outcome | None]) -> Outcome | None:
        self._told_at = self._work_since = time.monotonic()
        outcome = step()
        if outcome is None:
            self._is_answered()
        return outcome

    def _is_answered(self) -> None:
        with self._saying:  # What is being said is said before the answer begins.
            self._told_at = 0.0

    def _receive(self) -> Outcome | None:
        try:
            data = self.socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return None
        if not data:
            self._ends = True
            return None
        if not self._inbox:
            self.since = time.monotonic()
        self._inbox += data
        return self._work(self._step)

    def _discard(self) -> Wants:
        """Say that no more comes, and take in what is still sent before closing.

        A connection that is closed with bytes unread is reset, and a sender that is still at it
        may never get to read why it was refused.
        """
        self._inbox.clear()
        if not self._discarded:
            self.socket.shutdown(socket.SHUT_WR)
        for _ in range(DISCARDS_A_TURN):
            try:
                data = self.socket.recv(RECEIVE_BYTES)
            except BlockingIOError:
                return Wants.INPUT
            self._discarded += len(data)
            if not data or self._discarded > DISCARDED_MAX:
                return Wants.END
        return Wants.TURN

    def answer(self, reply: Reply) -> None:
        """Take a reply; `advance` sends it."""
        self._is_answered()
        self._outbox.extend(reply.parts)
        self._then = reply.then
        self._ends = self._ends or reply.ends or self._session.is_last
        self._discards = reply.ends and bool(reply.parts)  # Else it is broken off.
        self.since = time.monotonic()

    def _flush(self) -> bool:
        while self._outbox:
            self.since = time.monotonic()  # Woken because the reader took some, or just begun.
            if not self._outbox[0].send_to(self.socket):
                return False
            self._outbox.popleft().close()
        return True

    def say_working(self, now: float) -> None:
        """Tell the sender of the request in hand, now and then, that it is worked on.

        From any one thread, whether a worker is at it, held by a disk perhaps, or it is parked.
        """
        if not 0.0 < self._told_at <= now - INTERIM_S or not self._saying.acquire(blocking=False):
            return
        try:
            # The interim before may not be through: then the reader has enough to read.
            if self._told_at and not self._outbox and not self._is_stuck(now):
                self._told_at = now
                self._send_interim(self._session.interim)
        finally:
            self._saying.release()

    def _is_stuck(self, now: float) -> bool:
        return self.waiting is None and now > self._work_since + HELD_MAX_S

    def _send_interim(self, data: bytes) -> None:
        if not data:
            return
        part = Octets(data)
        # A reader that is gone is noticed when its answer is sent.
        with contextlib.suppress(OSError):
            if not part.send_to(self.socket):
                self._outbox.append(part)

    def close(self) -> None:
        """Close the socket and let go of what was to be sent."""
        waiting, self.waiting = self.waiting, None
        if waiting is not None:
            waiting.cancel()
        self._is_answered()
        self.socket.close()
        for part in self._outbox:
            part.close()
        self._outbox.clear()
        self._session.close()

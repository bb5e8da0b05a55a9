"""Connections to the node of this machine over its Unix socket: messages out, answers and open
files in.

Responsible for: frames, timeouts that end a silent or cancelled wait, and that no descriptor is
left open, whatever happens.
Not responsible for: what is asked and what the answers mean (`planes.host`, `host_calls`).

A connection carries one request at a time and is used by one thread at a time. After a fork the
child drops its parent's: closing its own copies of the sockets says nothing to the node.
"""

import array
import contextlib
import functools
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType

from google.protobuf.message import DecodeError, Message

from penstock.connection_pool import ConnectionPool, Stale
from penstock.credentials import Authorization, token_of
from penstock.deadline import Deadline
from penstock.errors import NodeUnavailable
from penstock.host_frames import (
    HEAD_BYTES,
    INDEXES_MAX,
    RESPONSE_BYTES_MAX,
    frame,
    frame_bytes,
)
from penstock.patience import CONNECT_TIMEOUT_S, LOOK_S, Patience, check_deadline
from penstock.v1 import host_pb2
from penstock.wire import error_from_proto

GREET_TIMEOUT_S = 2.0
SEND_TIMEOUT_S = 8.0
"""Longest that a request may take to leave."""
_RECEIVE_BYTES = 64 * 1024
_RECEIVE_BYTES_MAX = 1024 * 1024
_ANCILLARY_BYTES = socket.CMSG_SPACE(INDEXES_MAX * array.array("i").itemsize)
_RECEIVE_FLAGS = getattr(socket, "MSG_CMSG_CLOEXEC", 0)  # Linux alone has it.


@dataclass(frozen=True, slots=True)
class Welcome:
    """What a node says of itself to a program that connects."""

    node: str
    """Its id."""
    cluster_uid: str
    gives_files: bool
    """Whether this program is given open files; if not, it reads over bulk what is here."""
    keeps_copies: bool
    """Whether the node keeps chunks for its machine's readers that others own."""


@dataclass(slots=True)
class Answer:
    """One answer of the node, and the open files that came with it. Use it in a ``with``."""

    message: host_pb2.HostResponse
    files: list[int] = field(default_factory=list)
    """Descriptors that nobody has taken yet."""
    are_cut: bool = False
    """This process had no room for all descriptors: some of them are missing."""

    def take_file(self) -> int:
        """Return the next descriptor: the caller's from now on.

        Raises:
            IndexError: There is none.
        """
        return self.files.pop(0)

    def __enter__(self) -> "Answer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _close_all(self.files)


class HostConnection:
    """One connection; see the module."""

    def __init__(self, address: str, *, authorization: Authorization | None = None) -> None:
        """Connect to the socket at the path ``address`` and greet the node.

        Raises:
            NodeUnavailable: Nothing answers there.
            PenstockError: What the node said to the token of ``authorization``.
        """
        self.address = address
        self.is_reused = False
        """See `Connection`."""
        self.idle_since = 0.0
        self._ahead, self._next = b"", Answer(host_pb2.HostResponse())
        """What has come of the answer after the last one, and its files."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(CONNECT_TIMEOUT_S)
            self._socket.connect(address)
            _let_the_kernel_wait(self._socket)
            self.welcome = self._greet(token_of(authorization))
        except OSError as error:
            self.close()
            raise NodeUnavailable(f"no node answers at {address}: {error}") from error
        except BaseException:
            self.close()
            raise

    def _greet(self, token: str) -> Welcome:
        hello = host_pb2.HostRequest(hello=host_pb2.HostHello(token=token))
        with self.ask(hello, Deadline.after(GREET_TIMEOUT_S)) as answer:
            told = answer.message
        if told.WhichOneof("response") != "welcome":
            raise self._nonsense("does not say who it is")
        welcome = told.welcome
        return Welcome(welcome.node, welcome.cluster_uid, welcome.gives_files, welcome.keeps_copies)

    def ask(self, request: host_pb2.HostRequest, deadline: Deadline) -> Answer:
        """Send ``request`` and wait for its answer.

        Raises:
            NodeUnavailable: The node is silent or gone, or the deadline has passed.
            PenstockError: What the node answered.
        """
        if self._ahead:
            raise self._nonsense("sends more than it was asked")
        request.tell_working = True
        self.tell(request)
        return self.receive(deadline)

    def receive(self, deadline: Deadline) -> Answer:
        """Wait for an answer: the next one to a request that is answered in parts.

        Raises:
            NodeUnavailable: The node is silent or gone, or the deadline has passed.
            PenstockError: What the node answered.
        """
        answer = self._receive(deadline)
        while answer.message.WhichOneof("response") == "working":
            check_deadline(self._who, deadline)  # It may say so for ever.
            answer = self._receive(deadline)
        if answer.message.WhichOneof("response") == "error":
            with answer:
                raise error_from_proto(answer.message.error)
        return answer

    def answers(self, request: host_pb2.HostRequest, deadline: Deadline) -> Iterator[Answer]:
        """Ask for chunks, and tell each answer as it comes; raises as `ask`."""
        answer = self.ask(request, deadline)
        yield answer
        while answer.message.chunks.more:
            answer = self.receive(deadline)
            yield answer

    def tell(self, request: Message) -> None:
        """Send a request that has no answer.

        Raises:
            NodeUnavailable: The node is gone.
        """
        try:
            self._socket.sendall(frame(request))
        except OSError as error:
            raise self._broken(error) from error

    def _receive(self, deadline: Deadline) -> Answer:
        """Return the next answer. Descriptors belong to it before anything else can fail."""
        answer, self._next = self._next, Answer(host_pb2.HostResponse())
        try:
            answer.message.ParseFromString(self._receive_frame(answer, deadline)[HEAD_BYTES:])
        except DecodeError as error:
            _close_all(answer.files)
            raise self._nonsense("sends what is no message") from error
        except BaseException:
            _close_all(answer.files)
            raise
        return answer

    def _receive_frame(self, answer: Answer, deadline: Deadline) -> bytes:
        """Return the next message. A reader that is late finds several in the socket."""
        data, self._ahead, files, are_cut = self._ahead, b"", 0, False
        while len(data) < HEAD_BYTES:
            files, are_cut = len(answer.files), answer.are_cut
            data += self._receive_some(_RECEIVE_BYTES, answer, deadline)
        wanted = frame_bytes(data)
        if wanted > RESPONSE_BYTES_MAX:
            raise self._nonsense(f"sends a message of {wanted} bytes")
        if len(data) < wanted:
            return data + self._receive_rest(wanted - len(data), answer, deadline)
        if len(data) > wanted:
            # The kernel ends a receive where files come: those of the last are the last message's.
            data, self._ahead = data[:wanted], data[wanted:]
            self._next.files, answer.files = answer.files[files:], answer.files[:files]
            self._next.are_cut, answer.are_cut = answer.are_cut, are_cut
        return data

    def _receive_rest(self, missing: int, answer: Answer, deadline: Deadline) -> bytearray:
        data = bytearray()
        while len(data) < missing:
            room = min(_RECEIVE_BYTES_MAX, missing - len(data))
            data += self._receive_some(room, answer, deadline)
        return data

    def _receive_some(self, size: int, answer: Answer, deadline: Deadline) -> bytes:
        patience = Patience(self._who, deadline)
        while True:
            try:
                data, ancillary, flags, _ = self._socket.recvmsg(
                    size, _ANCILLARY_BYTES, _RECEIVE_FLAGS
                )
            except BlockingIOError:  # `LOOK_S` have passed.
                patience.look()
                continue
            except OSError as error:
                raise self._broken(error) from error
            if ancillary:
                answer.files += _descriptors(ancillary)
                answer.are_cut |= bool(flags & socket.MSG_CTRUNC)
            if not data:
                raise self._gone(f"{self._who} closed the connection")
            self.is_reused = False
            return data

    @property
    def _who(self) -> str:
        return f"the node at {self.address}"

    def _broken(self, error: OSError) -> NodeUnavailable:
        return self._gone(f"the connection to {self.address} broke: {error}")

    def _gone(self, how: str) -> NodeUnavailable:
        # Silence is something else: who is silent here is so on a new connection too.
        return Stale(how) if self.is_reused else NodeUnavailable(how)

    def _nonsense(self, what: str) -> NodeUnavailable:
        return NodeUnavailable(f"what answers at {self.address} is no node: it {what}")

    def shut_down(self) -> None:
        """From another thread: end what waits on this connection."""
        with contextlib.suppress(OSError):  # It has ended already.
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket and what nobody has taken; again does nothing."""
        _close_all(self._next.files)
        self._socket.close()


class HostConnections(ConnectionPool[HostConnection]):
    """A pool of connections by the path of their socket."""

    def __init__(self, *, authorization: Authorization | None = None) -> None:
        super().__init__(functools.partial(HostConnection, authorization=authorization))

    def welcome(self, path: str) -> Welcome:
        """Return what the node at ``path`` says of itself, now.

        Raises:
            NodeUnavailable: None answers there.
        """
        with self.borrow(path, fresh=True) as connection:
            return connection.welcome


def _let_the_kernel_wait(sock: socket.socket) -> None:
    """With Python's own timeouts each receive would poll first."""
    sock.settimeout(None)
    for option, seconds in ((socket.SO_RCVTIMEO, LOOK_S), (socket.SO_SNDTIMEO, SEND_TIMEOUT_S)):
        timeout = struct.pack("@ll", int(seconds), int(seconds % 1 * 1e6))
        sock.setsockopt(socket.SOL_SOCKET, option, timeout)


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> Iterator[int]:
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            numbers = array.array("i")
            numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
            yield from numbers


def _close_all(files: list[int]) -> None:
    while files:
        os.close(files.pop())

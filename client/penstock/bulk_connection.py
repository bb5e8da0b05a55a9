"""Connections to bulk ports: requests out, heads and bodies in.

Responsible for: sockets, timeouts that end a silent or cancelled wait, parsing answers' heads.
Not responsible for: what is asked and what the answers mean (`planes.bulk`, `bulk_calls`).

A connection is used by one thread at a time. After a fork the child drops its parent's: closing
its own copies of the sockets says nothing to the nodes.
"""

import contextlib
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING

import httptools

from penstock.bulk_http import HEAD_END, TLS
from penstock.connection_pool import ConnectionPool, Stale
from penstock.deadline import Deadline
from penstock.errors import NodeUnavailable, NotPermitted
from penstock.patience import CONNECT_TIMEOUT_S, LOOK_S, Patience, check_deadline
from penstock.wire import MESSAGE_BYTES_MAX

if TYPE_CHECKING:
    from penstock.bulk_tls import TlsSocket
    from penstock.certificates import Certificates

SEND_TIMEOUT_S = 8.0
"""Longest that a request may take to leave: it is small, and the kernel takes it at once."""
PROBE_AFTER_S = 1
PROBES_MAX = 3
HEAD_BYTES_MAX = 64 * 1024
NUMBER_DIGITS_MAX = 19
_RECEIVE_HEAD_BYTES = 1024
"""At a time: most heads, and little of the body, which would be copied once more."""


@dataclass(slots=True)
class Head:
    """An answer's status and headers, whose names are in small letters."""

    status: int
    headers: dict[str, str]

    def number(self, name: str) -> int:
        """Return the number in a header; 0 where there is none."""
        text = self.headers.get(name.lower(), "")
        return int(text) if _is_number(text) else 0

    @property
    def length(self) -> int:
        """Of the body, in bytes.

        Raises:
            NodeUnavailable: It does not say: whoever answers is no node.
        """
        text = self.headers.get("content-length", "")
        if not _is_number(text):
            raise NodeUnavailable("an answer without a Content-Length: not a node's bulk port")
        return int(text)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= NUMBER_DIGITS_MAX


class _ParsedHead:
    def __init__(self) -> None:
        self.headers: dict[str, str] = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")


def parse_head(data: bytes) -> Head:
    """Return the answer's head that ``data`` is, the empty line included.

    Raises:
        NodeUnavailable: It is none.
    """
    parsed = _ParsedHead()
    parser = httptools.HttpResponseParser(parsed)
    try:
        parser.feed_data(data)
        status = parser.get_status_code()
    except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
        raise NodeUnavailable(f"what answers does not speak HTTP: {error}") from error
    return Head(status, parsed.headers)


class BulkConnection:
    """One connection, kept alive between requests."""

    def __init__(self, address: str, *, credentials: "Certificates | None" = None) -> None:
        """Connect.

        Args:
            address: ``host:port``, or ``tls:host:port`` where TLS is spoken.
            credentials: Whom to believe there.

        Raises:
            NodeUnavailable: Nothing answers there, or it is not believed.
            NotPermitted: TLS is spoken there, and there are no ``credentials``.
        """
        self.address = address
        self.host = address.removeprefix(TLS)
        """For the header of this name."""
        self.is_reused = False
        """See `Connection`."""
        self.idle_since = 0.0
        host, _, port = self.host.rpartition(":")
        try:
            plain = socket.create_connection(
                (host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_S
            )
            _set_up(plain)
            self._socket = (
                plain if self.host == address else _speak_tls(plain, self.host, credentials)
            )
        except OSError as error:
            raise NodeUnavailable(f"{address} does not answer: {error}") from error
        self._scratch = memoryview(bytearray(_RECEIVE_HEAD_BYTES))
        self._ahead = b""  # Of a body, received with its head.

    def send(self, data: bytes) -> None:
        """Send requests.

        Raises:
            NodeUnavailable: The connection is broken.
        """
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise self._broken(error) from error

    def receive_head(
        self, deadline: Deadline, *, gives_up: Callable[[], bool] | None = None
    ) -> Head:
        """Return the next answer's head; interim ones are passed over.

        Args:
            deadline: When to end at the latest.
            gives_up: See `Patience`.

        Raises:
            NodeUnavailable: The node is silent or gone, or the deadline has passed.
        """
        head = self._next_head(deadline, gives_up)
        while head.status == HTTPStatus.PROCESSING:
            check_deadline(self.address, deadline)  # They may come for ever.
            head = self._next_head(deadline, gives_up)
        return head

    def _next_head(self, deadline: Deadline, gives_up: Callable[[], bool] | None) -> Head:
        data = self._ahead
        while (end := data.find(HEAD_END)) < 0:
            if len(data) > HEAD_BYTES_MAX:
                raise NodeUnavailable(f"{self.address} answers with an endless head")
            size = self._receive(self._scratch, Patience(self.address, deadline, gives_up=gives_up))
            data += self._scratch[:size]
        end += len(HEAD_END)
        self._ahead = data[end:]
        return parse_head(data[:end])

    def receive_into(self, target: memoryview, deadline: Deadline) -> None:
        """Fill ``target`` with the next bytes of the answer's body; raises as `receive_head`."""
        filled = min(len(target), len(self._ahead))
        if filled:
            target[:filled] = self._ahead[:filled]
            self._ahead = self._ahead[filled:]
        while filled < len(target):
            patience = Patience(self.address, deadline)  # With each part that comes, anew.
            filled += self._receive(target[filled:], patience, socket.MSG_WAITALL)

    def receive_body(self, length: int, deadline: Deadline) -> bytes:
        """Return the next ``length`` bytes of the answer's body; raises as `receive_head`."""
        if length > MESSAGE_BYTES_MAX:
            raise NodeUnavailable(f"{self.address} announces a message of {length} bytes")
        body = bytearray(length)
        self.receive_into(memoryview(body), deadline)
        return bytes(body)

    def _receive(self, target: memoryview, patience: Patience, flags: int = 0) -> int:
        while True:
            try:
                size = self._socket.recv_into(target, len(target), flags)
            except BlockingIOError:  # `LOOK_S` have passed.
                patience.look()
            except OSError as error:
                raise self._broken(error) from error
            else:
                if size == 0:
                    raise self._gone(f"{self.address} closed the connection")
                self.is_reused = False
                return size

    def _broken(self, error: OSError) -> NodeUnavailable:
        return self._gone(f"the connection to {self.address} broke: {error}")

    def _gone(self, how: str) -> NodeUnavailable:
        # Silence is something else: who is silent here is so on a new connection too.
        return Stale(how) if self.is_reused else NodeUnavailable(how)

    def shut_down(self) -> None:
        """From another thread: end what waits on this connection."""
        with contextlib.suppress(OSError):  # It has ended already.
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def _set_up(sock: socket.socket) -> None:
    """Have the kernel wait and wake: with Python's own timeouts each receive would poll first."""
    sock.settimeout(None)
    look = struct.pack("@ll", int(LOOK_S), int(LOOK_S % 1 * 1e6))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, look)
    sock.setsockopt(
        socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", int(SEND_TIMEOUT_S), 0)
    )
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", PROBE_AFTER_S),
        ("TCP_KEEPINTVL", PROBE_AFTER_S),
        ("TCP_KEEPCNT", PROBES_MAX),
        ("TCP_USER_TIMEOUT", 1000 * PROBE_AFTER_S * (PROBES_MAX + 1)),
    ):
        if hasattr(socket, option):  # Not every system names all of them.
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def _speak_tls(
    sock: socket.socket, address: str, credentials: "Certificates | None"
) -> "TlsSocket":
    if credentials is None:
        sock.close()
        raise NotPermitted(
            f"the bulk port {address} speaks TLS: connect with tls=penstock.Tls(ca=PATH), or set "
            "PENSTOCK_CA to the file of who signs the nodes' certificates"
        )
    # ssl is loaded only for those who speak TLS.
    from penstock.bulk_tls import TlsSocket

    host = address.rpartition(":")[0].strip("[]")
    try:
        return TlsSocket(sock, host, credentials.client_context(), send_timeout_s=SEND_TIMEOUT_S)
    except BaseException:
        sock.close()
        raise


class BulkConnections(ConnectionPool[BulkConnection]):
    """A pool of connections by address."""

    def __init__(self, *, credentials: "Certificates | None" = None) -> None:
        """Connect to nothing yet; ``credentials`` say whom to believe where TLS is spoken."""
        super().__init__(partial(BulkConnection, credentials=credentials))

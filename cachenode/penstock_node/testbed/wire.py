"""A node's bulk port byte by byte: for tests that say what no library would.

Responsible for: requests as bytes, answers taken apart without mercy, and what a node has open.
Not responsible for: retries, pools, checking what was read; `penstock` does that.
"""

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from penstock_node.testbed.cluster import NodeProcess

TIMEOUT_S = 30.0
_END_OF_HEAD = b"\r\n\r\n"
_RECEIVE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class WireAnswer:
    """One answer, the interim ones before it counted."""

    status: int
    headers: Mapping[str, str]
    """Names in small letters."""
    body: bytes = field(repr=False)
    interims: Sequence[int] = ()
    """The statuses that came before, in order."""

    @property
    def error(self) -> str:
        """The error's name; empty: none is told."""
        return self.headers.get("penstock-error", "")


class Wire:
    """One connection to ``host:port``. As a context manager it is closed at the end."""

    def __init__(self, address: str, *, receive_buffer_bytes: int = 0) -> None:
        """Connect.

        Args:
            address: Of a bulk port.
            receive_buffer_bytes: What the kernel takes in unread; 0 for its own choice.
        """
        host, _, port = address.rpartition(":")
        self.socket = socket.socket()
        if receive_buffer_bytes:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self.socket.settimeout(TIMEOUT_S)
        self.socket.connect((host, int(port)))
        self._ahead = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(data)

    def ask(self, data: bytes) -> WireAnswer:
        """Send a request and return its answer."""
        self.send(data)
        return self.answer()

    def answer(self) -> WireAnswer:
        """Return the next answer; raises `ConnectionError` when the node ends instead."""
        interims: list[int] = []
        while True:
            status, headers = self._head()
            if status >= 200:
                break
            interims.append(status)
        body = self._body(int(headers["content-length"]))
        return WireAnswer(status, headers, body, interims)

    def interim(self) -> int:
        """Return the status of the next answer, which is an interim one: it has no body."""
        status, _headers = self._head()
        assert status < 200, f"{status} is the answer itself"
        return status

    def _head(self) -> tuple[int, dict[str, str]]:
        while _END_OF_HEAD not in self._ahead:
            self._receive()
        head, _, self._ahead = self._ahead.partition(_END_OF_HEAD)
        first, *lines = head.decode("latin-1").split("\r\n")
        protocol, status, _phrase = first.split(" ", 2)
        assert protocol == "HTTP/1.1", f"an answer that begins with {first!r}"
        pairs = [line.split(": ", 1) for line in lines]
        headers = {name.lower(): value for name, value in pairs}
        assert len(headers) == len(pairs), f"a header is there twice: {lines}"
        return int(status), headers

    def _body(self, length: int) -> bytes:
        while len(self._ahead) < length:
            self._receive()
        body, self._ahead = self._ahead[:length], self._ahead[length:]
        return body

    def _receive(self) -> None:
        data = self.socket.recv(_RECEIVE_BYTES)
        if not data:
            raise ConnectionError(f"the node has closed the connection; unread: {self._ahead!r}")
        self._ahead += data

    def ends(self) -> bool:
        """Wait until the node ends the connection; False when it says more instead."""
        try:
            return not self._ahead and not self.socket.recv(1)
        except ConnectionResetError:
            return True


def chunk_request(index: object, ticket: str, *headers: str) -> bytes:
    """Return a request for a chunk, with more headers as ``Name: value``."""
    shown = f"Authorization: Penstock {ticket}"
    lines = [f"GET /v1/chunk/{index} HTTP/1.1", "Host: node", shown, *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def call_request(method: str, message: bytes) -> bytes:
    """Return a request that calls ``service/method`` with an encoded message."""
    head = f"POST /v1/call/{method} HTTP/1.1\r\nHost: node\r\nContent-Length: {len(message)}"
    return head.encode("latin-1") + b"\r\n\r\n" + message


def open_chunk_files(node: NodeProcess) -> list[Path]:
    """Return the chunk files that the node has open now, one that is open twice twice."""
    found = []
    for link in Path(f"/proc/{node.process.pid}/fd").iterdir():
        try:
            target = link.readlink()
        except FileNotFoundError:  # Closed since it was listed.
            continue
        if any(target.is_relative_to(tier / "chunks") for tier in node.tier_paths):
            found.append(target)
    return found

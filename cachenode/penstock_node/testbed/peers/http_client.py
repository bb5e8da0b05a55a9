"""The least that a client can do: files by HTTP straight into a buffer, by kept connections.

Responsible for: one thread and one connection each, and ``recv_into`` in place, nothing else:
the yardstick for what Penstock's client costs beyond that.
Not responsible for: verifying; faults. Whatever is not a plain 200 of the right length ends the
benchmark.
"""

import itertools
import re
import socket
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

TIMEOUT_S = 30.0
_HEAD_BYTES_MAX = 4096
_LENGTH = re.compile(rb"\r\nContent-Length: (\d+)\r\n")


class HttpClient:
    """Reads files of one server into one buffer, several at once. A context manager."""

    def __init__(self, address: str, *, connections: int) -> None:
        """Connect.

        Args:
            address: ``host:port``.
            connections: How many files are read at once, by a thread each.
        """
        host, _, port = address.rpartition(":")
        self._sockets = [
            socket.create_connection((host, int(port)), TIMEOUT_S) for _ in range(connections)
        ]
        for connection in self._sockets:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.settimeout(None)  # With one, every call would poll before it reads.
        self._pool = ThreadPoolExecutor(connections, thread_name_prefix="http-client")

    def read(self, paths: Sequence[str], buffer: memoryview) -> None:
        """Fill ``buffer`` with the files, one after another.

        Args:
            paths: Of the files, all of one length.
            buffer: As long as all of them.
        """
        length = len(buffer) // len(paths)
        work = iter(range(len(paths)))
        lock = threading.Lock()

        def read_some(connection: socket.socket) -> None:
            for number in _taken(work, lock):
                _get(connection, paths[number], buffer[number * length : (number + 1) * length])

        list(self._pool.map(read_some, self._sockets))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown()
        for connection in self._sockets:
            connection.close()


def _taken(work: Iterator[int], lock: threading.Lock) -> Iterator[int]:
    while True:
        with lock:
            taken = list(itertools.islice(work, 1))
        if not taken:
            return
        yield from taken


def _get(connection: socket.socket, path: str, target: memoryview) -> None:
    """Read one file to ``target``; the body's first bytes come with the head and are copied."""
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: peer\r\n\r\n".encode())
    head, body = _read_head(connection)
    length = _LENGTH.search(head)
    assert head.startswith(b"HTTP/1.1 200 "), head
    assert length is not None, head
    assert int(length[1]) == len(target), f"{path} has {int(length[1])} bytes, not {len(target)}"
    target[: len(body)] = body
    rest = target[len(body) :]
    while rest:
        received = connection.recv_into(rest, 0, socket.MSG_WAITALL)
        assert received, f"the server hung up in {path}"
        rest = rest[received:]


def _read_head(connection: socket.socket) -> tuple[bytes, bytes]:
    received = b""
    while b"\r\n\r\n" not in received:
        assert len(received) < _HEAD_BYTES_MAX, received
        part = connection.recv(_HEAD_BYTES_MAX - len(received))
        assert part, "the server hung up"
        received += part
    head, _, body = received.partition(b"\r\n\r\n")
    return head + b"\r\n", body

"""What is sent to a reader: bytes, spans of files, descriptors, one after another.

Responsible for: sending each as far as a non-blocking socket takes it, and letting go of what
it holds afterwards.
Not responsible for: when to send (`engine`), what to say (protocols and services).
"""

import array
import errno
import os
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from penstock_node.transport.tls import TlsSocket, file_buffer

DESCRIPTORS_MAX = 253
"""In one message: Linux' own limit, SCM_MAX_FD."""


class Part(Protocol):
    """Something to send. Used by one thread at a time, closed once, sent or not."""

    def send_to(self, target: socket.socket) -> bool:
        """Send what ``target`` takes without waiting; True when all is sent.

        Raises:
            OSError: The reader is gone, or what was to be sent cannot be read.
        """

    def close(self) -> None:
        """Let go of what is held."""


class Octets:
    """Bytes in memory. With ``more`` the kernel waits for what follows before it sends."""

    __slots__ = ("_flags", "_holds", "_rest")

    def __init__(
        self, data: bytes | memoryview, *, more: bool = False, holds: object = None
    ) -> None:
        self._rest = memoryview(data)
        self._flags = socket.MSG_MORE if more else 0
        self._holds = holds

    def peek(self, part: slice) -> bytes:
        """Return some of the bytes that are still to be sent."""
        return bytes(self._rest[part])

    def send_to(self, target: socket.socket) -> bool:
        """See `Part.send_to`."""
        while self._rest:
            try:
                sent = target.send(self._rest, self._flags)
            except BlockingIOError:
                return False
            self._rest = self._rest[sent:]
        return True

    def close(self) -> None:
        """Let go of the bytes, and of what counts their memory."""
        self._rest, self._holds = memoryview(b""), None


class OpenFile(Protocol):
    """A file that is open until it is closed."""

    def fileno(self) -> int:
        """Return its descriptor."""

    def close(self) -> None:
        """Close it."""


class SentFile(OpenFile, Protocol):
    """A file whose disk is told when a thread is inside it: a stored chunk."""

    def working(self) -> AbstractContextManager[None]:
        """Return a ``with`` around an operation that may wait for the disk."""

    def failed(self, error: OSError) -> None:
        """Take note that the disk could not read it."""


class FileSpan:
    """Bytes ``start`` to ``stop`` of a file.

    By sendfile they never enter this process; where TLS is spoken, piece by piece.
    """

    __slots__ = ("_at", "_file", "_stop")

    def __init__(self, file: SentFile, start: int, stop: int) -> None:
        self._file, self._at, self._stop = file, start, stop

    def send_to(self, target: socket.socket) -> bool:
        """See `Part.send_to`; a file that is shorter than it was raises `ConnectionAbortedError`.

        Its length has been told, so only a broken connection tells the reader of it.
        """
        send_some = self._encrypt_some if isinstance(target, TlsSocket) else self._send_some
        while self._at < self._stop:
            before = self._at
            try:
                send_some(target)
            except BlockingIOError:
                return False
            if self._at == before:
                raise ConnectionAbortedError(f"a chunk's file ends at {self._at}")
        return True

    def _send_some(self, target: socket.socket) -> None:
        out, source = target.fileno(), self._file.fileno()
        try:
            with self._file.working():
                self._at += os.sendfile(out, source, self._at, self._stop - self._at)
        except OSError as error:
            if error.errno == errno.EIO:  # Of sockets there are others.
                self._file.failed(error)
            raise

    def _encrypt_some(self, target: socket.socket) -> None:
        """Send as much as is read at a time, or raise `BlockingIOError` in the middle of it."""
        piece = file_buffer()[: self._stop - self._at]
        try:
            with self._file.working():
                size = os.preadv(self._file.fileno(), [piece], self._at)
        except OSError as error:
            self._file.failed(error)
            raise
        piece = piece[:size]
        while piece:
            sent = target.send(piece)
            self._at += sent
            piece = piece[sent:]

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Descriptors:
    """Bytes, and open files that go with the first of them."""

    __slots__ = ("_data", "_files", "_rest")

    def __init__(self, data: bytes, files: Sequence[OpenFile]) -> None:
        assert data, "descriptors travel with at least a byte"
        assert len(files) <= DESCRIPTORS_MAX, f"{len(files)} descriptors in one message"
        self._rest = Octets(data)
        self._data, self._files = memoryview(data), list(files)

    def send_to(self, target: socket.socket) -> bool:
        """See `Part.send_to`."""
        if self._files:
            numbers = array.array("i", [file.fileno() for file in self._files])
            try:
                sent = target.sendmsg(
                    [self._data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)]
                )
            except BlockingIOError:
                return False
            self._close_files()
            self._rest = Octets(self._data[sent:])
        return self._rest.send_to(target)

    def _close_files(self) -> None:
        files, self._files = self._files, []
        for file in files:
            file.close()

    def close(self) -> None:
        """Close the files; the reader has its own descriptors of those that were sent."""
        self._close_files()


@dataclass(slots=True)
class Reply:
    """What to send, and what comes after it."""

    parts: list[Part] = field(default_factory=list)
    ends: bool = False
    """Close the connection when all is sent."""
    then: "Callable[[], Outcome] | None" = None
    """Asked for the next reply when the parts are sent: for answers too long to be at hand."""


Outcome: TypeAlias = Reply | Future[Reply]

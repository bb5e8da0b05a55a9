"""Objects as files: `io.RawIOBase` over a cache."""

import io
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from penstock.chunk_files import ChunkFiles
from penstock.object_info import ObjectInfo

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

ReadInto: TypeAlias = Callable[[memoryview, int, threading.Event | None], None]
"""Fills memory from an offset; the event, once set, makes it give up."""


class ObjectFile(io.RawIOBase):
    """One opened version of an object, read-only and seekable.

    It stays on the version that it was opened at: when that is no longer to be had, a read
    raises `ObjectChanged`, and never returns bytes of another version.
    """

    def __init__(
        self,
        info: ObjectInfo,
        read_into: ReadInto,
        chunk_files: Callable[[threading.Event], ChunkFiles],
    ) -> None:
        super().__init__()
        self.chunk_files = chunk_files
        """Returns the files of this version's chunks, until the event is set."""
        self.info = info
        self.name = info.url
        self._size = info.size
        self._read_into = read_into
        self._position = 0

    def readable(self) -> bool:
        """Always true."""
        return True

    def seekable(self) -> bool:
        """Always true."""
        return True

    def tell(self) -> int:
        """Return the position, in bytes from the start."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to ``offset`` bytes from the start, the position or the end.

        Raises:
            ValueError: Before the start, or the file is closed.
        """
        self._check_open()
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}.get(whence)
        if base is None:
            raise ValueError(f"whence={whence}: want 0, 1 or 2")
        if base + offset < 0:
            raise ValueError(f"cannot seek to {base + offset}")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: "WriteableBuffer", /, *, stop: threading.Event | None = None) -> int:
        """Fill ``buffer`` from the position; less only at the end. Returns the bytes read."""
        self._check_open()
        with memoryview(buffer) as view, view.cast("B") as octets:
            length = max(0, min(len(octets), self._size - self._position))
            if length:
                with octets[:length] as wanted:
                    self._read_into(wanted, self._position, stop)
            self._position += length
        return length

    def read_into_at(
        self, buffer: memoryview, offset: int, *, stop: threading.Event | None = None
    ) -> None:
        """Fill ``buffer`` from ``offset``, wherever the position is; from any thread.

        Raises:
            ValueError: The object ends before the buffer does, or the file is closed.
        """
        self._check_open()
        if not 0 <= offset <= offset + len(buffer) <= self._size:
            raise ValueError(
                f"{self.name} has {self._size} bytes, and {offset + len(buffer)} are asked"
            )
        if len(buffer):
            self._read_into(buffer, offset, stop)

    def readall(self) -> bytes:
        """Return everything from the position to the end."""
        return self.read_bytes(-1)

    def read_bytes(self, size: int, *, stop: threading.Event | None = None) -> bytes:
        """Return up to ``size`` bytes from the position; all that is left if it is negative."""
        left = max(0, self._size - self._position)
        memory = io.BytesIO(bytes(left if size < 0 else min(size, left)))
        with memory.getbuffer() as view:
            self.readinto(view, stop=stop)
        return memory.getvalue()

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on a closed file")

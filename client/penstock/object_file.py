"""Objects as files: `io.RawIOBase` over a cache.

Responsible for: positions, and what a file may be asked.
Not responsible for: what is read before it is asked for (`read_ahead`), opening (`cache`).
"""

import io
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from penstock.chunk_files import ChunkFiles
from penstock.errors import ObjectChanged
from penstock.load_lines import Loading
from penstock.memory import new_bytes
from penstock.object_info import ObjectInfo
from penstock.partial_view import PartialView
from penstock.read_ahead import Ahead, ReadAhead, ReadHere, ReadInto

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BUFFER_MIN = 256 * 1024
"""Of less, a copy costs less than asking for files."""


class ObjectFile(io.RawIOBase):
    """One opened version of an object, read-only and seekable.

    It stays on the version that it was opened at: when that is no longer to be had, a read
    raises `ObjectChanged`, and never returns bytes of another version. Who reads on from where
    the last read has ended is read ahead of; lines and small reads come from memory. It needs no
    `io.BufferedReader`, and serves one that wants a raw file.
    """

    def __init__(
        self,
        info: ObjectInfo,
        read_into: ReadInto,
        *,
        read_here: ReadHere,
        ahead: Callable[[], Ahead],
        chunk_files: Callable[[threading.Event], ChunkFiles],
        loading: Loading | None = None,
    ) -> None:
        """Stand at the start.

        Args:
            info: What was opened.
            read_into: Reads it.
            read_here: Reads what is at hand.
            ahead: Returns what this file shares with the others of its cache.
            chunk_files: See the attribute.
            loading: Ends with this file.
        """
        super().__init__()
        self.chunk_files = chunk_files
        """Returns the files of this version's chunks, until the event is set."""
        self.info = info
        self.name = info.url
        self.mode = "rb"
        self.reopen: Callable[..., ObjectFile] | None = None
        """Opens the object again, in another process too; it takes the ``version`` that is
        wanted. With it this file can be pickled."""
        self._size = info.size
        self._read_into = read_into
        self._ahead = ReadAhead(info.size, read_into, read_here, ahead)
        self._parts = PartialView(chunk_files)
        self._loading = loading
        self._position = 0

    def __repr__(self) -> str:
        return f"<ObjectFile {self.name!r} of {self._size} bytes{', closed' * self.closed}>"

    def __reduce__(self) -> tuple[Any, ...]:
        if self.reopen is None:
            raise TypeError(
                f"{self.name}: a file of a cache belongs to its process; open it where it is "
                "read, or open it through fsspec"
            )
        return _reopened, (self.reopen, self.info.version, self._position)

    @property
    def size(self) -> int:
        """In bytes."""
        return self._size

    def checked(self, version: str | None) -> "ObjectFile":
        """Return this file if it is of ``version``, or none is named; else close it.

        Raises:
            ObjectChanged: It is of another.
        """
        if version in (None, self.info.version):
            return self
        self.close()
        raise ObjectChanged(
            f"{self.name} is no longer at version {version}, but {self.info.version}; open it again"
        )

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
                    self._ahead.read(wanted, self._position, stop)
            self._position += length
        return length

    def read_into_at(
        self, buffer: memoryview, offset: int, *, stop: threading.Event | None = None
    ) -> None:
        """Fill ``buffer`` from ``offset``, wherever the position is; from any thread.

        Nothing is read ahead.

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

    def read(self, size: int | None = -1, /, *, stop: threading.Event | None = None) -> bytes:
        """Return up to ``size`` bytes from the position; all that is left by default."""
        self._check_open()
        left = max(0, self._size - self._position)
        wanted = left if size is None or size < 0 else min(size, left)
        (memory,) = new_bytes([wanted])
        self.readinto(memory.view, stop=stop)
        return memory.take()

    def read_buffer(
        self, size: int | None = -1, /, *, stop: threading.Event | None = None
    ) -> bytes | memoryview:
        """As `read`; what is not small is memory over files of this machine's node, if it has some.

        It is verified and not copied, and is there for as long as anybody looks at it. pyarrow
        reads by this method, where a file has it.
        """
        self._check_open()
        left = max(0, self._size - self._position)
        wanted = left if size is None or size < 0 else min(size, left)
        if wanted >= BUFFER_MIN:
            part = self._parts.part(self._position, wanted, stop=stop)
            if part is not None:
                self._position += wanted
                return part
        return self.read(wanted, stop=stop)

    def readall(self) -> bytes:
        """Return everything from the position to the end."""
        return self.read()

    def readline(self, size: int | None = -1, /, *, stop: threading.Event | None = None) -> bytes:
        """Return the line at the position, with its end; at most ``size`` bytes of it."""
        self._check_open()
        left = self._size if size is None or size < 0 else size
        parts: list[bytes] = []
        while left > 0:
            part = self._ahead.line(self._position, left, stop)
            self._position += len(part)
            left -= len(part)
            parts.append(part)
            if not part or part.endswith(b"\n"):
                break
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        """Close the file; reading it afterwards is an error."""
        if not self.closed:
            self._ahead.close()
            self._parts.close()
            self._say_closed()
        super().close()

    def _say_closed(self) -> None:
        tally = self._loading.counters if self._loading is not None else None
        if self._loading is None or tally is None:
            return
        stats = tally.stats()
        given = sum(stats["files"].values())
        self._loading.end(stats["bytes"] + given, object_bytes=self._size)

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on a closed file")


def _reopened(reopen: Callable[..., ObjectFile], version: str, position: int) -> ObjectFile:
    file = reopen(version=version)
    file.seek(position)
    return file

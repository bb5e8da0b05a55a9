"""A chunk that a reader holds: an open, read-only file.

Responsible for: reading its payload, and telling the tier when the reader is done.
Not responsible for: whether the chunk may be read, how it is sent, verifying what is read.
"""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Literal

from penstock.checksums import BLOCK_BYTES, CHECKSUM_BYTES, verify_blocks
from penstock.errors import CorruptData
from penstock_node.store.disk import Disk

VERIFY_BYTES = 16 * BLOCK_BYTES
"""Read and verified at a time: stays in the processor's cache."""


class StoredChunk:
    """A chunk's file. Close it, or use it in a ``with``: its bytes count against the budget.

    It stays readable when the chunk is evicted meanwhile. Threads may read at once; none may
    after, or during, `close`.
    """

    def __init__(
        self,
        descriptor: int,
        *,
        length: int,
        checksums: bytes,
        source: Literal["memory", "disk"],
        disk: Disk,
        is_passable: bool,
        on_close: Callable[[], None],
    ) -> None:
        self.length = length
        """Of the payload, in bytes; it begins at the file's first byte."""
        self.checksums = checksums
        """Of the payload's blocks, joined: see `penstock.checksums`."""
        self.source: Literal["memory", "disk"] = source
        self.disk = disk
        """Where it lies: who works on the descriptor is inside (``with stored.disk.reading()``),
        and tells it of errors (`Disk.note`)."""
        self.is_passable = is_passable
        """Whether the descriptor may go to another process: nobody can open it for writing."""
        self._descriptor = descriptor
        self._on_close = on_close

    def __enter__(self) -> "StoredChunk":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def fileno(self) -> int:
        """Return the descriptor, for ``sendfile`` or to pass it on; it stays this object's."""
        assert self._descriptor >= 0, "the chunk is closed"
        return self._descriptor

    def working(self) -> AbstractContextManager[None]:
        """Return a ``with`` around an operation on `fileno`: its disk sees a stall."""
        return self.disk.reading()

    def failed(self, error: OSError) -> None:
        """Have the disk judge an error that reading `fileno` met."""
        self.disk.note(error)

    def read(self, start: int, stop: int) -> bytes:
        """Return the payload's bytes from ``start`` to ``stop``, unverified.

        Raises:
            CorruptData: The file is shorter than it should be, or the disk cannot read it.
        """
        assert 0 <= start <= stop <= self.length, f"{start}…{stop} of {self.length}"
        try:
            with self.disk.reading():
                return self._read(start, stop)
        except OSError as error:
            self.disk.note(error)
            raise CorruptData(f"the chunk's file cannot be read: {error}") from error

    def _read(self, start: int, stop: int) -> bytes:
        data = os.pread(self.fileno(), stop - start, start)
        if len(data) != stop - start:
            raise CorruptData(f"the chunk's file ends after {start + len(data)} bytes")
        return data

    def read_through(self, start: int, stop: int) -> None:
        """Read a part of the payload, and let go of it: then it is in the kernel's page cache.

        Raises:
            CorruptData: As `read`.
        """
        for at in range(start, stop, VERIFY_BYTES):
            self.read(at, min(stop, at + VERIFY_BYTES))

    def verify(self) -> None:
        """Read the whole payload and check it against the checksums; inside its disk already.

        Raises:
            CorruptData: It does not match, or is short.
            OSError: The disk cannot read it.
        """
        for start in range(0, self.length, VERIFY_BYTES):
            stop = min(self.length, start + VERIFY_BYTES)
            first, last = start // BLOCK_BYTES, -(-stop // BLOCK_BYTES)
            checksums = self.checksums[first * CHECKSUM_BYTES : last * CHECKSUM_BYTES]
            verify_blocks(self._read(start, stop), checksums)
            self.disk.progress(is_reading=True)

    def detach(self) -> Callable[[], None]:
        """Close the file; return what ends this reader's hold on the chunk, to be called once.

        For a reader elsewhere that has a descriptor of its own: its chunk goes on to count as
        open, and costs this process no descriptor.
        """
        assert self._descriptor >= 0, "the chunk is closed"
        descriptor, self._descriptor = self._descriptor, -1
        os.close(descriptor)
        return self._on_close

    def close(self) -> None:
        """Close the file; again does nothing."""
        if self._descriptor < 0:
            return
        descriptor, self._descriptor = self._descriptor, -1
        os.close(descriptor)
        self._on_close()

"""A chunk that a reader holds: an open, read-only file.

Responsible for: reading its payload, and telling the tier when the reader is done.
Not responsible for: whether the chunk may be read, how it is sent, verifying what is read.
"""

import os
from collections.abc import Callable
from types import TracebackType
from typing import Literal

from penstock.checksums import BLOCK_BYTES, CHECKSUM_BYTES, verify_blocks
from penstock.errors import CorruptData

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
        on_close: Callable[[], None],
    ) -> None:
        self.length = length
        """Of the payload, in bytes; it begins at the file's first byte."""
        self.checksums = checksums
        """Of the payload's blocks, joined: see `penstock.checksums`."""
        self.source: Literal["memory", "disk"] = source
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

    def read(self, start: int, stop: int) -> bytes:
        """Return the payload's bytes from ``start`` to ``stop``, unverified.

        Raises:
            CorruptData: The file is shorter than it should be, or the disk cannot read it.
        """
        assert 0 <= start <= stop <= self.length, f"{start}…{stop} of {self.length}"
        try:
            data = os.pread(self.fileno(), stop - start, start)
        except OSError as error:
            raise CorruptData(f"the chunk's file cannot be read: {error}") from error
        if len(data) != stop - start:
            raise CorruptData(f"the chunk's file ends after {start + len(data)} bytes")
        return data

    def verify(self) -> None:
        """Read the whole payload and check it against the checksums.

        Raises:
            CorruptData: It does not match, is short, or cannot be read.
        """
        for start in range(0, self.length, VERIFY_BYTES):
            stop = min(self.length, start + VERIFY_BYTES)
            first, last = start // BLOCK_BYTES, -(-stop // BLOCK_BYTES)
            checksums = self.checksums[first * CHECKSUM_BYTES : last * CHECKSUM_BYTES]
            verify_blocks(self.read(start, stop), checksums)

    def close(self) -> None:
        """Close the file; again does nothing."""
        if self._descriptor < 0:
            return
        descriptor, self._descriptor = self._descriptor, -1
        os.close(descriptor)
        self._on_close()

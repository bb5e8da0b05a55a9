"""Memory that benchmarks read into: touched before, checked after.

Responsible for: one buffer of an object's size whose pages are there, as a fresh one costs more
than the read, and proof that a read has put all the right bytes into it.
Not responsible for: reading.
"""

import mmap
import random
from collections.abc import Callable
from pathlib import Path

from penstock.checksums import CHECKSUM_BYTES, block_checksums, block_count
from penstock_node.testbed.contest import Sample, timed

_PAGE_BYTES = 4096
_PIECE_BYTES = 16 * 1024 * 1024


def random_file(path: Path, *, size_bytes: int, seed: int) -> bytes:
    """Write a file of random bytes, the same for the same seed; return its blocks' checksums."""
    rng = random.Random(seed)  # noqa: S311 - bytes to tell objects apart
    checksums = b""
    with path.open("wb") as file:
        for at in range(0, size_bytes, _PIECE_BYTES):
            piece = rng.randbytes(min(_PIECE_BYTES, size_bytes - at))
            file.write(piece)
            checksums += block_checksums(piece)
    return checksums


class Destination:
    """A buffer for one object."""

    def __init__(
        self, size_bytes: int, checksums: bytes, *, memory: bytearray | None = None
    ) -> None:
        """Make the buffer and touch its pages.

        Args:
            size_bytes: Of the object.
            checksums: Of its blocks, joined.
            memory: For the buffer; by default whole pages.
        """
        self.view = memoryview(memory if memory is not None else mmap.mmap(-1, size_bytes))
        assert len(self.view) == size_bytes, f"memory of {len(self.view)} bytes"
        self._checksums = checksums
        self.clear()

    def clear(self) -> None:
        """Spoil every page, so that bytes of an earlier read are not taken for right ones."""
        view = self.view
        for at in range(0, len(view), _PAGE_BYTES):
            view[at] = 0

    def check(self) -> None:
        """Compare what was read with the object."""
        assert block_checksums(self.view) == self._checksums, "the bytes are not the object's"

    def timed(self, read: Callable[[], object], *, server_pid: int | None = None) -> Sample:
        """Return what ``read`` takes to bring the object here; checking it is not timed."""
        self.clear()
        sample = timed(read, server_pid=server_pid)
        self.check()
        return sample

    def elsewhere(self, memory: bytearray) -> "Destination":
        """Return another for the same object, in ``memory``."""
        return Destination(len(self.view), self._checksums, memory=memory)

    def chunk_checksums(self, chunk_bytes: int) -> list[bytes]:
        """Return the blocks' checksums of each chunk, if it is cut into such."""
        step = block_count(chunk_bytes) * CHECKSUM_BYTES
        return [self._checksums[at : at + step] for at in range(0, len(self._checksums), step)]

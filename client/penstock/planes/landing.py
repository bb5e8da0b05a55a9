"""Landing: blocks off a wire into the caller's memory, each verified right after it came.

Responsible for: which bytes go straight to their place, and which by way of memory of our own:
where the caller wants only a part of a block, which is verified as a whole, and where the kernel
is slow to copy to the caller's memory (`memory`).
Not responsible for: where bytes come from.
"""

import threading
from collections.abc import Callable

from penstock import memory
from penstock.checksums import (
    BLOCK_BYTES,
    CHECKSUM_BYTES,
    block_count,
    blocks_match,
    digests_of,
)
from penstock.errors import CorruptData
from penstock.objects import cover_blocks
from penstock.planes.plane import PieceRequest

SPAN_BYTES = 16 * BLOCK_BYTES
"""Received and verified at a time: still in the processor's cache when it is verified, and
threads that come back from the kernel seldom wait for each other."""
BOUNCE_BYTES = 4 * BLOCK_BYTES
"""The same for what does not go straight to its place: it is read three times from the cache."""


class Bounce(threading.local):
    """Memory for what does not go straight to its place; each thread has its own."""

    def __init__(self) -> None:
        self.memory = memory.new_memory(BOUNCE_BYTES)


class Landing:
    """Where one piece's blocks go. Filled from the first byte to the last."""

    def __init__(
        self, piece: PieceRequest, chunk_length: int, checksums: bytes, bounce: memoryview
    ) -> None:
        """Describe it; nothing is moved yet.

        Args:
            piece: What is wanted.
            chunk_length: Of the whole chunk, in bytes.
            checksums: Of the blocks around the piece.
            bounce: Of `Bounce`, this thread's.

        Raises:
            CorruptData: There are not as many checksums as blocks.
        """
        self._piece, self._bounce = piece, bounce
        self.start, self.stop = cover_blocks(piece.start, piece.stop, chunk_length)
        expected = block_count(self.stop - self.start) * CHECKSUM_BYTES
        if len(checksums) != expected:
            raise CorruptData(f"{len(checksums)} bytes of checksums came, not {expected}")
        self._digests = digests_of(checksums)
        is_large = piece.stop - piece.start > BLOCK_BYTES
        self._is_straight = not (is_large and memory.is_slow(piece.into, piece.start))

    def fill(
        self, read: Callable[[memoryview, int], None], *, span_bytes: int = SPAN_BYTES
    ) -> None:
        """Have ``read`` fill one span after another; called with memory and an offset in the chunk.

        Args:
            read: Fills all of the memory that it is given.
            span_bytes: How much at a time, in whole blocks.

        Raises:
            CorruptData: A block does not match; all have been read nevertheless.
        """
        at, bad = self.start, 0
        while at < self.stop:
            span = self._span(at, span_bytes)
            read(span, at)
            bad += not self._is_right(span, at)
            if span.obj is self._bounce.obj:
                self._copy(span, at)
            at += len(span)
        if bad:
            raise CorruptData(f"blocks of chunk {self._piece.index} do not match their checksums")

    def _span(self, at: int, span_bytes: int) -> memoryview:
        """Return memory for the bytes from ``at`` on: the caller's, or our own."""
        if not self._is_straight:
            return self._bounce[: min(span_bytes, self.stop - at)]
        piece = self._piece
        stop = min(at + span_bytes, self.stop)
        if stop > piece.stop:
            stop -= (stop - at) % BLOCK_BYTES or BLOCK_BYTES  # The last block is wanted in part.
        if at >= piece.start and stop > at:
            return piece.into[at - piece.start : stop - piece.start]
        return self._bounce[: min(BLOCK_BYTES, self.stop - at)]

    def _is_right(self, span: memoryview, at: int) -> bool:
        first = (at - self.start) // BLOCK_BYTES
        return blocks_match(span, self._digests[first : first + block_count(len(span))])

    def _copy(self, span: memoryview, at: int) -> None:
        """Copy what is wanted of memory of our own to its place."""
        piece = self._piece
        start, stop = max(at, piece.start), min(at + len(span), piece.stop)
        place = piece.into[start - piece.start : stop - piece.start]
        memory.copy(place, span[start - at : stop - at])

"""Checksums of whole files, from those of their pieces, which may come in any order.

A piece's digest is the xxh3-64 of its blocks' checksums (`penstock.checksums`), so it is known
without the bytes where a node has told the blocks' checksums. A file's is the xxh3-128 of its
pieces' digests, 8 bytes little-endian each: ``xxh3t-{piece bytes}:{32 digits}``.
"""

import os
import struct
from collections.abc import Iterable, Iterator

import xxhash

from penstock import memory
from penstock.checksums import BLOCK_BYTES, block_checksums

SPAN_BYTES = 16 * BLOCK_BYTES
"""Read at a time: still in the processor's cache when it is summed up."""


def piece_digest(checksums: bytes) -> int:
    """Return the digest of a piece whose blocks have these joined checksums."""
    return xxhash.xxh3_64_intdigest(checksums)


def file_checksum(digests: Iterable[int], *, piece_bytes: int) -> str:
    """Return the checksum of a file whose pieces have these digests, in order."""
    whole = xxhash.xxh3_128()
    for digest in digests:
        whole.update(struct.pack("<Q", digest))
    return f"xxh3t-{piece_bytes}:{whole.hexdigest()}"


def digest_on_disk(descriptor: int, at: int, length: int) -> int:
    """Return the digest of ``length`` bytes of a file from ``at``; of fewer where it is shorter.

    Raises:
        OSError: It cannot be read.
    """
    return piece_digest(b"".join(_checksums_on_disk(descriptor, at, length)))


def _checksums_on_disk(descriptor: int, at: int, length: int) -> Iterator[bytes]:
    buffer, stop = memory.new_memory(min(SPAN_BYTES, length)), at + length
    while at < stop:
        span = buffer[: min(len(buffer), stop - at)]
        size = os.preadv(descriptor, [span], at)
        if size == 0:
            return
        yield block_checksums(span[:size])
        at += size


def checksum_on_disk(descriptor: int, *, size: int, piece_bytes: int) -> str:
    """Return the checksum of a file of ``size`` bytes, read from its first byte to its last.

    Raises:
        OSError: It cannot be read.
    """
    starts = range(0, size, piece_bytes)
    digests = (digest_on_disk(descriptor, at, min(piece_bytes, size - at)) for at in starts)
    return file_checksum(digests, piece_bytes=piece_bytes)

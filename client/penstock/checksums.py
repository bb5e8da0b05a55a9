"""Checksums of blocks: how wrong bytes are told from right ones.

A block is 64 KiB of a chunk, its last one shorter. Its checksum is xxh3-64, 8 bytes
little-endian; the checksums of consecutive blocks are joined into one ``bytes``.
Not responsible for: defence against an attacker. Tickets are signed, blocks are not.
"""

import struct
from collections.abc import Iterable, Iterator

import xxhash

from penstock.errors import CorruptData

BLOCK_BYTES = 64 * 1024
CHECKSUM_BYTES = 8


def block_count(length: int) -> int:
    """Return how many blocks ``length`` bytes make."""
    return -(-length // BLOCK_BYTES)


def _digests(data: memoryview) -> Iterator[int]:
    for start in range(0, len(data), BLOCK_BYTES):
        yield xxhash.xxh3_64_intdigest(data[start : start + BLOCK_BYTES])


def block_checksums(data: bytes | bytearray | memoryview) -> bytes:
    """Return the joined checksums of ``data``, which begins at a block's first byte."""
    return struct.pack(f"<{block_count(len(data))}Q", *_digests(memoryview(data)))


def digests_of(checksums: bytes) -> tuple[int, ...]:
    """Return joined checksums as a number for each block, which `blocks_match` compares with."""
    return struct.unpack(f"<{len(checksums) // CHECKSUM_BYTES}Q", checksums)


def blocks_match(data: memoryview, digests: Iterable[int]) -> bool:
    """Tell whether each block of ``data``, which begins with one, has its digest."""
    # A plain loop, stopped by the first that differs: it runs for every byte that is read.
    start = 0
    for digest in digests:
        stop = start + BLOCK_BYTES
        if xxhash.xxh3_64_intdigest(data[start:stop]) != digest:
            return False
        start = stop
    return True


def checksums_between(checksums: bytes, start: int, stop: int) -> bytes:
    """Return those of a chunk's joined checksums that belong to its bytes ``start`` to ``stop``.

    ``start`` is a block's first byte; ``stop`` a block's end, or the chunk's.
    """
    return checksums[start // BLOCK_BYTES * CHECKSUM_BYTES : block_count(stop) * CHECKSUM_BYTES]


def verify_blocks(data: bytes | bytearray | memoryview, checksums: bytes) -> None:
    """Check ``data``, which begins at a block's first byte, against its joined checksums.

    Raises:
        CorruptData: A block differs, or there are not as many checksums as blocks.
    """
    expected = block_count(len(data)) * CHECKSUM_BYTES
    if len(checksums) != expected:
        raise CorruptData(
            f"{len(data)} bytes came with {len(checksums)} bytes of checksums, not {expected}"
        )
    if not blocks_match(memoryview(data), digests_of(checksums)):
        raise CorruptData(f"{len(data)} bytes do not match their checksums")

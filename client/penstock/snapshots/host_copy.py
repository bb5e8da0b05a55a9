"""From a chunk's open file into a snapshot's: by the kernel where it can, verified either way.

Responsible for: one chunk. Not responsible for: which chunks, and what is done about those that
are not right (they are read in the usual way).
"""

import os
from typing import Literal, TypeAlias

from penstock.checksums import BLOCK_BYTES, CHECKSUM_BYTES, block_count, blocks_match, digests_of
from penstock.chunk_files import ChunkFile, read_exactly
from penstock.errors import CorruptData
from penstock.snapshots.kernel_copy import KernelCopy, Way
from penstock.snapshots.parallel import Buffers

Verify: TypeAlias = Literal["full", "node"]

SPAN_BYTES = 16 * BLOCK_BYTES
"""Read and verified at a time: still in the processor's cache when it is written."""


def copy_chunk(
    file: ChunkFile,
    kernel: KernelCopy,
    target: int,
    *,
    at: int,
    length: int,
    buffers: Buffers,
    verify: Verify,
) -> Way:
    """Have a chunk's bytes at ``at`` of the file ``target``; return how they came there.

    Args:
        file: The chunk's.
        kernel: Copies to ``target``.
        target: A descriptor.
        at: In bytes.
        length: That the chunk must have.
        buffers: Of `SPAN_BYTES` each.
        verify: ``full`` compares every block with its checksum; ``node`` does so only with what
            passes through this program.

    Raises:
        CorruptData: They are not the chunk's bytes.
        OSError: The target cannot be written.
    """
    if file.length != length or len(file.checksums) != block_count(length) * CHECKSUM_BYTES:
        raise CorruptData(f"chunk {file.index} has {file.length} bytes, not {length}")
    way = kernel.copy(file.descriptor, file.offset, at=at, length=length)
    with buffers.borrow() as memory:
        if way is None:
            _verify(file, file.descriptor, file.offset, length, memory, into=(target, at))
            return "read"
        if verify == "full":
            # Shared blocks are the same ones at both ends, and the node's end is in memory.
            is_shared = way == "reflink"
            read_from = file.descriptor if is_shared else target
            _verify(file, read_from, file.offset if is_shared else at, length, memory, into=None)
    return way


def _verify(
    file: ChunkFile,
    descriptor: int,
    offset: int,
    length: int,
    memory: memoryview,
    *,
    into: tuple[int, int] | None,
) -> None:
    """Read and compare ``length`` bytes from ``offset``, and write them to ``into`` if given."""
    digests = digests_of(file.checksums)
    for done in range(0, length, SPAN_BYTES):
        span = memory[: min(SPAN_BYTES, length - done)]
        read_exactly(descriptor, span, offset + done)
        first = done // BLOCK_BYTES
        if not blocks_match(span, digests[first : first + block_count(len(span))]):
            raise CorruptData(f"blocks of chunk {file.index} do not match their checksums")
        if into is not None:
            write_all(into[0], span, into[1] + done)


def write_all(descriptor: int, data: memoryview, at: int) -> None:
    """Write all of ``data`` at ``at`` of a file. Raises `OSError` where the disk does not."""
    while data:
        size = os.pwrite(descriptor, data, at)
        data, at = data[size:], at + size

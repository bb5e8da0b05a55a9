"""Objects, chunks and blocks: what is cached, and the arithmetic of its pieces.

Responsible for: an object's identity, the identity of its chunks, and cutting byte ranges
into chunks and whole blocks. Final: a change here makes every cached chunk unreachable.
Not responsible for: where bytes come from (a source is never part of an identity).
"""

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from penstock.checksums import BLOCK_BYTES
from penstock.errors import InvalidRange, InvalidRequest

CHUNK_BYTES_DEFAULT = 4 * 1024 * 1024
CHUNK_BYTES_MIN = BLOCK_BYTES
CHUNK_BYTES_MAX = 64 * 1024 * 1024
CHUNK_ID_BYTES = 16
KEY_BYTES_MAX = 4096
VERSION_BYTES_MAX = 1024
OBJECT_BYTES_MAX = 1 << 50

_PERSON = b"penstock-chunk-1"  # BLAKE2b's personalisation: names this scheme, 16 bytes.


def check_chunk_size(chunk_size: int) -> None:
    """Refuse a chunk size that is not whole blocks within bounds.

    Raises:
        InvalidRequest: With the bounds.
    """
    if chunk_size % BLOCK_BYTES or not CHUNK_BYTES_MIN <= chunk_size <= CHUNK_BYTES_MAX:
        raise InvalidRequest(
            f"chunk_size={chunk_size}: want a multiple of {BLOCK_BYTES} "
            f"from {CHUNK_BYTES_MIN} to {CHUNK_BYTES_MAX}"
        )


def _check_text(name: str, text: str, bytes_max: int) -> None:
    try:
        length = len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"{name} {text!r} is not valid Unicode text") from error
    if not 0 < length <= bytes_max:
        raise InvalidRequest(f"{name} of {length} bytes: want 1 to {bytes_max}")


@dataclass(frozen=True, slots=True)
class ObjectId:
    """One immutable version of a file. Equal ids have equal bytes, wherever they are read."""

    key: str
    """Passthrough volumes: the canonical origin url. Catalogued: ``volume_uid/path``."""
    version: str
    """The origin's etag, or what stands for it; the catalog's version."""
    size: int
    """In bytes."""
    chunk_size: int
    """In bytes; the last chunk is shorter."""
    identity: bytes = field(init=False, compare=False, repr=False)
    """All of it in bytes: what the ids of its chunks are made of, but for their index."""

    def __post_init__(self) -> None:
        check_chunk_size(self.chunk_size)
        if not 0 <= self.size <= OBJECT_BYTES_MAX:
            raise InvalidRequest(f"object of {self.size} bytes: want 0 to {OBJECT_BYTES_MAX}")
        _check_text("object key", self.key, KEY_BYTES_MAX)
        _check_text("version", self.version, VERSION_BYTES_MAX)
        object.__setattr__(self, "identity", self._identify())

    def _identify(self) -> bytes:
        key, version = self.key.encode(), self.version.encode()
        return b"".join(
            (
                struct.pack("<I", len(key)),
                key,
                struct.pack("<I", len(version)),
                version,
                struct.pack("<QI", self.size, self.chunk_size),
            )
        )

    @property
    def chunk_count(self) -> int:
        """How many chunks the object has; an empty object has none."""
        return -(-self.size // self.chunk_size)

    def chunk_length(self, index: int) -> int:
        """Return the bytes in the ``index``-th chunk.

        Raises:
            InvalidRequest: There is no such chunk.
        """
        self._check_index(index)
        return min(self.chunk_size, self.size - index * self.chunk_size)

    def chunk_id(self, index: int) -> bytes:
        """Return the 16 bytes that name the ``index``-th chunk everywhere.

        BLAKE2b-128 with the personalisation ``penstock-chunk-1`` of: length of the key (u32),
        key, length of the version (u32), version, size (u64), chunk size (u32), index (u64);
        integers little-endian, text UTF-8.

        Raises:
            InvalidRequest: There is no such chunk.
        """
        self._check_index(index)
        named = self.identity + index.to_bytes(8, "little")
        return hashlib.blake2b(named, digest_size=CHUNK_ID_BYTES, person=_PERSON).digest()

    def _check_index(self, index: int) -> None:
        if not 0 <= index < self.chunk_count:
            raise InvalidRequest(f"chunk {index}: the object has {self.chunk_count} chunks")


@dataclass(frozen=True, slots=True)
class Piece:
    """A byte range within one chunk, and where it lies in the result."""

    index: int
    start: int
    """Within the chunk, in bytes; ``stop`` likewise."""
    stop: int
    at: int
    """Offset of the first byte in the caller's buffer."""

    @property
    def length(self) -> int:
        """In bytes; never 0."""
        return self.stop - self.start


def check_range(size: int, offset: int, length: int | None) -> int:
    """Return how many bytes a read of ``length`` from ``offset`` gives; None reads to the end.

    A length that reaches past the end is cut, as files do.

    Raises:
        InvalidRequest: The range begins beyond the end or is negative.
    """
    if offset < 0 or (length is not None and length < 0):
        raise InvalidRequest(f"offset={offset}, length={length}: neither may be negative")
    if offset > size:
        raise InvalidRequest(f"offset={offset} is beyond the end: the object has {size} bytes")
    return size - offset if length is None else min(length, size - offset)


def pieces(chunk_size: int, offset: int, length: int) -> Iterator[Piece]:
    """Cut ``length`` bytes from ``offset`` at the chunks' edges, in order."""
    position, end = offset, offset + length
    while position < end:
        index, start = divmod(position, chunk_size)
        stop = min(chunk_size, start + end - position)
        yield Piece(index, start, stop, at=position - offset)
        position += stop - start


def cover_blocks(start: int, stop: int, chunk_length: int) -> tuple[int, int]:
    """Widen a range within a chunk to whole blocks; the chunk's last block may be short."""
    assert 0 <= start < stop <= chunk_length, f"{start}…{stop} of {chunk_length}"
    first = start - start % BLOCK_BYTES
    return first, min(chunk_length, -(-stop // BLOCK_BYTES) * BLOCK_BYTES)


def check_blocks(start: int, stop: int, chunk_length: int) -> None:
    """Refuse a range that is not whole blocks within the chunk.

    Raises:
        InvalidRange: With the range and the chunk's length.
    """
    aligned = start % BLOCK_BYTES == 0 and (stop % BLOCK_BYTES == 0 or stop == chunk_length)
    if not (aligned and 0 <= start < stop <= chunk_length):
        raise InvalidRange(
            f"bytes {start} to {stop} are not whole {BLOCK_BYTES}-byte blocks "
            f"of a chunk of {chunk_length}"
        )

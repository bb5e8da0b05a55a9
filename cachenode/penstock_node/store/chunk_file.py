"""The file that keeps one chunk: its name, and the bytes in it. Final: caches outlive upgrades.

Responsible for: where a chunk's file lies in a tier, the footer behind its payload, and telling
a whole chunk file from any other bytes.
Not responsible for: who reads or writes files (`tier`), whether payloads are right (`checksums`).

A file is ``payload ‖ body ‖ tail``. The payload begins at byte 0, so that it can be sent and
mapped as it lies. The body, integers little-endian, text UTF-8:

    magic "PENSTOCK", format (u16, 1), object size (u64), chunk size (u32), index (u64),
    payload length (u32), length of the key (u16), of the version (u16), key, version,
    and the checksum of each 64 KiB block of the payload (`penstock.checksums`)

The tail, at the file's end: length of the body (u32), xxh3-64 of the body (u64), "PENSTOCK".

A chunk lies at ``chunks/abc/abc….pages``: its id in hexadecimal under its first three digits,
and the pages (4 KiB) that the file takes, in hexadecimal. All of it follows from the object and
the index: a chunk is found without an index, and a directory listing tells sizes without a stat.
"""

import os
import struct
from dataclasses import dataclass
from pathlib import PurePath

import xxhash

from penstock.checksums import CHECKSUM_BYTES, block_count
from penstock.errors import CorruptData, InvalidRequest
from penstock.objects import (
    CHUNK_BYTES_MAX,
    CHUNK_ID_BYTES,
    KEY_BYTES_MAX,
    VERSION_BYTES_MAX,
    ObjectId,
)

PAGE_BYTES = 4096
PREFIX_DIGITS = 3
"""4,096 directories: about 1,500 files in each of them at six million chunks."""

_FORMAT = 1
_MAGIC = b"PENSTOCK"
_HEAD = struct.Struct("<8sHQIQIHH")
_TAIL = struct.Struct("<IQ8s")

FOOTER_BYTES_MAX = (
    _HEAD.size
    + KEY_BYTES_MAX
    + VERSION_BYTES_MAX
    + block_count(CHUNK_BYTES_MAX) * CHECKSUM_BYTES
    + _TAIL.size
)
PAGES_MAX = -(-(CHUNK_BYTES_MAX + FOOTER_BYTES_MAX) // PAGE_BYTES)


def file_name(chunk_id: bytes, pages: int) -> str:
    """Return the name of a chunk's file."""
    return f"{chunk_id.hex()}.{pages:x}"


def relative_path(chunk_id: bytes, pages: int) -> PurePath:
    """Return where a chunk's file lies below ``chunks/``."""
    return PurePath(chunk_id.hex()[:PREFIX_DIGITS], file_name(chunk_id, pages))


def parse_name(name: str) -> tuple[bytes, int] | None:
    """Return the chunk id and the pages that a file's name tells; None if it is not a chunk's."""
    digits, _, size = name.partition(".")
    try:
        chunk_id, pages = bytes.fromhex(digits), int(size, 16)
    except ValueError:
        return None
    believable = len(chunk_id) == CHUNK_ID_BYTES and 0 < pages <= PAGES_MAX
    # Comparing with what we would write refuses capitals, blanks, signs and leading zeros.
    return (chunk_id, pages) if believable and file_name(chunk_id, pages) == name else None


class ChunkFile:
    """The file of one chunk: everything about it that follows from the object and the index."""

    __slots__ = (
        "chunk_id",
        "file_bytes",
        "footer_head",
        "index",
        "object",
        "pages",
        "payload_bytes",
    )

    def __init__(self, subject: ObjectId, index: int) -> None:
        """Make all of it at once: every read of a chunk needs it.

        Raises:
            InvalidRequest: The object has no such chunk.
        """
        self.object, self.index = subject, index
        self.chunk_id = subject.chunk_id(index)
        """The 16 bytes that name the chunk."""
        self.payload_bytes = subject.chunk_length(index)
        """The chunk's length."""
        self.footer_head = _footer_head(subject, index, self.payload_bytes)
        """What its footer begins with: all but the checksums."""
        checksums_bytes = block_count(self.payload_bytes) * CHECKSUM_BYTES
        footer_bytes = len(self.footer_head) + checksums_bytes + _TAIL.size
        self.file_bytes = self.payload_bytes + footer_bytes
        """The file's length: payload, body and tail."""
        self.pages = -(-self.file_bytes // PAGE_BYTES)
        """How many pages of 4 KiB the file takes."""

    def __repr__(self) -> str:
        return f"<ChunkFile {self.index} of {self.object.key!r}>"

    @property
    def allocated_bytes(self) -> int:
        """What the file takes of a budget."""
        return self.pages * PAGE_BYTES

    @property
    def relative_path(self) -> PurePath:
        """Where it lies below ``chunks/``."""
        return relative_path(self.chunk_id, self.pages)


@dataclass(frozen=True, slots=True)
class Footer:
    """What a chunk file says about itself."""

    object: ObjectId
    index: int
    checksums: bytes
    """Of the payload's blocks, joined."""


def encode_footer(footer: Footer) -> bytes:
    """Return body and tail."""
    subject, payload_bytes = footer.object, footer.object.chunk_length(footer.index)
    assert len(footer.checksums) == block_count(payload_bytes) * CHECKSUM_BYTES
    return _seal(_footer_head(subject, footer.index, payload_bytes) + footer.checksums)


def _footer_head(subject: ObjectId, index: int, payload_bytes: int) -> bytes:
    key, version = subject.key.encode(), subject.version.encode()
    head = _HEAD.pack(
        _MAGIC,
        _FORMAT,
        subject.size,
        subject.chunk_size,
        index,
        payload_bytes,
        len(key),
        len(version),
    )
    return head + key + version


def _seal(body: bytes) -> bytes:
    return body + _TAIL.pack(len(body), xxhash.xxh3_64_intdigest(body), _MAGIC)


def parse_footer(end: bytes, *, file_bytes: int) -> Footer:
    """Return the footer of a file of ``file_bytes`` bytes that ends in ``end``.

    Args:
        end: The file's last bytes: all of them, or at least `FOOTER_BYTES_MAX`.

    Raises:
        CorruptData: This is not the end of a whole chunk file. Never anything else.
    """
    body = _unseal(end)
    try:
        footer, payload_bytes = _decode(body)
        expected = footer.object.chunk_length(footer.index)
    except (struct.error, UnicodeDecodeError, InvalidRequest) as error:
        raise CorruptData(f"not a chunk file: {error}") from error
    if payload_bytes != expected:
        raise CorruptData(f"a chunk of {expected} bytes claims to have {payload_bytes}")
    if len(footer.checksums) != block_count(payload_bytes) * CHECKSUM_BYTES:
        raise CorruptData(f"{payload_bytes} bytes have {len(footer.checksums)} of checksums")
    if payload_bytes + len(body) + _TAIL.size != file_bytes:
        raise CorruptData(f"the file has {file_bytes} bytes, not what its footer tells")
    return footer


def _unseal(end: bytes) -> bytes:
    if len(end) < _TAIL.size:
        raise CorruptData(f"not a chunk file: it has only {len(end)} bytes")
    body_bytes, digest, magic = _TAIL.unpack_from(end, len(end) - _TAIL.size)
    if magic != _MAGIC:
        raise CorruptData("not a chunk file: it does not end in a footer")
    start = len(end) - _TAIL.size - body_bytes
    if start < 0:
        raise CorruptData(f"not a chunk file: a footer of {body_bytes} bytes does not fit")
    body = end[start : len(end) - _TAIL.size]
    if xxhash.xxh3_64_intdigest(body) != digest:
        raise CorruptData("the footer does not match its checksum")
    return body


def _decode(body: bytes) -> tuple[Footer, int]:
    magic, kind, size, chunk_size, index, payload_bytes, key_bytes, version_bytes = (
        _HEAD.unpack_from(body)
    )
    if magic != _MAGIC or kind != _FORMAT:
        raise CorruptData(f"a chunk file of format {kind}; this program reads {_FORMAT}")
    version_at = _HEAD.size + key_bytes
    checksums_at = version_at + version_bytes
    subject = ObjectId(
        key=body[_HEAD.size : version_at].decode(),
        version=body[version_at:checksums_at].decode(),
        size=size,
        chunk_size=chunk_size,
    )
    return Footer(subject, index, body[checksums_at:]), payload_bytes


def read_checksums(descriptor: int, chunk: ChunkFile) -> bytes:
    """Return the checksums of ``chunk`` from its open file, whose footer must be this chunk's.

    Raises:
        CorruptData: It is damaged or cut, or another chunk's.
        OSError: The disk cannot read it.
    """
    file_bytes = os.fstat(descriptor).st_size
    if file_bytes == chunk.file_bytes:
        footer_bytes = file_bytes - chunk.payload_bytes
        body = _unseal(os.pread(descriptor, footer_bytes, chunk.payload_bytes))
        is_whole = len(body) == footer_bytes - _TAIL.size
        if is_whole and body.startswith(chunk.footer_head):
            return body[len(chunk.footer_head) :]
    raise _not_of(chunk, descriptor)


def read_footer(descriptor: int) -> Footer:
    """Return the footer of an open chunk file.

    Raises:
        CorruptData: It is damaged or cut, or no chunk file.
        OSError: The disk cannot read it.
    """
    file_bytes = os.fstat(descriptor).st_size
    end = os.pread(descriptor, FOOTER_BYTES_MAX, max(0, file_bytes - FOOTER_BYTES_MAX))
    return parse_footer(end, file_bytes=file_bytes)


def _not_of(chunk: ChunkFile, descriptor: int) -> CorruptData:
    """Return what is wrong with a file that should be ``chunk``'s."""
    try:
        footer = read_footer(descriptor)
    except CorruptData as error:
        return error
    return CorruptData(
        f"it holds chunk {footer.index} of {footer.object.key!r}, "
        f"not chunk {chunk.index} of {chunk.object.key!r}"
    )


def write_chunk(descriptor: int, payload: bytes | bytearray | memoryview, footer: bytes) -> None:
    """Write payload and encoded footer to an empty file.

    Raises:
        OSError: The disk is full or failing; the file is left as far as it got.
    """
    waiting = [memoryview(payload).cast("B"), memoryview(footer)]
    while waiting:
        written = os.writev(descriptor, waiting)
        while waiting and written >= len(waiting[0]):
            written -= len(waiting.pop(0))
        if waiting:
            waiting[0] = waiting[0][written:]

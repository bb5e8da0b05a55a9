"""What is put: a file, bytes, or a stream, as parts of one object.

Responsible for: reading it part by part, and noticing that a file changed meanwhile.
Not responsible for: sending.
"""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol, TypeAlias, cast

from penstock.errors import Conflict, InvalidRequest

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

    Source: TypeAlias = str | os.PathLike[str] | ReadableBuffer | BinaryIO
    """A file by its path, bytes, or a stream that is read from where it stands."""


class OpenSource(Protocol):
    """What is put, open."""

    size: int | None
    """In bytes; None if nobody knows yet."""

    def parts(self, part_bytes: int) -> Iterator[bytes]:
        """Read it, once: parts of ``part_bytes``, the last one shorter, none of them empty.

        Raises:
            Conflict: It changed while it was read.
        """


@contextlib.contextmanager
def open_source(source: "Source") -> Iterator[OpenSource]:
    """Open what is to be put; a stream stays the caller's to close.

    Raises:
        InvalidRequest: It cannot be read, or is no file, no bytes and no stream.
    """
    if isinstance(source, str | os.PathLike):
        with _opened(Path(source)) as file:
            yield file
    elif hasattr(source, "read"):
        yield _Stream(cast("BinaryIO", source))
    else:
        with _octets(source) as octets:
            yield _Memory(octets)


@contextlib.contextmanager
def _octets(source: "ReadableBuffer") -> Iterator[memoryview]:
    try:
        octets = memoryview(source).cast("B")
    except TypeError:
        raise InvalidRequest(
            f"cannot put a {type(source).__name__}; want a path, contiguous bytes, or a binary "
            "stream"
        ) from None
    with octets:
        yield octets


@contextlib.contextmanager
def _opened(path: Path) -> Iterator["_File"]:
    try:
        # Non-blocking: opening a pipe would wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InvalidRequest(f"cannot read {path}: {reason}; name a file") from error
    try:
        yield _File(path, descriptor)
    finally:
        os.close(descriptor)


class _File:
    """A regular file, of one state from the first byte to the last."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path, self._descriptor = path, descriptor
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise InvalidRequest(
                f"{path} is no file; put what is in a directory one by one, and "
                "what comes out of a pipe as a stream"
            )
        self.size: int | None = status.st_size
        self._state = _state(status)

    def parts(self, part_bytes: int) -> Iterator[bytes]:
        assert self.size is not None, "a file has a size"
        for at in range(0, self.size, part_bytes):
            yield self._read(at, min(part_bytes, self.size - at))
        self._check()

    def _read(self, at: int, length: int) -> bytes:
        try:
            data = os.pread(self._descriptor, length, at)
            while 0 < len(data) < length:
                more = os.pread(self._descriptor, length - len(data), at + len(data))
                if not more:
                    break
                data += more
        except OSError as error:
            raise InvalidRequest(f"cannot read {self._path}: {error.strerror}") from error
        if len(data) < length:
            raise self._changed()
        return data

    def _check(self) -> None:
        if _state(os.fstat(self._descriptor)) != self._state:
            raise self._changed()

    def _changed(self) -> Conflict:
        return Conflict(
            f"{self._path} changed while it was sent, and nothing was put; put it again when "
            "nobody writes to it"
        )


def _state(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


class _Memory:
    """Bytes of the caller's."""

    def __init__(self, octets: memoryview) -> None:
        self._octets = octets
        self.size: int | None = len(octets)

    def parts(self, part_bytes: int) -> Iterator[bytes]:
        for at in range(0, len(self._octets), part_bytes):
            yield bytes(self._octets[at : at + part_bytes])


class _Stream:
    """Something with ``read``, of which nobody knows the end."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.size: int | None = None

    def parts(self, part_bytes: int) -> Iterator[bytes]:
        while part := self._read(part_bytes):
            yield part

    def _read(self, length: int) -> bytes:
        """Return ``length`` bytes, less only at the end: a pipe gives as much as it has."""
        pieces: list[bytes] = []
        while length:
            try:
                piece = self._stream.read(length)
            except OSError as error:
                raise InvalidRequest(f"cannot read what is to be put: {error}") from error
            if not piece:
                break
            if not isinstance(piece, bytes):
                raise InvalidRequest("the stream gives text; open it in binary mode")
            pieces.append(piece)
            length -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

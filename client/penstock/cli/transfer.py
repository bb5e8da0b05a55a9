"""Moving an object's bytes out of the cache: into a file, or a stream.

Responsible for: a file that appears only when it is whole; one version from the first byte to
the last; bounded memory; progress, and giving up when the user does.
Not responsible for: reading chunks (`penstock.cache`), arguments (`reading`).
"""

import contextlib
import errno
import mmap
import os
import random
import secrets
import threading
from collections.abc import Iterator
from concurrent.futures import wait
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Protocol, Self

from penstock.cli.in_thread import in_thread
from penstock.errors import InvalidRequest, ObjectChanged
from penstock.objects import check_range

if TYPE_CHECKING:
    from penstock.cache import Cache
    from penstock.object_file import ObjectFile
    from penstock.object_info import ObjectInfo

WINDOW_BYTES = 1 << 30
"""Of a file, mapped at once: page tables stay small, and readers pause seldom for the slowest
chunk of a window. A multiple of every machine's page size."""
STREAM_BYTES = 64 * 1024 * 1024
"""Held in memory at once when bytes go to a stream."""
TICK_S = 0.1
"""Between two looks at the progress."""


class Watcher(Protocol):
    """Is told how far a transfer is; a progress bar, or nobody."""

    def begin(self, total_bytes: int) -> None:
        """A transfer begins, perhaps anew after the object changed."""

    def advance(self, done_bytes: int) -> None:
        """So many bytes have been read since it began."""


@dataclass(frozen=True, slots=True)
class Span:
    """What part of an object is wanted, in bytes; None for a length is all that follows."""

    offset: int = 0
    length: int | None = None

    @property
    def is_whole(self) -> bool:
        """Whether it is the whole object, whatever its size."""
        return self.offset == 0 and self.length is None


@dataclass(slots=True)
class Transfer:
    """One reading of an object by one cache: pinned to a version, watched, interruptible."""

    cache: "Cache"
    url: str
    span: Span
    watcher: Watcher
    refresh: bool = False
    rng: random.Random = field(default_factory=random.Random)
    _bytes_before: int = field(default=0, init=False)

    def to_file(self, target: Path) -> "tuple[ObjectInfo, int]":
        """Write the span to ``target``, which appears, or is replaced, when all has been read.

        A whole object that is overwritten meanwhile is read anew once.

        Returns:
            The object, and the bytes written.

        Raises:
            InvalidRequest: The span begins beyond the end, or the file cannot be written.
            ObjectChanged: The object is overwritten faster than it can be read.
            PenstockError: As `Cache.read`.
        """
        try:
            return self._to_file_once(target, self._open(refresh=self.refresh))
        except ObjectChanged:
            if not self.span.is_whole:
                raise
        return self._to_file_once(target, self._open(refresh=True))

    def _to_file_once(self, target: Path, source: "ObjectFile") -> "tuple[ObjectInfo, int]":
        size = self._begin(source)
        with PartialFile(target, size) as partial:
            for at, length in windows(size, WINDOW_BYTES, rng=self.rng):
                source.seek(self.span.offset + at)
                with partial.window(at, length) as view:
                    self._read(source, view)
            partial.publish()
        return source.info, size

    def to_stream(self, stream: BinaryIO) -> "tuple[ObjectInfo, int]":
        """Write the span to ``stream``, in order. Returns and raises as `to_file`."""
        source = self._open(refresh=self.refresh)
        size = self._begin(source)
        memory = bytearray(min(size, STREAM_BYTES))
        source.seek(self.span.offset)
        with memoryview(memory) as view:
            for _, length in windows(size, STREAM_BYTES):
                self._read(source, view[:length])
                _write(stream, view[:length])
        return source.info, size

    def _open(self, *, refresh: bool) -> "ObjectFile":
        return self.cache.open(self.url, refresh=refresh)

    def _begin(self, source: "ObjectFile") -> int:
        size = check_range(source.info.size, self.span.offset, self.span.length)
        self._bytes_before = self._bytes_read()
        self.watcher.begin(size)
        return size

    def _bytes_read(self) -> int:
        return sum(self.cache.stats()["plane"].values())

    def _read(self, source: "ObjectFile", view: memoryview) -> None:
        """Fill ``view`` in a thread of its own, so that an interrupt need not wait for it."""
        stop = threading.Event()
        reading = in_thread(lambda: source.readinto(view, stop=stop))
        try:
            while not wait([reading], timeout=TICK_S).done:
                self.watcher.advance(self._bytes_read() - self._bytes_before)
        except BaseException:
            stop.set()
            raise
        assert reading.result() == len(view), "the range was checked against this version's size"
        self.watcher.advance(self._bytes_read() - self._bytes_before)


def _write(stream: BinaryIO, view: memoryview) -> None:
    try:
        # Where Python runs unbuffered, a write may take less than it was given.
        while len(view):
            if not (taken := stream.write(view)):
                raise BlockingIOError(errno.EAGAIN, "the stream does not block")
            view = view[taken:]
        stream.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise InvalidRequest(
            f"cannot write what was read: {error.strerror}; write to a FILE with space: -o FILE"
        ) from error


def windows(
    size: int, window_bytes: int, *, rng: random.Random | None = None
) -> list[tuple[int, int]]:
    """Cut ``size`` bytes into windows: offset and length of each.

    With ``rng`` they begin at a random one and go around, so that a thousand readers of one
    large object do not all ask the same owners.
    """
    cut = [(at, min(window_bytes, size - at)) for at in range(0, size, window_bytes)]
    first = rng.randrange(len(cut)) if rng and cut else 0
    return cut[first:] + cut[:first]


class PartialFile:
    """A file that is written under another name beside its target, until `publish`.

    As a context manager it leaves nothing behind unless it was published. The disk's space is
    taken at the start: a full disk is an error then, and not a signal in the middle.
    """

    def __init__(self, target: Path, size: int) -> None:
        # What a link points at is replaced, not the link.
        self._target = target.resolve()
        self._path = self._target.with_name(f".{target.name[:100]}.{secrets.token_hex(4)}.partial")
        self._size = size
        self._descriptor = -1

    def __enter__(self) -> Self:
        with naming(self._target):
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._descriptor = os.open(self._path, flags, 0o666)
            try:
                self._take_space()
            except BaseException:
                self._discard()
                raise
        return self

    def _take_space(self) -> None:
        if self._size and hasattr(os, "posix_fallocate"):
            os.posix_fallocate(self._descriptor, 0, self._size)
        else:
            os.ftruncate(self._descriptor, self._size)

    @contextlib.contextmanager
    def window(self, at: int, length: int) -> Iterator[memoryview]:
        """Lend ``length`` bytes of the file from ``at``, a multiple of the page size."""
        mapping = mmap.mmap(self._descriptor, length, offset=at)
        view = memoryview(mapping)
        yield view
        # Not after an error: a thread that was given up may write into the mapping yet.
        view.release()
        mapping.close()

    def publish(self) -> None:
        """Let the file appear under its name, in one step."""
        with naming(self._target):
            if self._target.exists():
                os.fchmod(self._descriptor, self._target.stat().st_mode & 0o777)
            self._path.replace(self._target)

    def _discard(self) -> None:
        os.close(self._descriptor)
        self._path.unlink(missing_ok=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._discard()


@contextlib.contextmanager
def naming(target: Path) -> Iterator[None]:
    """Make an error of the file system one that names the file and the fix."""
    try:
        yield
    except OSError as error:
        raise InvalidRequest(
            f"cannot write {target}: {error.strerror}; free some space, or name another file"
        ) from error

"""Reading a shard out of the files in which the node of this machine keeps its chunks.

Responsible for: which of them are open, and that they are few.
Not responsible for: shards without such files, or with bad ones: what is not read here is read as
from any node.

What the node has verified when it brought a chunk in is not verified again, as for views: bytes
cost here what they cost from a local file. Files that are open count as in use at the node.
"""

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Generator, Iterator

from penstock.chunk_files import ChunkFile, ChunkFiles, read_exactly
from penstock.errors import CorruptData, NodeUnavailable, PenstockError

FILES_MAX = 256
"""Open files of a process, of all shards that it has open; each shard may have its share."""
SHARE_MIN = 4

_log = logging.getLogger(__name__)


class _Room:
    """Shares `FILES_MAX` out among those that read."""

    readers = 0

    @classmethod
    def share(cls) -> int:
        return max(SHARE_MIN, FILES_MAX // max(1, cls.readers))


class ChunkReads:
    """Reads one version of an object. For one thread at a time; close it."""

    def __init__(self, chunk_files: Callable[[threading.Event], ChunkFiles]) -> None:
        """Ask for nothing yet; ``chunk_files`` makes what asks the node, until the event is set."""
        self._make = chunk_files
        self._files: ChunkFiles | None = None
        self._told = _closing(iter(()))
        self._open: dict[int, ChunkFile] = {}
        self._coming: set[int] = set()
        self._are_given = True
        self._pid = os.getpid()
        _Room.readers += 1

    def read(self, memory: memoryview, offset: int, *, ahead: int = 1) -> int:
        """Fill memory from an offset of the object; return how many bytes, which may be fewer.

        Args:
            memory: Where to.
            offset: Of the first byte.
            ahead: Of how many chunks that follow files are asked for at once, where one is missing.
        """
        done = 0
        try:
            while done < len(memory) and self._are_given:
                done += self._read_part(memory[done:], offset + done, ahead)
        except PenstockError as error:  # Read as from any node, it is told with all its reasons.
            _log.debug("no more chunks are read from files: %s", error)
            self._are_given = False
            self._drop()
        return done

    def _read_part(self, memory: memoryview, offset: int, ahead: int) -> int:
        """Read what one chunk has of it."""
        obj = self._asked().object
        index, start = divmod(offset, obj.chunk_size)
        file = self._file(index, ahead)
        if file.length != obj.chunk_length(index):
            raise CorruptData(f"chunk {index} has {file.length} bytes")
        part = memory[: file.length - start]
        read_exactly(file.descriptor, part, file.offset + start)
        return len(part)

    def _asked(self) -> ChunkFiles:
        if self._files is None:
            self._files = self._make(threading.Event())
            # Bytes are copied out of it once, which is not worth a wait.
            self._files.into_memory = False
        return self._files

    def _file(self, index: int, ahead: int) -> ChunkFile:
        if index not in self._open and index not in self._coming:
            self._ask(index, ahead)
        while index not in self._open:
            self._take_next()
        return self._open[index]

    def _take_next(self) -> None:
        file = next(self._told, None)
        if file is None:
            raise NodeUnavailable(f"the node has not told of chunks {sorted(self._coming)}")
        self._coming.discard(file.index)
        self._open[file.index] = file

    def _ask(self, index: int, ahead: int) -> None:
        """Have the node tell some files; all others are given back if there would be too many."""
        ahead = min(ahead, _Room.share())
        if len(self._open) + len(self._coming) + ahead > _Room.share():
            self._drop()
        while self._coming:  # One question at a time.
            self._take_next()
        files = self._asked()
        indexes = range(index, min(index + ahead, files.object.chunk_count))
        wanted = [each for each in indexes if each not in self._open]
        self._coming, self._told = set(wanted), _closing(files.each(wanted))

    def _drop(self) -> None:
        """Give all files back."""
        self._told.close()
        for file in self._open.values():
            os.close(file.descriptor)
        if self._files is not None:
            self._files.close()
        self._files = None
        self._open, self._coming = {}, set()

    def close(self) -> None:
        """Give all files back; again does nothing."""
        if self._make is not _closed:
            self._make, self._are_given = _closed, False
            self._drop()
            _Room.readers -= self._pid == os.getpid()

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):  # It was never made.
            self.close()


def _closed(_stop: threading.Event) -> ChunkFiles:
    raise AssertionError("it was closed")


def _closing(files: Iterator[ChunkFile]) -> Generator[ChunkFile, None, None]:
    yield from files


def _after_fork_in_child() -> None:
    """What the parent has open is the parent's."""
    _Room.readers = 0


os.register_at_fork(after_in_child=_after_fork_in_child)

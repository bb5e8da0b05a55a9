"""The bytes of an object in parts, on their way into memory of whoever takes one.

Responsible for: the open files of this machine's node while it gives such, and reads for whatever
they do not bring.
Not responsible for: who takes parts, and where they go (`staging`).
"""

import logging
import os
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from penstock.chunk_files import ChunkFile, ChunkFiles, read_exactly
from penstock.errors import CorruptData, NodeUnavailable, NotPermitted

_log = logging.getLogger(__name__)

Read: TypeAlias = Callable[[memoryview, int], None]
"""Fills memory with an object's bytes from an offset, verified; from any thread."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some bytes of one chunk. Whoever took it closes it."""

    start: int
    """Of the first byte in the object; ``stop`` likewise."""
    stop: int
    chunk_start: int
    read: Read
    file: ChunkFile | None = None

    def fill(self, memory: memoryview, at: int) -> None:
        """Fill memory with the object's bytes from ``at`` on, which lie within the part.

        What is in the node's files it has verified when it brought that in. A file that is not as
        it should be is passed over: what is read is verified again, and the node mends the file.
        """
        if self.file is not None:
            try:
                offset = self.file.offset + at - self.chunk_start
                read_exactly(self.file.descriptor, memory, offset)
            except CorruptData as error:
                _log.debug("chunk %d is read: %s", self.file.index, error)
            else:
                return
        self.read(memory, at)

    def close(self) -> None:
        """Close its file."""
        if self.file is not None:
            os.close(self.file.descriptor)


class Parts:
    """The parts of an object, told once, in the order in which they come. Close it."""

    def __init__(self, files: ChunkFiles, read: Read, start: int) -> None:
        """Ask for nothing yet.

        Args:
            files: Of the object.
            read: Reads the object where there are no files.
            start: The bytes before it are not wanted.
        """
        self._files, self._read, self._start = files, read, start
        self._told = self._tell()

    @property
    def largest_bytes(self) -> int:
        """What the largest part has, or more."""
        return self._files.object.chunk_size

    def __iter__(self) -> Iterator[Part]:
        """Tell the next ones."""
        return self._told

    def close(self) -> None:
        """Close the files of those that nobody has taken, and say that all are done with."""
        self._told.close()
        self._files.close()

    def _tell(self) -> Generator[Part, None, None]:
        obj = self._files.object
        left = dict.fromkeys(range(self._start // obj.chunk_size, obj.chunk_count))
        try:
            for file in self._files.each(tuple(left)):
                if file.length != obj.chunk_length(file.index):
                    os.close(file.descriptor)  # What follows in it is no byte of the chunk.
                    continue
                del left[file.index]
                yield self._part(file.index, file)
        except (NotPermitted, NodeUnavailable) as error:
            _log.debug("%d chunks are read: %s", len(left), error)
        for index in left:
            yield self._part(index)

    def _part(self, index: int, file: ChunkFile | None = None) -> Part:
        obj = self._files.object
        begin = index * obj.chunk_size
        start, stop = max(self._start, begin), begin + obj.chunk_length(index)
        return Part(start, stop, begin, self._read, file)

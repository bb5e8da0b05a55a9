"""Parts of an object as memory over the files of this machine's node, mapped as they are asked for.

For readers of tables, who want some columns and keep them in memory: nothing is copied, and chunks
that nobody asks for are not brought in.

Responsible for: which chunks are mapped, and checking every block that is given away.
Not responsible for: maps (`mapping`), having chunks' pages there (`host_view`), what is not to be
had so (`object_file` reads it).
"""

import mmap
import os
import threading
import weakref
from collections.abc import Callable

from penstock.checksums import checksums_between, verify_blocks
from penstock.chunk_files import ChunkFiles
from penstock.errors import Cancelled, Overloaded, PenstockError
from penstock.host_view import Building
from penstock.mapping import MappedRange, maps_max
from penstock.objects import cover_blocks, pieces

MAPS_SHARE = 4
"""Of the maps that this process may have, at most one in so many is used here."""


_mapped: "weakref.WeakKeyDictionary[mmap.mmap, int]" = weakref.WeakKeyDictionary()
"""How many chunks each range has that is looked at, as if all were mapped."""


def _take_maps(owner: mmap.mmap, count: int) -> None:
    """Have room for ``count`` maps, for as long as ``owner`` lives.

    Raises:
        Overloaded: This process has too many.
    """
    if sum(_mapped.values()) + count > maps_max() // MAPS_SHARE:
        raise Overloaded("this process has as many parts of objects mapped as it may")
    _mapped[owner] = count


class PartialView:
    """What is mapped of one object. Thread-safe, and usable in a forked child."""

    def __init__(self, chunk_files: Callable[[threading.Event], ChunkFiles]) -> None:
        """Map nothing yet; ``chunk_files`` makes what asks the node, until the event is set."""
        self._chunk_files = chunk_files
        self._begin()

    def _begin(self) -> None:
        self._lock, self._process = threading.Lock(), os.getpid()
        self._mapped: _Mapped | None = None
        self._is_refused = False

    def part(
        self, offset: int, length: int, *, stop: threading.Event | None = None
    ) -> memoryview | None:
        """Return bytes of the object, verified; None if they are not to be had so, now or later.

        They are there, whatever the node evicts, for as long as anybody looks at them, and its
        chunks count as in use.

        Args:
            offset: Of the first byte.
            length: How many; they lie within the object, and are some.
            stop: Set from another thread to give up early.

        Raises:
            Cancelled: ``stop`` was set.
        """
        stop = stop or threading.Event()
        with self._locked():
            if self._is_refused:
                return None
            try:
                if self._mapped is None:
                    self._mapped = _Mapped(self._chunk_files(stop))
                return self._mapped.part(offset, offset + length, stop)
            except Cancelled:
                self._mapped = None  # Its connection is in the middle of an answer.
                raise
            except PenstockError:  # Who reads it is told why, if that fails too.
                self._is_refused, self._mapped = True, None
                return None

    def close(self) -> None:
        """Map no more; what was given away stays."""
        with self._locked():
            self._is_refused, self._mapped = True, None

    def _locked(self) -> threading.Lock:
        if self._process != os.getpid():
            # A thread of the parent's may have the lock. The node counts what the parent has
            # mapped as the parent's.
            self._begin()
        return self._lock


class _Mapped:
    """A range as long as the object, with files in some places of it."""

    def __init__(self, files: ChunkFiles) -> None:
        self._files, self._object = files, files.object
        files.tries = 1
        mapped = MappedRange(self._object.size)
        weakref.finalize(mapped.owner, files.close)
        _take_maps(mapped.owner, self._object.chunk_count)
        self._building = Building(files, mapped)
        self._all = mapped.view()

    def part(self, start: int, stop: int, gives_up: threading.Event) -> memoryview:
        obj = self._object
        self._files.stop = gives_up
        wanted = list(pieces(obj.chunk_size, start, stop - start))
        self._building.have([piece.index for piece in wanted])
        for piece in wanted:
            begins = piece.index * obj.chunk_size
            length = obj.chunk_length(piece.index)
            first, last = cover_blocks(piece.start, piece.stop, length)
            checksums = self._building.checksums[piece.index]
            with self._all[begins + first : begins + last] as blocks:
                verify_blocks(blocks, checksums_between(checksums, first, last))
        return self._all[start:stop]

"""Reading what the node of this machine has at hand, for who reads an object from front to back.

The files of the next chunks are asked for many at a time, and kept open until they are read: a
read costs what it costs from a local file, and the check of each block.

Responsible for: having the files before they are read, and a few threads for a large read.
Not responsible for: what is not at hand (`reader`), which files are open (`planes.host_kept`).
"""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from penstock.attempt import PIECE_TIMEOUT_S
from penstock.checksums import BLOCK_BYTES
from penstock.deadline import Deadline
from penstock.errors import Cancelled, PenstockError
from penstock.load import Span
from penstock.objects import pieces
from penstock.opens import Handle
from penstock.planes.host import HostPlane
from penstock.planes.host_kept import KeptReads
from penstock.planes.plane import Landed, PieceRequest, ReadContext
from penstock.reader import LOCAL_WORKERS, Counters, join

PART_BYTES = 4 * 1024 * 1024
"""What one of several threads reads at a time: they take parts in turn."""


class HereReads:
    """Reads what this machine's node has at hand. Thread-safe."""

    def __init__(
        self,
        plane: Callable[[], HostPlane | None],
        *,
        threads: ThreadPoolExecutor,
        counters: Counters,
    ) -> None:
        """Put the parts together.

        Args:
            plane: Returns the plane to the node that is asked first, None if there is none.
            threads: Help with large reads.
            counters: Count what was read.
        """
        self._plane, self._threads, self._counters = plane, threads, counters

    def read(
        self,
        handle: Handle,
        target: memoryview,
        offset: int,
        *,
        ahead_bytes: int,
        stop: threading.Event | None = None,
    ) -> bool:
        """Fill ``target`` from ``offset``; False if not all of it is at hand.

        On return, also by an exception, nothing writes into it any more; after False it may hold
        anything. What is wrong with the bytes or the node is told by who reads them elsewhere.

        Args:
            handle: The object; the range lies within it, and is not empty.
            target: Writable, contiguous, of bytes.
            offset: Of the first byte.
            ahead_bytes: How much is likely to be read next.
            stop: Set from another thread to give up early.

        Raises:
            Cancelled: ``stop`` was set.
        """
        plane = self._plane()
        if plane is None:
            return False
        reading = _Reading(plane.kept, self._counters, stop or threading.Event())
        try:
            is_kept = reading.keep(handle, _chunks(handle, target, offset), ahead_bytes)
        except PenstockError:
            is_kept = False
        reading.check_wanted()
        return is_kept and self._read_parts(reading, _cut(target, offset))

    def _read_parts(self, reading: "_Reading", parts: list[Span]) -> bool:
        left, count = deque(parts), min(LOCAL_WORKERS, len(parts))
        helpers = [self._threads.submit(reading.read_all, left) for _ in range(count - 1)]
        try:
            reading.read_all(left)
            join(helpers)
        except BaseException:  # An interrupt, in this thread alone.
            reading.is_missing = True
            join(helpers)
            raise
        reading.check_wanted()
        return not reading.is_missing


class _Reading:
    """One read, by several threads."""

    def __init__(self, kept: KeptReads, counters: Counters, stop: threading.Event) -> None:
        self._kept, self._counters, self._stop = kept, counters, stop
        self._context: ReadContext | None = None
        self.is_missing = False
        """Something could not be read here: nobody goes on."""

    def check_wanted(self) -> None:
        if self._stop.is_set():
            raise Cancelled

    def keep(self, handle: Handle, chunks: range, ahead_bytes: int) -> bool:
        """Have the chunks' files; see `KeptReads.keep`."""
        obj = handle.opened.id
        context = ReadContext(handle.ticket(), obj, epoch=0, only_if_cached=True)
        self._context = context
        deadline = Deadline.after(PIECE_TIMEOUT_S, is_over=self._stop.is_set)
        ahead = ahead_bytes // obj.chunk_size
        return self._kept.keep(context, chunks, ahead=ahead, deadline=deadline)

    def read_all(self, parts: "deque[Span]") -> None:
        """Read parts until none are left; another thread may take some."""
        try:
            while not self.is_missing and (part := _next(parts)) is not None:
                self._read(*part)
        except BaseException:
            self.is_missing = True
            raise

    def _read(self, target: memoryview, offset: int) -> None:
        context = self._context
        assert context is not None, "its files are kept"
        for piece in pieces(context.object.chunk_size, offset, len(target)):
            if self.is_missing or self._stop.is_set():
                return
            memory = target[piece.at : piece.at + piece.length]
            request = PieceRequest(piece.index, piece.start, piece.stop, memory)
            outcome = self._kept.read(context, request)
            if not isinstance(outcome, Landed):
                self.is_missing = True
                return
            self._counters.add(HostPlane.name, outcome.source, piece.length)


def _chunks(handle: Handle, target: memoryview, offset: int) -> range:
    size = handle.opened.id.chunk_size
    return range(offset // size, (offset + len(target) - 1) // size + 1)


def _next(parts: "deque[Span]") -> Span | None:
    try:
        return parts.popleft()
    except IndexError:  # Others have taken the rest.
        return None


def _cut(target: memoryview, offset: int) -> list[Span]:
    """Return parts that threads take in turn, in whole blocks but for the ends."""
    edges = range(PART_BYTES - offset % BLOCK_BYTES, len(target) - BLOCK_BYTES, PART_BYTES)
    bounds = zip([0, *edges], [*edges, len(target)], strict=True)
    return [(target[start:stop], offset + start) for start, stop in bounds]

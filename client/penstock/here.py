"""Reading what the node of this machine has at hand, for who reads an object from front to back.

The files of the next chunks are asked for many at a time, and kept open until they are read: a
read costs what it costs from a local file, and the check of each block.

Responsible for: having the files before they are read, and a few threads for a large read.
Not responsible for: what is not at hand (`reader`), which files are open (`planes.host_kept`).
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from penstock import tracing
from penstock.attempt import PIECE_TIMEOUT_S
from penstock.checksums import BLOCK_BYTES
from penstock.counters import Counters, add_to_all
from penstock.deadline import Deadline
from penstock.errors import Cancelled, PenstockError
from penstock.load import Span
from penstock.objects import ObjectId, pieces
from penstock.opens import Handle
from penstock.planes.host import HostPlane
from penstock.planes.host_kept import KeptReads
from penstock.planes.plane import Landed, PieceRequest, ReadContext
from penstock.reader import LOCAL_WORKERS
from penstock.together import taken, work_together

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
        tally: Counters | None = None,
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
            tally: Counts this read too.

        Raises:
            Cancelled: ``stop`` was set.
        """
        plane = self._plane()
        if plane is None:
            return False
        begun_at = time.monotonic()
        counters = (self._counters,) if tally is None else (self._counters, tally)
        stop = stop or threading.Event()
        deadline = Deadline.after(PIECE_TIMEOUT_S, is_over=stop.is_set)
        obj = handle.opened.id
        try:
            context = ReadContext(
                handle.ticket(),
                obj,
                epoch=0,
                only_if_cached=True,
                traceparent=tracing.traceparent(),
            )
            chunks, ahead = _chunks(obj, offset, len(target)), ahead_bytes // obj.chunk_size
            is_here = plane.kept.keep(context, chunks, ahead=ahead, deadline=deadline)
        except PenstockError:
            is_here = False
        if is_here:
            parts = _Parts(_cut(target, offset), stop, counters)
            with tracing.span("kept files", plane=HostPlane.name) as span:
                work_together(
                    self._threads,
                    partial(self._read, plane.kept, context, parts),
                    threads=min(LOCAL_WORKERS, len(parts.left)),
                    give_up=lambda _: parts.left.clear(),
                )
                span.add_bytes(len(target))
            is_here = not parts.is_missing
        if is_here:  # Else who reads it elsewhere counts it.
            seconds = time.monotonic() - begun_at
            for each in counters:
                each.add_read(seconds)
        if stop.is_set():
            raise Cancelled
        return is_here

    def _read(self, kept: KeptReads, context: ReadContext, parts: "_Parts") -> None:
        """Read parts until none are left; another thread may take some."""
        for target, offset in taken(parts.left):
            for piece in pieces(context.object.chunk_size, offset, len(target)):
                if parts.are_over:
                    return
                memory = target[piece.at : piece.at + piece.length]
                request = PieceRequest(piece.index, piece.start, piece.stop, memory)
                outcome = kept.read(context, request)
                if isinstance(outcome, Landed):
                    source = outcome.source
                    add_to_all(parts.counters, "bytes", HostPlane.name, source, by=piece.length)
                else:
                    parts.is_missing = True


class _Parts:
    """The parts of one read, which several threads take in turn."""

    def __init__(
        self, parts: Iterable[Span], stop: threading.Event, counters: Sequence[Counters]
    ) -> None:
        self.left, self._stop, self.counters = deque(parts), stop, counters
        self.is_missing = False
        """Something could not be read here."""

    @property
    def are_over(self) -> bool:
        """Whether nobody goes on."""
        return self.is_missing or self._stop.is_set()


def _chunks(obj: ObjectId, offset: int, length: int) -> range:
    return range(offset // obj.chunk_size, (offset + length - 1) // obj.chunk_size + 1)


def _cut(target: memoryview, offset: int) -> list[Span]:
    """Return parts that threads take in turn, in whole blocks but for the ends."""
    edges = range(PART_BYTES - offset % BLOCK_BYTES, len(target) - BLOCK_BYTES, PART_BYTES)
    bounds = zip([0, *edges], [*edges, len(target)], strict=True)
    return [(target[start:stop], offset + start) for start, stop in bounds]

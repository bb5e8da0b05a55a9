"""One read: its pieces, and whether anybody still wants them.

Responsible for: cutting a range into pieces, handing them out to workers in batches that one
node can answer together, and telling all workers when it is over.
Not responsible for: which node answers (`routing`), reading (`reader`).
"""

import random
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeAlias, TypeVar

from penstock.counters import Counters, What, add_to_all
from penstock.errors import Cancelled
from penstock.objects import pieces
from penstock.opens import Handle
from penstock.planes.plane import PieceRequest

BATCH_MAX = 8
"""Pieces asked for at once on one connection."""
BATCH_LOCAL_MAX = 64
"""The same for a node of this machine: it tells of the first while it looks for the others."""
AHEAD_MAX = 64
"""Pieces looked at to find some that one node answers together."""

Span: TypeAlias = tuple[memoryview, int]
"""Memory to fill, and the offset within the object of what it is filled with."""

K = TypeVar("K", bound=Hashable)


class Load(Generic[K]):
    """Pieces that workers take in turn, until all are taken or one has failed. Thread-safe."""

    def __init__(
        self,
        handle: Handle,
        requests: list[PieceRequest],
        *,
        workers: int,
        stop: threading.Event,
        group_of: Callable[[PieceRequest], K],
        batch_max: int = BATCH_MAX,
        are_even: bool = False,
        counters: Sequence[Counters] = (),
    ) -> None:
        """Describe a read.

        Args:
            handle: The object.
            requests: All pieces.
            workers: How many take them.
            stop: Set to give up early.
            group_of: Pieces of one group are asked for together.
            batch_max: How many of them at most.
            are_even: All pieces come equally fast, so that each worker may take its share at once;
                else as many again are left for who is done first.
            counters: Count what becomes of it.
        """
        self.handle = handle
        self.stop = stop
        self._requests = deque(requests)
        self._groups: dict[K, deque[PieceRequest]] = defaultdict(deque)
        self._grouped = 0
        self._workers = workers
        self._counters = counters
        self._group_of = group_of
        self._batch_max = batch_max
        self._are_even = are_even or workers == 1
        self._missing = len(requests)
        self._lock = threading.Lock()
        self._failure: BaseException | None = None

    def is_over(self) -> bool:
        """Tell whether nobody waits for the pieces any more."""
        return self._failure is not None or self.stop.is_set()

    def take(self) -> tuple[K | None, list[PieceRequest]]:
        """Return the next pieces, and the group that they are all of, if there was need to look.

        None when there are no more, or it is over. Fewer towards the end, so that workers finish
        together, where there are some.
        """
        with self._lock:
            if self.is_over():
                return None, []
            left = len(self._requests) + self._grouped
            share = -(-left // self._workers) if self._are_even else left // (2 * self._workers)
            wanted = max(1, min(self._batch_max, share))
            key, group = self._fullest(wanted)
            taken = [group.popleft() for _ in range(min(wanted, len(group)))]
            self._grouped -= len(taken)
            return key, taken

    def _fullest(self, wanted: int) -> tuple[K | None, deque[PieceRequest]]:
        """Return a group of ``wanted`` pieces, or the largest that looking ahead finds."""
        if wanted == 1 and not self._grouped:
            return None, self._requests_alone()
        while self._requests and self._grouped < AHEAD_MAX:
            request = self._requests.popleft()
            key = self._group_of(request)
            group = self._groups[key]
            group.append(request)
            self._grouped += 1
            if len(group) >= wanted:
                return key, group
        return max(self._groups.items(), key=lambda each: len(each[1]), default=(None, deque()))

    def _requests_alone(self) -> deque[PieceRequest]:
        self._grouped += min(1, len(self._requests))  # `take` counts what it takes.
        return deque([self._requests.popleft()] if self._requests else [])

    def count(self, what: What, *of: str, by: float = 1) -> None:
        """Count something that has happened to it; see `Counters.add`."""
        add_to_all(self._counters, what, *of, by=by)

    def landed(self) -> None:
        """Count one piece as read."""
        with self._lock:
            self._missing -= 1

    def fail(self, error: BaseException) -> None:
        """End the read: other workers finish what they have in hand."""
        with self._lock:
            self._failure = self._failure or error

    def check(self) -> None:
        """Raise what ended the read early, if anything did."""
        if self._failure:
            raise self._failure
        if self.stop.is_set():
            raise Cancelled
        assert self._missing == 0, f"{self._missing} pieces were never read"


def cut(handle: Handle, spans: Sequence[Span], *, rng: random.Random) -> list[PieceRequest]:
    """Return the pieces of all spans, in their order.

    A thousand readers of one whole model start at different chunks and so spread over all
    owners; later each finds cached what the others brought in.
    """
    identity = handle.opened.id
    found = [
        PieceRequest(
            piece.index, piece.start, piece.stop, memory[piece.at : piece.at + piece.length]
        )
        for memory, offset in spans
        for piece in pieces(identity.chunk_size, offset, len(memory))
    ]
    if len(spans) == 1 and len(spans[0][0]) == identity.size and len(found) > 1:
        first = rng.randrange(len(found))
        found = found[first:] + found[:first]
    return found

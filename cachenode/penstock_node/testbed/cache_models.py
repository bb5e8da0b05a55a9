"""What other caches would find: the least, the best, and the one that is hard to beat.

Responsible for: hits of LRU, of plain S3-FIFO and of Belady's offline optimum, over reads of
chunks of one size.
Not responsible for: our own order of eviction, which is run as it is.
"""

import heapq
from collections import OrderedDict, deque
from collections.abc import Sequence

SMALL_SHARE = 0.1
"""Of an S3-FIFO's room, as its paper has it."""
PROVEN_USES = 2
USES_MAX = 3


def lru_hits(reads: Sequence[int], *, room: int) -> int:
    """Return how many reads a cache of ``room`` chunks answers that drops the least recent."""
    kept, hits = OrderedDict[int, None](), 0
    for chunk in reads:
        if chunk in kept:
            hits += 1
            kept.move_to_end(chunk)
            continue
        if len(kept) >= room:
            kept.popitem(last=False)
        kept[chunk] = None
    return hits


def belady_hits(reads: Sequence[int], *, room: int) -> int:
    """Return how many reads the best cache of ``room`` chunks answers, which knows the future.

    It drops the chunk whose next read is the furthest off, the one just read if that is so.
    """
    never = len(reads)
    following, next_of = [never] * len(reads), dict[int, int]()
    for at in range(len(reads) - 1, -1, -1):
        following[at] = next_of.get(reads[at], never)
        next_of[reads[at]] = at
    kept: dict[int, int] = {}  # When each is read next.
    furthest: list[tuple[int, int]] = []  # The same, negative; and what has changed since.
    hits = 0
    for chunk, following_read in zip(reads, following, strict=True):
        hits += chunk in kept
        kept[chunk] = following_read
        heapq.heappush(furthest, (-following_read, chunk))
        while len(kept) > room:
            negative, candidate = heapq.heappop(furthest)
            if kept.get(candidate) == -negative:
                del kept[candidate]
    return hits


def s3_fifo_hits(reads: Sequence[int], *, room: int) -> int:
    """Return how many reads an S3-FIFO of ``room`` chunks answers."""
    cache = _S3Fifo(room)
    return sum(cache.read(chunk) for chunk in reads)


class _S3Fifo:
    """As "FIFO queues are all you need for cache eviction" has it (Yang et al., SOSP 2023)."""

    def __init__(self, room: int) -> None:
        self._room, self._small_room = room, int(room * SMALL_SHARE)
        self._small, self._main = deque[int](), deque[int]()
        self._ghosts = OrderedDict[int, None]()
        self._uses: dict[int, int] = {}  # Of all chunks that are here.

    def read(self, chunk: int) -> bool:
        uses = self._uses.get(chunk)
        if uses is not None:
            self._uses[chunk] = min(USES_MAX, uses + 1)
            return True
        while len(self._uses) >= self._room:
            self._shrink()
        is_ghost = chunk in self._ghosts
        self._ghosts.pop(chunk, None)
        (self._main if is_ghost else self._small).append(chunk)
        self._uses[chunk] = 0
        return False

    def _shrink(self) -> None:
        if len(self._small) > self._small_room or not self._main:
            self._shrink_small()
            return
        chunk = self._main.popleft()
        if self._uses[chunk] > 0:
            self._uses[chunk] -= 1
            self._main.append(chunk)
        else:
            del self._uses[chunk]

    def _shrink_small(self) -> None:
        chunk = self._small.popleft()
        if self._uses[chunk] >= PROVEN_USES:
            self._uses[chunk] = 0
            self._main.append(chunk)
            return
        del self._uses[chunk]
        self._ghosts[chunk] = None
        if len(self._ghosts) > self._room - self._small_room:
            self._ghosts.popitem(last=False)

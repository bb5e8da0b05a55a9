"""Chunks that wait to be warm, in a line for each node that is asked for them.

Responsible for: which are asked for next, how many of one node at once, which are put off; what
has become of all so far.
Not responsible for: asking (`warming`), which node that is (`routing`). No I/O; its caller locks.
"""

import heapq
import itertools
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from penstock.errors import PenstockError
from penstock.opens import Handle
from penstock.warmup import WarmupFailure, WarmupProgress

FAILURES_MAX = 1000
"""Told one by one; the rest is counted."""


@dataclass(slots=True, eq=False)
class WarmObject:
    """An object that is to be warm."""

    handle: Handle
    failed_at: set[str] = field(default_factory=set)
    """The homes of chunks for which it has failed: the rest is passed over there."""


@dataclass(slots=True, eq=False)
class WarmChunk:
    """A chunk that is to be warm."""

    object: WarmObject
    index: int
    home: str = ""
    """The node that is to have it; empty: whoever owns it."""
    suspects: tuple[str, ...] = ()
    """Owners that were passed over."""
    was_filling: bool = False
    """It was not there before."""
    refusals: int = 0
    """How often it failed because of its origin."""
    tries: int = 0
    """In vain, one after the other."""
    troubled_at: float = 0.0
    """When the first of them ended."""

    @property
    def id(self) -> bytes:
        """The chunk id."""
        return self.object.handle.opened.id.chunk_id(self.index)

    @property
    def length(self) -> int:
        """In bytes."""
        return self.object.handle.opened.id.chunk_length(self.index)

    @property
    def is_passed_over(self) -> bool:
        """Whether another chunk of its object has failed there."""
        return self.home in self.object.failed_at


@dataclass(slots=True)
class _Line:
    waiting: deque[WarmChunk] = field(default_factory=deque)
    on_their_way: list[WarmChunk] = field(default_factory=list)
    """The node has been asked for these, and brings them in."""
    is_being_asked: bool = False


class Lines:
    """The lines of all nodes; see the module."""

    def __init__(self, *, in_flight_max: int) -> None:
        """Begin with none.

        Args:
            in_flight_max: Chunks that one node is asked for at once.
        """
        self._in_flight_max = in_flight_max
        self._lines: OrderedDict[str, _Line] = OrderedDict()
        self._put_off: list[tuple[float, int, WarmChunk]] = []
        self._numbers = itertools.count()

    def __len__(self) -> int:
        """How many nodes have been asked, or will be."""
        return len(self._lines)

    def push(self, node_id: str, chunk: WarmChunk) -> None:
        """Have a node asked for a chunk."""
        self._lines.setdefault(node_id, _Line()).waiting.append(chunk)

    def put_off(self, chunk: WarmChunk, *, until: float) -> None:
        """Have a chunk `due` again at a time."""
        heapq.heappush(self._put_off, (until, next(self._numbers), chunk))

    def due(self, now: float) -> list[WarmChunk]:
        """Return the chunks that were put off until now at most."""
        due = []
        while self._put_off and self._put_off[0][0] <= now:
            due.append(heapq.heappop(self._put_off)[2])
        return due

    def take(self) -> tuple[str, list[WarmChunk]] | None:
        """Return a node that is not being asked, and all that to ask it for; None if none is.

        It is being asked from now until `give_back`. Nodes take turns.
        """
        for node_id, line in self._lines.items():
            if line.is_being_asked or not (line.waiting or line.on_their_way):
                continue
            room = self._in_flight_max - len(line.on_their_way)
            news = [line.waiting.popleft() for _ in range(min(room, len(line.waiting)))]
            taken, line.on_their_way = line.on_their_way + news, []
            line.is_being_asked = True
            self._lines.move_to_end(node_id)
            return node_id, taken
        return None

    def give_back(self, node_id: str, on_their_way: Sequence[WarmChunk]) -> None:
        """Note that a node has answered, and what it is to be asked for again."""
        line = self._lines[node_id]
        line.on_their_way += on_their_way
        line.is_being_asked = False


@dataclass(slots=True)
class Tally:
    """What has become of all so far."""

    objects: int = 0
    total_bytes: int = 0
    total_chunks: int = 0
    is_total_final: bool = False
    pending: int = 0
    """Chunks that are to be asked for, or have been."""
    chunks: int = 0
    cold_bytes: int = 0
    warm_bytes: int = 0
    failed_bytes: int = 0
    failures: list[WarmupFailure] = field(default_factory=list)
    failed_objects: int = 0

    def found(self, size_bytes: int, *, chunks: int) -> None:
        """Count an object."""
        self.objects += 1
        self.total_bytes += size_bytes
        self.total_chunks += chunks

    def settle(self, chunk: WarmChunk, *, was_here: bool) -> None:
        """Count a chunk that is there."""
        self._end(chunk)
        if was_here:
            self.warm_bytes += chunk.length
        else:
            self.cold_bytes += chunk.length

    def pass_over(self, chunk: WarmChunk) -> None:
        """Count a chunk that is not brought in: another of its object has failed."""
        self._end(chunk)
        self.failed_bytes += chunk.length

    def fail(self, chunk: WarmChunk, error: PenstockError) -> None:
        """Count a chunk that cannot be brought in, and with it its object."""
        if not chunk.is_passed_over:
            chunk.object.failed_at.add(chunk.home)
            self.fail_object(chunk.object.handle.opened.url, error, node=chunk.home)
        self.pass_over(chunk)

    def fail_object(self, url: str, error: PenstockError, *, node: str = "") -> None:
        """Count what is not warm as a whole."""
        self.failed_objects += 1
        if len(self.failures) < FAILURES_MAX:
            self.failures.append(WarmupFailure(url, error.name, str(error), node))

    def _end(self, chunk: WarmChunk) -> None:
        self.pending -= 1
        self.chunks += 1

    def progress(self) -> WarmupProgress:
        """Return how far all is."""
        return WarmupProgress(
            self.objects,
            self.chunks,
            self.total_bytes,
            self.cold_bytes,
            self.warm_bytes,
            self.failed_bytes,
            self.is_total_final,
            self.total_chunks,
        )

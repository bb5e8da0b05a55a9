"""How long things took: histograms that cost a fraction of a microsecond, asked when scraped.

Responsible for: counting durations into buckets, and tallies by a name out of a bounded set.
Not responsible for: names and texts of metrics (`metrics`), what is worth measuring.
"""

import asyncio
import contextlib
import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

LAG_LOOK_S = 0.5
"""Between looks at the event loop."""
LAG_BUCKETS_S = (0.01, 0.05, 0.2, 1.0, 5.0)


class Durations:
    """A histogram of seconds. Thread-safe."""

    __slots__ = ("_counts", "_lock", "_seconds", "bounds_s")

    def __init__(self, bounds_s: Sequence[float]) -> None:
        """Begin with none; ``bounds_s`` are the upper bounds of its buckets, ascending."""
        self.bounds_s = tuple(bounds_s)
        self._counts = [0] * (len(self.bounds_s) + 1)
        self._seconds = 0.0
        self._lock = threading.Lock()

    def add(self, seconds: float, *, count: int = 1) -> None:
        """Count ``count`` things that took ``seconds`` each."""
        bucket = bisect_left(self.bounds_s, seconds)
        with self._lock:
            self._counts[bucket] += count
            self._seconds += seconds * count

    @contextlib.contextmanager
    def timing(self) -> Iterator[None]:
        """Count how long the ``with`` takes, however it ends."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self.add(time.monotonic() - begun)

    def now(self) -> tuple[list[int], float]:
        """Return how many there are in each bucket, the last without a bound, and their sum."""
        with self._lock:
            return list(self._counts), self._seconds


class Tally:
    """Counts by name. Thread-safe. Whoever adds takes names from a set that is bounded."""

    def __init__(self, *names: str) -> None:
        """Begin with nothing of ``names``: Prometheus sees no rise of what was not there before."""
        self._counts: Counter[str] = Counter(dict.fromkeys(names, 0))
        self._lock = threading.Lock()

    def add(self, name: str, count: int = 1) -> None:
        """Count."""
        with self._lock:
            self._counts[name] += count

    def now(self) -> Mapping[str, int]:
        """Return the counts."""
        with self._lock:
            return dict(self._counts)


@dataclass(slots=True)
class ReadRow:
    """What was read by one plane from one source."""

    reads: int
    size_bytes: int
    seconds: float
    buckets: list[int]


class ReadCounts:
    """Reads by plane and source, with their durations. Thread-safe.

    One lock and one row a read: a third of what as many counters of a library cost.
    """

    def __init__(self, bounds_s: Sequence[float]) -> None:
        """Begin with none; see `Durations`."""
        self.bounds_s = tuple(bounds_s)
        self._rows: dict[tuple[str, str], ReadRow] = {}
        self._lock = threading.Lock()

    def add(
        self, plane: str, source: str, *, size_bytes: int, seconds: float, reads: int = 1
    ) -> None:
        """Count reads of ``size_bytes`` together that took ``seconds`` each."""
        bucket = bisect_left(self.bounds_s, seconds)
        with self._lock:
            row = self._rows.get((plane, source))
            if row is None:
                row = ReadRow(0, 0, 0.0, [0] * (len(self.bounds_s) + 1))
                self._rows[plane, source] = row
            row.reads += reads
            row.size_bytes += size_bytes
            row.seconds += seconds * reads
            row.buckets[bucket] += reads

    def rows(self) -> dict[tuple[str, str], ReadRow]:
        """Return what there is, by plane and source."""
        with self._lock:
            return {key: replace(row, buckets=list(row.buckets)) for key, row in self._rows.items()}


class LoopLag:
    """How late an event loop is with what it has to do at a time: it is too busy, or held up."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Look not yet; ``clock`` is monotonic, in seconds."""
        self.durations = Durations(LAG_BUCKETS_S)
        self._clock = clock

    async def run(self) -> None:
        """Look, for ever."""
        while True:
            due_at = self._clock() + LAG_LOOK_S
            await asyncio.sleep(LAG_LOOK_S)
            self.durations.add(max(0.0, self._clock() - due_at))

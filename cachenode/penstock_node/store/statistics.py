"""What happened in a tier, in numbers."""

import dataclasses
import threading
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TierStatistics:
    """Counters since the start."""

    evicted_bytes: int = 0
    corrupt_chunks: int = 0
    """Copies that were damaged, cut or another chunk's: never served, and dropped."""
    write_errors: int = 0
    """A full disk counts, even if the write then succeeded."""
    read_errors: int = 0
    """Files that could not be opened or read, directories that could not be listed."""
    shortages: int = 0
    """Files not opened because the process, or its machine, had no descriptor or memory left."""
    not_kept: int = 0
    """Chunks that found no room, or whose write failed."""

    def plus(self, other: "TierStatistics") -> "TierStatistics":
        """Return the sums."""
        mine, its = dataclasses.astuple(self), dataclasses.astuple(other)
        return TierStatistics(*map(sum, zip(mine, its, strict=True)))


class Counters:
    """`TierStatistics` that grow. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now = TierStatistics()

    def add(self, **more: int) -> None:
        """Add to the counters that are named as in `TierStatistics`."""
        with self._lock:
            self._now = self._now.plus(TierStatistics(**more))

    def now(self) -> TierStatistics:
        """Return the counters."""
        with self._lock:
            return self._now

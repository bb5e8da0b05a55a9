"""Which directories are read most, counted in bounded memory.

Responsible for: bytes by the directory of an object's key, over the last ten seconds: a model is a
directory.
Not responsible for: urls, other nodes (`overview`). No I/O; thread-safe.

Each window of two seconds is counted as `Space-Saving` does (Metwally, Agrawal, El Abbadi: ICDT
2005): who finds no room takes the place of the least, and its count. So a directory that is read
more than a part in `ENTRIES_MAX` of all bytes is there for certain, and no count is too high by
more than that part, nor ever too low.
"""

import threading
from collections import Counter, deque

ENTRIES_MAX = 64
"""Directories in a window."""
WINDOW_S = 2.0
WINDOWS = 5
"""That are told of, together: the last ten seconds."""


class Hottest:
    """See the module."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now: dict[str, int] = {}
        self._past: deque[dict[str, int]] = deque(maxlen=WINDOWS)

    def note(self, key: str, size_bytes: int) -> None:
        """Count a read of an object."""
        at = key.rfind("/")
        directory = key[:at] if at > 0 else key
        with self._lock:
            counts = self._now
            if directory in counts:
                counts[directory] += size_bytes
            else:
                counts[directory] = self._room() + size_bytes

    def _room(self) -> int:
        """Return the count that a directory begins with which had none."""
        if len(self._now) < ENTRIES_MAX:
            return 0
        return self._now.pop(min(self._now, key=self._now.__getitem__))

    def turn(self) -> None:
        """End the window: whoever keeps the time calls it every two seconds."""
        with self._lock:
            self._past.append(self._now)
            self._now = {}

    def by_the_second(self, *, limit: int) -> dict[str, float]:
        """Return what was read of the hottest directories by the second, the hottest first."""
        with self._lock:
            past = list(self._past)
        total: Counter[str] = Counter()
        for window in past:
            total.update(window)
        return {name: count / (WINDOWS * WINDOW_S) for name, count in total.most_common(limit)}

"""How much room a file system must keep free, and how far a tier is from that.

Responsible for: the floor, and an estimate of what is free that is asked for often and looks at
the file system rarely.
Not responsible for: the tier's own budget (`ledger`), what is evicted.
"""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

FLOOR_SHARE = 50
"""One byte in so many stays free: file systems get slow, and others need room for their files."""
FLOOR_BYTES_MAX = 10 * 1024**3
LOOK_EVERY_S = 1.0

Clock = Callable[[], float]


class FreeSpace:
    """The free bytes of the file system below a tier. Thread-safe."""

    def __init__(
        self, path: Path, *, floor_bytes: int | None, clock: Clock = time.monotonic
    ) -> None:
        """Look for the first time.

        Args:
            path: Anything on the file system.
            floor_bytes: What stays free; None for 2 % of the file system, at most 10 GiB.
            clock: Tells when to look again.

        Raises:
            OSError: The disk cannot tell.
        """
        self._path, self._clock = path, clock
        self._lock = threading.Lock()
        found = os.statvfs(path)
        share = found.f_blocks * found.f_frsize // FLOOR_SHARE
        self._floor_bytes = min(share, FLOOR_BYTES_MAX) if floor_bytes is None else floor_bytes
        self._free_bytes = found.f_bavail * found.f_frsize
        self._looked_at = clock()

    def shortfall(self, size_bytes: int, *, look_now: bool = False) -> int:
        """Return how many bytes must go before ``size_bytes`` more leave the floor; 0 if none.

        Raises:
            OSError: The disk cannot tell.
        """
        if self._floor_bytes == 0:
            return 0
        with self._lock:
            is_due = look_now or self._clock() - self._looked_at > LOOK_EVERY_S
        if is_due:
            self._look()
        with self._lock:
            return max(0, self._floor_bytes + size_bytes - self._free_bytes)

    def took(self, size_bytes: int) -> None:
        """Note bytes that were written since the last look; negative ones were freed."""
        with self._lock:
            self._free_bytes -= size_bytes

    def _look(self) -> None:
        found = os.statvfs(self._path)  # With no lock held: it may hang.
        with self._lock:
            self._free_bytes = found.f_bavail * found.f_frsize
            self._looked_at = self._clock()

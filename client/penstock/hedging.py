"""Hedged reads: how many may ask another node because the first takes its time."""

import threading

PART = 0.05
"""Of all requests: more would add load where there is too much of it already."""
SAVED_MAX = 10.0
"""What may be used at once after a quiet time."""


class HedgeBudget:
    """A small part of all requests may be hedged. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._saved = SAVED_MAX

    def earn(self) -> None:
        """Count a request."""
        with self._lock:
            self._saved = min(SAVED_MAX, self._saved + PART)

    def take(self) -> bool:
        """Tell whether one may be hedged, and count it if so."""
        with self._lock:
            if self._saved < 1:
                return False
            self._saved -= 1
            return True

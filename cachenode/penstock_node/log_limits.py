"""How often a log may say the same: a fault that lasts must not fill a disk.

Responsible for: which lines are left out, and saying so.
Not responsible for: where lines go (`logs`).
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

ALIKE_MAX = 30
"""Lines of one kind in a window."""
WINDOW_S = 60.0
KINDS_MAX = 1_000
"""Kinds that are counted; of more, those that were heard least recently begin anew."""


@dataclass(slots=True)
class _Kind:
    begun_at: float
    count: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a line."""

    is_said: bool
    left_out: int = 0
    """How many of its kind were left out before it."""
    is_last: bool = False
    """More of its kind are left out until the window is over."""


class RepeatLimit:
    """Counts lines by kind: the same words of the same part. Thread-safe."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kinds: OrderedDict[tuple[str, ...], _Kind] = OrderedDict()
        self._lock = threading.Lock()

    def judge(self, *kind: str) -> Verdict:
        """Count a line and return what becomes of it."""
        now = self._clock()
        with self._lock:
            known = self._kinds.get(kind)
            left_out = 0
            if known is None or now - known.begun_at >= WINDOW_S:
                left_out = max(0, known.count - ALIKE_MAX) if known else 0
                known = self._kinds[kind] = _Kind(now)
            self._kinds.move_to_end(kind)
            if len(self._kinds) > KINDS_MAX:
                self._kinds.popitem(last=False)
            known.count += 1
            return Verdict(known.count <= ALIKE_MAX, left_out, known.count == ALIKE_MAX)

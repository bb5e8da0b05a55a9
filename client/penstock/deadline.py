"""Deadlines: moments by which something must be done."""

import time
from collections.abc import Callable
from dataclasses import dataclass


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment of the monotonic clock by which something must be done, or an earlier end."""

    at: float
    is_over: Callable[[], bool] = _never
    """Told true, nobody waits for it any more."""

    @classmethod
    def after(cls, seconds: float, *, is_over: Callable[[], bool] = _never) -> "Deadline":
        """Return the deadline ``seconds`` from now."""
        return cls(time.monotonic() + seconds, is_over)

    @property
    def remaining_s(self) -> float:
        """Seconds left; 0 when it has passed, or nobody waits any more."""
        return 0.0 if self.is_over() else max(0.0, self.at - time.monotonic())

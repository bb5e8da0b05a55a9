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
    clock: Callable[[], float] = time.monotonic
    """The clock that it is a moment of."""

    @classmethod
    def after(
        cls,
        seconds: float,
        *,
        is_over: Callable[[], bool] = _never,
        clock: Callable[[], float] = time.monotonic,
    ) -> "Deadline":
        """Return the deadline ``seconds`` from now."""
        return cls(clock() + seconds, is_over, clock)

    @property
    def remaining_s(self) -> float:
        """Seconds left; 0 when it has passed, or nobody waits any more."""
        return 0.0 if self.is_over() else max(0.0, self.at - self.clock())

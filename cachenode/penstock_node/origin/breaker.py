"""A circuit breaker: an origin that does not answer is left alone, and tried again now and then.

Responsible for: when it opens, when one call may try the origin again, and when it closes.
Not responsible for: calls themselves, and which failures say that the origin does not answer
(`gate`). No I/O: time and chance are arguments.

Closed, all calls pass. Open, none does. After a pause one call passes, the probe: if the origin
answers it the breaker closes, else the next pause is longer. A call is told of only if nothing
has changed since it was let through: a herd that fails together opens it once, and what began
before an outage neither ends nor lengthens it.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BreakerLimits:
    """When it opens, and for how long."""

    failures_max: int = 5
    """Failed calls in a row that open it. Each has been tried several times by then."""
    silence_s: float = 10.0
    """So does one failed call, if the origin has answered nobody for this long while it tried:
    otherwise each reader of an origin that hangs would find out for itself."""
    pause_s: float = 2.0
    """Before the first probe; it doubles up to ``pause_max_s``. Each is shortened by chance to
    between half and all of it, so that nodes do not ask together."""
    pause_max_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Outage:
    """What is known of an origin that does not answer. Times are the breaker's clock's."""

    since: float
    """When the first of the failed calls began to ask."""
    reason: str
    """Why the last one failed."""
    retry_at: float
    """From when on a probe passes."""


@dataclass(slots=True)
class Permit:
    """One call that was let through: give it back with what came of it, once."""

    era: int
    is_probe: bool
    asked_at: float | None = None


class Breaker:
    """The state of one origin, for one node. See the module."""

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        rng: random.Random,
        limits: BreakerLimits | None = None,
    ) -> None:
        """Begin closed.

        Args:
            clock: Monotonic seconds.
            rng: For the length of pauses.
            limits: When it opens, and for how long.
        """
        self._clock = clock
        self._rng = rng
        self._limits = limits or BreakerLimits()
        self._era = 0
        self._failures = 0
        self._failing_since = math.inf
        self._answered_at = -math.inf
        self._pauses = 0
        self._probe: Permit | None = None
        self.outage: Outage | None = None
        """None while it is closed."""

    def __repr__(self) -> str:
        state = "closed" if self.outage is None else "half-open" if self._probe else "open"
        return f"<Breaker {state}: {self._failures} failures in a row>"

    @property
    def is_probing(self) -> bool:
        """Whether a probe is under way."""
        return self._probe is not None

    def enter(self) -> Permit | None:
        """Let a call through, or not."""
        if self.outage is None:
            return Permit(self._era, is_probe=False)
        if self._probe is not None or self._clock() < self.outage.retry_at:
            return None
        self._probe = Permit(self._era, is_probe=True)
        return self._probe

    def stands(self, permit: Permit) -> bool:
        """Tell whether nothing has changed since the call was let through."""
        return permit.era == self._era

    def asks(self, permit: Permit) -> None:
        """Take note that the call asks the origin now, or again."""
        if permit.asked_at is None:
            permit.asked_at = self._clock()

    def answered(self, permit: Permit) -> Outage | None:
        """Take note that the origin answered. Returns the outage that this ended, if it did."""
        if not self.stands(permit):
            return None
        ended, self.outage = self.outage, None
        self._answered_at = self._clock()
        self._failures, self._failing_since = 0, math.inf
        self._pauses = 0
        self._probe = None
        if ended is not None:
            self._era += 1
        return ended

    def failed(self, permit: Permit, reason: str) -> Outage | None:
        """Take note that the origin did not answer. Returns the outage that this began, if so."""
        if not self.stands(permit):
            return None
        assert permit.asked_at is not None, "only a call that has asked can fail"
        asked_at = permit.asked_at
        self._failing_since = min(self._failing_since, asked_at)
        self._failures += 1
        if permit.is_probe or self._is_enough(asked_at):
            return self._open(reason)
        return None

    def left(self, permit: Permit) -> None:
        """Take note that the call was given up before anything came of it."""
        if permit is self._probe:
            self._probe = None

    def _is_enough(self, asked_at: float) -> bool:
        silent_s = self._clock() - max(asked_at, self._answered_at)
        return self._failures >= self._limits.failures_max or silent_s >= self._limits.silence_s

    def _open(self, reason: str) -> Outage | None:
        is_new = self.outage is None
        limits = self._limits
        longest_s = min(limits.pause_max_s, limits.pause_s * 2**self._pauses)
        retry_at = self._clock() + longest_s * self._rng.uniform(0.5, 1.0)
        self.outage = Outage(self._failing_since, reason, retry_at)
        self._pauses = min(self._pauses + 1, 10)
        self._probe = None
        self._era += 1
        return self.outage if is_new else None

"""The last hour in samples, and rates out of counters.

Responsible for: rings of samples of a fixed size; what counters grew by, also where one began anew
or the clock jumped.
Not responsible for: what is counted (`own`), when it is looked at. No I/O and no clock.
"""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from penstock.overview import SAMPLES_MAX, SERIES, STEP_S

Values = npt.NDArray[np.float32]
"""A row a series, a column a sample, the oldest first."""

LOOK_S = 2.0
"""Between two looks at the counters."""
RATE_S = 10.0
"""What rates are over; the hit ratio is over a minute."""
MINUTE_S = 60.0
LOOKS_MAX = int(MINUTE_S / LOOK_S) + 1


def sample_at(unix_s: float) -> int:
    """Return the number of the sample that a moment falls into: the same on all nodes."""
    return math.floor(unix_s / STEP_S)


@dataclass(frozen=True, slots=True)
class Samples:
    """Some samples, one after another."""

    first: int
    """The number of the first; see `sample_at`."""
    values: Values

    @property
    def after(self) -> int:
        """The number of the one that would be next."""
        return self.first + int(self.values.shape[1])


class History:
    """An hour of samples of `SERIES`: 26 kB, however long the node runs. NaN: none was taken."""

    def __init__(self) -> None:
        self._values = np.full((len(SERIES), SAMPLES_MAX), np.nan)
        self._next = 0
        """The number of the sample behind the newest; 0 while there is none."""

    @property
    def size_bytes(self) -> int:
        """What it takes in memory."""
        return int(self._values.nbytes)

    @property
    def after(self) -> int:
        """The number of the sample behind the newest; 0 while there is none."""
        return self._next

    def set(self, number: int, values: Sequence[float]) -> None:
        """Keep a sample; what lies between it and the newest was not taken.

        One that is not newer is left out: the clock was set back, and catches up.
        """
        if number >= self._next:
            self._reach(number)
            self._values[:, number % SAMPLES_MAX] = values

    def add(self, samples: Samples) -> None:
        """Add what a node told to what others told of the same time."""
        if not samples.values.shape[1]:
            return
        self._reach(max(samples.after, self._next) - 1)
        first = max(samples.first, self._next - SAMPLES_MAX)
        news = samples.values[:, max(0, first - samples.first) :]
        at = np.arange(first, first + news.shape[1]) % SAMPLES_MAX
        before = self._values[:, at]
        both = np.nan_to_num(before) + np.nan_to_num(news)
        both[np.isnan(before) & np.isnan(news)] = np.nan
        self._values[:, at] = both

    def _reach(self, number: int) -> None:
        """Make room up to a sample: those that are older than an hour go."""
        skipped = min(SAMPLES_MAX, number + 1 - self._next)
        if skipped > 0:
            self._values[:, np.arange(number + 1 - skipped, number + 1) % SAMPLES_MAX] = np.nan
            self._next = number + 1

    def since(self, number: int) -> Samples:
        """Return the samples behind one: within the hour. Behind 0 are all that there are."""
        first = max(number + 1, self._next - SAMPLES_MAX)
        if first >= self._next:
            return Samples(self._next, np.empty((len(SERIES), 0), np.float32))
        values = self._values[:, np.arange(first, self._next) % SAMPLES_MAX]
        if not number:  # Before the node began there are none: that much need not be told.
            known = np.flatnonzero(~np.isnan(values).all(axis=0))
            start = int(known[0]) if len(known) else values.shape[1]
            first, values = first + start, values[:, start:]
        return Samples(first, values.astype(np.float32))


@dataclass(frozen=True, slots=True)
class _Look:
    at_s: float
    totals: npt.NDArray[np.float64]


class Growth:
    """What some counters grew by, over the last minute. Bounded: a look each two seconds."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._seen: npt.NDArray[np.float64] | None = None
        self._totals = np.zeros(len(self._names))
        self._looks: deque[_Look] = deque(maxlen=LOOKS_MAX)

    def look(self, counters: Mapping[str, float], *, at_s: float) -> None:
        """Take note of the counters at a time, in monotonic seconds.

        A counter that is less than before has begun anew, or a part of it is out of use: it has
        not grown.
        """
        now = np.array([counters[name] for name in self._names])
        if self._seen is not None:
            self._totals = self._totals + np.maximum(0.0, now - self._seen)
        self._seen = now
        self._looks.append(_Look(at_s, self._totals))

    def over(self, seconds: float) -> dict[str, float]:
        """Return what each grew by within about the last ``seconds``, up to the last look."""
        first, last = self._span(seconds)
        grown = last.totals - first.totals if first and last else np.zeros(len(self._names))
        return dict(zip(self._names, grown.tolist(), strict=True))

    def rates(self, seconds: float = RATE_S) -> dict[str, float]:
        """Return how much each grows by in a second, over about the last ``seconds``."""
        first, last = self._span(seconds)
        past_s = last.at_s - first.at_s if first and last else 0.0
        if past_s <= 0:
            return dict.fromkeys(self._names, 0.0)
        return {name: grown / past_s for name, grown in self.over(seconds).items()}

    def _span(self, seconds: float) -> "tuple[_Look, _Look] | tuple[None, None]":
        """Return the look from which on, and the last one: at least two, if there are."""
        if not self._looks:
            return None, None
        last = self._looks[-1]
        # A little more than asked for: a look may be late by a moment.
        begin = last.at_s - seconds - LOOK_S / 2
        first = next(look for look in self._looks if look.at_s >= begin)
        if first is last and len(self._looks) > 1:
            first = self._looks[-2]
        return first, last

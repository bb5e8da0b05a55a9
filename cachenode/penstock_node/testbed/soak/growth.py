"""Whether something grows: a line through the floors of a series of samples.

Responsible for: a figure that peaks and single samples do not move. No I/O.
Not responsible for: what is sampled (`vitals`), which growth is too much (`judgement`).

What a process holds goes up and down with what it has in hand. A leak is what does not come down
again, so each `FLOOR_S` counts with the least that was seen in it. Through these floors goes the
line of Theil and Sen: its slope is the median of the slopes between any two of them, which holds
while fewer than 29 % of them are anything at all. Growth is how far that line rises from the
window's beginning to its end; and how far it rises at least, with 97.5 % confidence, by the slope
that Sen gives for that. What may as well be flat by this is noise.
"""

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

FLOOR_S = 15.0
FLOORS_MIN = 4
"""Of fewer no line is drawn."""
_DEVIATIONS = 1.96
"""Of a normal distribution: 2.5 % lie beyond it on one side."""

Point = tuple[float, float]
"""A time in seconds, and a value."""


@dataclass(frozen=True, slots=True)
class Growth:
    """How a series went over a window."""

    first: float
    """The line at the window's beginning."""
    last: float
    """The line at its end."""
    least_added: float
    """How far the line rises at least; not above zero where it may be flat."""
    highest: float
    """Of all samples."""

    @property
    def added(self) -> float:
        """How far it rose; below zero where it fell."""
        return self.last - self.first

    @property
    def share(self) -> float:
        """How far it rose, of what it was."""
        return self.added / self.first if self.first else 0.0


def floors(points: Sequence[Point], *, every_s: float = FLOOR_S) -> list[Point]:
    """Return the least of each ``every_s``, at that time's middle; what is left is left out."""
    begun = points[0][0] if points else 0.0
    least: dict[int, float] = {}
    for at, value in points:
        number = int((at - begun) // every_s)
        least[number] = min(value, least.get(number, value))
    whole = int((points[-1][0] - begun) // every_s) if points else 0
    return [
        (begun + (number + 0.5) * every_s, value)
        for number, value in sorted(least.items())
        if number < whole
    ]


def growth(points: Sequence[Point], *, every_s: float = FLOOR_S) -> Growth | None:
    """Return how a series went; None of one that is too short for a line."""
    low = floors(points, every_s=every_s)
    if len(low) < FLOORS_MIN:
        return None
    slopes = sorted((b[1] - a[1]) / (b[0] - a[0]) for a, b in itertools.combinations(low, 2))
    slope = statistics.median(slopes)
    base = statistics.median(value - slope * at for at, value in low)
    begun, ended = points[0][0], points[-1][0]
    least = slopes[_rank_of_least(len(low), len(slopes))]
    return Growth(
        base + slope * begun,
        base + slope * ended,
        least * (ended - begun),
        max(value for _, value in points),
    )


def _rank_of_least(points: int, slopes: int) -> int:
    """Return which slope, from the lowest, is the lower end of Sen's interval."""
    deviation = math.sqrt(points * (points - 1) * (2 * points + 5) / 18)
    return max(0, math.floor((slopes - _DEVIATIONS * deviation) / 2))

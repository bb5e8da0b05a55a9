"""What is slow: beside the others, and never below a floor.

A figure stands out when it is `RATIO` times worse than the median of the others *and* beyond a
floor that is slow wherever it is measured. What is equally slow everywhere stands out nowhere: that
is how the place is built, and advice at most.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Generic, TypeVar

RATIO = 4.0
"""Figures of one machine differ by two within seconds; drives and links that fail, by ten."""
NAMED_MAX = 5
"""So many of many are named."""

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Outlier(Generic[K]):
    """One that stands out."""

    key: K
    figure: float
    usual: float
    """The median of the others."""

    @property
    def ratio(self) -> float:
        """How much worse it is."""
        return self.figure / self.usual if self.usual else float("inf")


def outliers(seconds: Mapping[K, float], *, floor: float) -> list[Outlier[K]]:
    """Return those that take longer than ``floor``, and `RATIO` times as long as the others."""
    found = []
    for key, figure in seconds.items():
        if figure <= floor or len(seconds) == 1:
            continue
        usual = median(value for other, value in seconds.items() if other != key)
        if figure > RATIO * usual:
            found.append(Outlier(key, figure, usual))
    return found


def common(seconds: Mapping[K, float], *, floor: float) -> float | None:
    """Return the median if that itself is longer than ``floor``."""
    usual = median(seconds.values()) if seconds else 0.0
    return usual if usual > floor else None


def named(names: Sequence[str]) -> str:
    """Return names for people: ``a, b and 3 more``."""
    shown, rest = list(names[:NAMED_MAX]), len(names) - NAMED_MAX
    return ", ".join(shown) + (f" and {rest} more" if rest > 0 else "")


def counted(count: int, noun: str) -> str:
    """Return ``1 node``, ``2,000 nodes``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def milliseconds(seconds: float) -> str:
    """Return a time for people: ``0.4 ms``, ``35 ms``, ``1.2 s``."""
    if seconds >= 1:
        return f"{seconds:.1f} s"
    return f"{1000 * seconds:.0f} ms" if seconds >= 0.01 else f"{1000 * seconds:.1f} ms"

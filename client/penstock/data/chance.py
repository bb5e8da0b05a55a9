"""Chance that replays: orders that follow from numbers alone, the same on every machine.

Responsible for: permutations and draws.
Not responsible for: what is shuffled (`stream`, `sampler`).

numpy's and Python's own generators are not used: what they draw may change from one release to
the next, and a position that was saved must mean the same for as long as the training lasts. This
is the output function of SplitMix64 (Steele, Lea, Flood 2014) over a counter.
"""

import numpy as np
import numpy.typing as npt

_MASK = 2**64 - 1
_STEP = 0x9E3779B97F4A7C15
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB


def mix(*numbers: int) -> int:
    """Return a key of 64 bits that stands for some numbers, in their order."""
    key = 0
    for number in numbers:
        key = _scramble((key + number + _STEP) & _MASK)
    return key


def draw(key: int, at: int, below: int) -> int:
    """Return the ``at``-th number of a key, from 0 to ``below`` - 1."""
    return _scramble((key + at * _STEP) & _MASK) % below


def permutation(key: int, count: int) -> npt.NDArray[np.int64]:
    """Return the numbers from 0 to ``count`` - 1 in the order of a key."""
    drawn = _scrambled(np.arange(count, dtype=np.uint64) * np.uint64(_STEP) + np.uint64(key))
    return np.argsort(drawn, kind="stable").astype(np.int64)


def _scrambled(numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """As `_scramble`, many at once."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(_FIRST)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(_SECOND)
    return numbers ^ (numbers >> np.uint64(31))


def _scramble(number: int) -> int:
    number = ((number ^ (number >> 30)) * _FIRST) & _MASK
    number = ((number ^ (number >> 27)) * _SECOND) & _MASK
    return number ^ (number >> 31)

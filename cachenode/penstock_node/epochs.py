"""At which epochs work was begun that is not over.

A chunk that comes in by a placement which is no longer in force may belong elsewhere by now: a
node has handed over everything only when nothing of the kind is on its way.
"""

from collections import Counter
from collections.abc import Callable


class EpochsInHand:
    """Counts pieces of work by the epoch at which they began. On one event loop."""

    def __init__(self) -> None:
        self._count: Counter[int] = Counter()

    def begin(self, epoch: int) -> Callable[[], None]:
        """Count one more; call what is returned once, when it is over."""
        self._count[epoch] += 1

        def end() -> None:
            self._count[epoch] -= 1
            if self._count[epoch] == 0:
                del self._count[epoch]

        return end

    def has_before(self, epoch: int) -> bool:
        """Tell whether anything that began before ``epoch`` is not over."""
        return any(begun < epoch for begun in self._count)

"""The number of an epoch, which all workers of a loader see.

Responsible for: that workers which live through several epochs hear of each.
"""

from penstock.errors import InvalidRequest
from penstock.tensors.frameworks import require_torch

_UNSET = -1


class Epoch:
    """A number in shared memory: what one process sets, its workers see."""

    def __init__(self) -> None:
        self._shared = require_torch().tensor(_UNSET).share_memory_()

    @property
    def number(self) -> int:
        """From 0 on."""
        return max(0, int(self._shared))

    def set(self, number: int) -> bool:
        """Set it; return whether it is another than before.

        Raises:
            InvalidRequest: It is negative.
        """
        if number < 0:
            raise InvalidRequest(f"epoch {number}: want 0 or more")
        is_new = number != self.number
        self._put(number)
        return is_new

    def load(self, number: int) -> None:
        """Take over that of a position.

        Raises:
            InvalidRequest: Another one was set.
        """
        if int(self._shared) not in (_UNSET, number):
            raise InvalidRequest(
                f"this position is of epoch {number}, and set_epoch({self.number}) was called: set "
                f"{number} to go on with it, or leave it out to begin epoch {self.number}"
            )
        self._put(number)

    def _put(self, number: int) -> None:
        # After it was pickled to a file, say, it is in memory of this process alone.
        self._shared.share_memory_().fill_(number)

"""How long whoever waits for a node is patient: what is slow is waited for, what is silent is not.

A node says every 200 ms that it works on a request, so silence means trouble. It is counted in
looks and not by the clock: where this process gets no time, a node beside it may get none either.
"""

from collections.abc import Callable

from penstock.deadline import Deadline
from penstock.errors import NodeUnavailable

LOOK_S = 0.1
"""Between looks; also how soon a wait notices that nobody wants its end any more."""
SLOW_LOOKS = 3
"""After so many in silence a copy elsewhere is worth a question."""
SILENT_LOOKS = 5
"""After so many a node does not answer."""
CONNECT_TIMEOUT_S = 0.5
"""For the other end's kernel, which answers also for a process that is busy."""


class Slow(NodeUnavailable):
    """The node has been silent for a moment, and whoever waits would rather ask another."""


class Patience:
    """One wait for a few bytes of a node."""

    __slots__ = ("_deadline", "_gives_up", "_looks", "_who")

    def __init__(
        self, who: str, deadline: Deadline, *, gives_up: Callable[[], bool] | None = None
    ) -> None:
        """Begin to wait.

        Args:
            who: The node, for messages.
            deadline: When to end at the latest.
            gives_up: Asked once the node is slow: whether to ask another instead.

        Raises:
            NodeUnavailable: The deadline has passed, or nobody waits any more.
        """
        self._who, self._deadline, self._gives_up, self._looks = who, deadline, gives_up, 0
        check_deadline(who, deadline)

    def look(self) -> None:
        """Take note that nothing has come for `LOOK_S`.

        Raises:
            Slow: The caller asks another.
            NodeUnavailable: The node is silent, or the deadline has passed.
        """
        check_deadline(self._who, self._deadline)
        self._looks += 1
        if self._looks == SLOW_LOOKS and self._gives_up is not None and self._gives_up():
            raise Slow(f"{self._who} takes its time")
        if self._looks >= SILENT_LOOKS:
            raise NodeUnavailable(f"{self._who} has been silent for {SILENT_LOOKS * LOOK_S:.1f} s")


def check_deadline(who: str, deadline: Deadline) -> None:
    """Give up if the time is over, however much comes.

    Raises:
        NodeUnavailable: The deadline has passed, or nobody waits any more.
    """
    if deadline.remaining_s == 0:
        raise NodeUnavailable(f"{who} did not deliver within the deadline")

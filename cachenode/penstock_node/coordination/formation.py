"""When the first nodes of a new cluster are all there.

Responsible for: the moment at which a cluster may form. Its first placement decides the weight
unit, the smallest owned capacity present, so the smallest node should be there by then.
Not responsible for: forming it (`publisher`). No I/O and no clock of its own.
Why a quiet time, and not a time after the first node: docs/decisions/0006-formation.md.
"""

from collections.abc import Set
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FormationTimes:
    """How long to wait for more nodes."""

    quiet_s: float = 2.0
    """Without a new node for this long, all are there; seconds. 0 where there is but one."""
    longest_s: float = 10.0
    """From the first node on, seconds: a fleet that starts for hours must not wait for its last."""


AT_ONCE = FormationTimes(quiet_s=0.0, longest_s=0.0)
"""For a coordinator inside this process, where no other node can come."""


class Formation:
    """The nodes seen so far, and since when there was no new one."""

    def __init__(self, times: FormationTimes) -> None:
        self._times = times
        self._seen: frozenset[str] = frozenset()
        self._first_at = self._newest_at = 0.0

    def due_at(self, nodes: Set[str], *, now: float) -> float | None:
        """Return when the cluster may form with ``nodes`` present; None while there is none."""
        if not nodes:
            self.reset()
            return None
        if not self._seen:
            self._first_at = now
        if nodes - self._seen:
            self._newest_at = now
        self._seen |= nodes
        longest_at = self._first_at + self._times.longest_s
        return min(self._newest_at + self._times.quiet_s, longest_at)

    def reset(self) -> None:
        """Forget the nodes seen: the cluster has formed, or all have left."""
        self._seen = frozenset()

"""The node of this machine, as the first that is asked for any chunk."""

import time
from collections.abc import Callable

from penstock.membership.view import Member
from penstock.routing import Candidate

SUSPECT_S = 2.0
"""How long a local node that did not answer is passed over."""


class LocalNode:
    """A node on this machine that keeps chunks for its readers. Thread-safe."""

    def __init__(self, member: Member, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.member = member
        """With its id, socket and bulk address."""
        self._clock = clock
        self._suspected_until = 0.0

    def candidate(self) -> Candidate | None:
        """Return it as the node to ask; None while it does not answer."""
        if self._suspected_until > self._clock():
            return None
        return Candidate(self.member, 0, ())

    def suspect(self) -> None:
        """Pass it over for a while."""
        self._suspected_until = self._clock() + SUSPECT_S

"""The node of this machine, as the first that is asked for any chunk.

Responsible for: finding it, by its socket, and passing it over while it does not answer.
Not responsible for: what is said over the socket (`planes.host`).
"""

import os
import threading
import time
from collections.abc import Callable, Iterable

from penstock.errors import PenstockError
from penstock.host_connection import HostConnections, Welcome
from penstock.membership.view import Member
from penstock.routing import Candidate

SUSPECT_S = 2.0
"""How long a local node that did not answer is passed over."""
LOOK_S = 5.0
"""Between looks whether there is one."""


class LocalNode:
    """A node on this machine. Thread-safe."""

    def __init__(
        self, path: str, welcome: Welcome, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.path = path
        self.member = Member(id=welcome.node, host="", socket=path)
        self.welcome = welcome
        self._clock = clock
        self._suspected_until = 0.0

    @property
    def is_suspected(self) -> bool:
        """Whether it did not answer a moment ago."""
        return self._suspected_until > self._clock()

    def candidate(self) -> Candidate | None:
        """Return it as the node to ask for any chunk.

        None while it does not answer; and if it keeps no chunks that others own, since then
        those owners are nearer.
        """
        if self.is_suspected or not self.welcome.keeps_copies:
            return None
        return Candidate(self.member, 0, ())

    def suspect(self) -> None:
        """Pass it over for a while."""
        self._suspected_until = self._clock() + SUSPECT_S


class LocalNodes:
    """Finds this machine's node, and again when it was restarted. Thread-safe."""

    def __init__(
        self,
        connections: HostConnections,
        *,
        path: str,
        members: Callable[[], Iterable[Member]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Look for nothing yet.

        Args:
            connections: To sockets.
            path: Of the socket; empty: whatever socket of a member is here.
            members: Those that are known.
            clock: In seconds.
        """
        self._connections = connections
        self._path = path
        self._members = members
        self._clock = clock
        self._lock = threading.Lock()
        self._found: LocalNode | None = None
        self._look_at = 0.0

    def find(self) -> LocalNode | None:
        """Return this machine's node; None if there is none, or it does not answer."""
        found = self._found
        if self._clock() < self._look_at and (found is None or not found.is_suspected):
            return found
        with self._lock:
            if self._clock() >= self._look_at:
                members = list(self._members())
                self._found = self._look(self._places(members))
                if self._path or members:  # Else there will be some in a moment.
                    self._look_at = self._clock() + LOOK_S
            return self._found

    def _look(self, places: list[tuple[str, set[str]]]) -> LocalNode | None:
        for path, node_ids in places:
            if not os.path.exists(path):  # noqa: PTH110 - never raises
                continue
            try:
                welcome = self._connections.welcome(path)
            except PenstockError:  # Nobody listens there, or not to us: then there is none.
                continue
            if not node_ids or welcome.node in node_ids:
                known = self._found
                return known if known and known.welcome == welcome else LocalNode(path, welcome)
        return None

    def _places(self, members: Iterable[Member]) -> list[tuple[str, set[str]]]:
        """Return sockets that may be the node's, each with the nodes that say it is theirs."""
        if self._path:
            return [(self._path, set())]
        owners: dict[str, set[str]] = {}
        for member in members:
            if member.socket:
                owners.setdefault(member.socket, set()).add(member.id)
        return sorted(owners.items())

"""Idle connections, kept for their next use.

Responsible for: lending each connection to one thread at a time, how many are kept for how long,
and forgetting them in a forked child.
Not responsible for: what is said on them, and whether the other end still listens.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar

from penstock.errors import NodeUnavailable

IDLE_S = 60.0
"""Longest that a connection is kept for its next use; less than a node keeps it."""
IDLE_MAX = 16
"""Kept for one address: as many as there are threads that read."""


class Stale(NodeUnavailable):
    """A connection that was kept is closed by now: try a new one. Nothing was answered over it."""


class Connection(Protocol):
    """What a pool asks of a connection."""

    address: str
    is_reused: bool
    """Whether it was kept, and nothing came over it since: the other end may have closed it."""
    idle_since: float

    def shut_down(self) -> None:
        """From another thread: end what waits on it."""

    def close(self) -> None:
        """Close it."""


C = TypeVar("C", bound=Connection)


class ConnectionPool(Generic[C]):
    """Connections by address. Thread-safe."""

    def __init__(self, connect: Callable[[str], C]) -> None:
        """Keep nothing yet; ``connect`` makes a connection to an address, or raises."""
        self.connect = connect
        """Makes a connection of the caller's own."""
        self._forget()

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._idle: dict[str, list[C]] = {}
        self._busy: set[C] = set()
        self._is_closed = False

    @contextlib.contextmanager
    def borrow(self, address: str, *, fresh: bool = False) -> Iterator[C]:
        """Lend a connection; one that an exception passes by is not used again.

        Args:
            address: Of the other end.
            fresh: Make a new one.

        Raises:
            NodeUnavailable: Nothing answers there.
        """
        connection = (None if fresh else self._take(address)) or self.connect(address)
        with self._lock:
            self._busy.add(connection)
        try:
            yield connection
        except BaseException:
            self._drop(connection)
            raise
        self._give_back(connection)

    def _take(self, address: str) -> C | None:
        stale: list[C] = []
        oldest_at = time.monotonic() - IDLE_S
        with self._lock:
            idle = self._idle.get(address, [])
            found = idle.pop() if idle else None
            while found is not None and found.idle_since < oldest_at:
                stale.append(found)
                found = idle.pop() if idle else None
        for connection in stale:
            connection.close()
        return found

    def _give_back(self, connection: C) -> None:
        connection.is_reused = True
        connection.idle_since = time.monotonic()
        with self._lock:
            self._busy.discard(connection)
            idle = self._idle.setdefault(connection.address, [])
            if not self._is_closed and len(idle) < IDLE_MAX:
                idle.append(connection)
                return
        connection.close()

    def _drop(self, connection: C) -> None:
        with self._lock:
            self._busy.discard(connection)
        connection.close()

    def close(self) -> None:
        """Close all connections; whoever waits on one is woken with `NodeUnavailable`."""
        with self._lock:
            self._is_closed = True
            idle = [connection for kept in self._idle.values() for connection in kept]
            self._idle.clear()
            busy = list(self._busy)
        for connection in idle:
            connection.close()
        for connection in busy:
            connection.shut_down()

    def abandon(self) -> None:
        """In a forked child: drop the parent's connections. Its threads do not exist here."""
        idle = [connection for kept in self._idle.values() for connection in kept]
        self._forget()
        for connection in idle:
            connection.close()  # This process's copy alone: the other end hears nothing.

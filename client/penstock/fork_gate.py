"""A gate that lets a process fork only while no thread of it is inside gRPC.

A fork in the middle of a call leaves the child with gRPC's locks held, and both processes on
one connection: seen as crashed children and broken streams in the parent. Calls are unary and
short, so a fork simply waits for those in flight while new ones wait for the fork.
Not responsible for: other libraries' threads; forks that only run another program (those of
`subprocess`), which need no gate.
"""

import os
import threading
from types import TracebackType

WAIT_S = 35.0
"""Longest that a fork waits: longer than the deadline of any call."""


class ForkGate:
    """A context manager around each call; many threads may be inside at once."""

    def __init__(self) -> None:
        self._begin()
        os.register_at_fork(
            before=self._close, after_in_parent=self._open, after_in_child=self._begin
        )

    def _begin(self) -> None:
        # Also in a forked child, where the condition's lock may belong to nobody.
        self._condition = threading.Condition()
        self._inside = 0
        self._is_closed = False

    def __enter__(self) -> None:
        with self._condition:
            self._condition.wait_for(lambda: not self._is_closed)
            self._inside += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._condition:
            self._inside -= 1
            if self._is_closed and self._inside == 0:
                self._condition.notify_all()

    def _close(self) -> None:
        with self._condition:
            self._is_closed = True
            self._condition.wait_for(lambda: self._inside == 0, timeout=WAIT_S)

    def _open(self) -> None:
        with self._condition:
            self._is_closed = False
            self._condition.notify_all()

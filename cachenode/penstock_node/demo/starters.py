"""Processes of a demo, born of threads here: an interrupt meets the main thread while it waits,
never in the middle of a birth.

Responsible for: starting parts, some at once, with the time that each took; ending all that was
started for one directory, also while more are on their way.
Not responsible for: what the parts are (`scene`), telling processes apart (`own_processes`).
"""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from penstock_node.demo.own_processes import end_children
from penstock_node.testbed.processes import PartFailed

T = TypeVar("T")

_THREADS = 2
_ENDING_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class StartedPart:
    """A part that runs."""

    name: str
    what: str
    address: str
    seconds: float
    """From its start until it served."""


class Starters:
    """Starts the parts that live below one directory. Ended, or left, once."""

    def __init__(self, directory: Path) -> None:
        """Start nothing yet; ``directory`` is named by all that will be started."""
        self._directory = directory
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="starter")
        self._starting: list[Future[Any]] = []
        self._is_ending = False

    def begin(self, start: Callable[[], T]) -> Future[T]:
        """Call what starts processes, in a thread that no interrupt reaches."""
        beginning = self._threads.submit(start)
        self._starting.append(beginning)
        return beginning

    def timed(self, start: Callable[[], object]) -> float:
        """Call what starts a part, in such a thread already, and return how many seconds it took.

        Raises:
            PartFailed: It does not start, or all is being ended.
        """
        if self._is_ending:
            raise PartFailed("interrupted before all parts were started")
        begun = time.monotonic()
        start()
        return time.monotonic() - begun

    def end_all(self) -> None:
        """End every process at once; what they kept is worthless from now on."""
        self._is_ending = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        # A thread that waits for a part gives up when the part ends; until then it may start one.
        while wait(self._starting, timeout=_ENDING_POLL_S).not_done:
            end_children(self._directory)
        end_children(self._directory)

    def leave(self) -> None:
        """Let the processes go on without this one."""
        self._threads.shutdown(wait=True)


def host_port(endpoint: str) -> str:
    """Return an endpoint without its scheme."""
    return endpoint.partition("://")[2]

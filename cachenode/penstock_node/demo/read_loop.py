"""Reads of the whole model, one after the other, while something is done to the cluster.

Responsible for: reading on whatever happens, keeping every result and every error.
Not responsible for: what is done meanwhile (`acts`).
"""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

import penstock
from penstock_node.demo.figures import WholeRead
from penstock_node.demo.measure import read_whole
from penstock_node.demo.scene import Scene
from penstock_node.testbed.processes import wait_until

READ_DEADLINE_S = 30.0
"""Longest that one waits for the loop to get on."""
ERRORS_MAX = 10
"""After so many it gives up."""


class ReadLoop:
    """As a context manager it reads; at its end the read in hand is finished."""

    def __init__(self, cache: penstock.Cache, scene: Scene) -> None:
        self.reads: list[WholeRead] = []
        self.errors: list[str] = []
        self._cache, self._scene = cache, scene
        self._over = threading.Event()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="read-loop")

    def __enter__(self) -> Self:
        self._running = self._pool.submit(self._run)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._pool.shutdown(wait=True)
        if kind is None:
            self._running.result()

    def _run(self) -> None:
        while not self._over.is_set() and len(self.errors) < ERRORS_MAX:
            try:
                self.reads.append(read_whole(self._cache, self._scene))
            except penstock.PenstockError as error:
                self.errors.append(repr(error))

    def wait_in_a_read(self) -> None:
        """Return in the middle of a read: a part of it has come, another is on its way.

        Raises:
            PartFailed: It does not get on.
        """
        size = self._scene.model.size_bytes

        def is_in_a_read() -> bool:
            come = sum(self._cache.stats()["plane"].values())
            return come > size and 0.25 < come / size % 1 < 0.75

        self._wait(is_in_a_read, what="a read is half done")

    def wait_reads(self, count: int) -> None:
        """Return when ``count`` reads that begin from now on are over.

        Raises:
            PartFailed: It does not get on.
        """
        # The one in hand has begun before now.
        goal = self._finished + 1 + count
        self._wait(lambda: self._finished >= goal, what=f"{count} more reads")

    @property
    def _finished(self) -> int:
        return len(self.reads) + len(self.errors)

    def _wait(self, predicate: Callable[[], bool], *, what: str) -> None:
        wait_until(
            lambda: predicate() or self._running.done(), deadline_s=READ_DEADLINE_S, what=what
        )

"""Some threads over a stream of things to do, and memory that they share.

Responsible for: few threads, a thing at a time each; the first failure ends all; a caller that is
interrupted is not kept waiting, and is told when nobody works any more.
"""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from penstock import memory
from penstock.errors import Cancelled

TICK_S = 0.1
"""Between two looks whether the caller still wants it."""
LEAVE_S = 10.0
"""Longest that an interrupted caller waits for threads that are at work."""

T = TypeVar("T")


class Buffers:
    """Memory that is lent: never more than so many pieces of it. Thread-safe."""

    def __init__(self, size_bytes: int, *, count: int) -> None:
        """Describe it; memory is taken as it is asked for, and kept."""
        self._size_bytes = size_bytes
        self._free: queue.LifoQueue[memoryview | None] = queue.LifoQueue()
        for _ in range(count):
            self._free.put(None)

    @contextlib.contextmanager
    def borrow(self) -> Iterator[memoryview]:
        """Lend a piece, when one is free."""
        lent = self._free.get() or memory.new_memory(self._size_bytes)
        try:
            yield lent
        finally:
            self._free.put(lent)


class Work:
    """Threads that work on one thing after another; see `for_each`."""

    def __init__(self, over: threading.Event) -> None:
        self.over = over
        self._lock = threading.Lock()
        self._failure: BaseException | None = None

    def run(self, rest: Iterator[T], work: Callable[[T], None]) -> None:
        """Work until nothing is left, or it is over."""
        try:
            while not self.over.is_set():
                with self._lock:
                    found = next(rest, _NOTHING)
                if found is _NOTHING:
                    return
                work(found)  # type: ignore[arg-type]  # the iterator's, as it is not the mark
        except BaseException as error:  # noqa: BLE001 - raised again by `check`
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        """End it: what is in hand is finished or given up."""
        with self._lock:
            # That one was told to stop is no reason for the others' having been.
            if self._failure is None or isinstance(self._failure, Cancelled):
                self._failure = error
        self.over.set()

    def check(self) -> None:
        """Raise what ended it early, if anything did."""
        if self._failure is not None:
            raise self._failure


_NOTHING = object()


def for_each(
    items: Iterable[T],
    work: Callable[[T], None],
    *,
    threads: int,
    over: threading.Event,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Call ``work`` with each of ``items``, in several threads; return when all is done.

    Args:
        items: Taken one at a time, as threads have time for them.
        work: Ends soon once ``over`` is set.
        threads: How many at most.
        over: Set by the first failure; by others to give up.
        stop: Asked now and then whether to give up.

    Raises:
        Cancelled: It was given up.
        BaseException: What ``work`` raised first.
    """
    shared, rest = Work(over), iter(items)
    running = [
        threading.Thread(
            target=shared.run, args=(rest, work), name=f"penstock-snapshot-{at}", daemon=True
        )
        for at in range(threads)
    ]
    try:
        for thread in running:
            thread.start()
        for thread in running:
            _wait(thread, shared, stop)
    except BaseException as error:  # An interrupt, in the caller's thread alone.
        shared.fail(error)
        leave_at = time.monotonic() + LEAVE_S
        for thread in running:
            if thread.ident is not None:
                thread.join(max(0.0, leave_at - time.monotonic()))
        raise
    shared.check()
    if over.is_set():
        raise Cancelled


def _wait(thread: threading.Thread, shared: Work, stop: Callable[[], bool]) -> None:
    while thread.is_alive():
        thread.join(TICK_S)
        if stop():
            shared.fail(Cancelled())

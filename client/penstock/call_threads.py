"""Blocking calls awaited: made by a few threads of their own, and stopped by a cancellation.

Responsible for: how many run at once, what becomes of a call that nobody waits for any more.
Not responsible for: the calls (`penstock.aio`).
"""

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from penstock import tracing
from penstock.thread_names import name_this_thread

CALLS_MAX = 64
"""Calls of one cache that run at once; more wait their turn."""

T = TypeVar("T")


class CallThreads:
    """Threads that make blocking calls for an event loop, `CALLS_MAX` of them at most.

    A forked child has none of its parent's, and gets its own.
    """

    def __init__(self) -> None:
        self._process = 0
        self._pool: ThreadPoolExecutor | None = None

    def submit(self, call: Callable[[], T]) -> "Future[T]":
        """Have a thread make the call, when one has time."""
        if self._pool is None or self._process != os.getpid():
            self._process = os.getpid()
            self._pool = ThreadPoolExecutor(
                CALLS_MAX,
                thread_name_prefix="penstock-aio",
                initializer=name_this_thread,
                initargs=("penstock-aio",),
            )
        return self._pool.submit(tracing.carried(call))

    def close(self) -> None:
        """Make no more calls; wait for none."""
        if self._pool is not None and self._process == os.getpid():
            self._pool.shutdown(wait=False)


async def in_thread(
    threads: CallThreads, call: Callable[[], T], stop: threading.Event | None = None
) -> T:
    """Return what ``call`` does, made by one of ``threads``.

    Args:
        threads: Of which one makes it.
        call: Blocks.
        stop: Ends the call early once it is set: by a cancellation, which then waits for that.
    """
    running = threads.submit(call)
    future = asyncio.wrap_future(running)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        if not running.cancel() and stop is not None:
            stop.set()
            # The buffer is the caller's again only when the thread has let go of it.
            await asyncio.wait([future])
            future.cancelled() or future.exception()
        raise

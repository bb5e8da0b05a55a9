"""A few threads at one thing: those of a pool, and the caller's.

Responsible for: nobody working any more when it returns, whatever happens.
Not responsible for: who does what: they take it from a queue that they share.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from typing import TypeVar

from penstock import tracing

T = TypeVar("T")


def work_together(
    pool: Executor,
    work: Callable[[], None],
    *,
    threads: int,
    give_up: Callable[[BaseException], object],
) -> None:
    """Have ``work`` called in several threads at once; return when all calls have ended.

    They are all within the caller's trace.

    A thread of the pool that has not begun by then never will: the caller's does it all.

    Args:
        pool: Lends threads; it may be busy, also with callers of this.
        work: Ends when nothing is left to do, or after ``give_up``.
        threads: How many at most, the caller's among them.
        give_up: Told what the caller's own call raised; an interrupt is in this thread alone.

    Raises:
        BaseException: What ``work`` raised, the caller's own call first.
    """
    helpers: list[Future[None]] = []
    work = tracing.carried(work)
    try:
        for _ in range(threads - 1):
            helpers.append(pool.submit(work))  # noqa: PERF401 - those before one that fails count
        work()
        _join(helpers)
    except BaseException as error:
        give_up(error)
        _join(helpers)
        raise
    for helper in helpers:
        if not helper.cancelled():
            helper.result()


def _join(helpers: Sequence[Future[None]]) -> None:
    for helper in helpers:
        if not helper.cancel():
            helper.exception()


def taken(left: "deque[T]") -> Iterator[T]:
    """Tell what this thread takes from a queue, until others have taken the rest."""
    while True:
        try:
            yield left.popleft()
        except IndexError:
            return

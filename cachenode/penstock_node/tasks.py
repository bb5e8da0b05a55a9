"""Tasks that run until they are told to stop, and work that is done in threads."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Executor
from typing import Any, TypeVar

from penstock import tracing

T = TypeVar("T")


async def cancel(task: "asyncio.Task[Any]") -> None:
    """Cancel a task and wait for its end, however it ends."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def until_stopped(stop: asyncio.Event, failed: "Coroutine[Any, Any, BaseException]") -> None:
    """Return when ``stop`` is set; raise what ``failed`` returns if that is first."""
    failing = asyncio.create_task(failed)
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({failing, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if failing.done():
            raise failing.result()
    finally:
        await cancel(failing)
        await cancel(stopping)


async def in_thread(threads: Executor, work: Callable[[], T]) -> T:
    """Return what ``work`` does in one of some threads, within this task's trace."""
    return await asyncio.get_running_loop().run_in_executor(threads, tracing.carried(work))


async def in_thread_to_its_end(threads: Executor, work: Callable[[], T]) -> T:
    """Do as `in_thread`, but a cancellation waits until the work is over, or does not begin."""
    running = threads.submit(tracing.carried(work))
    future = asyncio.wrap_future(running)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        if not running.cancel():
            await asyncio.wait([future])
            future.cancelled() or future.exception()
        raise


def leaves_of(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors of which a group of tasks' error consists, or the one that is no group."""
    if not isinstance(error, BaseExceptionGroup):
        yield error
        return
    for inner in error.exceptions:
        yield from leaves_of(inner)

"""Virtual time: an event loop that never waits, and processes that can be stopped and killed.

Responsible for: running callbacks in one thread, in an order that only the program decides; a
clock that jumps to the next timer; freezing and dropping whatever belongs to one process.
Not responsible for: what runs on it.

A process is named by a context variable, which tasks and callbacks inherit from who began them.
So the callbacks of a process that is stopped (SIGSTOP) wait until it goes on, and those of one
that was killed never run: no `finally` of its code, as with a real kill.
"""

import asyncio
import contextvars
import heapq
import random
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

T = TypeVar("T")

THREAD_S_MAX = 0.002
"""What is given to a thread is done within so long: others run meanwhile."""
ENDINGS_MAX = 100
"""Seconds until every task that is cancelled must have ended."""


class Stuck(Exception):
    """More callbacks ran than the program can need: something spins."""


class Process:
    """What can be stopped, go on and be killed as a whole."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_stopped = False
        self.is_dead = False
        self.backlog: list[_Handle] = []
        self.runs: object = None
        """What others' requests are given to."""

    @property
    def is_frozen(self) -> bool:
        """Whether nothing of it runs."""
        return self.is_dead or self.is_stopped


_process: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)


class _Handle:
    """A callback that is to run; what asyncio calls a handle."""

    __slots__ = ("_at", "args", "callback", "context", "is_cancelled")

    def __init__(
        self,
        callback: Callable[..., object],
        args: tuple[object, ...],
        context: contextvars.Context | None,
        at: float,
    ) -> None:
        self.callback: Callable[..., object] | None = callback
        self.args = args
        # An empty context is false.
        self.context = contextvars.copy_context() if context is None else context
        self.is_cancelled = False
        self._at = at

    def cancel(self) -> None:
        self.is_cancelled = True
        self.callback, self.args = None, ()

    def cancelled(self) -> bool:
        return self.is_cancelled

    def when(self) -> float:
        return self._at


class SimLoop(asyncio.AbstractEventLoop):
    """An event loop in virtual time. Use it by `run_until_complete` alone."""

    def __init__(self, rng: random.Random, *, callbacks_max: int) -> None:
        """Begin at 0 s.

        Args:
            rng: Decides how long threads take.
            callbacks_max: More than these mean that something spins.
        """
        self._rng = rng
        self._callbacks_left = callbacks_max
        self._now = 0.0
        self._ready: deque[_Handle] = deque()
        self._timers: list[tuple[float, int, _Handle]] = []
        self._timer_count = 0
        self._is_running = False
        self._tasks: dict[asyncio.Task[Any], None] = {}
        """Those that are not done: whoever kept one that is would keep what it has brought."""
        self._processes: list[Process] = []
        self._is_ending = False
        self.failures: list[str] = []
        """What nobody handled."""

    # What asyncio asks of a loop ------------------------------------------------------------

    def time(self) -> float:
        return self._now

    def call_soon(  # type: ignore[override]
        self,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> Any:
        handle = _Handle(callback, args, context, self._now)
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]  # There is one thread.

    def call_later(  # type: ignore[override]
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> Any:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> Any:
        handle = _Handle(callback, args, context, when)
        self._timer_count += 1
        heapq.heappush(self._timers, (when, self._timer_count, handle))
        return handle

    def create_future(self) -> "asyncio.Future[Any]":
        return asyncio.Future(loop=self)

    def create_task(
        self,
        coro: Any,
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
        **_more: Any,
    ) -> "asyncio.Task[Any]":
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, name=name, context=context)
        self._tasks[task] = None
        task.add_done_callback(self._tasks.pop)
        return task

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., T], *args: Any
    ) -> "asyncio.Future[T]":
        """Call ``func`` a moment later; like a thread, it is not called off any more."""
        done: asyncio.Future[T] = self.create_future()

        def work() -> None:
            try:
                value = func(*args)
            except BaseException as error:  # noqa: BLE001 - raised again by who waits
                if not done.cancelled():
                    done.set_exception(error)
                return
            if not done.cancelled():
                done.set_result(value)

        self.call_later(self.thread_s(), work)
        return done

    def thread_s(self) -> float:
        """Return how long a thread takes for what it is given now."""
        return THREAD_S_MAX * self._rng.random()

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return self._is_running

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.failures.append(f"{context.get('message')}: {error!r}")

    # Running --------------------------------------------------------------------------------

    def run_until_complete(self, future: Any) -> Any:
        """Run until the coroutine ``future`` is done, and return what it returns.

        Raises:
            Stuck: It never ends: nothing is left to run, or too much was.
        """
        task = self.create_task(future, name="main")
        asyncio._set_running_loop(self)
        self._is_running = True
        try:
            while not task.done():
                self._run_once()
        finally:
            self._is_running = False
            asyncio._set_running_loop(None)
        return task.result()

    def _run_once(self) -> None:
        if not self._ready:
            self._advance()
        handle = self._ready.popleft()
        if handle.is_cancelled:
            return
        self._callbacks_left -= 1
        if self._callbacks_left < 0:
            raise Stuck(f"too many callbacks by {self._now:.3f} s")
        process = handle.context.get(_process)
        if process is not None and process.is_frozen and not self._is_ending:
            process.backlog.append(handle)
            return
        assert handle.callback is not None
        handle.context.run(handle.callback, *handle.args)

    def _advance(self) -> None:
        while self._timers:
            when, _, handle = heapq.heappop(self._timers)
            if not handle.is_cancelled:
                self._now = max(self._now, when)
                self._ready.append(handle)
                return
        raise Stuck(f"nothing is left to run at {self._now:.3f} s")

    async def end(self) -> None:
        """Cancel everything but the caller, also what belongs to the dead, and see it end."""
        self._is_ending = True
        for process in self._processes:
            self.resume(process)
        me = asyncio.current_task()
        for _ in range(ENDINGS_MAX):
            others = [task for task in self._tasks if task is not me and not task.done()]
            if not others:
                break
            for task in others:
                task.cancel()
            await asyncio.sleep(1.0)
        else:
            raise Stuck(f"a task does not end: {others[0]!r}")
        self._tasks.clear()

    # Processes ------------------------------------------------------------------------------

    def spawn(
        self, process: Process | None, work: Coroutine[Any, Any, T], *, name: str
    ) -> "asyncio.Task[T]":
        """Begin a task that belongs to ``process``, None: to nobody, whoever calls this."""
        context = contextvars.Context()
        context.run(_process.set, process)
        if process is not None and process not in self._processes:
            self._processes.append(process)
        return self.create_task(work, name=name, context=context)

    def resume(self, process: Process) -> None:
        """Let a stopped process go on with all that has come up meanwhile."""
        process.is_stopped = False
        self._ready.extend(process.backlog)
        process.backlog = []


class SimExecutor(Executor):
    """Threads in virtual time: what is submitted is done a moment later."""

    def __init__(self, loop: SimLoop) -> None:
        self._loop = loop

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> "Future[T]":
        future: Future[T] = Future()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - raised again by who waits
                future.set_exception(error)

        self._loop.call_later(self._loop.thread_s(), work)
        return future


def outside() -> contextvars.Context:
    """Return a context that belongs to no process: for the network and the world."""
    return contextvars.Context()

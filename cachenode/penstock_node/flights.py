"""Flights: at most one fetch of a key at a time, whose result every waiter shares.

Responsible for: starting a fetch once, waiting for it in short turns, and keeping what it gave
for a moment, so that a waiter who comes back for it finds it.
Not responsible for: caching, retries, what a fetch does. One event loop.
Idea: the `singleflight` package of groupcache. Unlike there, a flight belongs to no waiter:
readers ask again every 200 ms, and what a fetch has begun to bring in is worth keeping.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Hashable, Iterable
from typing import Any, Generic, TypeVar

from penstock.errors import Overloaded
from penstock.tracing import Trace

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

LINGER_S = 1.0
"""How long a result is kept for waiters on their way back; errors too, so that a herd of
readers asks a failing origin once."""
LINGERING_MAX = 16
"""Results kept at once: each holds a chunk's bytes."""


class Flight(Generic[V]):
    """One fetch under way, or just over."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._result: asyncio.Future[V] = loop.create_future()
        self._outcome: asyncio.Future[V] = loop.create_future()
        self.trace: Trace | None = None
        """What the fetch does, told by it: for those who wait, too."""

    @property
    def has_landed(self) -> bool:
        """Whether its waiters have what it was for, or know that they get nothing."""
        return self._result.done()

    async def wait(self, timeout_s: float) -> V | None:
        """Return the result, or None when there is none within ``timeout_s`` seconds.

        The waiter's cancellation does not reach the fetch.

        Raises:
            Exception: Whatever the fetch raised, to every waiter alike.
        """
        await asyncio.wait([self._result], timeout=timeout_s)
        return self._result.result() if self._result.done() else None

    def land(self, value: V) -> None:
        """Give the waiters a result, if they have none: by the fetch, while it goes on."""
        if not self._result.done():
            self._result.set_result(value)

    def end(self, task: asyncio.Task[V]) -> None:
        """Give the waiters what the fetch has come to, if they have nothing."""
        _settle(self._outcome, task)
        if not self._result.done():
            _settle(self._result, task)

    @property
    def is_over(self) -> bool:
        """Whether the fetch has ended, and not only landed."""
        return self._outcome.done()

    def when_over(self, call: Callable[[], object]) -> None:
        """Have something called once the fetch has ended; soon, if it has."""
        self._outcome.add_done_callback(lambda _: call())

    def outcome(self) -> V:
        """Return what the fetch has come to in the end; it is over.

        Raises:
            Exception: Whatever it raised.
        """
        return self._outcome.result()


async def wait_for_an_end(flights: Iterable[Flight[V]], timeout_s: float) -> None:
    """Wait until any of some flights is over, for ``timeout_s`` seconds at most."""
    outcomes = [flight._outcome for flight in flights]  # noqa: SLF001 - of this module
    if outcomes:
        await asyncio.wait(outcomes, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)


def _settle(future: "asyncio.Future[V]", task: "asyncio.Task[V]") -> None:
    if task.cancelled():
        future.cancel()
    elif error := task.exception():
        future.set_exception(error)
        future.exception()  # Looked at: one that nobody waits for is no surprise.
    else:
        future.set_result(task.result())


class Flights(Generic[K, V]):
    """The fetches of one node: one a key, ``flights_max`` keys at once."""

    def __init__(self, *, flights_max: int, lingers: Callable[[V], bool]) -> None:
        """Make a place for flights.

        Args:
            flights_max: Keys in flight at once.
            lingers: Whether a result is worth keeping for a moment; one that waiters find
                elsewhere is not.
        """
        assert flights_max > 0, f"flights_max={flights_max} would refuse every key"
        self._flights_max = flights_max
        self._lingers = lingers
        self._lingering: OrderedDict[K, asyncio.TimerHandle] = OrderedDict()
        self._flights: dict[K, Flight[V]] = {}
        self._tasks: set[asyncio.Task[V]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def get(self, key: K) -> Flight[V] | None:
        """Return the flight of ``key``, if one is under way or just over."""
        return self._flights.get(key)

    def start(self, key: K, fetch: Callable[[Flight[V]], Coroutine[Any, Any, V]]) -> Flight[V]:
        """Return the flight of ``key``; ``fetch`` is called only if there is none.

        Args:
            key: What is fetched.
            fetch: Called with the flight, which it may `land` before it is over.

        Raises:
            Overloaded: ``flights_max`` other keys are in flight.
        """
        known = self._flights.get(key)
        if known is not None:
            return known
        if len(self._tasks) >= self._flights_max:
            raise Overloaded(f"{len(self._tasks)} chunks are being filled; come back in a moment")
        flight = self._flights[key] = Flight()
        task = asyncio.create_task(fetch(flight), name=f"fill {key!r}")
        self._tasks.add(task)
        task.add_done_callback(lambda task: self._end(key, flight, task))
        return flight

    def _end(self, key: K, flight: Flight[V], task: asyncio.Task[V]) -> None:
        self._tasks.discard(task)
        flight.end(task)
        failed = task.cancelled() or task.exception() is not None
        if not failed and not self._lingers(task.result()):
            del self._flights[key]
            return
        loop = asyncio.get_running_loop()
        self._lingering[key] = loop.call_later(LINGER_S, self._forget, key)
        if len(self._lingering) > LINGERING_MAX:
            self._forget(next(iter(self._lingering)))

    def _forget(self, key: K) -> None:
        self._lingering.pop(key).cancel()
        del self._flights[key]

    def forget_landed(self) -> None:
        """Drop the results that are kept for waiters: their memory is wanted."""
        for key in list(self._lingering):
            self._forget(key)

    async def cancel_all(self) -> None:
        """End every fetch and wait until they are over."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

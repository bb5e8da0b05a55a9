"""The network between nodes and clients: latency, partitions, machines that are down or silent.

Responsible for: carrying a request to another process and its answer back, or not.
Not responsible for: what is asked; bandwidth (`fluid` has that).
"""

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from penstock.errors import NodeUnavailable, PenstockError
from penstock.patience import LOOK_S, SLOW_LOOKS, Slow
from penstock_node.transport.connection import INTERIM_S
from tests.simulation.clock import Process, SimLoop, outside

T = TypeVar("T")

LATENCY_MIN_S = 0.0001
LATENCY_MAX_S = 0.002
SLOW_SHARE = 0.02
"""Of messages, those that come only after up to `SLOW_S_MAX`: what was sent later overtakes."""
SLOW_S_MAX = 0.1
SLOW_S = SLOW_LOOKS * LOOK_S
"""After so long in silence a reader may ask another node instead."""


class Exchange(Generic[T]):
    """One request and its answer, as its sender sees it."""

    def __init__(self, network: "Network", source: str, target: str) -> None:
        self._network = network
        self.source, self.target = source, target
        self.answer: asyncio.Future[T] = network.loop.create_future()
        self.heard_at = network.loop.time()

    def interim(self) -> None:
        """Tell the sender that the other end works on it; called there."""
        self._network.send(self.target, self.source, self._hear)

    def _hear(self) -> None:
        self.heard_at = self._network.loop.time()

    def succeed(self, value: T) -> None:
        if not self.answer.done():
            self.answer.set_result(value)

    def fail(self, error: BaseException) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)
            self.answer.exception()  # Looked at: perhaps nobody waits any more.


class Network:
    """Every pair of names is linked, unless it is cut."""

    def __init__(self, loop: SimLoop, rng: random.Random) -> None:
        self.loop, self._rng = loop, rng
        self._world = outside()
        self._cuts: set[tuple[str, str]] = set()
        self.processes: dict[str, Process] = {}
        """Those that listen, by name. A name that is not here refuses."""
        self._served: dict[str, list[Exchange[Any]]] = {}

    # Partitions.

    def cut(self, one: str, other: str) -> None:
        """Let nothing through between two, in either direction."""
        self._cuts |= {(one, other), (other, one)}

    def heal(self) -> None:
        """End all cuts."""
        self._cuts.clear()

    @property
    def is_whole(self) -> bool:
        """Whether there is no cut."""
        return not self._cuts

    def is_cut(self, source: str, target: str) -> bool:
        """Tell whether nothing gets through."""
        return (source, target) in self._cuts

    def answers(self, source: str, target: str) -> bool:
        """Tell whether a short question would be answered now."""
        process = self.processes.get(target)
        return process is not None and not process.is_stopped and not self.is_cut(source, target)

    def reset(self, target: str) -> None:
        """Break the connections of a process that was killed, as its kernel does."""
        for exchange in self._served.pop(target, []):
            if not exchange.answer.done():
                error = NodeUnavailable(f"{target} broke the connection")
                self.send(target, exchange.source, exchange.fail, error)

    # Messages.

    def latency_s(self) -> float:
        """Return how long the next message takes."""
        longest = SLOW_S_MAX if self._rng.random() < SLOW_SHARE else LATENCY_MAX_S
        return LATENCY_MIN_S + (longest - LATENCY_MIN_S) * self._rng.random()

    def send(self, source: str, target: str, arrive: Callable[..., None], *args: object) -> None:
        """Have ``arrive`` called at the other end, unless the link is cut then."""
        self.loop.call_later(
            self.latency_s(), self._arrive, source, target, arrive, args, context=self._world
        )

    def _arrive(
        self, source: str, target: str, arrive: Callable[..., None], args: tuple[object, ...]
    ) -> None:
        if not self.is_cut(source, target):
            arrive(*args)

    async def call(
        self,
        source: str,
        target: str,
        serve: Callable[[Exchange[T]], Coroutine[Any, Any, T]],
        *,
        silence_s: float,
        timeout_s: float,
        gives_up: Callable[[], bool] | None = None,
    ) -> T:
        """Have ``serve`` run in the target's process; return what it returns, or raise that.

        Raises:
            Slow: It was silent for a moment, and ``gives_up`` told to ask another.
            NodeUnavailable: The target refuses, is silent, or takes too long.
        """
        exchange: Exchange[T] = Exchange(self, source, target)
        deadline = self.loop.time() + timeout_s
        self.send(source, target, self._received, exchange, serve)
        timer = _Patience(
            self.loop, exchange, silence_s=silence_s, deadline=deadline, gives_up=gives_up
        )
        try:
            return await exchange.answer
        finally:
            timer.stop()

    def _received(
        self, exchange: Exchange[T], serve: Callable[[Exchange[T]], Coroutine[Any, Any, T]]
    ) -> None:
        process = self.processes.get(exchange.target)
        if process is None:
            error = NodeUnavailable(f"{exchange.target} refuses")
            self.send(exchange.target, exchange.source, exchange.fail, error)
            return
        served = self._served.setdefault(exchange.target, [])
        served[:] = [each for each in served if not each.answer.done()]
        served.append(exchange)
        task = self.loop.spawn(process, serve(exchange), name=f"serve {exchange.source}")
        task.add_done_callback(
            lambda done: self._reply(exchange, done),
            context=self._world,
        )
        self._say_working_later(exchange, process, task)

    def _say_working_later(
        self, exchange: Exchange[T], process: Process, task: "asyncio.Task[T]"
    ) -> None:
        """Have the target say every so often that it works on it, as its engine does."""

        def say() -> None:
            if process.is_dead:
                return
            if not process.is_stopped:
                exchange.interim()
            self._say_working_later(exchange, process, task)

        timer = self.loop.call_later(INTERIM_S, say, context=self._world)
        task.add_done_callback(lambda _: timer.cancel(), context=self._world)

    def _reply(self, exchange: Exchange[T], served: "asyncio.Task[T]") -> None:
        if served.cancelled():
            return
        error = served.exception()
        if error is None:
            self.send(exchange.target, exchange.source, exchange.succeed, served.result())
            return
        if not isinstance(error, PenstockError):
            self.loop.failures.append(f"{exchange.target} failed inside: {error!r}")
            error = PenstockError("the node failed")
        self.send(exchange.target, exchange.source, exchange.fail, error)


class _Patience:
    """Ends an exchange whose other end is silent, or late."""

    def __init__(
        self,
        loop: SimLoop,
        exchange: Exchange[Any],
        *,
        silence_s: float,
        deadline: float,
        gives_up: Callable[[], bool] | None,
    ) -> None:
        self._loop, self._exchange = loop, exchange
        self._gives_up = gives_up
        self._silence_s, self._deadline = silence_s, deadline
        self._timer = loop.call_soon(self._look)

    def _look(self) -> None:
        until = min(self._exchange.heard_at + self._silence_s, self._deadline)
        if until <= self._loop.time():
            self._exchange.fail(NodeUnavailable(f"{self._exchange.target} is silent"))
            return
        slow_at = self._exchange.heard_at + SLOW_S
        if self._gives_up is not None and slow_at <= self._loop.time():
            if self._gives_up():
                self._exchange.fail(Slow(f"{self._exchange.target} takes its time"))
                return
            self._gives_up = None
        if self._gives_up is not None:
            until = min(until, slow_at)
        self._timer = self._loop.call_at(until, self._look)

    def stop(self) -> None:
        self._timer.cancel()

"""Following the machine that this node runs on for as long as the node runs.

Responsible for: asking again after a failure, with pauses that grow; telling people whether the
machine is followed.
Not responsible for: what is asked (`machine`), what follows from what is said (`upkeep`).
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import NoReturn

import stamina
import structlog
from prometheus_client.core import Metric

from penstock.errors import KubernetesUnavailable
from penstock_node.kubernetes.machine import Machine, Machines
from penstock_node.metrics import counter, gauge

PAUSE_S = 0.5
PAUSE_MAX_S = 30.0
"""Between attempts to follow the machine; each pause is twice the one before. A machine that was
followed for so long is followed anew at once: that asks no more often."""
SPREAD_S = 2.0
"""So that a fleet does not ask in one moment, when the API server is back."""
_DOUBLINGS_MAX = 10

_log = structlog.get_logger(__name__)


class Follower:
    """Follows one machine; see the module. On one event loop."""

    def __init__(
        self,
        machines: Machines,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        rng: random.Random | None = None,
    ) -> None:
        """Ask nothing yet.

        Args:
            machines: Asks for this node's machine.
            clock: Seconds that never go back.
            sleep: Waits, in seconds.
            rng: Spreads the nodes of a fleet.
        """
        self._machines, self._clock, self._sleep = machines, clock, sleep
        self._rng = rng or random.Random()  # noqa: S311 - spreads load, guards nothing
        self._followed_at: float | None = None
        self._failures = {"away": 0, "refused": 0}
        self._said = ""

    async def look(self, *, within_s: float) -> Machine | None:
        """Return what is said of the machine; None if Kubernetes does not answer, or know it."""
        try:
            async for attempt in stamina.retry_context(
                on=_may_pass,
                attempts=None,
                timeout=within_s,
                wait_initial=PAUSE_S,
                wait_max=PAUSE_S,
            ):
                with attempt:
                    machine, _ = await self._machines.look()
        except KubernetesUnavailable as error:
            self._say(_advice(error))
            return None
        return machine

    async def run(self, take: Callable[[Machine | None], None]) -> NoReturn:
        """Have ``take`` told of the machine and of each change, for ever."""
        failures = 0
        while True:
            lasted_s = await self._follow(take)
            failures = 0 if lasted_s >= PAUSE_MAX_S else failures + 1
            await self._sleep(self._pause_s(failures))

    async def _follow(self, take: Callable[[Machine | None], None]) -> float:
        """Follow the machine until that fails; return for how long it was followed."""
        try:
            await self._machines.follow(take, on_watch=self._on_watch)
        except KubernetesUnavailable as error:
            self._failures["refused" if error.is_refused else "away"] += 1
            since, self._followed_at = self._followed_at, None
            self._say(_advice(error))
        return 0.0 if since is None else self._clock() - since

    def _on_watch(self) -> None:
        # And not with the list before it: a role may allow the one and not the other.
        if self._followed_at is None:
            _log.info("the machine's Node is followed")
            self._followed_at, self._said = self._clock(), ""

    def _pause_s(self, failures: int) -> float:
        spread_s = self._rng.uniform(0.0, SPREAD_S)
        if not failures:
            return spread_s
        doubled_s = PAUSE_S * 2.0 ** min(failures - 1, _DOUBLINGS_MAX)
        return min(PAUSE_MAX_S - SPREAD_S, doubled_s) + spread_s

    def _say(self, text: str) -> None:
        """Warn once of what is the matter."""
        if text != self._said:
            _log.warning(text)
            self._said = text

    def collect(self) -> Iterable[Metric]:
        """Tell Prometheus."""
        yield gauge(
            "penstock_kubernetes_followed",
            "Whether this node is told of each change of its machine's Node object.",
            [((), self._followed_at is not None)],
        )
        yield counter(
            "penstock_kubernetes_failures",
            "Failures to follow the Node object: the API server is away, or refuses it.",
            [((reason,), count) for reason, count in self._failures.items()],
            "reason",
        )


def _advice(error: KubernetesUnavailable) -> str:
    if not error.is_refused:
        return f"{error}; until it answers nothing changes"
    return (
        f"{error}; this node serves on, but is not drained for its machine: give its service "
        "account a ClusterRole with get, list and watch of nodes"
    )


def _may_pass(error: Exception) -> bool:
    return isinstance(error, KubernetesUnavailable) and not error.is_refused

"""Keeping to a rate: so much by the second, over all who wait, in the order in which they came."""

import asyncio
from collections.abc import Callable

BURST_S = 0.1
"""Who was idle catches up for so long."""


class Pace:
    """A rate of bytes, requests, or whatever is counted. On one event loop."""

    def __init__(self, per_s: Callable[[], float]) -> None:
        """Keep to a rate that is asked for each time: it may change."""
        self._per_s = per_s
        self._due_at = 0.0
        self._next_in_line = asyncio.Lock()

    async def wait(self, amount: float) -> None:
        """Wait until ``amount`` may go. Who gives up waiting has taken nothing from the rate."""
        async with self._next_in_line:
            now = asyncio.get_running_loop().time()
            await asyncio.sleep(self.delay_s(now=now))
            self.take(amount, now=now)

    def delay_s(self, *, now: float) -> float:
        """Return how long the next one waits."""
        return max(0.0, self._due_at - now)

    def take(self, amount: float, *, now: float) -> None:
        """Let ``amount`` go, for somebody who has waited from ``now``."""
        self._due_at = max(self._due_at, now - BURST_S) + amount / self._per_s()

"""Keeping to a rate, so that what moves in the background leaves the network to readers."""

import asyncio
from collections.abc import Callable

BURST_S = 0.1
"""Who was idle catches up for so long."""


class Pace:
    """Bytes by the second, over all who wait. On one event loop."""

    def __init__(self, bytes_per_s: Callable[[], int]) -> None:
        """Keep to a rate that is asked for each time: it may change."""
        self._bytes_per_s = bytes_per_s
        self._due_at = 0.0

    async def wait(self, size_bytes: int) -> None:
        """Wait until ``size_bytes`` may be moved."""
        await asyncio.sleep(self.delay_s(size_bytes, now=asyncio.get_running_loop().time()))

    def delay_s(self, size_bytes: int, *, now: float) -> float:
        """Take a turn, and return how long to wait for it."""
        begin_at = max(self._due_at, now - BURST_S)
        self._due_at = begin_at + size_bytes / self._bytes_per_s()
        return max(0.0, begin_at - now)

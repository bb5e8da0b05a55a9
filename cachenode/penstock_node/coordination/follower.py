"""Follows the coordinator's watch and tells this process what became of the cluster.

Responsible for: feeding the watch into the state, and letting others wait for a state.
Not responsible for: what follows from it; connections (the coordinator keeps them).
"""

import asyncio
import contextlib
from collections.abc import Callable

from penstock.errors import ClusterUnavailable
from penstock.membership.coordinator import Changes, Coordinator, Listing
from penstock_node.coordination.memory import Memory
from penstock_node.coordination.state import ClusterState


class Follower:
    """The states of one cluster, as far as this node has heard; on one event loop."""

    def __init__(self, coordinator: Coordinator, *, memory: Memory) -> None:
        self._coordinator, self._memory = coordinator, memory
        self._listeners: list[Callable[[ClusterState], None]] = []
        self._changed = asyncio.Event()
        self._refreshing: asyncio.Task[None] | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self.stored = ClusterState()
        """What the coordinator holds, as last heard."""
        self.synced = asyncio.Event()
        """Set once the coordinator has told what it holds."""

    @property
    def known(self) -> ClusterState:
        """What to work with: as stored, but never behind what was known before."""
        return self._memory.known

    @property
    def losses(self) -> int:
        """How often the store was found wiped or restored."""
        return self._memory.losses

    def interrupted(self) -> None:
        """Take note that the coordinator does not answer at this moment."""
        if self.synced.is_set():
            self._memory.interrupted()

    def subscribe(self, listener: Callable[[ClusterState], None]) -> None:
        """Have ``listener`` called with each new `known` state, on the loop; it must not block."""
        self._listeners.append(listener)

    async def run(self) -> None:
        """Follow for ever."""
        try:
            async with contextlib.aclosing(self._coordinator.watch("")) as items:
                async for item in items:
                    self._take(item)
        finally:
            if self._expiry is not None:
                self._expiry.cancel()

    async def refresh(self) -> None:
        """Read everything as it is now; what is known is then at least that new.

        Raises:
            ClusterUnavailable: The coordinator does not answer.
        """
        listing = await self._coordinator.list("")
        same_store = listing.store_id == self.stored.store_id
        # Another store, or a revision that went back, is for the watch to tell: it alone is in
        # order. A listing that it has overtaken says nothing new.
        if self.synced.is_set() and same_store and listing.revision > self.stored.revision:
            self._take(listing)

    async def refresh_shared(self) -> None:
        """As `refresh`; callers at the same time share one read. It may have begun before."""
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self.refresh(), name="refresh the view")
            self._refreshing.add_done_callback(_retrieve)
        await asyncio.shield(self._refreshing)

    async def wait_for(
        self, predicate: Callable[[ClusterState], bool], *, timeout_s: float, what: str
    ) -> ClusterState:
        """Return the first known state for which ``predicate`` holds.

        Raises:
            ClusterUnavailable: None came in time; ``what`` says what was waited for.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while not predicate(self.known):
                    await self._changed.wait()
        except TimeoutError:
            raise ClusterUnavailable(f"waited {timeout_s:g} s for {what}, in vain") from None
        return self.known

    def _take(self, item: Listing | Changes) -> None:
        self.stored = self.stored.apply(item)
        self._memory.absorb(self.stored)
        self.synced.set()
        self._tell()
        self._expire_later()

    def _expire_later(self) -> None:
        if self._expiry is None and self._memory.linger_s > 0:
            loop = asyncio.get_running_loop()
            self._expiry = loop.call_later(self._memory.linger_s, self._expire)

    def _expire(self) -> None:
        self._expiry = None
        self._memory.refresh()
        self._tell()
        self._expire_later()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
        for listener in self._listeners:
            listener(self._memory.known)


def _retrieve(task: asyncio.Task[None]) -> None:
    """Look at the outcome: whoever waited has it; when all gave up nobody else would."""
    if not task.cancelled():
        task.exception()

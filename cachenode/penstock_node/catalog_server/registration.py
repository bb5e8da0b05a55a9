"""Where the catalog is found: the key ``catalog`` of its cluster, for as long as it lives.

Responsible for: one catalog that all ask. Of several over one database the others stand by, and
one of them takes the key when its holder has been silent for a lease.
Not responsible for: answering. Those who stand by answer too, whoever asks them.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import structlog

from penstock.errors import PenstockError
from penstock.membership.coordinator import ABSENT, Coordinator, Lease
from penstock_node.coordination.records import (
    CATALOG,
    CatalogRecord,
    catalog_from_json,
    catalog_to_json,
)
from penstock_node.tasks import cancel

LEASE_TTL_S = 10.0
LOOK_S = 1.0
"""Between looks whether the key is free, and after etcd has not answered."""

Turn: TypeAlias = Callable[[int], Awaitable[None]]
"""Runs until it is cancelled. Takes the revision at which the key was taken: greater than that of
every holder before."""

_log = structlog.get_logger(__name__)


class Registration:
    """Holds the key, or waits for it, until it is stopped. On one event loop."""

    def __init__(
        self, coordinator: Coordinator, record: CatalogRecord, *, turn: Turn | None = None
    ) -> None:
        """Write nothing yet.

        Args:
            coordinator: Of the cluster.
            record: This catalog's.
            turn: What one catalog alone does: the one that holds the key, while it does.
        """
        self._coordinator, self._record, self._turn = coordinator, record, turn
        self._lease: Lease | None = None
        self.is_held = False
        """Whether it is this catalog that is found."""

    async def run(self) -> None:
        """Hold the key, again and again, for ever."""
        while True:
            try:
                await self._hold()
            except PenstockError as error:
                _log.warning("the catalog is not registered", error=str(error))
            await asyncio.sleep(LOOK_S)

    async def _hold(self) -> None:
        """Take the key if it is free, and return when it is this catalog's no more."""
        free_at = await self._free_at()
        if free_at is None:
            return
        self._lease = await self._coordinator.grant_lease(LEASE_TTL_S)
        try:
            held = await self._coordinator.commit(
                conditions={CATALOG: free_at},
                leased_puts={CATALOG: catalog_to_json(self._record)},
                lease=self._lease,
            )
            if held is not None:
                _log.info("the catalog is registered")
                self.is_held = True
                await self._take_turn(held, until=self._lease.lost)
        finally:
            self.is_held = False
            await self.leave()

    async def _take_turn(self, token: int, *, until: asyncio.Event) -> None:
        if self._turn is None:
            await until.wait()
            return
        turn = asyncio.ensure_future(self._turn(token))
        try:
            await until.wait()
        finally:
            await cancel(turn)

    async def _free_at(self) -> int | None:
        """Return the revision at which the key may be taken; None: another catalog has it."""
        entry = (await self._coordinator.list(CATALOG)).entries.get(CATALOG)
        if entry is None:
            return ABSENT
        try:
            is_own = catalog_from_json(entry.value).id == self._record.id
        except (ValueError, PenstockError):
            is_own = True  # Nobody can be found by that.
        # An earlier process of this state directory is dead: this one has its lock.
        return entry.mod_revision if is_own else None

    async def leave(self) -> None:
        """Give the key up at once; another may take it."""
        lease, self._lease = self._lease, None
        if lease is not None:
            await lease.revoke()

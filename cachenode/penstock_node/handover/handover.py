"""A node's hand-over: what it gives, and what it takes.

Responsible for: putting the two together, and saying when nothing is left to give.
Not responsible for: either of them (`giving`, `taking`).
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from concurrent.futures import Executor

from penstock_node.cluster import Cluster
from penstock_node.fill import Filler
from penstock_node.guests import Guests
from penstock_node.handover.absences import Absences
from penstock_node.handover.asking import Asking
from penstock_node.handover.copying import Copying
from penstock_node.handover.giving import Giving
from penstock_node.handover.moving import Mover
from penstock_node.handover.taking import Taking
from penstock_node.incoming import Incoming
from penstock_node.inflight import Inflight
from penstock_node.metrics import NodeMetrics
from penstock_node.pace import Pace
from penstock_node.peers import Peers
from penstock_node.store import Store

LOOK_S = 0.5
"""Between looks whether others are done with what this node has for them, or whether it has
anything new."""


class Handover:
    """Moves chunks to their owners in the background; see the package."""

    def __init__(
        self,
        *,
        cluster: Cluster,
        store: Store,
        filler: Filler,
        peers: Peers,
        inflight: Inflight,
        asking: Asking,
        metrics: NodeMetrics,
        incoming: Incoming,
        disk_threads: Executor,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        """Put the parts together; ``incoming`` are those that ``filler`` tells its work to."""
        self._cluster = cluster
        self.giving = Giving(
            cluster=cluster,
            store=store,
            has_work_before=incoming.has_before,
            absent=Absences(cluster, clock=clock).absent,
            threads=disk_threads,
        )
        mover = Mover(
            cluster=cluster,
            store=store,
            filler=filler,
            peers=peers,
            inflight=inflight,
            pace=Pace(lambda: self.taking.bytes_per_s),
            incoming=incoming,
            metrics=metrics,
            threads=disk_threads,
        )
        self.taking = Taking(
            cluster=cluster,
            store=store,
            mover=mover,
            asking=asking,
            rng=rng or random.Random(),  # noqa: S311 - spreads load, guards nothing
        )
        self.guests = Guests(
            is_kept=mover.is_kept,
            bring=filler.start,
            store=store,
            threads=disk_threads,
            clock=clock,
        )
        self.copying = Copying(
            cluster=cluster,
            mover=mover,
            asking=asking,
            guests=self.guests,
            missed=self.giving.missed,
        )
        incoming.subscribe(came=self.copying.came, missed=self.giving.missed)

    async def run(self, announce: Callable[[int], None]) -> None:
        """Give and take, for ever.

        Args:
            announce: Called with the epoch up to which this node has nothing left to hand over.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self.taking.run(), name="take over")
            group.create_task(self.copying.run(), name="copy")
            group.create_task(self.guests.run(), name="drop guests")
            group.create_task(self._give(announce), name="hand over")

    async def _give(self, announce: Callable[[int], None]) -> None:
        settled = told = 0
        while True:
            changed, epoch = self._cluster.changed, self._cluster.epoch
            if await self.giving.look():
                settled = epoch
            elif settled == epoch:  # Since then a chunk has come whose owner was away.
                settled = epoch - 1
            if settled != told:
                announce(settled)
                told = settled
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await changed.wait()

"""The overview's parts put together: what services and the admin port answer from.

Responsible for: making the parts, and their work in the background.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import structlog

from penstock.membership.view import Member
from penstock.overview import WarmupLine
from penstock_node.cluster import Cluster
from penstock_node.coordination import Coordination
from penstock_node.handover.handover import Handover
from penstock_node.inflight import Inflight
from penstock_node.listing import Listings
from penstock_node.metrics import NodeMetrics
from penstock_node.opening import Opener
from penstock_node.origin import Origins
from penstock_node.overview.asking import Asker, Caller
from penstock_node.overview.chunk_map import ChunkMaps
from penstock_node.overview.gathering import Gathering
from penstock_node.overview.hot_models import HotModels
from penstock_node.overview.own import OwnOverview
from penstock_node.overview.told_warmups import ToldWarmups
from penstock_node.overview.whole import WholeOverview
from penstock_node.store.store import Store

AGAIN_S = 10.0
"""Until what failed inside is tried again."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class OverviewParts:
    """What a node's overviews are made from."""

    cluster: Cluster
    coordination: Coordination
    store: Store
    opener: Opener
    listings: Listings
    metrics: NodeMetrics
    origins: Origins
    handover: Handover
    inflight: Inflight
    warmups: Callable[[], tuple[WarmupLine, ...]]
    channels: Caller
    disk_threads: Executor
    version: str


class Overviews:
    """What this node tells of itself, and of all together. On the event loop."""

    def __init__(self, parts: OverviewParts) -> None:
        """Put them together; nothing is looked at yet."""
        cluster = parts.cluster
        self.asker = Asker(parts.channels)
        self.store, self.opener = parts.store, parts.opener
        self.disk_threads = parts.disk_threads
        self.told_warmups = ToldWarmups()
        self.own = OwnOverview(
            node_id=cluster.node_id,
            version=parts.version,
            metrics=parts.metrics,
            store=parts.store,
            origins=parts.origins,
            handover=parts.handover,
            inflight=parts.inflight,
            warmups=lambda: (*parts.warmups(), *self.told_warmups.lines()),
            threads=parts.disk_threads,
        )

        def members() -> Iterable[Member]:
            return cluster.view.members.values()

        self._gathering = Gathering(own=self.own, members=members, asker=self.asker)
        self._models = HotModels(
            gathering=self._gathering,
            members=members,
            volumes=lambda: cluster.volumes,
            asker=self.asker,
        )
        self.whole = WholeOverview(
            cluster=cluster,
            coordination=parts.coordination,
            own=self.own,
            gathering=self._gathering,
            models=self._models,
            asker=self.asker,
            version=parts.version,
        )
        self.chunk_maps = ChunkMaps(
            cluster=cluster,
            opener=parts.opener,
            listings=parts.listings,
            members=members,
            asker=self.asker,
        )

    async def run(self) -> None:
        """Look at what this node does, and at the others while somebody looks, for ever."""
        async with asyncio.TaskGroup() as group:
            for name, work in (
                ("look at the counters", self.own.run),
                ("gather what nodes do", self._gathering.run),
                ("look for hot models", self._models.run),
            ):
                group.create_task(_kept_up(name, work), name=name)


async def _kept_up(name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Do something for ever: a node whose overview fails goes on serving."""
    while True:
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - nobody reads for want of an overview
            _log.error("the overview failed inside the node", part=name, exc_info=error)
        await asyncio.sleep(AGAIN_S)

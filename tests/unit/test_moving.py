"""Bringing in one chunk that two former owners offer: over a real store, ring and view."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import pytest

from penstock.checksums import BLOCK_BYTES
from penstock.errors import NodeUnavailable, NotCached
from penstock.membership.view import Member, View
from penstock.objects import ObjectId
from penstock.placement import PlacedNode, Placement
from penstock.v1 import handover_pb2
from penstock_node.chunk import Chunk
from penstock_node.cluster import Cluster
from penstock_node.fill import Filler
from penstock_node.handover.moving import Mover
from penstock_node.incoming import Incoming
from penstock_node.inflight import Inflight
from penstock_node.metrics import NodeMetrics
from penstock_node.pace import Pace
from penstock_node.peers import Peers
from penstock_node.store import Store, Tier

MODEL = ObjectId("s3://b/model", "v1", BLOCK_BYTES, BLOCK_BYTES)
TOLD = handover_pb2.DescribedChunk(
    key=MODEL.key, version=MODEL.version, size=MODEL.size, chunk_size=MODEL.chunk_size, index=0
)
FORMER = [Member(name, f"host-{name}") for name in ("b", "c")]


class Idle(Filler):
    """Brings nothing in."""

    def __init__(self) -> None: ...

    def running(self, chunk: Chunk, *, without_peers: bool = False) -> None: ...


class Former(Peers):
    """The nodes that have the chunk; they answer once they are let."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.failing: dict[str, Exception] = {}
        self.go_on = asyncio.Event()

    async def fetch(
        self, member: Member, chunk: Chunk, *, only_if_cached: bool, timeout_s: float
    ) -> memoryview:
        self.asked.append(member.id)
        await self.go_on.wait()
        if member.id in self.failing:
            raise self.failing[member.id]
        return memoryview(bytes(BLOCK_BYTES))


class Rig:
    """Node ``a``, which owns the chunk since ``b`` and ``c`` do not."""

    def __init__(self, directory: Path) -> None:
        placed = (PlacedNode("a", "host-a", "", 100),)
        members = {each.id: each for each in [Member("a", "host-a"), *FORMER]}
        cluster = Cluster(node_id="a", name="test")
        cluster.routing.update(View("test", Placement("0" * 32, 1, placed, 256), members))
        self.store = Store([Tier(directory, 4 * BLOCK_BYTES, "owned")])
        self.store.start_scan()
        self.threads = ThreadPoolExecutor(1)
        self.former = Former()
        inflight = Inflight()
        self.metrics = NodeMetrics(version="test", inflight=inflight)
        self.mover = Mover(
            cluster=cluster,
            store=self.store,
            filler=Idle(),
            peers=self.former,
            inflight=inflight,
            pace=Pace(lambda: 1e9),
            incoming=Incoming(),
            metrics=self.metrics,
            threads=self.threads,
        )

    async def take_from_both(self) -> None:
        """Take the chunk from both at once; neither answers before both takes have begun."""
        takes = [
            asyncio.create_task(self.mover.take_all(member, [TOLD], epoch=1)) for member in FORMER
        ]
        while not self.former.asked:  # noqa: ASYNC110 - the scan is a thread's
            await asyncio.sleep(0.01)
        self.former.go_on.set()
        await asyncio.gather(*takes, return_exceptions=True)

    @property
    def moved_bytes(self) -> float:
        value = self.metrics.registry.get_sample_value("penstock_handoff_bytes_total")
        return cast("float", value)

    def close(self) -> None:
        self.threads.shutdown()
        self.store.close()


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.close()


async def test_a_chunk_that_two_nodes_offer_at_once_moves_once(rig: Rig) -> None:
    assert rig.store.wait_scanned(10)

    await rig.take_from_both()

    assert rig.former.asked == ["b"]
    assert rig.moved_bytes == BLOCK_BYTES
    assert MODEL.chunk_id(0) in rig.store.owned


@pytest.mark.parametrize("error", [NotCached("gone"), NodeUnavailable("silent")])
async def test_what_one_node_fails_to_give_comes_from_the_other(rig: Rig, error: Exception) -> None:
    assert rig.store.wait_scanned(10)
    rig.former.failing["b"] = error

    await rig.take_from_both()

    assert rig.former.asked == ["b", "c"]
    assert MODEL.chunk_id(0) in rig.store.owned

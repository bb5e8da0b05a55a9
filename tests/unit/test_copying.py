"""Telling other owners of a chunk that it has come: what becomes of it when one is not there."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest

from penstock.errors import NodeUnavailable
from penstock.membership.view import Member, View
from penstock.objects import ObjectId
from penstock.placement import PlacedNode, Placement
from penstock_node.chunk import Chunk
from penstock_node.cluster import Cluster
from penstock_node.guests import Guests
from penstock_node.handover.asking import Asking
from penstock_node.handover.copying import Copying
from penstock_node.handover.moving import Mover

NODES = tuple(PlacedNode(name, f"host-{name}", "", 100) for name in ("a", "b"))
FILE = ObjectId("s3://b/file", "v1", 2 * 65_536, 65_536)
CHUNKS = [Chunk(FILE, "models", index) for index in range(2)]


class Refusing(Asking):
    """Nobody answers."""

    def __init__(self) -> None:
        self.asked = 0

    async def ask(self, member: Member, method: Any, request: Any) -> Any:
        self.asked += 1
        raise NodeUnavailable(f"{member.id} refuses")


@pytest.mark.parametrize(("there", "asked"), [(("a", "b"), 1), (("a",), 0)])
async def test_who_cannot_be_told_of_a_copy_is_noted_to_have_missed_it(
    there: tuple[str, ...], asked: int
) -> None:
    cluster, asking = Cluster(node_id="a", name="test"), Refusing()
    members = {name: Member(name, f"host-{name}") for name in there}
    cluster.routing.update(View("test", Placement("0" * 32, 1, NODES, 256), members, replicas=2))
    missed: list[tuple[str, Chunk]] = []
    all_noted = asyncio.Event()

    def note(owners: Sequence[str], chunk: Chunk) -> None:
        missed.extend((owner, chunk) for owner in owners)
        if len(missed) == len(CHUNKS):
            all_noted.set()

    copying = Copying(
        cluster=cluster,
        mover=cast("Mover", None),
        asking=asking,
        guests=cast("Guests", None),
        missed=note,
    )
    running = asyncio.create_task(copying.run())
    for chunk in CHUNKS:
        copying.came(["b"], chunk)

    async with asyncio.timeout(10):
        await all_noted.wait()

    assert missed == [("b", chunk) for chunk in CHUNKS]
    assert asking.asked == asked
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

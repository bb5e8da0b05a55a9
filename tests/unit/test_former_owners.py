"""Who is asked for a chunk before its origin is."""

from collections.abc import Iterable
from dataclasses import replace

from penstock.membership.coordinator import Entry, Listing
from penstock.membership.view import Member
from penstock.objects import ObjectId
from penstock.placement import PastPlacement, PlacedNode, Placement
from penstock_node.chunk import Chunk
from penstock_node.cluster import FORMER_OWNERS_MAX, JUST_BACK_S, Cluster
from penstock_node.cluster_copies import Copies
from penstock_node.coordination import records
from penstock_node.coordination.records import MemberRecord
from penstock_node.coordination.state import ClusterState

EPOCH = 3
CHUNK = Chunk(ObjectId("s3://b/model", "v1", 4096, 65536), "models", 0)
NAMES = tuple("abcdefg")


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def state(*, unsettled: Iterable[str] = (), drained: str = "") -> ClusterState:
    full = tuple(PlacedNode(name, name, "", 100) for name in NAMES)
    placed = tuple(replace(node, weight=0) if node.id == drained else node for node in full)
    history = (PastPlacement(EPOCH - 1, full, 64),) if drained else ()
    values = {"placement": Placement("ab" * 16, EPOCH, placed, 64, history).to_json()}
    for name in NAMES:
        settled = EPOCH - 1 if name in unsettled else EPOCH
        record = MemberRecord(Member(name, name, settled_epoch=settled), "machine", name)
        values[f"members/{name}"] = records.member_to_json(record)
    entries = {key: Entry(value, 1) for key, value in values.items()}
    return ClusterState.from_listing(Listing(entries, 1, store_id=1))


async def asked(cluster: Cluster, told: ClusterState) -> list[str]:
    await cluster.take(told)
    return [member.id for member in cluster.former_owners(CHUNK)]


async def test_once_all_have_handed_over_nobody_is_asked() -> None:
    assert await asked(Cluster(node_id="a", name="test"), state()) == []


async def test_who_is_next_in_line_and_has_not_handed_over_is_asked() -> None:
    cluster = Cluster(node_id="a", name="test")
    await cluster.take(state())
    in_line = [name for name in cluster.owners(CHUNK.id) if name != "a"]
    others = sorted(set(NAMES) - {*in_line, "a"})

    assert others
    assert await asked(cluster, state(unsettled=in_line[1:2])) == in_line[1:2]
    assert await asked(cluster, state(unsettled=others)) == []


async def test_who_was_away_asks_the_next_in_line_for_a_moment_whatever_they_tell() -> None:
    clock = Clock()
    cluster = Cluster(node_id="a", name="test", was_away=True, monotonic=clock)
    clock.now_s += 60.0  # Starting may take long: it counts from when it knows the cluster.

    first = await asked(cluster, state())
    in_line = [name for name in cluster.owners(CHUNK.id) if name != "a"]
    clock.now_s += JUST_BACK_S

    assert first == in_line[:FORMER_OWNERS_MAX]
    assert await asked(cluster, state()) == []


async def test_that_other_objects_have_more_copies_adds_nobody_to_those_asked() -> None:
    told = state(unsettled=NAMES)
    scout = Cluster(node_id="a", name="test")
    await scout.take(told)
    first, *in_line = scout.owners(CHUNK.id)
    cluster = Cluster(node_id=first, name="test")
    await cluster.take(told)

    cluster.copies = Copies(1, {"s3://other/": 3})

    assert [member.id for member in cluster.former_owners(CHUNK)] == in_line


async def holder(node_id: str, told: ClusterState, *, away: str = "") -> str | None:
    cluster = Cluster(node_id=node_id, name="test")
    await cluster.take(told)
    if away:
        cluster.away.suspect(away)
    member = cluster.handed_over_by(CHUNK)
    return member.id if member else None


async def test_whoever_owned_it_before_is_named_until_it_has_handed_over() -> None:
    scout = Cluster(node_id="a", name="test")
    await scout.take(state())
    former, present, stranger, *_ = scout.owners(CHUNK.id)
    told = state(unsettled=NAMES, drained=former)

    assert await holder(present, told) == former
    assert await holder(present, told, away=former) is None
    assert await holder(former, told) is None
    assert await holder(present, state(unsettled=[stranger], drained=former)) is None
    assert await holder(present, state(drained=former)) is None
    assert await holder(present, state(unsettled=NAMES)) is None

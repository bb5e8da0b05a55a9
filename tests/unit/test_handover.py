"""What a node offers to new owners: over a real store, real rings and a real view."""

import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from penstock.checksums import BLOCK_BYTES
from penstock.errors import InvalidRequest
from penstock.membership.view import Member, View
from penstock.objects import CHUNK_ID_BYTES, ObjectId
from penstock.placement import PlacedNode, Placement
from penstock.ring import Ring
from penstock_node.chunk import Chunk
from penstock_node.cluster import Cluster
from penstock_node.cluster_copies import Copies
from penstock_node.handover import giving as module
from penstock_node.handover.giving import DESCRIBED_AT_ONCE, NOTHING, Given, Giving, Left, Offer
from penstock_node.handover.lists import Share, shares_of_others
from penstock_node.incoming import Incoming
from penstock_node.store import Store, Tier
from penstock_node.store.listed import Listed, split_ids

MODEL = ObjectId("s3://b/model", "v1", 64 * BLOCK_BYTES, BLOCK_BYTES)
TAKES_BYTES = 17 * 4096


def nodes(**weights: int) -> tuple[PlacedNode, ...]:
    return tuple(PlacedNode(name, f"host-{name}", "", weight) for name, weight in weights.items())


def owned_by_b() -> Chunk:
    """Return a chunk whose owner is ``b`` of ``a`` and ``b``."""
    ring = Ring.build(nodes(a=100, b=100), 256)
    files = (ObjectId(f"s3://b/{at}", "v1", BLOCK_BYTES, BLOCK_BYTES) for at in range(100))
    chunks = (Chunk(file, "models", 0) for file in files)
    return next(chunk for chunk in chunks if ring.owners(chunk.id, 1) == ["b"])


NEWS = owned_by_b()


@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_each_other_owner_is_offered_all_that_it_owns_in_the_order_given(replicas: int) -> None:
    ring = Ring.build(nodes(a=100, b=100, c=300, d=0), 256)
    rng = random.Random(replicas)
    ids = [rng.randbytes(CHUNK_ID_BYTES) for _ in range(2_000)]
    held = Listed.of((chunk_id, 4096 * (1 + at % 3)) for at, chunk_id in enumerate(ids))

    shares = shares_of_others(held, ring, node_id="a", replicas=replicas)

    assert shares.keys() == {"b", "c"}
    for owner, share in shares.items():
        theirs = [each for each in ids if owner in ring.owners(each, replicas)]
        assert split_ids(bytes(share.ids)) == theirs
        sizes = dict(held)
        assert share.size_bytes == sum(sizes[each] for each in theirs)
        assert share.chunks == len(theirs)


def test_nothing_is_offered_where_nobody_owns_anything() -> None:
    held = Listed.of([(bytes(CHUNK_ID_BYTES), 4096)])

    assert shares_of_others(held, Ring.build((), 256), node_id="a", replicas=1) == {}
    assert shares_of_others(held, Ring.build(nodes(a=1), 256), node_id="a", replicas=3) == {}
    assert (
        shares_of_others(Listed.of(()), Ring.build(nodes(b=1), 256), node_id="a", replicas=1) == {}
    )


def ignore(_others: Sequence[str], _chunk: Chunk) -> None:
    """Make no copies."""


class Rig:
    """Node ``a``, which holds all of the model, in a cluster whose placement changes."""

    def __init__(self, directory: Path) -> None:
        self.cluster = Cluster(node_id="a", name="test")
        self.store = Store([Tier(directory, 2 * MODEL.chunk_count * TAKES_BYTES, "owned")])
        for index in range(MODEL.chunk_count):
            assert self.store.put(MODEL, index, bytes(BLOCK_BYTES), owned=True, reason="read")
        self.threads = ThreadPoolExecutor(1)
        self.incoming = Incoming()
        self.absent: frozenset[str] = frozenset()
        self.giving = Giving(
            cluster=self.cluster,
            store=self.store,
            has_work_before=self.incoming.has_before,
            absent=lambda: self.absent,
            threads=self.threads,
        )
        self.place(1, a=100)

    def place(self, epoch: int, **weights: int) -> None:
        members = {name: Member(name, f"host-{name}") for name in weights}
        self.cluster.routing.update(
            View("test", Placement("0" * 32, epoch, nodes(**weights), 256), members)
        )

    def chunk_ids(self) -> list[bytes]:
        return [MODEL.chunk_id(index) for index in range(MODEL.chunk_count)]

    def owned_by(self, node: str) -> set[bytes]:
        ring = self.cluster.ring
        return {each for each in self.chunk_ids() if ring.owners(each, 1) == [node]}

    def close(self) -> None:
        self.threads.shutdown()
        self.store.close()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.close()


async def test_a_node_that_holds_only_its_own_has_nothing_to_hand_over(rig: Rig) -> None:
    assert await rig.giving.look()


async def test_it_has_handed_over_once_the_new_owner_has_done_with_all(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "OFFERED_AT_ONCE", 5)
    rig.place(2, a=100, b=100)
    assert not await rig.giving.look()

    got: list[bytes] = []
    offer = rig.giving.offer("b", epoch=2, number=0, start=0, left=NOTHING)
    while not offer.is_over:
        assert offer.start == len(got)
        got += split_ids(offer.ids)
        offer = rig.giving.offer("b", epoch=2, number=offer.number, start=len(got), left=Left(3, 9))

    assert len(got) == len(set(got))
    assert set(got) == rig.owned_by("b")
    assert offer.share.size_bytes == len(got) * TAKES_BYTES
    assert await rig.giving.look()
    size_bytes = len(got) * TAKES_BYTES
    assert rig.giving.given() == Given(2, size_bytes, done_bytes=size_bytes, left_bytes=9)


async def test_it_has_not_while_what_was_begun_before_may_still_come_in(rig: Rig) -> None:
    end = rig.incoming.begin(1)
    rig.place(2, a=100, b=100)
    await rig.giving.look()
    first = rig.giving.offer("b", epoch=2, number=0, start=0, left=NOTHING)

    waiting = rig.giving.offer(
        "b", epoch=2, number=first.number, start=first.share.chunks, left=NOTHING
    )
    assert not waiting.is_over
    assert waiting.ids == b""
    assert not await rig.giving.look()

    end()
    assert not await rig.giving.look()
    # The list is made anew, and gone through anew.
    again = rig.giving.offer(
        "b", epoch=2, number=first.number, start=first.share.chunks, left=NOTHING
    )
    assert (again.start, again.ids) == (0, first.ids)
    assert rig.giving.offer(
        "b", epoch=2, number=again.number, start=again.share.chunks, left=NOTHING
    ).is_over
    assert await rig.giving.look()


async def test_who_is_at_another_epoch_is_offered_nothing(rig: Rig) -> None:
    rig.place(2, a=100, b=100)
    await rig.giving.look()

    for epoch in (1, 3):
        offer = rig.giving.offer("b", epoch=epoch, number=0, start=0, left=NOTHING)
        assert (offer.epoch, offer.number, offer.ids, offer.is_over) == (2, 0, b"", False)

    rig.place(3, a=100, b=200)  # And the lists of an epoch end with it.
    assert rig.giving.offer("b", epoch=3, number=0, start=0, left=NOTHING).number == 0


async def test_an_owner_that_is_away_keeps_it_from_having_handed_over(rig: Rig) -> None:
    rig.place(2, a=100, b=100, c=100)
    await rig.giving.look()
    offer = rig.giving.offer("b", epoch=2, number=0, start=0, left=NOTHING)
    assert rig.giving.offer(
        "b", epoch=2, number=offer.number, start=offer.share.chunks, left=NOTHING
    ).is_over

    assert not await rig.giving.look()


async def test_when_more_copies_are_wanted_it_has_not_until_those_are_made(rig: Rig) -> None:
    rig.place(2, a=100, b=100)
    rig.cluster.copies = Copies(1, {"s3://other/": 2})  # Who is asked passes over what it lacks.
    await rig.giving.look()
    before = rig.giving.offer("b", epoch=2, number=0, start=0, left=NOTHING)
    assert set(split_ids(before.ids)) == set(rig.chunk_ids())
    end = before.share.chunks
    assert rig.giving.offer("b", epoch=2, number=before.number, start=end, left=NOTHING).is_over
    assert await rig.giving.look()

    rig.cluster.copies = Copies(1, {"s3://other/": 2, "s3://b/": 2})

    assert not await rig.giving.look()
    again = rig.giving.offer("b", epoch=2, number=before.number, start=end, left=NOTHING)
    assert (again.start, again.ids) == (0, before.ids)


async def test_what_came_while_an_owner_was_away_is_offered_when_it_is_back(rig: Rig) -> None:
    rig.incoming.subscribe(came=ignore, missed=rig.giving.missed)
    rig.place(2, a=100, b=100)
    await rig.giving.look()
    offer = rig.giving.offer("b", epoch=2, number=0, start=0, left=NOTHING)
    listed = split_ids(offer.ids)

    def goes_on(start: int, *, number: int = offer.number) -> Offer:
        return rig.giving.offer("b", epoch=2, number=number, start=start, left=NOTHING)

    assert goes_on(len(listed)).is_over
    assert await rig.giving.look()
    news = NEWS.id

    rig.incoming.missed(["b"], NEWS)

    assert not await rig.giving.look()
    more = goes_on(len(listed))
    assert (more.ids, more.is_over) == (news, False)
    assert split_ids(goes_on(0, number=0).ids) == [*listed, news]
    assert goes_on(len(listed) + 1).is_over
    assert await rig.giving.look()


async def test_who_owns_a_chunk_no_more_when_it_comes_has_missed_nothing(rig: Rig) -> None:
    rig.incoming.subscribe(came=ignore, missed=rig.giving.missed)
    rig.place(2, a=100, b=0)
    assert await rig.giving.look()

    rig.incoming.missed(["b", "gone"], NEWS)

    assert await rig.giving.look(), "b has no weight, and asks for nothing"


async def test_what_comes_while_lists_are_made_is_on_them(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.incoming.subscribe(came=ignore, missed=rig.giving.missed)
    rig.place(2, a=100, b=100)
    news = NEWS.id
    make = shares_of_others

    def make_late(*args: Any, **kwargs: Any) -> dict[str, Share]:
        made = make(*args, **kwargs)
        rig.incoming.missed(["b"], NEWS)
        return made

    monkeypatch.setattr(module, "shares_of_others", make_late)
    await rig.giving.look()

    assert rig.giving.offer("b", epoch=2, number=0, start=0, left=NOTHING).ids.endswith(news)


async def test_in_the_stead_of_one_that_is_away_for_long_others_are_offered_copies(
    rig: Rig,
) -> None:
    rig.place(2, a=100, b=100, c=100)
    await rig.giving.look()
    before = rig.giving.offer("c", epoch=2, number=0, start=0, left=NOTHING)
    theirs = {each for each in rig.chunk_ids() if rig.cluster.ring.owners(each, 1) == ["b"]}

    rig.absent = frozenset("b")
    await rig.giving.look()

    offers = {
        node: rig.giving.offer(node, epoch=2, number=0, start=0, left=NOTHING) for node in "bc"
    }
    # What is c's own, and of b's what c comes next for; b finds all of its own when it is back.
    instead = {each for each in theirs if rig.cluster.ring.owners(each, 3)[1:] != ["a", "c"]}
    assert set(split_ids(offers["c"].ids)) == set(split_ids(before.ids)) | instead
    assert set(split_ids(offers["b"].ids)) == theirs
    for node in "c":
        end = offers[node].share.chunks
        assert rig.giving.offer(
            node, epoch=2, number=offers[node].number, start=end, left=NOTHING
        ).is_over
    assert await rig.giving.look(), "nobody waits for one that is away"


async def test_chunks_are_described_by_their_own_files(rig: Rig) -> None:
    gone, there = MODEL.chunk_id(3), MODEL.chunk_id(7)
    rig.store.evict(ObjectId("s3://b/other", "v1", BLOCK_BYTES, BLOCK_BYTES))

    (described,) = await rig.giving.describe(there + bytes(CHUNK_ID_BYTES))

    assert (described.object, described.index) == (MODEL, 7)
    assert described.readings > 0
    rig.store.evict(MODEL)
    assert await rig.giving.describe(gone + there) == []


@pytest.mark.parametrize("joined", [b"short", bytes(CHUNK_ID_BYTES * (DESCRIBED_AT_ONCE + 1))])
async def test_what_are_no_ids_or_too_many_is_refused(rig: Rig, joined: bytes) -> None:
    with pytest.raises(InvalidRequest, match="want up to"):
        await rig.giving.describe(joined)


def test_work_is_in_hand_from_its_beginning_to_its_end() -> None:
    incoming = Incoming()
    ends = [incoming.begin(epoch) for epoch in (3, 3, 5)]
    assert [incoming.has_before(epoch) for epoch in (3, 4, 6)] == [False, True, True]

    ends[0]()
    assert incoming.has_before(5)
    ends[1]()
    assert not incoming.has_before(5)
    assert incoming.has_before(6)

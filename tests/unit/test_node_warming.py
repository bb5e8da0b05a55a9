"""What a node does about chunks that are to be warm, or are pinned.

All is real, but for the origin, which answers by hand.
"""

import asyncio
import gc
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest

from penstock.checksums import BLOCK_BYTES
from penstock.errors import (
    InvalidRequest,
    NotCached,
    NotOwner,
    ObjectChanged,
    OriginUnavailable,
    Overloaded,
    PenstockError,
)
from penstock.membership.view import Member, View
from penstock.objects import ObjectId
from penstock.placement import PlacedNode, Placement
from penstock_node import flights
from penstock_node import warming as module
from penstock_node.chunk import Chunk
from penstock_node.chunks import Chunks
from penstock_node.cluster import Cluster
from penstock_node.coordination import Coordination
from penstock_node.coordination.pin_records import Pin, PinnedObject
from penstock_node.demand import Demand
from penstock_node.fill import Filler
from penstock_node.host_reads import HostReads
from penstock_node.incoming import Incoming
from penstock_node.inflight import Inflight
from penstock_node.keeping import Keeping
from penstock_node.metrics import NodeMetrics
from penstock_node.origin import Origins
from penstock_node.pace import Pace
from penstock_node.peers import Peers
from penstock_node.pinned import FILLS_AT_ONCE, Pinned
from penstock_node.store import Store, Tier
from penstock_node.testbed.processes import wait_until
from penstock_node.traces import Traces
from penstock_node.warming import Warmed, Warming, WarmWanted

FILE = ObjectId("s3://b/model", "v1", 8 * BLOCK_BYTES, BLOCK_BYTES)
FIRST, SECOND, THIRD = (Chunk(FILE, "models", index) for index in range(3))
DATA = bytes(BLOCK_BYTES)
DEADLINE_S = 30.0
EPOCH = 7


class HandAnswered(Origins):
    """An origin whose reads wait until the test answers them."""

    def __init__(self) -> None:
        self._reads: defaultdict[int, asyncio.Future[bytes]] = defaultdict(asyncio.Future)
        self.begun = 0

    def get(self, volume: Any) -> Any:
        return self

    async def read(self, _path: str, _version: str, _size: int, start: int, _stop: int) -> bytes:
        self.begun += 1
        return await self._reads[start]

    def answer(self, chunk: Chunk, error: PenstockError | None = None) -> None:
        if self._reads[chunk.start].done():  # To a read of before.
            del self._reads[chunk.start]
        answer = self._reads[chunk.start]
        if error is None:
            answer.set_result(DATA)
        else:
            answer.set_exception(error)
            answer.exception()  # Not every chunk is asked for.


class Versions(Origins):
    """An origin that has one version of an object no more."""

    def __init__(self, others: HandAnswered, *, gone: str) -> None:
        self._others = others
        self._gone = gone

    def get(self, volume: Any) -> Any:
        return self

    async def read(self, path: str, version: str, size: int, start: int, stop: int) -> bytes:
        if version == self._gone:
            self._others.begun += 1
            raise ObjectChanged("another version")
        return await self._others.read(path, version, size, start, stop)


class Rig:
    """Node ``a``, the only owner unless another is."""

    def __init__(self, directory: Path, *, capacity_bytes: int = 1 << 20, owner: str = "a") -> None:
        self.cluster = Cluster(node_id="a", name="test")
        placed = (PlacedNode(owner, owner, "", 100),)
        members = {name: Member(name, name, settled_epoch=EPOCH) for name in ("a", owner)}
        placement = Placement("ab" * 16, EPOCH, placed, 256)
        self.cluster.routing.update(View("test", placement, members))
        self.cluster.location_of = lambda *_: cast(  # type: ignore[method-assign]
            "Any", type("Place", (), {"volume": None, "path": "model"})
        )
        self.store = Store([Tier(directory, capacity_bytes, "owned")])
        self.threads = ThreadPoolExecutor(2)
        self.origin = HandAnswered()
        inflight = self.inflight = Inflight()
        self.filler = Filler(
            cluster=self.cluster,
            keeping=Keeping(store=self.store, threads=self.threads),
            peers=cast("Peers", None),
            origins=self.origin,
            inflight=inflight,
            incoming=Incoming(),
            metrics=NodeMetrics(version="test", inflight=inflight),
            traces=Traces("test"),
            demand=Demand(capacity_bytes=lambda: 1 << 20),
            on_changed=self._note,
        )
        chunks = Chunks(
            cluster=self.cluster,
            coordination=cast("Coordination", None),  # Nobody is ahead of this node.
            store=self.store,
            filler=self.filler,
            peers=cast("Peers", None),
            traces=Traces("test"),
            threads=self.threads,
        )
        self.warming = Warming(
            node_id="a",
            chunks=chunks,
            host_reads=cast("HostReads", None),  # No tier is for readers of this machine.
            store=self.store,
            threads=self.threads,
        )

        self.pinned = Pinned(
            cluster=self.cluster,
            chunks=chunks,
            store=self.store,
            threads=self.threads,
            pace=Pace(lambda: 1e12),
        )

    def is_empty(self) -> bool:
        gc.collect()
        return self.inflight.used_bytes == 0

    def pin(self, *objects: ObjectId) -> None:
        """Pin objects, each by itself, under the version of it."""
        pins = [Pin(of.version, (PinnedObject("models", of),), of.size, 0.0) for of in objects]
        self.cluster.pins = {pin.url: pin for pin in pins}

    def kept(self) -> dict[str, tuple[int, int]]:
        """Of each pin, how many chunks this node keeps and how many of them it holds."""
        return {
            pin_id: (kept.kept_bytes // BLOCK_BYTES, kept.held_bytes // BLOCK_BYTES)
            for pin_id, kept in self.pinned.kept().items()
        }

    async def _note(self, _chunk: Chunk) -> None: ...

    async def warm(self, *chunks: Chunk, **options: Any) -> list[Warmed]:
        return await self.warming.warm(WarmWanted(chunks, EPOCH, **options))

    async def warm_through(self, chunk: Chunk, error: PenstockError | None = None) -> Warmed:
        """Warm one chunk while its origin answers."""
        self.origin.answer(chunk, error)
        (warmed,) = await self.warm(chunk)
        return warmed

    def readings(self) -> float:
        """How often the object was read of late, as its eviction goes by."""
        described = self.store.owned.describe(FIRST.id)
        assert described is not None, "it is not here"
        return described.readings

    async def close(self) -> None:
        await self.filler.close()
        self.threads.shutdown()
        self.store.close()


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Callable[..., Rig]]:
    made: list[Rig] = []

    def rig(**options: Any) -> Rig:
        made.append(Rig(**{"directory": tmp_path / str(len(made)), **options}))
        return made[-1]

    yield rig
    for each in made:
        await each.close()


async def test_what_is_missing_is_brought_in_and_told_once_a_tier_has_it(
    make: Callable[..., Rig],
) -> None:
    rig = make()

    assert await rig.warm_through(FIRST) == Warmed("filled")
    assert rig.store.holds(FILE, FIRST.index)


async def test_what_is_here_is_told_at_once_while_the_rest_comes_in(
    make: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ANSWER_S", 300.0)
    rig = make()
    await rig.warm_through(FIRST)

    assert await rig.warm(FIRST, SECOND) == [Warmed("held"), Warmed("filling")]


async def test_an_answer_without_news_comes_in_time(
    make: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ANSWER_S", 0.01)

    assert await make().warm(FIRST, SECOND) == [Warmed("filling")] * 2


async def test_two_that_warm_the_same_share_one_fill(make: Callable[..., Rig]) -> None:
    rig = make()
    both = [asyncio.create_task(rig.warm(FIRST)) for _ in range(2)]
    rig.origin.answer(FIRST)

    assert [await each for each in both] == [[Warmed("filled")]] * 2
    assert rig.origin.begun == 1


@pytest.mark.parametrize("error", [ObjectChanged("another"), OriginUnavailable("down")])
async def test_why_a_fill_failed_is_told(make: Callable[..., Rig], error: PenstockError) -> None:
    warmed = await make().warm_through(FIRST, error)

    assert (warmed.state, warmed.error) == ("failed", error)


async def test_what_no_tier_could_keep_is_not_warm(
    make: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flights, "LINGER_S", 0.0)
    rig = make(capacity_bytes=BLOCK_BYTES // 2)

    warmed = await rig.warm_through(FIRST)

    assert warmed.state == "failed"
    assert isinstance(warmed.error, NotCached)
    await asyncio.to_thread(  # A thread lets go of what it did in its own time.
        wait_until, rig.is_empty, deadline_s=DEADLINE_S, what="nobody holds on to the bytes"
    )


async def test_others_chunks_are_not_brought_in(make: Callable[..., Rig]) -> None:
    rig = make(owner="b")

    (warmed,) = await rig.warm(FIRST)

    assert isinstance(warmed.error, NotOwner)
    assert warmed.error.epoch == EPOCH
    assert rig.origin.begun == 0


async def test_no_more_are_begun_at_once_than_leave_room_for_readers(
    make: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FILLS_MAX", 2)
    rig = make()

    warmed = await rig.warm(FIRST, SECOND, THIRD)

    assert [each.state for each in warmed] == ["filling", "filling", "failed"]
    assert isinstance(warmed[2].error, Overloaded)
    rig.origin.answer(FIRST)
    assert await rig.warm(FIRST) == [Warmed("filled")]
    assert (await rig.warm_through(THIRD)).state == "filled"


async def test_a_node_that_scans_its_disks_brings_nothing_in_that_it_could_not_keep(
    make: Callable[..., Rig], tmp_path: Path
) -> None:
    before = make(directory=tmp_path / "same")
    await before.warm_through(FIRST)
    before.store.close()
    rig = make(directory=tmp_path / "same")

    told = await rig.warm(FIRST, SECOND)
    rig.store.start_scan()
    assert rig.store.wait_scanned(DEADLINE_S)

    assert [each.state for each in told] == ["held", "failed"]
    assert isinstance(told[1].error, Overloaded)
    assert rig.origin.begun == 0
    assert (await rig.warm_through(SECOND)).state == "filled"


async def test_a_dry_run_begins_nothing(make: Callable[..., Rig]) -> None:
    rig = make()
    await rig.warm_through(FIRST)

    assert await rig.warm(FIRST, SECOND, dry_run=True) == [Warmed("held"), Warmed("absent")]
    assert rig.origin.begun == 1


async def test_a_node_without_tiers_for_its_machine_refuses_to_warm_them(
    make: Callable[..., Rig],
) -> None:
    with pytest.raises(InvalidRequest, match="a has no memory tier and no local tier"):
        await make().warm(FIRST, for_host=True)


async def test_what_was_warmed_counts_as_read_twice_and_what_was_here_too(
    make: Callable[..., Rig],
) -> None:
    filled, held = make(), make()
    await filled.warm_through(FIRST)
    held.store.put(FILE, 0, DATA, owned=True, reason="read")
    once_read = held.readings()
    assert filled.readings() == pytest.approx(2 * once_read)

    await held.warm(FIRST)

    assert held.readings() == pytest.approx(2.0)


def small(version: str, chunks: int = 4) -> ObjectId:
    return ObjectId("s3://b/model", version, chunks * BLOCK_BYTES, BLOCK_BYTES)


def chunks_of(of: ObjectId) -> list[Chunk]:
    return [Chunk(of, "models", index) for index in range(of.chunk_count)]


async def test_what_is_pinned_is_brought_in_and_again_when_it_is_lost(
    make: Callable[..., Rig],
) -> None:
    rig, of = make(), small("v1")
    rig.pin(of)
    for chunk in chunks_of(of):
        rig.origin.answer(chunk)

    await rig.pinned.look()
    assert (rig.kept(), rig.origin.begun) == ({"v1": (4, 4)}, 4)
    await rig.pinned.look()
    assert rig.origin.begun == 4

    rig.store.evict(of)
    await rig.pinned.look()
    assert (rig.kept(), rig.origin.begun) == ({"v1": (4, 4)}, 8)


async def test_what_is_pinned_and_others_is_left_to_them(make: Callable[..., Rig]) -> None:
    rig = make(owner="b")
    rig.pin(small("v1"))

    await rig.pinned.look()

    assert (rig.kept(), rig.origin.begun) == ({}, 0)


async def test_what_was_overwritten_is_given_up_and_the_rest_is_not(
    make: Callable[..., Rig],
) -> None:
    rig, gone, there = make(), small("v1", chunks=9), small("v2")
    rig.pin(gone, there)
    for chunk in chunks_of(there):
        rig.origin.answer(chunk)
    rig.filler._origins = Versions(rig.origin, gone="v1")

    await rig.pinned.look()
    begun = rig.origin.begun
    await rig.pinned.look()

    assert rig.kept() == {"v1": (9, 0), "v2": (4, 4)}
    assert begun <= 4 + FILLS_AT_ONCE
    assert rig.origin.begun == begun, "it is not asked for again"


async def test_an_origin_that_fails_is_left_alone_until_the_next_look(
    make: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flights, "LINGER_S", 0.0)
    rig, of = make(), small("v1", chunks=12)
    rig.pin(of)
    for chunk in chunks_of(of):
        rig.origin.answer(chunk, OriginUnavailable("down"))

    await rig.pinned.look()
    assert rig.origin.begun <= 2 * FILLS_AT_ONCE
    for chunk in chunks_of(of):
        rig.origin.answer(chunk)
    await rig.pinned.look()

    assert rig.kept() == {"v1": (12, 12)}


async def test_what_is_pinned_takes_the_place_of_nothing_that_is_pinned_too(
    make: Callable[..., Rig],
) -> None:
    rig = make(capacity_bytes=5 * (BLOCK_BYTES + 4096))
    one, two = small("v1"), small("v2")
    rig.pin(one, two)
    for chunk in chunks_of(one):
        rig.origin.answer(chunk)

    await rig.pinned.look()
    begun = rig.origin.begun
    for _ in range(3):
        await rig.pinned.look()

    assert sum(held for _, held in rig.kept().values()) == 5
    assert 5 <= begun < 5 + FILLS_AT_ONCE, "those at once may see the same room"
    assert rig.origin.begun == begun, "nothing goes round in a circle"

"""Where a missing chunk is brought from, and who brings it: nodes and origin answer by hand.

Everything between them is real: the cluster's view, the ring, the fills, a store.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from penstock import tracing
from penstock.checksums import BLOCK_BYTES
from penstock.errors import (
    NodeUnavailable,
    NotCached,
    NotOwner,
    OriginUnavailable,
    Overloaded,
    PenstockError,
)
from penstock.membership.view import Member, View
from penstock.objects import ObjectId
from penstock.placement import PastPlacement, PlacedNode, Placement
from penstock.ring import Ring
from penstock.tracing import Trace
from penstock_node.chunk import Chunk
from penstock_node.chunks import ChunkRequest, Chunks
from penstock_node.cluster import Cluster
from penstock_node.coordination import Coordination
from penstock_node.demand import Demand
from penstock_node.fill import LAPSED_PROBES, LOOKS_MAX, Filler
from penstock_node.flights import Flight
from penstock_node.incoming import Incoming
from penstock_node.inflight import Inflight
from penstock_node.keeping import Keeping
from penstock_node.metrics import NodeMetrics
from penstock_node.origin import Origins
from penstock_node.ownership import Duty
from penstock_node.peers import PROBES, Peers
from penstock_node.store import Store, Tier
from penstock_node.traces import Traces

FILE = ObjectId("s3://b/model", "v1", 64 * BLOCK_BYTES, BLOCK_BYTES)
CHUNK = Chunk(FILE, "models", 0)
DATA = bytes(BLOCK_BYTES)
NAMES = ("a", "b", "c")
B = Member("b", "b")


class FromTheOrigin(Exception):
    """The origin would have been read."""


class HandAnswered(Peers):
    """The other nodes: what they answer, one question after another."""

    def __init__(self) -> None:
        self.answering: list[PenstockError | None] = [NotCached("not here")]
        """Errors, and None for the chunk; the last of them from then on."""
        self.is_there = True
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.asked: list[bool] = []
        """Whether each question was for what it has alone."""
        self.probes: list[tuple[str, int]] = []

    async def fetch(
        self, member: Member, chunk: Chunk, *, only_if_cached: bool, timeout_s: float
    ) -> memoryview:
        self.asked.append(only_if_cached)
        await self.may_answer.wait()
        answer = self.answering.pop(0) if len(self.answering) > 1 else self.answering[0]
        if answer is not None:
            raise answer
        return memoryview(DATA)

    async def answers(self, member: Member, *, probes: int = PROBES) -> bool:
        self.probes.append((member.id, probes))
        return self.is_there


class NoOrigins(Origins):
    """Says that it was asked."""

    def get(self, volume: Any) -> Any:
        raise FromTheOrigin


class Rig:
    """Node ``a``, among three."""

    def __init__(self, directory: Path) -> None:
        self.cluster = Cluster(node_id="a", name="test")
        placed = tuple(PlacedNode(name, name, "", 100) for name in NAMES)
        members = {name: Member(name, name, settled_epoch=1) for name in NAMES}
        self.cluster.routing.update(View("test", Placement("ab" * 16, 1, placed, 256), members))
        self.cluster.location_of = lambda *_: cast("Any", type("Place", (), {"volume": None}))  # type: ignore[method-assign]
        self.store = Store([Tier(directory, 1 << 20, "owned")])
        self.threads = ThreadPoolExecutor(2)
        self.peers = HandAnswered()
        self.inflight = Inflight()
        self.incoming = Incoming()
        self.filler = Filler(
            cluster=self.cluster,
            keeping=Keeping(store=self.store, threads=self.threads),
            peers=self.peers,
            origins=NoOrigins(),
            inflight=self.inflight,
            incoming=self.incoming,
            metrics=NodeMetrics(version="test", inflight=self.inflight),
            traces=Traces("test"),
            demand=Demand(capacity_bytes=lambda: 1 << 20),
            on_changed=cast("Callable[[Chunk], Any]", None),
        )
        self.chunks = Chunks(
            cluster=self.cluster,
            coordination=cast("Coordination", None),  # Nobody is ahead of this node.
            store=self.store,
            filler=self.filler,
            peers=self.peers,
            traces=Traces("test"),
            threads=self.threads,
        )
        self.next_in_line = next(
            chunk
            for chunk in (Chunk(FILE, "models", index) for index in range(FILE.chunk_count))
            if self.cluster.ring.owners(chunk.id, 2) == ["b", "a"]
        )
        """Owned by ``b``; this node comes next."""

    async def ask(self, *suspects: str) -> None:
        """Ask for `next_in_line` as a reader does that could not reach some nodes."""
        request = ChunkRequest("", self.next_in_line.index, 0, None, suspects=suspects)
        await self.chunks.fill(self.next_in_line, request)

    async def bring(self, *answers: PenstockError | None, duty: Duty | None = None) -> str:
        """Bring the chunk in while ``b`` answers so; return where it came from."""
        self.peers.answering = list(answers)
        flight = self.filler.start(CHUNK, duty or Duty(None, others=("b",)))
        filled = await flight.wait(30)
        assert filled is not None, "nothing came"
        return filled.source


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    made = Rig(tmp_path)
    yield made
    await made.filler.close()
    made.threads.shutdown()
    made.store.close()


SILENT = NodeUnavailable("silent")
BUSY = Overloaded("busy", retry_after_s=0.0)


async def test_who_keeps_a_copy_too_is_asked_for_what_it_has_before_the_origin(rig: Rig) -> None:
    assert await rig.bring(None) == "peer"
    assert rig.peers.asked == [True]


@pytest.mark.parametrize("trouble", [SILENT, BUSY])
async def test_one_that_is_there_and_busy_or_starved_is_asked_again(
    rig: Rig, trouble: PenstockError
) -> None:
    assert await rig.bring(*[trouble] * (LOOKS_MAX - 1), None) == "peer"
    assert len(rig.peers.asked) == LOOKS_MAX


async def test_whoever_keeps_what_came_tells_the_other_owners(rig: Rig) -> None:
    """The first too: it may scan its disks still, and have kept nothing of what it read."""
    told: asyncio.Queue[tuple[Sequence[str], Chunk]] = asyncio.Queue()
    rig.incoming.subscribe(came=lambda *each: told.put_nowait(each), missed=lambda *_: None)

    assert await rig.bring(None, duty=Duty(B, others=("b", "c"))) == "peer"

    assert await asyncio.wait_for(told.get(), 30) == (("b", "c"), CHUNK)


async def test_one_that_has_not_got_it_is_asked_once(rig: Rig) -> None:
    with pytest.raises(FromTheOrigin):
        await rig.bring(NotCached("not here"))
    assert len(rig.peers.asked) == 1


@pytest.mark.parametrize("duty", [Duty(None, others=("b",)), Duty(B), Duty(B, is_guest=True)])
async def test_a_fill_that_fails_gives_its_memory_back_though_its_error_is_kept(
    rig: Rig, duty: Duty
) -> None:
    rig.peers.is_there = False

    with pytest.raises((FromTheOrigin, NodeUnavailable)) as kept:
        await rig.bring(SILENT, duty=duty)

    assert kept.value.__traceback__ is not None
    assert rig.inflight.used_bytes == 0


async def test_a_fill_in_anothers_stead_gives_its_memory_back_though_the_first_error_is_kept(
    rig: Rig,
) -> None:
    rig.peers.is_there = False
    error = NodeUnavailable("gone")

    assert await rig.bring(error, None, duty=Duty(B, others=("c",))) == "peer"
    await rig.filler.close()

    assert error.__traceback__ is not None
    assert rig.inflight.used_bytes == 0


async def test_one_that_is_away_is_asked_once_and_found_away(rig: Rig) -> None:
    rig.peers.is_there = False

    with pytest.raises(FromTheOrigin):
        await rig.bring(SILENT)

    assert len(rig.peers.asked) == 1
    assert rig.cluster.away.is_suspected("b")
    assert not rig.cluster.routing.is_suspected("b")


async def test_the_first_owner_is_waited_for_and_who_fills_from_it_acts_only_if_it_is_away(
    rig: Rig,
) -> None:
    second = Duty(B, others=("b",))
    with pytest.raises(Overloaded):
        await rig.bring(SILENT, duty=second)
    assert rig.peers.asked == [False]


async def test_who_finds_the_first_owner_away_acts_in_its_stead(rig: Rig) -> None:
    rig.peers.is_there = False

    with pytest.raises(FromTheOrigin):
        await rig.bring(SILENT, duty=Duty(B))

    assert rig.cluster.away.is_suspected("b")


async def test_a_guest_comes_from_who_told_of_it_or_not_at_all(rig: Rig) -> None:
    rig.peers.is_there = False
    with pytest.raises(NodeUnavailable):
        await rig.bring(SILENT, duty=Duty(B, is_guest=True))
    assert rig.peers.asked == [True]


async def test_a_flight_that_may_wait_for_a_node_is_no_answer_to_a_node(rig: Rig) -> None:
    asking = asyncio.Event()
    go_on = asyncio.Event()

    async def fetch(*_: object, **__: object) -> memoryview:
        asking.set()
        await go_on.wait()
        return memoryview(DATA)

    rig.peers.fetch = fetch  # type: ignore[method-assign]
    flight: Flight[Any] = rig.filler.start(CHUNK, Duty(None, others=("b",)))
    await asking.wait()
    assert rig.filler.running(CHUNK) is flight
    assert rig.filler.running(CHUNK, without_peers=True) is None

    go_on.set()
    assert await flight.wait(30) is not None


# In another's stead ----------------------------------------------------------------------------


async def test_it_acts_for_a_node_that_a_reader_names_and_that_it_finds_away(rig: Rig) -> None:
    rig.peers.is_there = False

    with pytest.raises(FromTheOrigin):
        await rig.ask("b")

    assert rig.peers.probes == [("b", PROBES)]


async def test_it_does_not_where_it_finds_the_node_well(rig: Rig) -> None:
    with pytest.raises(NotOwner):
        await rig.ask("b")


async def test_what_its_own_readers_suspect_is_not_enough(rig: Rig) -> None:
    """They were not answered for a moment; the origin would be read for that."""
    rig.cluster.routing.suspect("b")

    assert not rig.chunks.is_kept(rig.next_in_line)
    with pytest.raises(NotOwner):
        await rig.ask("b")
    assert rig.peers.probes == [("b", PROBES)]


async def test_once_it_is_found_away_nobody_waits_for_another_probe(rig: Rig) -> None:
    rig.cluster.away.suspect("b")

    with pytest.raises(FromTheOrigin):
        await rig.ask("b")

    assert rig.peers.probes == []


async def test_a_node_that_was_started_anew_is_not_away_any_more(rig: Rig) -> None:
    rig.cluster.away.suspect("b")
    view = rig.cluster.view
    members = {**view.members, "b": replace(view.members["b"], incarnation="2")}

    rig.cluster._update(replace(view, members=members))

    assert not rig.chunks.is_kept(rig.next_in_line)


# When a lease has ended ------------------------------------------------------------------------


def end_lease_of_b(rig: Rig) -> None:
    view = rig.cluster.view
    members = {name: member for name, member in view.members.items() if name != "b"}
    rig.cluster._update(replace(view, members=members))


async def test_who_acts_for_a_node_that_lost_its_lease_fills_from_it_while_it_answers(
    rig: Rig,
) -> None:
    end_lease_of_b(rig)
    rig.peers.answering = [None]

    await rig.ask()

    assert rig.peers.asked == [False]


@pytest.mark.parametrize("trouble", [NotOwner("behind", epoch=1), OriginUnavailable("cut off")])
async def test_one_that_is_cut_off_from_more_is_not_waited_for(
    rig: Rig, trouble: PenstockError
) -> None:
    end_lease_of_b(rig)
    rig.peers.answering = [trouble]

    with pytest.raises(FromTheOrigin):
        await rig.ask()


@pytest.mark.parametrize("trouble", [NotOwner("behind", epoch=1), OriginUnavailable("cut off")])
async def test_a_guest_reads_no_origin_when_who_told_of_it_has_lost_its_lease(
    rig: Rig, trouble: PenstockError
) -> None:
    end_lease_of_b(rig)

    with pytest.raises(type(trouble)):
        await rig.bring(trouble, duty=Duty(B, is_guest=True))


def test_who_has_lost_its_lease_and_then_its_place_is_forgotten(rig: Rig) -> None:
    end_lease_of_b(rig)
    assert rig.cluster.lapsed.keys() == {"b"}

    view = rig.cluster.view
    nodes = tuple(node for node in view.placement.nodes if node.id != "b")
    rig.cluster._update(replace(view, placement=replace(view.placement, epoch=2, nodes=nodes)))

    assert rig.cluster.lapsed == {}


async def test_once_it_is_found_silent_nobody_asks_it_until_it_registers_again(rig: Rig) -> None:
    end_lease_of_b(rig)
    rig.peers.is_there = False
    rig.peers.answering = [SILENT]
    with pytest.raises(FromTheOrigin):
        await rig.ask()
    assert rig.peers.probes == [("b", LAPSED_PROBES)]

    rig.cluster.away.trust(["b"])  # Its time as a suspect is over.
    rig.filler._flights.forget_landed()
    with pytest.raises(FromTheOrigin):
        await rig.ask()

    assert rig.peers.asked == [False]


async def test_one_that_was_found_away_before_its_lease_ended_is_not_asked(rig: Rig) -> None:
    rig.cluster.finds_away("b")
    end_lease_of_b(rig)
    rig.cluster.away.trust(["b"])

    with pytest.raises(FromTheOrigin):
        await rig.ask()

    assert rig.peers.asked == []


# Chunks that another node has to hand over --------------------------------------------------


def without_c(rig: Rig) -> View:
    """Return the view of which ``c`` hands over what it had."""
    full = rig.cluster.view.placement
    placed = tuple(replace(node, weight=0) if node.id == "c" else node for node in full.nodes)
    past = PastPlacement(1, full.nodes, full.points_per_100)
    placement = Placement(full.cluster_uid, 2, placed, full.points_per_100, (past,))
    return replace(rig.cluster.view, placement=placement)


def moved_from_c(rig: Rig, *, is_heard: bool = True) -> tuple[Chunk, ChunkRequest]:
    """Have ``c`` hand over what it had; return a chunk of those that come to this node."""
    before, view = rig.cluster.ring, without_c(rig)
    after = Ring.build(view.placement.nodes, view.placement.points_per_100)
    if is_heard:
        rig.cluster._update(view)
    chunk = next(
        chunk
        for chunk in (Chunk(FILE, "models", index) for index in range(FILE.chunk_count))
        if before.owners(chunk.id, 1) == ["c"] and after.owners(chunk.id, 1) == ["a"]
    )
    return chunk, ChunkRequest("", chunk.index, 0, None, epoch=2, goes_to_holder=True)


async def test_a_reader_is_sent_to_who_has_to_hand_the_chunk_over(rig: Rig) -> None:
    chunk, request = moved_from_c(rig)

    with pytest.raises(Overloaded) as sent_on:
        rig.chunks.check_handed_over(chunk, request)

    assert (sent_on.value.held_by, sent_on.value.retry_after_s) == ("c", 0.0)
    assert sent_on.value.is_sent_on


class HeardJustNow:
    """Brings the news of which a reader speaks."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig

    async def catch_up(self, _epoch: int, *, timeout_s: float) -> Placement:
        assert timeout_s > 0
        self._rig.cluster._update(without_c(self._rig))
        return self._rig.cluster.view.placement


async def test_a_reader_that_knows_of_the_change_first_is_sent_on_too(rig: Rig) -> None:
    chunk, request = moved_from_c(rig, is_heard=False)
    rig.chunks._coordination = cast("Coordination", HeardJustNow(rig))

    with pytest.raises(Overloaded) as sent_on:
        await rig.chunks.fill(chunk, request)

    assert sent_on.value.held_by == "c"
    assert rig.peers.asked == []


@pytest.mark.parametrize(
    "change", [{"goes_to_holder": False}, {"only_if_cached": True}, {"epoch": 3}]
)
async def test_whoever_does_not_ask_for_it_is_not_sent_on(rig: Rig, change: dict[str, Any]) -> None:
    chunk, request = moved_from_c(rig)

    rig.chunks.check_handed_over(chunk, replace(request, **change))


async def test_nobody_is_sent_on_from_a_fill_that_is_under_way(rig: Rig) -> None:
    chunk, request = moved_from_c(rig)
    rig.peers.answering = [None]

    flight = rig.filler.start(chunk, Duty(None, others=("c",)))

    rig.chunks.check_handed_over(chunk, request)
    assert await flight.wait(30)


async def test_nobody_is_sent_on_by_one_that_does_not_keep_the_chunk(rig: Rig) -> None:
    _, request = moved_from_c(rig)
    others = next(
        chunk
        for chunk in (Chunk(FILE, "models", index) for index in range(FILE.chunk_count))
        if rig.cluster.ring.owners(chunk.id, 1) == ["b"]
    )

    rig.chunks.check_handed_over(others, request)


async def test_who_joins_a_fill_under_way_has_its_spans_in_its_own_trace(rig: Rig) -> None:
    rig.peers.answering = [None]
    rig.peers.may_answer.clear()
    flight = rig.filler.start(CHUNK, Duty(None, others=("b",)))
    mine = Trace(node="a")
    with tracing.at(tracing.within(mine)), tracing.span("serve"):
        joining = asyncio.create_task(rig.chunks.land(CHUNK, flight))
    await asyncio.sleep(0)

    rig.peers.may_answer.set()
    landed = await joining

    assert landed is not None
    landed.close()
    (fill,) = (span for span in mine.spans if span.name == "fill")
    (wait,) = (span for span in mine.spans if span.name == "wait for the fill")
    assert (fill.parent, wait.notes["waits_for"]) == (wait.id, fill.id)
    assert fill.notes["reason"] == "read"

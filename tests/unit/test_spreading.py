"""What a node does about a chunk that many want at once, and about one it keeps for another."""

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from penstock.checksums import BLOCK_BYTES
from penstock.errors import Overloaded
from penstock.membership.view import Member, View
from penstock.objects import ObjectId
from penstock.placement import PlacedNode, Placement
from penstock_node.chunk import Chunk, Filled
from penstock_node.cluster import Cluster
from penstock_node.cluster_copies import Copies
from penstock_node.flights import Flight
from penstock_node.guests import GUESTS_MAX, KEPT_S, Guests
from penstock_node.handover.spreading import AGAIN_S, Spreading
from penstock_node.heat import COPY_BYTES_PER_S, FORGET_S, GROWTH, WINDOW_S
from penstock_node.ownership import Duty
from penstock_node.store import Store, Tier
from penstock_node.testbed.hand_clock import HandClock

CHUNK_BYTES = 4 * 1024 * 1024
NAMES = ("a", "b", "c", "d", "e")
MODEL = ObjectId("s3://b/model", "v1", 8 * CHUNK_BYTES, CHUNK_BYTES)
SMALL = ObjectId("s3://b/small", "v1", 8 * BLOCK_BYTES, BLOCK_BYTES)
HOT, OTHER = Chunk(MODEL, "models", 0), Chunk(MODEL, "models", 1)


class Rig:
    """Node ``a`` among five."""

    def __init__(self, replicas: int = 1) -> None:
        self.clock = HandClock()
        self.cluster = Cluster(node_id="a", name="test")
        placed = tuple(PlacedNode(name, name, "", 100) for name in NAMES)
        members = {name: Member(name, name) for name in NAMES}
        self.cluster.routing.update(
            View("c", Placement("ab" * 16, 1, placed, 256), members, replicas)
        )
        self.cluster.copies = Copies(replicas)
        self.told: list[tuple[list[str], Chunk]] = []
        self.can_make = True
        self.spreading = Spreading(
            cluster=self.cluster,
            make_copies=self.make_copies,
            loop=asyncio.get_running_loop(),
            clock=self.clock,
        )

    async def make_copies(self, others: Sequence[str], chunk: Chunk) -> int:
        self.told.append((list(others), chunk))
        return len(others) if self.can_make else 0

    def ask(self, chunk: Chunk, copies: int) -> int:
        """Have a chunk asked for until so many copies are wanted; return what readers are told."""
        told, spread = 0, self.spreading._spread
        while chunk.id not in spread or spread[chunk.id].wanted < copies:
            told = self.spreading.served(chunk, CHUNK_BYTES)
        return told

    def sent_on(self, chunk: Chunk) -> int:
        """Return among how many nodes a reader is sent on; 0: it is served."""
        try:
            self.spreading.check(chunk, CHUNK_BYTES)
        except Overloaded as error:
            return error.copies
        return 0


async def settle() -> None:
    """Let what was left to the loop be done."""
    for _ in range(8):
        await asyncio.sleep(0)


async def test_the_next_in_line_are_told_to_take_a_copy_of_what_is_hot() -> None:
    rig = Rig()

    assert rig.ask(HOT, GROWTH) == 1
    await settle()

    owners = rig.cluster.ring.owners(HOT.id, GROWTH)
    assert rig.told == [([owner for owner in owners if owner != "a"], HOT)]


async def test_readers_hear_of_copies_and_are_sent_to_them_once_they_are_there() -> None:
    rig = Rig()
    rig.ask(HOT, GROWTH)
    assert rig.sent_on(HOT) == 0

    await settle()

    assert rig.spreading.served(HOT, 0) == GROWTH
    assert rig.sent_on(HOT) == GROWTH
    assert rig.sent_on(OTHER) == 0


async def test_nobody_is_sent_on_where_copies_could_not_be_made() -> None:
    rig = Rig()
    rig.can_make = False
    rig.ask(HOT, GROWTH)
    await settle()

    assert rig.sent_on(HOT) == 0
    assert rig.spreading.served(HOT, 0) == 1


async def test_while_more_copies_are_made_readers_go_to_those_that_are_there() -> None:
    rig = Rig()
    rig.ask(HOT, GROWTH)
    await settle()

    rig.ask(HOT, GROWTH * GROWTH)

    assert rig.sent_on(HOT) == GROWTH
    await settle()
    assert rig.sent_on(HOT) == len(NAMES)  # There are no more nodes.


async def test_what_is_hot_no_more_is_served_as_ever() -> None:
    rig = Rig()
    rig.ask(HOT, GROWTH)
    await settle()
    rig.clock.now += FORGET_S

    assert rig.spreading.served(HOT, CHUNK_BYTES) == 1
    assert rig.sent_on(HOT) == 0
    assert rig.spreading._spread == {}


async def test_what_was_hot_long_ago_is_forgotten() -> None:
    rig = Rig()
    rig.ask(HOT, GROWTH)
    await settle()
    rig.clock.now += 2 * AGAIN_S + 1
    assert rig.sent_on(HOT) == 0

    rig.ask(OTHER, GROWTH)

    assert set(rig.spreading._spread) == {OTHER.id}


async def test_fewer_copies_are_told_of_as_less_is_asked() -> None:
    rig = Rig()
    rig.ask(HOT, GROWTH)
    await settle()
    rig.clock.now += WINDOW_S
    rig.spreading.served(HOT, 0)
    rig.clock.now += WINDOW_S

    assert rig.spreading.served(HOT, 0) == GROWTH // 2
    assert rig.sent_on(HOT) == GROWTH // 2
    assert len(rig.told) == 1


async def test_with_copies_as_many_as_usual_are_told_of() -> None:
    assert Rig(replicas=3).spreading.served(HOT, CHUNK_BYTES) == 3


async def test_one_large_read_is_not_hot() -> None:
    rig = Rig()
    for at in range(2 * COPY_BYTES_PER_S // CHUNK_BYTES):
        rig.spreading.served(Chunk(MODEL, "models", at % 8), CHUNK_BYTES)
        rig.spreading.served(Chunk(SMALL, "models", at % 8), CHUNK_BYTES)
    await settle()

    assert rig.told == []


# Guests -------------------------------------------------------------------------------------


class House:
    """A node's owned tier, and what it keeps for others."""

    def __init__(self, directory: Path) -> None:
        self.clock = HandClock()
        self.store = Store([Tier(directory, 64 * 1024 * 1024, "owned")])
        self.threads = ThreadPoolExecutor(1)
        self.owned: set[int] = set()
        self.brought: list[tuple[Chunk, Duty]] = []
        self.is_there = True
        self.guests = Guests(
            is_kept=lambda chunk: chunk.index in self.owned,
            bring=self.bring,
            store=self.store,
            threads=self.threads,
            clock=self.clock,
        )

    def bring(self, chunk: Chunk, duty: Duty) -> Flight[Filled]:
        self.brought.append((chunk, duty))
        flight: Flight[Filled] = Flight()
        if self.is_there:
            self.store.put(chunk.object, chunk.index, bytes(BLOCK_BYTES), owned=True, reason="read")
            flight.land(Filled("peer"))
        else:
            raise Overloaded("too many flights")
        return flight

    def held(self) -> set[int]:
        return {index for index in range(SMALL.chunk_count) if self.store.holds(SMALL, index)}

    def close(self) -> None:
        self.threads.shutdown()
        self.store.close()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    made.close()


HOST = Member("b", "b")


def small(index: int) -> Chunk:
    return Chunk(SMALL, "models", index)


async def test_a_guest_is_brought_from_its_owner_alone_and_dropped_when_nobody_asks(
    house: House,
) -> None:
    for index in (0, 1):
        assert await house.guests.take(HOST, small(index))
    assert house.brought == [(small(at), Duty(HOST, is_guest=True)) for at in (0, 1)]
    assert house.held() == {0, 1}

    house.clock.now += KEPT_S
    house.guests.asked(small(1).id)
    await house.guests.drop_unasked()
    assert house.held() == {1}
    house.clock.now += KEPT_S
    await house.guests.drop_unasked()

    assert house.held() == set()
    assert len(house.guests) == 0


async def test_what_is_here_already_is_not_brought_again(house: House) -> None:
    assert await house.guests.take(HOST, small(0))
    assert await house.guests.take(HOST, small(0))

    assert len(house.brought) == 1


async def test_what_is_or_becomes_ones_own_is_kept(house: House) -> None:
    house.owned = {0}
    assert not await house.guests.take(HOST, small(0))  # It has not come by itself yet.
    assert house.brought == []
    assert await house.guests.take(HOST, small(1))
    house.owned = {0, 1}

    house.clock.now += KEPT_S
    await house.guests.drop_unasked()

    assert house.held() == {1}


async def test_there_are_only_so_many_guests(house: House) -> None:
    house.guests._guests.update((bytes([0, at % 256, at // 256]), None) for at in range(GUESTS_MAX))  # type: ignore[misc]

    assert not await house.guests.take(HOST, small(0))

    assert house.brought == []


async def test_one_that_cannot_be_brought_is_said_not_to_be_here(house: House) -> None:
    house.is_there = False

    assert not await house.guests.take(HOST, small(0))

"""What a node does about a chunk that many want at once, and about one it keeps for another."""

import asyncio
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from penstock.checksums import BLOCK_BYTES
from penstock.errors import Overloaded
from penstock.membership.view import Member, View
from penstock.objects import ObjectId
from penstock.placement import PlacedNode, Placement
from penstock_node.chunk import Chunk
from penstock_node.cluster import Cluster
from penstock_node.cluster_copies import Copies
from penstock_node.guests import GUESTS_MAX, KEPT_S, Guests
from penstock_node.handover.spreading import AGAIN_S, READY_S, Spreading
from penstock_node.heat import COPY_BYTES_PER_S, FORGET_S, WINDOW_S
from penstock_node.ownership import Duty
from penstock_node.store import Store, Tier

CHUNK_BYTES = 4 * 1024 * 1024
NAMES = ("a", "b", "c", "d", "e")
MODEL = ObjectId("s3://b/model", "v1", 8 * CHUNK_BYTES, CHUNK_BYTES)
SMALL = ObjectId("s3://b/small", "v1", 8 * BLOCK_BYTES, BLOCK_BYTES)
HOT, OTHER = Chunk(MODEL, "models", 0), Chunk(MODEL, "models", 1)


class Clock:
    """Time that the test lets pass."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Rig:
    """Node ``a`` among five."""

    def __init__(self, replicas: int = 1) -> None:
        self.clock = Clock()
        self.cluster = Cluster(node_id="a", name="test")
        placed = tuple(PlacedNode(name, name, "", 100) for name in NAMES)
        members = {name: Member(name, name) for name in NAMES}
        self.cluster.routing.update(
            View("c", Placement("ab" * 16, 1, placed, 256), members, replicas)
        )
        self.cluster.copies = Copies(replicas)
        self.told: list[tuple[list[str], Chunk]] = []
        self.spreading = Spreading(
            cluster=self.cluster,
            tell=self.tell,
            loop=asyncio.get_running_loop(),
            clock=self.clock,
            rng=random.Random(5),
        )

    def tell(self, others: Sequence[str], chunk: Chunk) -> None:
        self.told.append((list(others), chunk))

    async def ask(self, chunk: Chunk, copies: int) -> int:
        """Have a chunk asked for until so many copies are wanted; return what readers are told."""
        told, spread = 0, self.spreading._spread
        while chunk.id not in spread or spread[chunk.id].copies < copies:
            told = self.spreading.served(chunk, CHUNK_BYTES)
        await asyncio.sleep(0)  # What was left to the loop is done.
        return told

    def sent_on(self, chunk: Chunk, times: int = 1000) -> list[int]:
        """Return among how many nodes readers are sent on, each of those that are."""
        copies = []
        for _ in range(times):
            try:
                self.spreading.check(chunk)
            except Overloaded as error:
                copies.append(error.copies)
        return copies


async def test_the_next_in_line_are_told_to_take_a_copy_of_what_is_hot() -> None:
    rig = Rig()

    assert await rig.ask(HOT, 2) == 1

    owners = rig.cluster.ring.owners(HOT.id, 2)
    assert rig.told == [([owner for owner in owners if owner != "a"], HOT)]
    await rig.ask(HOT, 4)
    assert rig.told[-1] == ([o for o in rig.cluster.ring.owners(HOT.id, 4) if o != "a"], HOT)


async def test_readers_hear_of_copies_and_are_sent_to_them_once_they_are_there() -> None:
    rig = Rig()
    await rig.ask(HOT, 4)
    assert rig.sent_on(HOT) == []

    rig.clock.now += READY_S

    assert rig.spreading.served(HOT, 0) == 4
    sent = rig.sent_on(HOT)
    assert set(sent) == {4}
    assert 650 < len(sent) < 850  # Three of four; this node has the fourth part.
    assert rig.sent_on(OTHER) == []


async def test_while_more_copies_are_made_readers_go_to_those_that_are_there() -> None:
    rig = Rig()
    await rig.ask(HOT, 2)
    rig.clock.now += READY_S

    await rig.ask(HOT, 4)

    assert set(rig.sent_on(HOT)) == {2}


async def test_what_is_hot_no_more_is_served_as_ever() -> None:
    rig = Rig()
    await rig.ask(HOT, 4)
    rig.clock.now += FORGET_S

    assert rig.spreading.served(HOT, CHUNK_BYTES) == 1
    assert rig.sent_on(HOT) == []
    assert rig.spreading._spread == {}


async def test_what_was_hot_long_ago_is_forgotten() -> None:
    rig = Rig()
    await rig.ask(HOT, 2)
    rig.clock.now += 2 * AGAIN_S + 1

    await rig.ask(OTHER, 2)

    assert set(rig.spreading._spread) == {OTHER.id}


async def test_fewer_copies_are_told_of_as_less_is_asked() -> None:
    rig = Rig()
    await rig.ask(HOT, 4)
    rig.clock.now += WINDOW_S
    rig.spreading.served(HOT, 0)
    rig.clock.now += WINDOW_S

    assert rig.spreading.served(HOT, 0) == 2
    assert set(rig.sent_on(HOT, times=20)) == {2}
    assert len(rig.told) == 2


async def test_with_copies_as_many_as_usual_are_told_of() -> None:
    assert Rig(replicas=3).spreading.served(HOT, CHUNK_BYTES) == 3


async def test_one_large_read_is_not_hot() -> None:
    rig = Rig()
    for at in range(2 * COPY_BYTES_PER_S // CHUNK_BYTES):
        rig.spreading.served(Chunk(MODEL, "models", at % 8), CHUNK_BYTES)
        rig.spreading.served(Chunk(SMALL, "models", at % 8), CHUNK_BYTES)

    assert rig.told == []


# Guests -------------------------------------------------------------------------------------


class House:
    """A node's owned tier, and what it keeps for others."""

    def __init__(self, directory: Path) -> None:
        self.clock = Clock()
        self.store = Store([Tier(directory, 64 * 1024 * 1024, "owned")])
        self.threads = ThreadPoolExecutor(1)
        self.owned: set[int] = set()
        self.brought: list[tuple[Chunk, Duty]] = []
        self.guests = Guests(
            is_kept=lambda chunk: chunk.index in self.owned,
            bring=self.bring,
            store=self.store,
            threads=self.threads,
            clock=self.clock,
        )

    def bring(self, chunk: Chunk, duty: Duty) -> None:
        self.brought.append((chunk, duty))
        self.store.put(chunk.object, chunk.index, bytes(BLOCK_BYTES), owned=True, reason="read")

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
        house.guests.take(HOST, small(index))
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
    house.guests.take(HOST, small(0))
    house.guests.take(HOST, small(0))

    assert len(house.brought) == 1


async def test_what_is_or_becomes_ones_own_is_kept(house: House) -> None:
    house.owned = {0}
    house.guests.take(HOST, small(0))
    assert house.brought == []
    house.guests.take(HOST, small(1))
    house.owned = {0, 1}

    house.clock.now += KEPT_S
    await house.guests.drop_unasked()

    assert house.held() == {1}


async def test_there_are_only_so_many_guests(house: House) -> None:
    house.guests._guests.update((bytes([0, at % 256, at // 256]), None) for at in range(GUESTS_MAX))  # type: ignore[misc]

    house.guests.take(HOST, small(0))

    assert house.brought == []

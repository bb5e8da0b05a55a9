"""A chunk that is being written: what its readers are given meanwhile, and in the end."""

import asyncio
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from penstock.checksums import BLOCK_BYTES, block_checksums
from penstock.objects import ObjectId
from penstock_node import keeping as module
from penstock_node.chunk import Arrival, Chunk, Filled
from penstock_node.flights import Flight, Flights
from penstock_node.inflight import Lane
from penstock_node.keeping import Keeping
from penstock_node.store import Store, Tier
from penstock_node.store.writers import WRITERS_MAX
from penstock_node.testbed.processes import wait_until

DEADLINE_S = 30.0
CHUNK = Chunk(ObjectId("s3://b/model", "v1", BLOCK_BYTES, BLOCK_BYTES), "models", 0)
DATA = random.Random(1).randbytes(BLOCK_BYTES)


class Rig:
    """A real store whose disks can be held, and the flights of one node."""

    def __init__(self, directory: Path) -> None:
        self.memory = Tier(directory / "memory", 1 << 20, "memory")
        self.owned = Tier(directory / "owned", 1 << 20, "owned")
        self.store = Store([self.memory, self.owned])
        self.threads = ThreadPoolExecutor(2)
        self.keeping = Keeping(store=self.store, threads=self.threads)
        self.lane = Lane(10 * BLOCK_BYTES)
        self.flights: Flights[bytes, Filled] = Flights(
            flights_max=8, lingers=lambda filled: filled.payload is not None
        )
        self.fetches = 0
        self._let_go = threading.Event()

    def hold(self, tier: Tier) -> None:
        """Let no write to the tier through until `let_go`."""
        for _ in range(WRITERS_MAX):
            tier.disk.writers.submit(lambda: self._let_go.wait(DEADLINE_S))

    def let_go(self) -> None:
        self._let_go.set()

    def begin(self) -> Flight[Filled]:
        return self.flights.start(
            CHUNK.id, lambda it: self.keeping.bring(CHUNK, self._fetch, owned=True, flight=it)
        )

    async def _fetch(self) -> Arrival:
        self.fetches += 1
        return Arrival(memoryview(DATA), "origin", await self.lane.acquire(BLOCK_BYTES))

    async def end(self) -> None:
        """Wait until no flight is under way."""
        await come_true(lambda: len(self.flights) == 0)

    def close(self) -> None:
        self.let_go()
        self.threads.shutdown()
        self.store.close()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.close()


async def come_true(condition: Callable[[], bool]) -> None:
    await asyncio.to_thread(wait_until, condition, deadline_s=DEADLINE_S, what="it has come true")


async def landed(flight: Flight[Filled]) -> Filled:
    filled = await flight.wait(DEADLINE_S)
    assert filled is not None
    return filled


async def test_readers_are_sent_to_the_file(rig: Rig) -> None:
    assert await landed(rig.begin()) == Filled("origin")

    await rig.end()
    assert rig.memory.holds_id(CHUNK.id)
    assert rig.owned.holds_id(CHUNK.id)
    assert rig.lane.used_bytes == 0


async def test_who_asks_a_moment_after_it_came_in_fetches_nothing(rig: Rig) -> None:
    await landed(rig.begin())
    await rig.end()

    assert await landed(rig.begin()) == Filled("disk")

    assert rig.fetches == 1


async def test_the_first_tier_that_has_it_is_enough_for_readers(rig: Rig) -> None:
    rig.hold(rig.owned)

    assert await landed(rig.begin()) == Filled("origin")

    assert rig.memory.holds_id(CHUNK.id)
    assert not rig.owned.holds_id(CHUNK.id)
    assert rig.flights.get(CHUNK.id), "it is not over: evicted from memory it would be lost"
    rig.let_go()
    await rig.end()
    assert rig.owned.holds_id(CHUNK.id)


async def test_where_writing_takes_long_readers_are_given_the_bytes_and_nothing_is_lost(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FILE_PATIENCE_S", 0.01)
    rig.hold(rig.memory)
    rig.hold(rig.owned)

    filled = await landed(rig.begin())

    assert filled.payload is not None
    assert filled.payload.data == DATA
    assert filled.payload.checksums == block_checksums(DATA)
    assert rig.begin() is rig.flights.get(CHUNK.id), "nobody fetches it again"
    assert rig.lane.used_bytes == BLOCK_BYTES
    rig.let_go()
    del filled
    await rig.end()
    assert rig.owned.holds_id(CHUNK.id)
    assert rig.flights.get(CHUNK.id) is None
    assert rig.lane.used_bytes == 0


async def test_what_no_disk_takes_stays_for_a_moment(rig: Rig) -> None:
    for tier in (rig.memory, rig.owned):
        rig.hold(tier)
    flight = rig.begin()
    await come_true(lambda: len(rig.owned.disk.writers._line) == 1)

    for tier in (rig.memory, rig.owned):
        tier.disk.take_out("it hangs")
    await rig.end()

    filled = await landed(flight)
    assert filled.payload is not None
    assert rig.flights.get(CHUNK.id) is flight
    assert rig.store.statistics.not_kept == 2

"""Memory that is lent: never more than there is, to who has waited longest, from any thread."""

import asyncio
import gc
import random
import threading

import pytest

from penstock_node import inflight
from penstock_node.inflight import Inflight, Lane, Loan

LANE_BYTES = 100
SEEDS = range(20)
STEPS = 300
RELEASERS = 4


async def settle() -> None:
    """Let every task run until it waits. This yields to the loop; no time passes."""
    for _ in range(8):
        await asyncio.sleep(0)


def asking(lane: Lane, size_bytes: int) -> "asyncio.Task[Loan]":
    return asyncio.create_task(lane.acquire(size_bytes))


async def test_what_fits_is_lent_at_once_and_comes_back_once() -> None:
    lane = Lane(LANE_BYTES)

    loan = await lane.acquire(60)
    assert (loan.size_bytes, lane.used_bytes) == (60, 60)
    loan.release()
    loan.release()

    assert lane.used_bytes == 0


async def test_who_asks_for_more_than_there_is_gets_all_there_is() -> None:
    lane = Lane(LANE_BYTES)

    loan = await lane.acquire(10 * LANE_BYTES)

    assert loan.size_bytes == lane.used_bytes == LANE_BYTES


async def test_what_nobody_refers_to_any_more_comes_back() -> None:
    lane = Lane(LANE_BYTES)
    loans = [await lane.acquire(LANE_BYTES)]
    waiting = asking(lane, 1)
    await settle()

    loans.clear()
    gc.collect()

    assert (await waiting).size_bytes == 1


async def test_who_holds_what_others_wait_for_waits_for_a_moment_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inflight, "TURN_S", 0.0)
    lane = Lane(LANE_BYTES)
    first = await lane.take_turn(LANE_BYTES)

    assert await lane.take_turn(1) is None
    assert first is not None
    first.release()

    assert lane.used_bytes == 0
    assert await lane.take_turn(1) is not None


async def test_memory_goes_to_who_has_waited_longest_and_nobody_is_passed_over() -> None:
    lane, got = Lane(LANE_BYTES), list[int]()
    first = await lane.acquire(LANE_BYTES)

    async def take(at: int, size_bytes: int) -> Loan:
        loan = await lane.acquire(size_bytes)
        got.append(at)
        return loan

    tasks = [asyncio.create_task(take(at, size)) for at, size in enumerate((90, 1, 1, 100, 1))]
    await settle()
    assert lane.is_contended
    assert got == []
    first.release()
    for expected in ([0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3, 4]):
        await settle()
        assert got == expected
        for task in tasks:
            if task.done():
                task.result().release()

    assert (lane.used_bytes, lane.is_contended) == (0, False)


async def test_who_waits_no_longer_stands_in_nobodys_way() -> None:
    lane = Lane(LANE_BYTES)
    kept = await lane.acquire(50)
    large, small = asking(lane, 60), asking(lane, 50)
    await settle()
    assert not small.done()

    large.cancel()

    assert (await small).size_bytes == 50
    assert lane.used_bytes == kept.size_bytes + 50


async def test_what_is_lent_to_who_has_just_left_goes_to_the_next() -> None:
    lane = Lane(LANE_BYTES)
    first = await lane.acquire(LANE_BYTES)
    leaving, next_ = asking(lane, LANE_BYTES), asking(lane, LANE_BYTES)
    await settle()

    first.release()  # Lent to `leaving`, which does not know it yet.
    leaving.cancel()

    assert (await next_).size_bytes == LANE_BYTES
    assert lane.used_bytes == LANE_BYTES


@pytest.mark.parametrize("is_told", [False, True])
async def test_one_that_is_cancelled_as_it_is_lent_to_keeps_nothing(is_told: bool) -> None:
    lane = Lane(LANE_BYTES)
    first = await lane.acquire(LANE_BYTES)
    leaving = asking(lane, LANE_BYTES)
    await settle()
    first.release()
    if is_told:
        await asyncio.sleep(0)  # It is woken, and has not run yet.

    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)

    assert lane.used_bytes == (0 if leaving.cancelled() else LANE_BYTES)
    assert leaving.cancelled() or leaving.result()


class Interleaving:
    """Askers on the event loop, who are cancelled by chance; releases on several threads.

    What is held is added up here too: from before an asker can know of its loan until after
    the loan has come back it must never be more than the lane has.
    """

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.lane = Lane(LANE_BYTES)
        self.held: list[Loan] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.runs = -1
        self.granted: list[int] = []
        """Those who waited, in the order in which they got theirs."""
        self.lock = threading.Lock()
        self.is_over = threading.Event()
        self.most = 0
        self._releasers = [
            threading.Thread(target=self._release, args=(random.Random(f"{seed} {at}"),))
            for at in range(RELEASERS)
        ]

    async def _ask(self, at: int, size_bytes: int) -> None:
        self.runs = at
        loan = await self.lane.acquire(size_bytes)
        with self.lock:
            if self.runs != at:  # Others ran meanwhile: it has waited.
                self.granted.append(at)
            self.held.append(loan)
            self.most = max(self.most, sum(one.size_bytes for one in self.held))

    def _release(self, rng: random.Random) -> None:
        while not self.is_over.is_set() or self.held:
            with self.lock:
                loan = self.held.pop(rng.randrange(len(self.held))) if self.held else None
            if loan is not None:
                loan.release()
            else:
                self.is_over.wait(0.0005)

    async def run(self) -> None:
        for releaser in self._releasers:
            releaser.start()
        try:
            for at in range(STEPS):
                self._step(at)
                assert 0 <= self.lane.used_bytes <= LANE_BYTES
                if self.rng.random() < 0.3:
                    await asyncio.sleep(0)
            async with asyncio.timeout(30):
                await asyncio.gather(*self.tasks, return_exceptions=True)
        finally:
            self.is_over.set()
            for releaser in self._releasers:
                releaser.join()

    def _step(self, at: int) -> None:
        if self.rng.random() < 0.75:
            size_bytes = self.rng.choice((1, 5, 20, 50, 100, 300))
            self.tasks.append(asyncio.create_task(self._ask(at, size_bytes)))
        elif self.tasks:
            self.rng.choice(self.tasks[-20:]).cancel()


@pytest.mark.parametrize("seed", SEEDS)
async def test_any_interleaving_keeps_the_bound_the_order_and_every_byte(seed: int) -> None:
    interleaving = Interleaving(seed)

    await interleaving.run()

    assert 0 < interleaving.most <= LANE_BYTES
    assert len(interleaving.granted) > STEPS / 20
    assert interleaving.granted == sorted(interleaving.granted)
    assert not any(task.exception() for task in interleaving.tasks if not task.cancelled())
    assert (interleaving.lane.used_bytes, interleaving.lane.is_contended) == (0, False)


async def test_the_lanes_together_have_what_was_given() -> None:
    inflight = Inflight(1_000)

    lanes = (inflight.origin, inflight.copies, inflight.peer, inflight.sends)
    loans = [await lane.acquire(1_000) for lane in lanes]

    assert [loan.size_bytes for loan in loans] == [400, 200, 200, 200]
    assert inflight.used_bytes == inflight.bytes_max == 1_000

"""The loop that histories run on: time jumps, and processes stop, go on and die as real ones."""

import asyncio
import random
from collections.abc import Coroutine
from typing import Any

import pytest

from tests.simulation.clock import Process, SimExecutor, SimLoop, Stuck

HOUR_S = 3600.0


def run(work: Coroutine[Any, Any, Any], loop: SimLoop) -> Any:
    return loop.run_until_complete(work)


@pytest.fixture
def loop() -> SimLoop:
    return SimLoop(random.Random(1), callbacks_max=1_000)  # type: ignore[abstract]


class Worker:
    """Counts hours, and tells when it was ended."""

    def __init__(self) -> None:
        self.hours: list[float] = []
        self.was_ended = False

    async def work(self) -> None:
        try:
            while True:
                await asyncio.sleep(HOUR_S)
                self.hours.append(asyncio.get_running_loop().time() / HOUR_S)
        finally:
            self.was_ended = True


def test_an_hour_takes_no_time(loop: SimLoop) -> None:
    async def wait() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(HOUR_S):
                await asyncio.Event().wait()
        return asyncio.get_running_loop().time()

    assert run(wait(), loop) == HOUR_S


def test_a_stopped_process_does_what_was_due_when_it_goes_on(loop: SimLoop) -> None:
    process, worker = Process("a"), Worker()

    async def history() -> None:
        loop.spawn(process, worker.work(), name="a")
        await asyncio.sleep(1.5 * HOUR_S)
        process.is_stopped = True
        await asyncio.sleep(4 * HOUR_S)
        assert worker.hours == [1.0]
        loop.resume(process)
        await asyncio.sleep(0.5 * HOUR_S)
        assert worker.hours == [1.0, 5.5]
        await loop.end()

    run(history(), loop)
    assert worker.was_ended


def test_of_a_killed_process_nothing_runs_any_more(loop: SimLoop) -> None:
    process, worker = Process("a"), Worker()

    async def history() -> None:
        loop.spawn(process, worker.work(), name="a")
        await asyncio.sleep(1.5 * HOUR_S)
        process.is_dead = True
        await asyncio.sleep(9 * HOUR_S)
        assert worker.hours == [1.0]
        assert not worker.was_ended
        await loop.end()  # The simulation leaves nothing behind.

    run(history(), loop)
    assert worker.was_ended


def test_what_a_thread_is_given_is_done_though_nobody_waits(loop: SimLoop) -> None:
    done: list[str] = []

    async def history() -> None:
        waiting = asyncio.get_running_loop().run_in_executor(None, done.append, "awaited")
        waiting.cancel()
        SimExecutor(loop).submit(done.append, "submitted")
        await asyncio.sleep(1.0)

    run(history(), loop)
    assert sorted(done) == ["awaited", "submitted"]


def test_what_spins_and_what_waits_for_nothing_is_found(loop: SimLoop) -> None:
    async def spin() -> None:
        while True:  # noqa: ASYNC110 - it is meant to spin
            await asyncio.sleep(0)

    with pytest.raises(Stuck, match="too many"):
        run(spin(), loop)
    idle = SimLoop(random.Random(1), callbacks_max=1_000)  # type: ignore[abstract]
    with pytest.raises(Stuck, match="nothing is left"):
        run(asyncio.Event().wait(), idle)

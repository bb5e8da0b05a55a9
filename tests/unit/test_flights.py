"""What waiters of one key observe. The fetch is answered by hand: no clock, no socket."""

import asyncio
import random
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

import pytest

from penstock.errors import Overloaded
from penstock_node import flights as module
from penstock_node.flights import Flight, Flights

LONG_S = 30.0
Fetch: TypeAlias = Callable[[Flight[str]], Coroutine[Any, Any, str]]


class HandAnsweredFetch:
    """Fetches that wait until the test answers them, and never run twice at once for a key."""

    def __init__(self) -> None:
        self.open: dict[str, asyncio.Future[str]] = {}
        self.flights: dict[str, Flight[str]] = {}
        self.begun = 0

    def of(self, key: str) -> Fetch:
        async def fetch(flight: Flight[str]) -> str:
            self.flights[key] = flight
            assert key not in self.open, f"{key} is fetched twice at once"
            self.begun += 1
            self.open[key] = asyncio.get_running_loop().create_future()
            try:
                return await self.open[key]
            finally:
                del self.open[key]

        return fetch


async def settle() -> None:
    """Let every task run until it waits. This yields to the loop; no time passes."""
    for _ in range(8):
        await asyncio.sleep(0)


def made(
    *, flights_max: int = 8, lingers: bool = False
) -> tuple[Flights[str, str], HandAnsweredFetch]:
    return Flights(flights_max=flights_max, lingers=lambda _value: lingers), HandAnsweredFetch()


async def test_waiters_of_a_key_share_one_fetch() -> None:
    flights, fetch = made()
    waiting = [
        asyncio.create_task(flights.start("a", fetch.of("a")).wait(LONG_S)) for _ in range(3)
    ]
    await settle()

    fetch.open["a"].set_result("bytes")

    assert await asyncio.gather(*waiting) == ["bytes"] * 3
    assert fetch.begun == 1


async def test_a_flight_goes_on_when_all_its_waiters_have_left() -> None:
    flights, fetch = made(lingers=True)
    impatient = asyncio.create_task(flights.start("a", fetch.of("a")).wait(LONG_S))
    await settle()
    impatient.cancel()
    await settle()

    fetch.open["a"].set_result("bytes")
    await settle()

    flight = flights.get("a")
    assert flight is not None
    assert await flight.wait(0) == "bytes"
    assert fetch.begun == 1


async def test_a_result_that_does_not_linger_is_gone_at_once() -> None:
    flights, fetch = made(lingers=False)
    flights.start("a", fetch.of("a"))
    await settle()

    fetch.open["a"].set_result("bytes")
    await settle()

    assert flights.get("a") is None
    assert len(flights) == 0


async def test_an_error_reaches_every_waiter_and_those_who_come_a_moment_later() -> None:
    flights, fetch = made()
    waiting = asyncio.create_task(flights.start("a", fetch.of("a")).wait(LONG_S))
    await settle()

    fetch.open["a"].set_exception(ConnectionError("down"))
    await settle()

    with pytest.raises(ConnectionError):
        await waiting
    with pytest.raises(ConnectionError):
        await flights.start("a", fetch.of("a")).wait(LONG_S)
    assert fetch.begun == 1


async def test_a_flight_that_lands_early_answers_its_waiters_and_goes_on() -> None:
    flights, fetch = made()
    waiting = asyncio.create_task(flights.start("a", fetch.of("a")).wait(LONG_S))
    await settle()

    fetch.flights["a"].land("early")

    assert await waiting == "early"
    assert await flights.start("a", fetch.of("a")).wait(LONG_S) == "early"
    assert fetch.begun == len(flights) == 1
    fetch.open["a"].set_result("late")
    await settle()
    assert flights.get("a") is None


async def test_a_flight_that_fails_after_it_has_landed_fails_nobody() -> None:
    flights, fetch = made()
    flight = flights.start("a", fetch.of("a"))
    await settle()
    fetch.flights["a"].land("early")

    fetch.open["a"].set_exception(ConnectionError("down"))
    await settle()

    assert await flight.wait(0) == "early"


async def test_a_flight_too_many_is_refused() -> None:
    flights, fetch = made(flights_max=1)
    flights.start("a", fetch.of("a"))

    with pytest.raises(Overloaded):
        flights.start("b", fetch.of("b"))

    await flights.cancel_all()


async def test_lingering_results_are_bounded() -> None:
    flights, fetch = made(flights_max=100, lingers=True)
    keys = [f"key-{at}" for at in range(module.LINGERING_MAX + 5)]
    for key in keys:
        flights.start(key, fetch.of(key))
        await settle()
        fetch.open[key].set_result(key)
        await settle()

    kept = [key for key in keys if flights.get(key) is not None]

    assert kept == keys[5:]


@pytest.mark.parametrize("seed", range(50))
async def test_any_interleaving_gives_each_waiter_a_result_of_its_key(seed: int) -> None:
    """Safety: the fake forbids two fetches of a key at once. Liveness: all finish."""
    rng = random.Random(seed)
    flights, fetch = made(flights_max=8, lingers=rng.random() < 0.5)
    waiting: list[tuple[str, asyncio.Task[str | None]]] = []
    for _ in range(100):
        match rng.choice(("wait", "wait", "answer", "leave", "settle")):
            case "wait":
                key = rng.choice("abc")
                flight = flights.start(key, fetch.of(key))
                waiting.append((key, asyncio.create_task(flight.wait(LONG_S))))
            case "answer" if fetch.open:
                key = rng.choice(sorted(fetch.open))
                if not fetch.open[key].done():
                    fetch.open[key].set_result(key)
            case "leave" if waiting:
                waiting.pop(rng.randrange(len(waiting)))[1].cancel()
            case _:
                await settle()

    await settle()
    while fetch.open:
        for key in sorted(fetch.open):
            if not fetch.open[key].done():
                fetch.open[key].set_result(key)
        await settle()
    for key, task in waiting:
        assert await task == key, f"replay with seed {seed}"


async def test_what_is_dropped_for_its_memory_is_gone_at_once() -> None:
    class Payload:
        pass

    async def fetch(_flight: Flight[Payload]) -> Payload:
        return Payload()

    flights: Flights[str, Payload] = Flights(flights_max=8, lingers=lambda _value: True)
    payload = await flights.start("a", fetch).wait(LONG_S)
    memory = weakref.ref(payload)
    del payload
    await settle()
    assert memory() is not None, "it is kept for waiters on their way back"

    flights.forget_landed()

    assert memory() is None
    assert flights.get("a") is None


async def test_a_flight_that_has_landed_is_not_over_before_its_fetch_is() -> None:
    flights, fetch = made()
    flight = flights.start("a", fetch.of("a"))
    await settle()
    flight.land("early")
    await module.wait_for_an_end([flight], 0.0)
    assert (flight.has_landed, flight.is_over) == (True, False)

    fetch.open["a"].set_result("late")
    await module.wait_for_an_end([flight], LONG_S)

    assert (flight.is_over, flight.outcome()) == (True, "late")
    assert await flight.wait(0.0) == "early"


async def test_the_end_of_any_of_some_flights_ends_a_wait_for_one() -> None:
    flights, fetch = made()
    both = [flights.start(key, fetch.of(key)) for key in ("a", "b")]
    await settle()
    fetch.open["b"].set_exception(Overloaded("busy"))

    await module.wait_for_an_end(both, LONG_S)

    assert [each.is_over for each in both] == [False, True]
    with pytest.raises(Overloaded):
        both[1].outcome()


async def test_a_wait_for_the_end_of_nothing_is_none() -> None:
    await module.wait_for_an_end([], LONG_S)

"""How a rate is kept, and who goes first: by times that the test gives, where time matters."""

import asyncio

import pytest

from penstock_node.pace import BURST_S, Pace


def wait_s(pace: Pace, amount: float, *, now: float) -> float:
    """Let ``amount`` go, and return how long it waited for its turn."""
    delay_s = pace.delay_s(now=now)
    pace.take(amount, now=now)
    return delay_s


def test_the_rate_is_kept_also_when_it_changes() -> None:
    rate = 1000.0
    pace = Pace(lambda: rate)

    waits = [wait_s(pace, 100, now=5.0) for _ in range(3)]
    rate = 2000.0
    waits += [wait_s(pace, 100, now=5.0) for _ in range(3)]

    steps = [0.0, 0.1, 0.2, 0.3, 0.35, 0.4]
    assert waits == pytest.approx([max(0.0, step - BURST_S) for step in steps])


def test_who_was_idle_catches_up_for_a_moment_only() -> None:
    pace = Pace(lambda: 1000.0)
    wait_s(pace, 100, now=5.0)

    waits = [wait_s(pace, 100, now=60.0) for _ in range(3)]

    assert waits == pytest.approx([0.0, 0.1 - BURST_S, 0.2 - BURST_S])


async def test_whoever_gives_up_waiting_has_taken_nothing() -> None:
    pace = Pace(lambda: 1000.0)
    await pace.wait(500)
    before = pace.delay_s(now=0.0)
    herd = [asyncio.create_task(pace.wait(10**6)) for _ in range(10)]
    await asyncio.sleep(0)

    for each in herd:
        each.cancel()
    await asyncio.wait(herd)

    assert pace.delay_s(now=0.0) == before


async def test_turns_come_in_the_order_of_asking_whatever_their_size() -> None:
    pace = Pace(lambda: 100_000.0)
    order: list[int] = []

    async def go(number: int) -> None:
        await pace.wait(5000 if number % 2 else 1)
        order.append(number)

    begun_at = asyncio.get_running_loop().time()
    await asyncio.gather(*(go(number) for number in range(10)))

    assert order == list(range(10))
    least_s = 4 * 5000 / 100_000 - BURST_S  # What went before the last one.
    assert asyncio.get_running_loop().time() - begun_at >= least_s - 0.001

"""What calls meet at the gate of an origin that is not there: the test answers for it."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from structlog.testing import capture_logs

from penstock.errors import ObjectNotFound, OriginUnavailable, PenstockError
from penstock.volumes import Volume
from penstock_node.origin.breaker import BreakerLimits
from penstock_node.origin.gate import Gate, Unanswered
from penstock_node.origin.interface import OriginCounters, OriginLimits

FAILURES = BreakerLimits().failures_max
PAUSE_MAX_S = BreakerLimits().pause_max_s


class Rig:
    """A gate, and a clock that stands still until it is told to go on."""

    def __init__(self, limits: OriginLimits | None = None) -> None:
        self.now = 1000.0
        self.counters = OriginCounters()
        self.gate = Gate(
            Volume("models", "https://host/"),
            limits=limits or OriginLimits(),
            counters=self.counters,
            clock=lambda: self.now,
        )

    async def call(self, answer: Callable[[], Awaitable[None]], *, size_bytes: int = 0) -> None:
        async with self.gate.call("path", deadline=None) as call:
            await call.turn(size_bytes=size_bytes)
            await answer()

    async def fail(self, *, times: int = 1) -> None:
        for _ in range(times):
            with pytest.raises(OriginUnavailable):
                await self.call(no_answer)

    async def succeed(self, *, size_bytes: int = 0) -> None:
        await self.call(good_answer, size_bytes=size_bytes)


async def good_answer() -> None:
    """The origin answers."""


async def no_answer() -> None:
    raise Unanswered(OriginUnavailable("path: host does not answer"), "no connection")


async def test_an_outage_is_logged_once_when_it_begins_and_once_when_it_ends() -> None:
    rig = Rig()

    with capture_logs() as logs:
        await rig.fail(times=50)
        rig.now += PAUSE_MAX_S
        await rig.fail(times=50)
        rig.now += PAUSE_MAX_S
        await rig.succeed()

    assert [(entry["log_level"], entry["volume"]) for entry in logs] == [
        ("warning", "models"),
        ("info", "models"),
    ]
    assert (logs[0]["host"], logs[0]["reason"]) == ("host", "no connection")
    assert logs[1]["lasted_s"] == 2 * PAUSE_MAX_S


async def test_what_is_refused_is_counted_and_says_since_when_and_why() -> None:
    rig = Rig()
    await rig.fail(times=FAILURES)

    with pytest.raises(
        OriginUnavailable,
        match=r"^https://host/path: volume 'models': host has not answered since "
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC \(no connection\); it is tried again in [12] s$",
    ):
        await rig.succeed()

    assert rig.counters.refused_calls == 1


async def test_whoever_waited_while_the_origin_was_away_and_back_goes_on() -> None:
    rig = Rig(OriginLimits(bytes_per_s=1000.0))
    await rig.succeed(size_bytes=500)
    patient = asyncio.create_task(rig.succeed(size_bytes=1))  # Its turn comes in half a second.
    await asyncio.sleep(0)
    assert rig.gate.waiting == 1

    await rig.fail(times=FAILURES)
    rig.now += PAUSE_MAX_S
    await rig.succeed()

    await patient


async def test_whoever_waits_when_the_origin_is_found_away_is_told_and_asks_nothing() -> None:
    rig = Rig(OriginLimits(bytes_per_s=1000.0))
    await rig.succeed(size_bytes=500)
    patient = asyncio.create_task(rig.succeed(size_bytes=1))
    await asyncio.sleep(0)
    assert rig.gate.waiting == 1

    await rig.fail(times=FAILURES)

    with pytest.raises(OriginUnavailable, match="has not answered since"):
        await patient
    assert rig.gate.waiting == 0


@pytest.mark.parametrize("error", [ObjectNotFound("gone"), OriginUnavailable("it answers 400")])
async def test_an_answer_that_is_an_error_is_an_answer(error: PenstockError) -> None:
    rig = Rig()
    await rig.fail(times=FAILURES - 1)

    async def refuse() -> None:
        raise error

    with pytest.raises(type(error)):
        await rig.call(refuse)
    await rig.fail(times=FAILURES - 1)

    assert rig.gate.is_healthy

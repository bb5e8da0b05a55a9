"""What calls meet at the gate of an origin that is not there: the test answers for it."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from structlog.testing import capture_logs

from penstock.errors import ObjectNotFound, OriginUnavailable, PenstockError
from penstock.volumes import Volume
from penstock_node.origin.breaker import BreakerLimits
from penstock_node.origin.gate import Gate
from penstock_node.origin.interface import OriginCounters, OriginLimits
from penstock_node.origin.outages import OBJECTS_MAX, Unanswered

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

    async def call(
        self, answer: Callable[[], Awaitable[None]], *, path: str = "path", size_bytes: int = 0
    ) -> None:
        async with self.gate.call(path, deadline=None) as call:
            await call.turn(size_bytes=size_bytes)
            await answer()

    async def fail(self, *, times: int = 1) -> None:
        for _ in range(times):
            with pytest.raises(OriginUnavailable):
                await self.call(no_answer)

    async def fail_with_503(self, *paths: str) -> list[str]:
        told = []
        for path in paths:
            with pytest.raises(OriginUnavailable) as caught:
                await self.call(bad_answer, path=path)
            told.append(str(caught.value))
        return told

    async def succeed(self, *, size_bytes: int = 0) -> None:
        await self.call(good_answer, size_bytes=size_bytes)


async def good_answer() -> None:
    """The origin answers."""


async def no_answer() -> None:
    error = OriginUnavailable("path: host does not answer")
    raise Unanswered(error, "no connection", of_object=False)


async def bad_answer() -> None:
    raise Unanswered(OriginUnavailable("path: 503"), "it answers 503", of_object=True)


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
    rig = Rig(OriginLimits(bytes_per_s=200.0))
    await rig.succeed(size_bytes=500)
    patient = asyncio.create_task(rig.succeed(size_bytes=1))  # Its turn comes in 2.5 s.
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


async def test_an_object_that_cannot_be_had_is_left_alone_by_itself() -> None:
    rig = Rig()

    with capture_logs() as logs:
        told = await rig.fail_with_503(*["bad"] * 50)

    assert rig.gate.is_healthy
    assert rig.counters.refused_calls == 50 - FAILURES
    assert "https://host/bad: volume 'models': host has not given it since" in told[-1]
    assert [entry["object"] for entry in logs] == ["https://host/bad"]
    await rig.succeed()


async def test_an_object_that_was_left_alone_is_tried_again_and_given() -> None:
    rig = Rig()
    await rig.fail_with_503(*["bad"] * FAILURES)
    rig.now += PAUSE_MAX_S
    await rig.fail_with_503("bad", "bad", "bad")
    refused = rig.counters.refused_calls
    rig.now += PAUSE_MAX_S

    await rig.call(good_answer, path="bad")

    assert refused == 2  # One asked.
    await rig.fail_with_503(*["bad"] * (FAILURES - 1))
    await rig.call(good_answer, path="bad")


async def test_objects_that_fail_in_a_row_mean_the_origin() -> None:
    rig = Rig()

    told = await rig.fail_with_503("a", "a", "b", "b", "b", "c", "d", "a", "e", "f")

    assert not rig.gate.is_healthy
    assert rig.counters.refused_calls == 1
    assert "host/f: volume 'models': host has not answered since" in told[-1]


async def test_when_the_origin_is_back_so_are_its_objects() -> None:
    rig = Rig()
    await rig.fail_with_503(*["bad"] * FAILURES)
    for _ in range(5):  # Its pause grows.
        rig.now += PAUSE_MAX_S
        await rig.fail_with_503("bad")
    await rig.succeed()
    await rig.fail(times=FAILURES)
    rig.now += BreakerLimits().pause_s
    await rig.succeed()

    await rig.call(good_answer, path="bad")


async def test_a_probe_that_is_for_an_object_left_alone_leaves_room_for_another() -> None:
    rig = Rig()
    await rig.fail_with_503(*["bad"] * FAILURES)
    for _ in range(5):  # Its pause grows beyond the origin's first.
        rig.now += PAUSE_MAX_S
        await rig.fail_with_503("bad")
    await rig.succeed()
    await rig.fail(times=FAILURES)
    rig.now += BreakerLimits().pause_s

    await rig.fail_with_503("bad")
    await rig.succeed()

    assert rig.gate.is_healthy


async def test_an_object_is_tried_again_by_one_request_of_one_call() -> None:
    rig = Rig()
    await rig.fail_with_503(*["bad"] * FAILURES)
    rig.now += PAUSE_MAX_S

    async with rig.gate.call("bad", deadline=None) as probe:
        await probe.turn()
        assert probe.attempts_max == 1
        (told,) = await rig.fail_with_503("bad")

    assert "it is being tried again now" in told


async def test_a_call_for_an_object_that_is_given_up_makes_room_for_another() -> None:
    rig = Rig()
    await rig.fail_with_503(*["bad"] * FAILURES)
    rig.now += PAUSE_MAX_S
    forever = asyncio.Event()

    async def wait() -> None:
        await forever.wait()

    probe = asyncio.create_task(rig.call(wait, path="bad"))
    await asyncio.sleep(0)
    probe.cancel()
    await asyncio.wait([probe])

    await rig.call(good_answer, path="bad")


async def test_calls_that_outlast_their_deadline_while_they_ask_have_failed() -> None:
    rig = Rig(OriginLimits(deadline_s=0.05))
    forever = asyncio.Event()

    async def wait() -> None:
        await forever.wait()

    for _ in range(FAILURES):
        with pytest.raises(
            OriginUnavailable, match=r"did not answer in time|\(no answer in time\)"
        ):
            await rig.call(wait)

    assert not rig.gate.is_healthy


async def test_objects_that_fail_are_remembered_within_bounds() -> None:
    rig = Rig()
    for number in range(OBJECTS_MAX + 10):
        await rig.fail_with_503(f"bad-{number}")
        await rig.succeed()

    assert f"{OBJECTS_MAX} objects" in repr(rig.gate)

"""What a failing origin is asked, what its callers are told, and what limits of a volume hold."""

import asyncio
import itertools
import random
import re
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest

from penstock.deadline import Deadline
from penstock.errors import (
    NotPermitted,
    ObjectChanged,
    ObjectNotFound,
    OriginUnavailable,
    Overloaded,
    PenstockError,
    Uncacheable,
)
from penstock.origin_limits import VolumeLimits
from penstock.volumes import Volume
from penstock_node.origin import Origin, OriginLimits, OriginMeta, Origins
from penstock_node.origin.breaker import BreakerLimits
from penstock_node.testbed.hand_clock import HandClock
from penstock_node.testbed.odd_origin import OddObject, OddOrigin
from penstock_node.testbed.processes import free_port, wait_until

DATA = bytes(range(256)) * 40
META = OriginMeta('"v1"', len(DATA), 0)
GOOD = OddObject(DATA, etag='"v1"')
FAST = OriginLimits(backoff_s=0.01, backoff_max_s=0.05, deadline_s=20.0)
FAILURES = BreakerLimits().failures_max
PAUSE_MAX_S = BreakerLimits().pause_max_s
SILENCE_S = BreakerLimits().silence_s
MANY = [f"other-{n}" for n in range(20)]


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def guarded(clock: HandClock) -> Iterator[Origins]:
    with closing(Origins(limits=FAST, clock=clock)) as opened:
        yield opened


@pytest.fixture
def web(guarded: Origins, odd: OddOrigin) -> Origin:
    return guarded.get(Volume("web", odd.url))


async def read(origin: Origin, path: str = "model") -> bytes:
    return bytes(await origin.read(path, META.version, META.size, 0, META.size))


def put_many(odd: OddOrigin, served: OddObject) -> None:
    """Serve it as ``model`` and under many other names."""
    for path in ("model", *MANY):
        odd.put(path, served)


async def fail(origin: Origin, *, times: int) -> list[str]:
    """Ask for another object each time."""
    told = []
    for path in itertools.islice(itertools.cycle(MANY), times):
        with pytest.raises(OriginUnavailable) as caught:
            await origin.head(path)
        told.append(str(caught.value))
    return told


async def until(odd: OddOrigin, requests: int) -> None:
    """Return when so many have arrived."""
    await asyncio.to_thread(
        wait_until,
        lambda: len(odd.requests) >= requests,
        deadline_s=30.0,
        what=f"{requests} requests have arrived",
    )


@pytest.mark.parametrize("status", [500, 503, 429])
async def test_an_origin_that_fails_is_asked_only_until_that_is_clear(
    web: Origin, odd: OddOrigin, status: int
) -> None:
    put_many(odd, OddObject(DATA, status=status))

    told = await fail(web, times=100)

    assert len(odd.requests) == FAILURES * FAST.attempts_max
    assert web.counters.refused_calls == 100 - FAILURES
    assert "volume 'web'" in told[-1]
    assert "has not answered since" in told[-1]
    assert f"(it answers {status} " in told[-1]
    assert "it is tried again in" in told[-1]


async def test_one_request_at_a_time_finds_out_whether_it_is_back(
    web: Origin, odd: OddOrigin, guarded: Origins, clock: HandClock
) -> None:
    put_many(odd, OddObject(DATA, status=503))
    await fail(web, times=FAILURES)
    odd.requests.clear()

    for _ in range(3):
        clock.now += PAUSE_MAX_S
        await fail(web, times=20)
    assert len(odd.requests) == 3
    assert not guarded.gates()["web"][0].is_healthy

    put_many(odd, GOOD)
    await fail(web, times=1)  # Not before the pause is over.
    clock.now += PAUSE_MAX_S
    assert (await web.head("model")).version == '"v1"'
    assert await read(web) == DATA
    assert guarded.gates()["web"][0].is_healthy


async def test_a_herd_costs_a_failing_origin_as_much_as_a_few_readers_do(
    web: Origin, odd: OddOrigin
) -> None:
    odd.put("model", OddObject(DATA, status=503))

    outcomes = await asyncio.gather(*(read(web) for _ in range(500)), return_exceptions=True)

    assert {type(each) for each in outcomes} == {OriginUnavailable}
    assert len(odd.requests) <= FAST.requests_max * FAST.attempts_max


async def test_one_object_that_fails_leaves_the_others_readable(
    web: Origin, odd: OddOrigin
) -> None:
    odd.put("model", GOOD)
    odd.put("bad", OddObject(DATA, status=500))

    herd = [read(web, "bad") for _ in range(200)]
    outcomes = await asyncio.gather(*herd, return_exceptions=True)
    last = outcomes[-1]

    assert {type(each) for each in outcomes} == {OriginUnavailable}
    assert re.search(r"/bad: volume 'web': .* has not given it since .*\(it answers 500", str(last))
    assert len(odd.requests) <= FAST.requests_max * FAST.attempts_max
    assert await read(web) == DATA


async def test_an_origin_that_hangs_is_found_out_by_its_first_call(
    odd: OddOrigin, clock: HandClock
) -> None:
    limits = replace(FAST, silence_timeout_s=1.0, attempts_s=30.0, attempts_max=2)
    with closing(Origins(limits=limits, clock=clock)) as impatient:
        web = impatient.get(Volume("web", odd.url))
        never = threading.Event()
        odd.put("model", OddObject(DATA, etag='"v1"', held_until=never))
        first = asyncio.create_task(read(web))
        await until(odd, 1)
        clock.now += SILENCE_S
        with pytest.raises(OriginUnavailable, match=r"127\.0\.0\.1"):
            await first

        asked = len(odd.requests)
        put_many(odd, GOOD)
        told = await fail(web, times=20)
        never.set()

        assert asked == 2  # Neither attempt was answered.
        assert len(odd.requests) == asked
        assert "(no answer in time)" in told[-1]


async def test_an_attempt_that_is_not_worth_the_time_is_not_made(odd: OddOrigin) -> None:
    limits = replace(FAST, silence_timeout_s=0.2, attempts_s=0.3)
    with closing(Origins(limits=limits)) as impatient:
        never = threading.Event()
        odd.put("model", OddObject(DATA, etag='"v1"', held_until=never))
        with pytest.raises(OriginUnavailable):
            await read(impatient.get(Volume("web", odd.url)))
        never.set()

    assert 1 <= len(odd.requests) <= 2 < FAST.attempts_max  # Two are longer than 0.3 s.


async def test_a_slow_body_is_not_taken_for_silence(odd: OddOrigin) -> None:
    limits = replace(FAST, silence_timeout_s=1.0)
    odd.put("model", OddObject(DATA, etag='"v1"', piece_every_s=0.25))
    with closing(Origins(limits=limits)) as impatient:
        assert await read(impatient.get(Volume("web", odd.url))) == DATA


async def test_an_origin_that_nobody_listens_at_says_so(guarded: Origins) -> None:
    origin = guarded.get(Volume("gone", f"http://127.0.0.1:{free_port()}"))

    told = await fail(origin, times=FAILURES + 1)

    assert "(no connection)" in told[-1]
    assert origin.counters.head_requests == FAILURES * FAST.attempts_max


async def test_what_an_origin_refuses_says_that_it_answers(
    web: Origin, odd: OddOrigin, guarded: Origins
) -> None:
    odd.put("model", GOOD)
    odd.put("changed", OddObject(DATA, etag='"v2"'))
    odd.put("odd", replace(GOOD, honours_ranges=False))
    odd.put("private", OddObject(DATA, status=403))
    odd.put("wrong", OddObject(DATA, status=400))
    refused: list[tuple[str, type[PenstockError]]] = [
        ("absent", ObjectNotFound),
        ("changed", ObjectChanged),
        ("odd", Uncacheable),
        ("private", NotPermitted),
        ("wrong", OriginUnavailable),
    ]

    for _ in range(FAILURES):
        for path, error in refused:
            with pytest.raises(error):
                await read(web, path)

    assert await read(web) == DATA
    assert guarded.gates()["web"][0].is_healthy


async def test_a_probe_that_is_cancelled_makes_room_for_another(
    web: Origin, odd: OddOrigin, clock: HandClock
) -> None:
    put_many(odd, OddObject(DATA, status=503))
    await fail(web, times=FAILURES)
    clock.now += PAUSE_MAX_S
    never = threading.Event()
    odd.put("model", OddObject(DATA, etag='"v1"', held_until=never))
    asked = len(odd.requests)
    probe = asyncio.create_task(read(web))
    await until(odd, asked + 1)

    assert "it is being tried again now" in (await fail(web, times=1))[0]
    probe.cancel()
    await asyncio.wait([probe])
    never.set()
    odd.put("model", GOOD)

    assert await read(web) == DATA


async def test_a_volume_that_changes_is_asked_at_once(
    web: Origin, odd: OddOrigin, guarded: Origins
) -> None:
    put_many(odd, OddObject(DATA, status=503))
    await fail(web, times=FAILURES)
    odd.put("new/model", GOOD)

    moved = guarded.get(Volume("web", f"{odd.url}/new"))

    assert await read(moved) == DATA


# Limits ------------------------------------------------------------------------------------


async def test_a_volume_says_how_many_requests_run_at_once(
    guarded: Origins, odd: OddOrigin
) -> None:
    let_go = threading.Event()
    odd.put("model", OddObject(DATA, etag='"v1"', held_until=let_go))
    origin = guarded.get(Volume("web", odd.url, limits=VolumeLimits(requests_max=2)))

    reads = [asyncio.create_task(read(origin)) for _ in range(5)]
    await until(odd, 2)
    gate = guarded.gates()["web"][0]
    waiting, arrived = gate.waiting, len(odd.requests)
    let_go.set()

    assert (waiting, arrived) == (3, 2)
    assert await asyncio.gather(*reads) == [DATA] * 5
    assert gate.waiting == 0


@pytest.mark.parametrize(
    "limits", [OriginLimits(requests_per_s=0.01), OriginLimits(bytes_per_s=10.0)]
)
async def test_what_exceeds_the_rate_waits_and_no_longer_than_its_deadline(
    odd: OddOrigin, limits: OriginLimits
) -> None:
    odd.put("model", GOOD)
    with closing(Origins(limits=limits)) as slow:
        origin = slow.get(Volume("web", odd.url))
        assert await read(origin) == DATA

        with pytest.raises(Overloaded, match=r"'web'.*no turn.*raise the volume's limits"):
            await origin.read("model", '"v1"', len(DATA), 0, 10, deadline=Deadline.after(0.2))

        assert len(odd.requests) == 1
        assert slow.gates()["web"][0].is_healthy  # It was our own doing.


async def test_what_waits_for_its_turn_goes_in_order(guarded: Origins, odd: OddOrigin) -> None:
    paths = [f"model-{n}" for n in range(20)]
    random.Random(1).shuffle(paths)
    for path in paths:
        odd.put(path, GOOD)
    limits = VolumeLimits(requests_max=1, requests_per_s=200.0)
    origin = guarded.get(Volume("web", odd.url, limits=limits))

    await asyncio.gather(*(read(origin, path) for path in paths))

    assert [request.path for request in odd.requests] == paths

"""When an origin is left alone, and when it is tried again: by times that the test gives."""

import random

import pytest

from penstock_node.origin.breaker import Breaker, BreakerLimits, Permit

LIMITS = BreakerLimits(failures_max=3, silence_s=10.0, pause_s=2.0, pause_max_s=30.0)


class Rig:
    """A breaker, and a clock that stands still until it is told to go on."""

    def __init__(self, seed: int = 0) -> None:
        self.now = 100.0
        self.breaker = Breaker(clock=lambda: self.now, rng=random.Random(seed), limits=LIMITS)

    def enter(self) -> Permit:
        permit = self.breaker.enter()
        assert permit is not None, "the call was refused"
        self.breaker.asks(permit)
        return permit

    def fail(self, times: int = 1) -> None:
        for _ in range(times):
            self.breaker.failed(self.enter(), "no connection")

    def open(self) -> None:
        self.fail(LIMITS.failures_max)
        assert self.breaker.outage is not None

    def wait_for_probe(self) -> None:
        assert self.breaker.outage is not None
        self.now = self.breaker.outage.retry_at


def test_calls_that_fail_in_a_row_open_it_and_the_next_is_refused() -> None:
    rig = Rig()

    rig.fail(2)
    last = rig.enter()
    rig.now += 1.0
    outage = rig.breaker.failed(last, "it answers 503")

    assert outage is not None
    assert outage == rig.breaker.outage
    assert (outage.since, outage.reason) == (100.0, "it answers 503")
    assert rig.breaker.enter() is None


def test_an_answer_between_failures_keeps_it_closed() -> None:
    rig = Rig()

    for _ in range(10):
        rig.fail(2)
        rig.breaker.answered(rig.enter())

    assert rig.breaker.outage is None


def test_one_call_that_met_nothing_but_silence_opens_it() -> None:
    rig = Rig()
    call = rig.enter()
    rig.now += LIMITS.silence_s

    rig.breaker.failed(call, "no answer in time")

    assert rig.breaker.enter() is None


def test_a_slow_failure_while_others_are_answered_does_not_open_it() -> None:
    rig = Rig()
    slow = rig.enter()
    rig.now += LIMITS.silence_s / 2
    rig.breaker.answered(rig.enter())
    rig.now += LIMITS.silence_s / 2

    rig.breaker.failed(slow, "no answer in time")

    assert rig.breaker.outage is None


def test_waiting_before_it_asks_is_not_the_origins_silence() -> None:
    rig = Rig()
    call = rig.breaker.enter()
    assert call is not None
    rig.now += LIMITS.silence_s
    rig.breaker.asks(call)

    rig.breaker.failed(call, "no connection")

    assert rig.breaker.outage is None


def test_after_the_pause_one_call_alone_is_let_through() -> None:
    rig = Rig()
    rig.open()
    rig.wait_for_probe()

    assert rig.enter().is_probe
    assert rig.breaker.is_probing
    assert rig.breaker.enter() is None


def test_a_probe_that_is_answered_closes_it_and_tells_of_the_outage() -> None:
    rig = Rig()
    rig.open()
    rig.wait_for_probe()

    ended = rig.breaker.answered(rig.enter())

    assert ended is not None
    assert ended.since == 100.0
    assert [rig.enter().is_probe for _ in range(5)] == [False] * 5
    rig.fail(LIMITS.failures_max - 1)
    assert rig.breaker.outage is None  # It counts anew.


def test_a_probe_that_fails_lengthens_the_pause_up_to_its_limit() -> None:
    rig = Rig()
    rig.open()
    pauses = []
    for _ in range(20):
        assert rig.breaker.outage is not None
        pauses.append(rig.breaker.outage.retry_at - rig.now)
        rig.wait_for_probe()
        assert rig.breaker.failed(rig.enter(), "no connection") is None  # It began before.

    longest = [min(30.0, 2.0 * 2**n) for n in range(20)]
    assert all(most / 2 <= pause <= most for pause, most in zip(pauses, longest, strict=True))
    assert rig.breaker.outage is not None
    assert rig.breaker.outage.since == 100.0


def test_pauses_differ_between_nodes() -> None:
    rigs = [Rig(seed) for seed in range(5)]
    for rig in rigs:
        rig.open()

    assert len({rig.breaker.outage and rig.breaker.outage.retry_at for rig in rigs}) == 5


def test_a_probe_that_was_given_up_makes_room_for_the_next() -> None:
    rig = Rig()
    rig.open()
    rig.wait_for_probe()

    rig.breaker.left(rig.enter())

    assert rig.enter().is_probe


def test_a_herd_that_fails_together_opens_it_once() -> None:
    rig = Rig()
    herd = [rig.enter() for _ in range(100)]

    began = [rig.breaker.failed(call, "no connection") for call in herd]

    assert sum(outage is not None for outage in began) == 1
    assert rig.breaker.outage is not None
    assert rig.breaker.outage.retry_at <= rig.now + LIMITS.pause_s


@pytest.mark.parametrize("then", ["answered", "failed", "left"])
def test_a_call_from_before_the_outage_changes_nothing(then: str) -> None:
    rig = Rig()
    old = rig.enter()
    rig.open()
    rig.wait_for_probe()
    probe = rig.enter()
    known = rig.breaker.outage

    assert not rig.breaker.stands(old)
    if then == "left":
        rig.breaker.left(old)
    elif then == "failed":
        rig.breaker.failed(old, "late")
    else:
        rig.breaker.answered(old)

    assert rig.breaker.outage is known
    assert rig.breaker.is_probing
    assert rig.breaker.answered(probe) is known


@pytest.mark.parametrize("seed", range(50))
def test_whatever_happens_it_asks_seldom_while_down_and_closes_when_up(seed: int) -> None:
    """Safety: at most one probe at once. Liveness: once the origin answers, it closes."""
    rng = random.Random(seed)
    rig = Rig(seed)
    calls: list[Permit] = []
    for _ in range(300):
        rig.now += rng.choice((0.0, 0.1, 5.0))
        permit = rig.breaker.enter()
        if permit is not None:
            rig.breaker.asks(permit)
            calls.append(permit)
        assert sum(call.is_probe and rig.breaker.stands(call) for call in calls) <= 1
        if calls and rng.random() < 0.7:
            call = calls.pop(rng.randrange(len(calls)))
            match rng.choice(("answered", "failed", "failed", "left")):
                case "answered":
                    rig.breaker.answered(call)
                case "failed":
                    rig.breaker.failed(call, "no connection")
                case _:
                    rig.breaker.left(call)

    for call in calls:
        rig.breaker.left(call)
    rig.now += LIMITS.pause_max_s
    rig.breaker.answered(rig.enter())
    assert rig.breaker.outage is None, f"still open; replay with seed {seed}"

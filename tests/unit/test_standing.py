"""What is known of nodes: how long suspects are passed over, who finds out, who has less to do."""

import contextlib
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from penstock.hedging import PART, SAVED_MAX, HedgeBudget
from penstock.standing import (
    JITTER,
    PROBE_S,
    SUSPECT_MAX_S,
    SUSPECT_S,
    TOLD_S,
    Standing,
)
from penstock_node.testbed.hand_clock import HandClock

NODES = [f"n{at}" for at in range(20)]


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def standing(clock: HandClock) -> Standing:
    return Standing(clock=clock, rng=random.Random(11))


def wait_for(standing: Standing, clock: HandClock, node: str) -> float:
    """Let time pass until the node is no suspect; return how much."""
    begun = clock.now
    while standing.is_suspected(node):
        clock.now += 0.01
    return clock.now - begun


def test_a_node_that_fails_again_and_again_is_passed_over_for_longer_up_to_a_bound(
    standing: Standing, clock: HandClock
) -> None:
    pauses = []
    for _ in range(8):
        standing.suspect("a")
        pauses.append(wait_for(standing, clock, "a"))
        with standing.asking("a"):
            pass  # It does not answer this time either.

    for strikes, pause_s in enumerate(pauses):
        wanted_s = min(SUSPECT_MAX_S, SUSPECT_S * 2**strikes)
        assert (1 - JITTER) * wanted_s - 0.02 <= pause_s <= (1 + JITTER) * wanted_s + 0.02


def test_not_all_processes_come_back_at_once(clock: HandClock) -> None:
    waits = set()
    for seed in range(50):
        one = Standing(clock=clock, rng=random.Random(seed))
        one.suspect("a")
        waits.add(round(wait_for(one, clock, "a"), 2))

    assert len(waits) > 20


def test_those_that_waited_for_it_together_count_as_one(
    standing: Standing, clock: HandClock
) -> None:
    for _ in range(16):
        standing.suspect("a")

    assert wait_for(standing, clock, "a") <= (1 + JITTER) * SUSPECT_S + 0.02


def test_one_request_finds_out_whether_it_is_back_and_the_others_pass_it_over(
    standing: Standing, clock: HandClock
) -> None:
    standing.suspect("a")
    wait_for(standing, clock, "a")

    with standing.asking("a"):
        assert standing.is_suspected("a")
        clock.now += PROBE_S  # It never came to an end: then another may.
        assert not standing.is_suspected("a")
    with standing.asking("a"):
        standing.trust(["a"])
        assert not standing.is_suspected("a")


def test_of_those_who_would_find_out_one_does_once_the_suspects_time_is_over(
    standing: Standing, clock: HandClock
) -> None:
    assert not standing.find_out("a")  # Nobody suspects it.
    standing.suspect("a")
    assert not standing.find_out("a")
    wait_for(standing, clock, "a")

    assert [standing.find_out("a") for _ in range(3)] == [True, False, False]
    assert standing.is_suspected("a")
    standing.trust(["a"])
    assert not standing.find_out("a")


def test_asking_a_node_that_nobody_suspects_changes_nothing(standing: Standing) -> None:
    with standing.asking("a"), standing.asking("a"):
        assert not standing.is_suspected("a")


def test_two_choices_by_load_leave_nobody_idle_and_nobody_far_ahead(standing: Standing) -> None:
    """1,000 requests that do not end: no node has more than the mean and a few."""
    chosen = Counter[str]()
    with contextlib.ExitStack() as asking:
        for _ in range(1_000):
            node = standing.less_loaded(NODES)
            asking.enter_context(standing.asking(node))
            chosen[node] += 1

    assert set(chosen) == set(NODES)
    assert max(chosen.values()) <= 1_000 / len(NODES) + 5


def test_what_a_node_told_counts_for_a_moment(standing: Standing, clock: HandClock) -> None:
    standing.tells_load("a", 5)
    assert {standing.less_loaded(["a", "b"]) for _ in range(20)} == {"b"}

    clock.now += TOLD_S

    assert {standing.less_loaded(["a", "b"]) for _ in range(20)} == {"a", "b"}


def test_a_node_that_was_silent_for_a_moment_is_chosen_last(standing: Standing) -> None:
    standing.is_slow("a")
    standing.tells_load("b", 5000)

    assert {standing.less_loaded(["a", "b"]) for _ in range(20)} == {"b"}


def test_requests_that_are_over_count_no_more(standing: Standing) -> None:
    with ThreadPoolExecutor(4) as threads:

        def ask(_at: int) -> None:
            with standing.asking("a"):
                pass

        list(threads.map(ask, range(2_000)))

    assert {standing.less_loaded(["a", "b"]) for _ in range(20)} == {"a", "b"}


def test_a_part_of_all_requests_may_be_hedged() -> None:
    budget = HedgeBudget()
    at_once = sum(budget.take() for _ in range(100))
    assert at_once == SAVED_MAX

    hedged = 0
    for _ in range(10_000):
        budget.earn()
        hedged += budget.take()

    assert hedged == pytest.approx(10_000 * PART, abs=1)


def test_a_quiet_time_saves_up_no_more_than_so_much() -> None:
    budget = HedgeBudget()
    for _ in range(10_000):
        budget.earn()

    assert sum(budget.take() for _ in range(100)) == SAVED_MAX

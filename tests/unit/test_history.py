"""Random histories of faults: what they never do, over many seeds; nothing is carried out."""

import random
from collections.abc import Iterator

import pytest

from penstock_node.testbed.history import LOST_MAX, Action, World, at_random, outage

NODES = ("n1", "n2", "n3", "n4")
SEEDS = range(100)
STEPS = 60


def world(copies: int) -> World:
    return World(NODES, copies, odd_disk="n4")


def carried_out(made: World, seed: int) -> Iterator[Action]:
    for action in at_random(made, random.Random(seed), steps=STEPS, is_over=lambda: False):
        made.apply(action)
        yield action


@pytest.mark.parametrize("copies", [1, 2])
def test_a_seed_gives_the_same_history_again_and_others_give_others(copies: int) -> None:
    histories = [tuple(carried_out(world(copies), seed)) for seed in SEEDS]

    assert histories == [tuple(carried_out(world(copies), seed)) for seed in SEEDS]
    assert len(set(histories)) == len(SEEDS)


@pytest.mark.parametrize("copies", [1, 2])
def test_each_chunk_can_be_served_at_every_moment(copies: int) -> None:
    for seed in SEEDS:
        made = world(copies)
        for _ in carried_out(made, seed):
            assert len(made.lost) <= LOST_MAX[copies]
            if made.origin:  # Then all is read from nodes that all reach.
                assert (made.lost, made.parted, made.drained) == ({}, "", "")
            if copies == 1:
                assert not any(how.startswith("hide") for how in made.lost.values())


@pytest.mark.parametrize("copies", [1, 2])
def test_every_verb_comes_up_and_whatever_is_broken_can_be_mended(copies: int) -> None:
    verbs: set[str] = set()
    for seed in SEEDS:
        made = world(copies)
        verbs |= {action.verb for action in carried_out(made, seed)}
        for action in made.mending():
            made.apply(action)

        assert made == world(copies)
    assert verbs == {
        *("lose", "mend", "part", "join", "lose etcd", "etcd back"),
        *("lose origin", "origin back", "weigh", "drain", "uncordon"),
    }


def test_an_outage_kills_at_least_one_node_and_starts_it_again() -> None:
    made = world(2)

    actions = []
    for action in outage(made, random.Random(1), how="kill", is_over=lambda: True):
        made.apply(action)
        actions.append(action.verb)

    assert actions == ["lose etcd", "lose", "mend"]
    assert made.etcd == "kill"

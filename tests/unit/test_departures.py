"""Who has departed, told by hand-made sightings: no clock, no coordinator."""

import random

import pytest

from penstock_node.coordination.departures import Departures, Sighting

LEASE_S = 10.0
GRACE_S = 60.0
TICK_S = 2.0
ALL = frozenset({"a", "b"})


class World:
    """Shows an observer the cluster every two seconds."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.departures = Departures()
        self.connected = True
        self.alive = ALL

    def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds / TICK_S)):
            self.now += TICK_S
            self.look()

    def look(self) -> None:
        self.departures.observe(
            Sighting(self.now, connected=self.connected, placed=ALL, alive=self.alive),
            lease_ttl_s=LEASE_S,
        )

    @property
    def departed(self) -> frozenset[str]:
        return self.departures.departed(grace_s=GRACE_S)


@pytest.fixture
def world() -> World:
    made = World()
    made.look()
    made.pass_time(LEASE_S)
    return made


def test_a_node_departs_when_its_grace_is_over_and_not_before(world: World) -> None:
    world.alive = frozenset({"a"})

    world.pass_time(GRACE_S)
    assert world.departed == frozenset()

    world.pass_time(TICK_S)
    assert world.departed == {"b"}


def test_a_node_that_comes_back_begins_a_new_grace(world: World) -> None:
    world.alive = frozenset({"a"})
    world.pass_time(GRACE_S - TICK_S)
    world.alive = ALL
    world.pass_time(TICK_S)
    world.alive = frozenset({"a"})

    world.pass_time(GRACE_S)

    assert world.departed == frozenset()


def test_no_grace_runs_while_the_coordinator_is_away_nor_for_one_lease_after(
    world: World,
) -> None:
    world.alive = frozenset({"a"})
    world.pass_time(TICK_S)
    world.connected = False
    world.pass_time(10 * GRACE_S)
    world.connected = True
    world.pass_time(LEASE_S)
    assert world.departures.away_s("b") == 0.0

    world.pass_time(GRACE_S)
    assert world.departed == frozenset()

    world.pass_time(TICK_S)
    assert world.departed == {"b"}


def test_nobody_departs_right_after_an_outage_though_the_grace_was_over(world: World) -> None:
    world.alive = frozenset({"a"})
    world.pass_time(GRACE_S + TICK_S)
    assert world.departed == {"b"}

    world.connected = False
    world.pass_time(TICK_S)
    assert world.departed == frozenset()
    world.connected = True
    world.pass_time(LEASE_S)
    assert world.departed == frozenset()

    world.pass_time(TICK_S)
    assert world.departed == {"b"}, "counted time stays counted"


def test_time_that_the_process_slept_through_does_not_count(world: World) -> None:
    world.alive = frozenset({"a"})
    world.pass_time(TICK_S)

    world.now += 10 * GRACE_S
    world.look()
    world.pass_time(LEASE_S)

    assert world.departures.away_s("b") == 0.0


def test_a_replaced_store_counts_as_an_outage(world: World) -> None:
    world.alive = frozenset()
    world.pass_time(GRACE_S + TICK_S)
    assert world.departed == ALL

    world.departures.interrupted()
    world.pass_time(LEASE_S)

    assert world.departed == frozenset()


def test_an_observer_that_just_started_waits_for_a_whole_grace() -> None:
    world = World()
    world.alive = frozenset({"a"})

    world.pass_time(LEASE_S + GRACE_S)

    assert world.departed == frozenset()


@pytest.mark.parametrize("seed", range(200))
def test_whoever_departs_was_seen_away_for_the_whole_grace(seed: int) -> None:
    """Safety under any mix of outages and restarts. Liveness: when all is calm, the dead go."""
    rng = random.Random(seed)
    world, seen_away_s = World(), 0.0
    for _ in range(300):
        match rng.randrange(12):
            case 0:
                world.connected = not world.connected
            case 1:
                world.alive = rng.choice((ALL, frozenset({"a"})))
        world.pass_time(TICK_S)
        is_away = "b" not in world.alive
        seen_away_s = seen_away_s + TICK_S * world.connected if is_away else 0.0
        assert "a" not in world.departed
        if world.departed:
            assert seen_away_s >= GRACE_S, f"departed early; replay with seed {seed}"
            assert world.connected

    world.connected, world.alive = True, frozenset({"a"})
    world.pass_time(LEASE_S + GRACE_S + 2 * TICK_S)
    assert world.departed == {"b"}, f"never departed; replay with seed {seed}"

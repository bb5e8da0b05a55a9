"""The large scenarios at the size of a test: `--scenario` of `tests.simulation` has full size."""

import pytest

from tests.simulation import cold_start, hot_object, maintenance

NOISE_POINTS = 4.0
"""Of a hit ratio over so few reads; at full size it is below half a point."""


@pytest.mark.parametrize(("chunks", "reads"), [(1, 2), (24, 1)])
def test_many_readers_of_one_new_object_cost_the_origin_its_bytes_once(
    chunks: int, reads: int
) -> None:
    outcome = hot_object.run(nodes=6, clients=40, chunks=chunks, reads=reads)

    assert outcome.wrong == 0
    assert outcome.origin_reads == chunks
    assert sum(outcome.served) == 40 * chunks * reads


def test_an_object_of_many_chunks_is_spread_over_its_owners() -> None:
    outcome = hot_object.run(nodes=4, clients=12, chunks=96, reads=1)

    assert outcome.busiest <= 1.5, outcome


def test_a_fleet_that_starts_cold_takes_little_longer_than_its_busiest_link() -> None:
    outcome = cold_start.run(cold_start.SMALL)

    assert outcome.origin_bytes == 1.0
    assert outcome.over_bound <= 1.3, outcome  # So few chunks are spread less evenly than many.


def test_maintenance_costs_no_hits_but_those_of_the_capacity_that_is_gone() -> None:
    outcome = maintenance.run(maintenance.SMALL)

    assert outcome.wrong == 0
    assert outcome.worst_points >= -NOISE_POINTS, outcome

"""An hour of samples in a fixed size, and rates out of counters that jump."""

import math

import numpy as np
import pytest

from penstock.overview import SAMPLES_MAX, SERIES
from penstock_node.overview.history import LOOKS_MAX, Growth, History, Samples, sample_at

NOW = sample_at(1_790_000_000.0)
ROW = list(range(len(SERIES)))


def sample(value: float) -> list[float]:
    """A sample that has a value in every series."""
    return [value] * len(SERIES)


def first_series(samples: Samples) -> list[float]:
    return [float(value) for value in samples.values[0]]


def test_samples_come_back_in_order_with_their_numbers() -> None:
    history = History()
    for at in range(3):
        history.set(NOW + at, sample(at))

    told = history.since(0)

    assert (told.first, told.after) == (NOW, NOW + 3)
    assert first_series(told) == [0, 1, 2]
    assert first_series(history.since(NOW)) == [1, 2]
    assert first_series(history.since(NOW + 2)) == []


def test_every_series_keeps_its_own_values() -> None:
    history = History()
    history.set(NOW, ROW)

    assert history.since(0).values[:, 0].tolist() == ROW


def test_a_history_of_days_takes_no_more_than_one_of_an_hour() -> None:
    history = History()
    before = history.size_bytes
    for at in range(5 * SAMPLES_MAX):
        history.set(NOW + at, sample(at))

    told = history.since(0)

    assert history.size_bytes == before == len(SERIES) * SAMPLES_MAX * 8
    assert told.first == NOW + 4 * SAMPLES_MAX
    assert first_series(told) == list(range(4 * SAMPLES_MAX, 5 * SAMPLES_MAX))


def test_what_was_not_taken_is_nothing_and_not_what_stood_there_an_hour_ago() -> None:
    history = History()
    for at in range(SAMPLES_MAX):
        history.set(NOW + at, sample(7))
    history.set(NOW + SAMPLES_MAX + 2, sample(8))

    *_, before, skipped, also_skipped, last = first_series(history.since(0))

    assert (before, last) == (7, 8)
    assert math.isnan(skipped)
    assert math.isnan(also_skipped)


def test_a_clock_that_is_set_back_overwrites_nothing() -> None:
    history = History()
    history.set(NOW, sample(1))
    history.set(NOW - 5, sample(2))

    assert first_series(history.since(0)) == [1]


def test_samples_of_several_nodes_are_added_up_where_any_node_has_one() -> None:
    total, one, other = History(), History(), History()
    one.set(NOW, sample(1))
    one.set(NOW + 2, sample(2))
    other.set(NOW + 2, sample(10))
    other.set(NOW + 3, sample(20))

    total.add(one.since(0))
    total.add(other.since(0))

    told = total.since(0)
    assert told.first == NOW
    first, missing, both, last = first_series(told)
    assert (first, both, last) == (1, 12, 20)
    assert math.isnan(missing)


def test_samples_older_than_an_hour_are_not_added() -> None:
    total, late = History(), History()
    total.set(NOW + 2 * SAMPLES_MAX, sample(1))
    late.set(NOW, sample(9))
    late.set(NOW + SAMPLES_MAX + 1, sample(5))

    total.add(late.since(0))

    assert [v for v in first_series(total.since(0)) if not math.isnan(v)] == [5, 1]
    assert np.nansum(total.since(0).values) == 6 * len(SERIES)


def looked(*looks: tuple[float, float]) -> Growth:
    """Growth of one counter, looked at at times with values."""
    growth = Growth(["bytes"])
    for at_s, value in looks:
        growth.look({"bytes": value}, at_s=at_s)
    return growth


def test_a_rate_is_over_the_last_ten_seconds() -> None:
    growth = looked(*((at, at * 100.0) for at in range(0, 40, 2)), (40, 38 * 100.0 + 5000))

    assert growth.rates()["bytes"] == pytest.approx((8 * 100 + 5000) / 10)


def test_a_counter_that_begins_anew_has_not_grown() -> None:
    growth = looked((0, 1000), (2, 1500), (4, 20), (6, 120))

    assert growth.over(60)["bytes"] == 500 + 100


def test_after_a_pause_a_rate_is_over_the_time_that_has_passed() -> None:
    growth = looked((0, 0), (2, 0), (102, 1000))

    assert growth.rates()["bytes"] == pytest.approx(10)


def test_before_the_second_look_nothing_grows() -> None:
    assert Growth(["bytes"]).rates() == {"bytes": 0.0}
    assert looked((0, 10**12)).rates() == {"bytes": 0.0}
    assert looked((0, 0), (0, 10)).rates() == {"bytes": 0.0}


def test_looks_are_kept_for_a_minute_and_no_longer() -> None:
    growth = looked(*((2.0 * at, 2.0 * at) for at in range(1000)))

    assert len(growth._looks) == LOOKS_MAX
    assert growth.over(60)["bytes"] == pytest.approx(60)
    assert growth.over(10_000)["bytes"] == pytest.approx(60)

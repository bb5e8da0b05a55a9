"""The directories that are read most, whatever else is read, in a few entries."""

import random
from collections import Counter

import pytest

from penstock_node.hottest import ENTRIES_MAX, WINDOW_S, WINDOWS, Hottest

ALL_S = WINDOWS * WINDOW_S


def test_reads_are_counted_by_directory_and_the_hottest_comes_first() -> None:
    hottest = Hottest()
    hottest.note("s3://bucket/llama/1", 100)
    hottest.note("s3://bucket/sdxl/unet", 700)
    hottest.note("s3://bucket/llama/2", 900)
    hottest.turn()

    told = hottest.by_the_second(limit=10)

    assert list(told.items()) == [("s3://bucket/llama", 100.0), ("s3://bucket/sdxl", 70.0)]
    assert list(hottest.by_the_second(limit=1)) == ["s3://bucket/llama"]


def test_what_was_read_longer_ago_than_ten_seconds_does_not_count() -> None:
    hottest = Hottest()
    hottest.note("b/old/x", 1000)
    for _ in range(WINDOWS):
        hottest.turn()
    assert hottest.by_the_second(limit=1) == {"b/old": 1000 / ALL_S}

    hottest.turn()

    assert hottest.by_the_second(limit=1) == {}


def test_a_key_without_a_directory_stands_for_itself() -> None:
    hottest = Hottest()
    hottest.note("key", 10)
    hottest.turn()

    assert list(hottest.by_the_second(limit=1)) == ["key"]


@pytest.mark.parametrize("seed", range(5))
def test_many_small_directories_hide_no_hot_one_and_add_at_most_one_part_in_64(seed: int) -> None:
    rng = random.Random(seed)
    exact: Counter[str] = Counter()
    hottest = Hottest()
    for _ in range(20_000):
        hot = rng.random() < 0.3
        name = f"b/hot-{rng.randrange(3)}" if hot else f"b/{rng.randrange(5_000)}"
        size = rng.randrange(1, 1000)
        exact[name] += size
        hottest.note(f"{name}/file", size)
    assert len(hottest._now) <= ENTRIES_MAX
    hottest.turn()

    told = hottest.by_the_second(limit=ENTRIES_MAX)

    error = exact.total() / ENTRIES_MAX / ALL_S
    assert list(told)[:3] == [name for name, _ in exact.most_common(3)]
    for name, rate in told.items():
        assert exact[name] / ALL_S <= rate + 1e-6
        assert rate <= exact[name] / ALL_S + error

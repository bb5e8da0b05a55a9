"""Orders that follow from numbers: the same for ever, and without a pattern that one would see."""

import numpy as np
import pytest

from penstock.data.chance import _scramble, _scrambled, draw, mix, permutation

KEY = 0x0123456789ABCDEF
GOLDEN_ORDER = [5, 6, 1, 3, 8, 4, 0, 7, 2, 9]
GOLDEN_DRAWS = [508, 965, 243, 966, 740, 752, 746, 501]
GOLDEN_MIX = 1846129603375045472


def test_orders_are_those_that_positions_of_older_trainings_mean() -> None:
    assert permutation(KEY, 10).tolist() == GOLDEN_ORDER
    assert [draw(KEY, at, 1000) for at in range(8)] == GOLDEN_DRAWS
    assert mix(7, 0, 1) == GOLDEN_MIX


@pytest.mark.parametrize("count", [0, 1, 2, 1000])
def test_a_permutation_has_every_number_once(count: int) -> None:
    assert sorted(permutation(KEY, count).tolist()) == list(range(count))


def test_numpys_numbers_and_pythons_agree() -> None:
    numbers = [draw(KEY, at, 2**64) for at in range(1000)]

    assert _scrambled(np.array(numbers, np.uint64)).tolist() == [*map(_scramble, numbers)]
    assert permutation(KEY, 1000).tolist() == sorted(range(1000), key=numbers.__getitem__)


def test_the_generator_is_splitmix64() -> None:
    # The first outputs of its reference implementation for seed 0.
    assert [_scramble(at * 0x9E3779B97F4A7C15 % 2**64) for at in (1, 2, 3)] == [
        0xE220A8397B1DCDAF,
        0x6E789E6AA1B965F4,
        0x06C45D188009454F,
    ]


def test_keys_differ_by_each_number_and_its_place() -> None:
    keys = {mix(seed, epoch, use) for seed in range(9) for epoch in range(9) for use in range(9)}

    assert len(keys) == 9**3


def test_draws_are_spread_evenly() -> None:
    drawn = [draw(KEY, at, 10) for at in range(10_000)]

    assert all(900 < drawn.count(each) < 1100 for each in range(10))


def test_negative_seeds_are_as_good_as_others() -> None:
    assert mix(-1, 0) != mix(1, 0)
    assert 0 <= mix(-1, 0) < 2**64

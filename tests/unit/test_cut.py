"""Into what parts objects are cut, and what that holds in memory."""

import pytest

from penstock.errors import InvalidRequest
from penstock_node.origin.cut import (
    IN_FLIGHT_BYTES,
    PART_BYTES,
    PART_BYTES_MAX,
    PARTS_MAX,
    cut_of,
    put_memory_bytes,
)

GIB = 1024**3


@pytest.mark.parametrize("size", [0, 1, PART_BYTES, 10 * GIB, 78 * GIB, 79 * GIB, 600 * GIB])
def test_no_object_has_more_parts_than_stores_take(size: int) -> None:
    cut = cut_of(size)

    assert -(-size // cut.part_bytes) <= PARTS_MAX
    assert PART_BYTES <= cut.part_bytes <= PART_BYTES_MAX
    assert cut.at_once >= 2


def test_larger_parts_are_fewer_at_once() -> None:
    small, large = cut_of(GIB), cut_of(600 * GIB)

    assert (small.part_bytes, small.at_once) == (PART_BYTES, 6)
    assert large.part_bytes == 62 * 1024 * 1024
    assert large.at_once == 2
    assert cut_of(None).at_once * cut_of(None).part_bytes == IN_FLIGHT_BYTES


def test_what_no_store_takes_is_refused_before_it_is_sent() -> None:
    largest = PARTS_MAX * PART_BYTES_MAX

    assert cut_of(largest).part_bytes == PART_BYTES_MAX
    with pytest.raises(InvalidRequest, match="cannot be put as one object"):
        cut_of(largest + 1)


def test_a_stream_that_grows_too_long_is_refused() -> None:
    cut = cut_of(None)

    cut.check(cut.object_bytes_max)
    with pytest.raises(InvalidRequest, match="from a file"):
        cut.check(cut.object_bytes_max + 1)


def test_small_objects_hold_little_memory() -> None:
    assert put_memory_bytes(0) == 0
    assert put_memory_bytes(1000) == 2000
    assert put_memory_bytes(GIB) == 7 * PART_BYTES
    assert put_memory_bytes(None) == 3 * 32 * 1024 * 1024

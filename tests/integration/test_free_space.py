"""How far a tier is from its floor, as told by a real file system that others write to as well."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock_node.store.free_space import FLOOR_BYTES_MAX, LOOK_EVERY_S, FreeSpace
from penstock_node.testbed.odd_disk import small_disk

MIB = 1 << 20


class Clock:
    """Time that the test moves."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "small", size_bytes=10 * MIB) as path:
        yield path


def test_what_is_missing_is_told_to_the_byte(small: Path) -> None:
    free_space = FreeSpace(small, floor_bytes=4 * MIB)

    assert free_space.shortfall(6 * MIB) == 0
    assert free_space.shortfall(6 * MIB + 1) == 1


def test_what_was_written_counts_before_anybody_looks_again(small: Path) -> None:
    clock = Clock()
    free_space = FreeSpace(small, floor_bytes=4 * MIB, clock=clock)

    free_space.took(5 * MIB)
    assert free_space.shortfall(2 * MIB) == MIB
    free_space.took(-MIB)
    assert free_space.shortfall(2 * MIB) == 0


def test_what_others_write_is_seen_a_moment_later_or_when_asked_for(small: Path) -> None:
    clock = Clock()
    free_space = FreeSpace(small, floor_bytes=4 * MIB, clock=clock)
    (small / "of-others").write_bytes(bytes(5 * MIB))
    assert free_space.shortfall(2 * MIB) == 0

    assert free_space.shortfall(2 * MIB, look_now=True) == MIB

    (small / "of-others").unlink()
    assert free_space.shortfall(2 * MIB) == MIB
    clock.now_s += LOOK_EVERY_S + 0.1
    assert free_space.shortfall(2 * MIB) == 0


def test_by_default_a_fiftieth_stays_free(small: Path) -> None:
    free_space = FreeSpace(small, floor_bytes=None)

    assert free_space.shortfall(10 * MIB) == 10 * MIB // 50
    assert FLOOR_BYTES_MAX == 10 * 1024 * MIB


def test_without_a_floor_nothing_is_ever_missing(small: Path) -> None:
    assert FreeSpace(small, floor_bytes=0).shortfall(100 * MIB) == 0

"""Memory for payload: where it begins, and copies to any address."""

import mmap
import random
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import memory

DATA = random.Random(5).randbytes(100_000)


@pytest.mark.parametrize("size", [0, 1, 4096, 300_000])
@pytest.mark.parametrize("like", [0, 72, 4096 + 5])
def test_new_memory_lies_within_its_page_as_the_bytes_of_the_file_do(size: int, like: int) -> None:
    made = memory.new_memory(size, like=like)

    assert len(made) == size
    assert not made.readonly
    assert size == 0 or (memory.address_of(made) - like) % mmap.PAGESIZE == 0


def test_addresses_follow_slices() -> None:
    made = memoryview(bytearray(100))

    assert memory.address_of(made[7:]) == memory.address_of(made) + 7


@pytest.mark.parametrize("is_slow", [False, True])
@given(at=st.integers(0, 70), begin=st.integers(0, 70), data=st.data())
def test_a_copy_to_any_address_is_the_same_bytes_and_touches_no_other(
    is_slow: bool, at: int, begin: int, data: st.DataObject
) -> None:
    length = data.draw(st.integers(0, len(DATA) - begin) | st.sampled_from([16_384, 65_536]))
    source = memoryview(DATA)[begin : begin + length]
    target = memory.new_memory(at + length + 10)
    target[:] = bytes(len(target))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "_is_slow_if_unaligned", lambda: is_slow)
        memory.copy(target[at : at + length], source)

    assert bytes(target) == bytes(at) + DATA[begin : begin + length] + bytes(10)


@pytest.fixture
def nobody_is_interrupted() -> Iterator[None]:
    """The interpreter goes to another thread only when the one that has it lets go."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("is_slow", [False, True])
@pytest.mark.usefixtures("nobody_is_interrupted")
def test_others_run_during_a_copy(is_slow: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_is_slow_if_unaligned", lambda: is_slow)
    source, target = memory.new_memory(4 << 20), memory.new_memory(4 << 20)
    begin, has_run = threading.Event(), threading.Event()

    def run() -> None:
        begin.wait()
        has_run.set()

    other = threading.Thread(target=run)
    other.start()

    begin.set()
    for _ in range(10_000):
        memory.copy(target, source)
        if has_run.is_set():
            break
    ran_meanwhile = has_run.is_set()

    other.join()
    assert ran_meanwhile


@pytest.mark.parametrize("is_slow", [False, True])
def test_only_where_file_and_memory_lie_differently_can_the_kernel_be_slow(
    is_slow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_is_slow_if_unaligned", lambda: is_slow)
    made = memory.new_memory(4096)

    told = {at: memory.is_slow(made[at:], offset) for at, offset in [(0, 0), (64, 32), (16, 48)]}
    differs = {at: memory.is_slow(made[at:], offset) for at, offset in [(16, 0), (0, 8), (1, 4096)]}

    assert not any(told.values())
    assert set(differs.values()) == {is_slow}


def test_this_machine_is_tried_without_an_error() -> None:
    memory._is_slow_if_unaligned.cache_clear()

    assert memory._is_slow_if_unaligned() in (True, False)


@pytest.mark.parametrize("size", [0, 1, 4096, memory.HUGE_PAGE_BYTES * 3 + 5])
def test_new_bytes_are_what_was_written_into_them(size: int) -> None:
    made = memory.NewBytes(size)
    made.view[:] = random.Random(size).randbytes(size)

    assert made.take() == random.Random(size).randbytes(size)


@pytest.mark.parametrize("count", [1, 4])
def test_large_pages_are_asked_for_where_new_bytes_are_many(count: int) -> None:
    made = memory.new_bytes([32 * memory.HUGE_PAGE_BYTES // count] * count)

    begins = min(memory.address_of(each.view) for each in made)

    assert "hg" in flags_of_the_map_at(begins + 2 * memory.HUGE_PAGE_BYTES)


def test_memories_that_lie_side_by_side_are_one() -> None:
    many = memory.new_memory(8 * memory.HUGE_PAGE_BYTES)
    begins, half = memory.address_of(many), memory.HUGE_PAGE_BYTES // 2
    parts = [many[at * half : (at + 1) * half] for at in (3, 0, 1, 6)]

    told = memory._side_by_side([*parts, many[-4096:]])

    assert told == [
        (begins, begins + 2 * half),
        (begins + 3 * half, begins + 4 * half),
        (begins + 6 * half, begins + 7 * half),
    ]


def flags_of_the_map_at(address: int) -> list[str]:
    holds = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if bounds := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            holds = int(bounds[1], 16) <= address < int(bounds[2], 16)
        elif holds and line.startswith("VmFlags:"):
            return line.split()[1:]
    raise AssertionError("no map")

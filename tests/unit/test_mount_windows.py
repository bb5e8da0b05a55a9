"""Windows in front of who reads on: right bytes, each read once, in bounded memory."""

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial

import pytest

from penstock.errors import Cancelled, OriginUnavailable
from penstock.mount.windows import (
    FILLERS_MAX,
    GOES_ON_BYTES,
    IDLE_S,
    WINDOW_BYTES,
    FileWindows,
    Windows,
)
from penstock_node.testbed.processes import wait_until

MIB = 1024 * 1024
DATA = random.Random(1).randbytes(33 * MIB + 1_234)
READ = 128 * 1024
DEADLINE_S = 20.0


class Origin:
    """A file in memory, that tells what was read of it."""

    def __init__(self) -> None:
        self.reads: list[tuple[int, int]] = []
        self.held = threading.Event()
        self.held.set()
        self.failure: Exception | None = None

    def read_at(self, memory: memoryview, offset: int, stop: threading.Event) -> None:
        self.reads.append((offset, len(memory)))
        while not self.held.wait(0.01):
            if stop.is_set():
                raise Cancelled
        if self.failure is not None:
            raise self.failure
        memory[:] = DATA[offset : offset + len(memory)]

    @property
    def whole_windows(self) -> list[int]:
        return sorted(offset for offset, size in self.reads if size > READ)


@pytest.fixture
def origin() -> Origin:
    return Origin()


@pytest.fixture
def windows() -> Iterator[Windows]:
    with closing(Windows()) as made:
        yield made


def read(
    file: FileWindows, offset: int, length: int = READ, stop: threading.Event | None = None
) -> bytes:
    length = min(length, len(DATA) - offset)
    with file.lent(offset, length, memoryview(bytearray(length)), stop or threading.Event()) as got:
        return b"".join(got)


def expected(offset: int, length: int = READ) -> bytes:
    return DATA[offset : offset + length]


def test_who_reads_here_and_there_gets_what_is_asked_for_and_no_more(
    windows: Windows, origin: Origin
) -> None:
    file, rng = windows.of(len(DATA), origin.read_at), random.Random(2)
    offsets = [rng.randrange(8) * 4 * MIB + 4096 * each for each in range(50)]

    assert all(read(file, offset, 4096) == expected(offset, 4096) for offset in offsets)

    assert origin.reads == [(offset, 4096) for offset in offsets]
    assert windows.used_bytes == 0


def test_who_reads_on_gets_every_byte_and_each_window_is_read_once(
    windows: Windows, origin: Origin
) -> None:
    file = windows.of(len(DATA), origin.read_at)

    got = b"".join(read(file, offset) for offset in range(0, len(DATA), READ))

    assert got == DATA
    assert origin.whole_windows == list(range(0, len(DATA), WINDOW_BYTES))
    assert len(origin.reads) == GOES_ON_BYTES // READ + len(origin.whole_windows)


def test_reads_that_overtake_each_other_are_of_one_who_reads_on(
    windows: Windows, origin: Origin
) -> None:
    file, rng = windows.of(len(DATA), origin.read_at), random.Random(3)
    offsets = list(range(0, len(DATA), READ))
    for first in range(0, len(offsets), 8):
        part = offsets[first : first + 8]
        rng.shuffle(part)
        offsets[first : first + 8] = part

    got = {offset: read(file, offset) for offset in offsets}

    assert all(got[offset] == expected(offset) for offset in offsets)
    assert len(set(origin.whole_windows)) == len(origin.whole_windows)


def test_a_window_that_its_readers_fill_as_all_threads_are_busy_is_read_once(
    windows: Windows, origin: Origin
) -> None:
    slow, busy = Origin(), set[str]()

    def read_slowly(memory: memoryview, offset: int, stop: threading.Event) -> None:
        busy.add(threading.current_thread().name)
        slow.read_at(memory, offset, stop)

    def fillers_are_busy() -> bool:
        return sum(name.startswith("penstock-ahead") for name in busy) == FILLERS_MAX

    file = windows.of(len(DATA), origin.read_at)
    others = [windows.of(len(DATA), read_slowly) for _ in range(FILLERS_MAX)]
    for other in others:
        for offset in range(0, GOES_ON_BYTES, READ):
            read(other, offset)
    busy.clear()
    slow.held.clear()
    with ThreadPoolExecutor(FILLERS_MAX + 2) as threads:
        held = [threads.submit(read, other, GOES_ON_BYTES) for other in others]
        wait_until(fillers_are_busy, deadline_s=DEADLINE_S, what="all are busy")

        for first in range(0, 16 * MIB, 2 * READ):
            pair = (first, first + READ)
            assert [*threads.map(partial(read, file), pair)] == [expected(each) for each in pair]

        slow.held.set()
        assert {each.result(DEADLINE_S) for each in held} == {expected(GOES_ON_BYTES)}
    assert len(set(origin.whole_windows)) == len(origin.whole_windows)
    for each in (file, *others):
        each.close()
    wait_until(lambda: windows.used_bytes == 0, deadline_s=DEADLINE_S, what="nothing is used")


def test_many_read_on_in_one_file_at_once(windows: Windows, origin: Origin) -> None:
    file, readers = windows.of(len(DATA), origin.read_at), 8
    part = 4 * MIB

    def read_part(start: int) -> bytes:
        stop = min(start + part, len(DATA))
        return b"".join(read(file, at, min(READ, stop - at)) for at in range(start, stop, READ))

    with ThreadPoolExecutor(readers) as threads:
        got = b"".join(threads.map(read_part, range(0, len(DATA), part)))

    assert got == DATA


def test_memory_stays_within_the_budget_and_reads_go_on_without(origin: Origin) -> None:
    with closing(Windows(budget_bytes=2 * WINDOW_BYTES)) as windows:
        files = [windows.of(len(DATA), origin.read_at) for _ in range(4)]
        for offset in range(0, 12 * MIB, READ):
            for file in files:
                assert read(file, offset) == expected(offset)
                assert windows.used_bytes <= 2 * WINDOW_BYTES


def test_windows_that_nobody_touches_give_way_to_others(origin: Origin) -> None:
    now = [0.0]
    with closing(Windows(budget_bytes=WINDOW_BYTES, clock=lambda: now[0])) as windows:
        idle, busy = (windows.of(len(DATA), origin.read_at) for _ in range(2))
        for offset in range(0, MIB, READ):
            read(idle, offset)
        assert windows.used_bytes == WINDOW_BYTES
        for offset in range(0, MIB, READ):
            read(busy, offset)
        assert origin.whole_windows == [0]

        now[0] += 2 * IDLE_S
        read(busy, MIB)

        assert origin.whole_windows == [0, 0]


def test_what_is_over_gives_its_memory_back(windows: Windows, origin: Origin) -> None:
    file = windows.of(len(DATA), origin.read_at)
    for offset in range(0, 6 * MIB, READ):
        read(file, offset)
    assert windows.used_bytes > 0

    file.close()

    wait_until(lambda: windows.used_bytes == 0, deadline_s=DEADLINE_S, what="nothing is used")


def test_a_window_that_cannot_be_read_is_told_to_who_waits_and_tried_again(
    windows: Windows, origin: Origin
) -> None:
    file = windows.of(len(DATA), origin.read_at)
    for offset in range(0, GOES_ON_BYTES, READ):
        read(file, offset)
    origin.failure = OriginUnavailable("it does not answer")

    with pytest.raises(OriginUnavailable):
        read(file, GOES_ON_BYTES)
    origin.failure = None

    assert read(file, GOES_ON_BYTES) == expected(GOES_ON_BYTES)


def test_who_waits_for_a_window_can_be_told_to_stop(windows: Windows, origin: Origin) -> None:
    file, stop = windows.of(len(DATA), origin.read_at), threading.Event()
    for offset in range(0, GOES_ON_BYTES, READ):
        read(file, offset)
    origin.held.clear()
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(read, file, GOES_ON_BYTES)
        wait_until(lambda: bool(origin.whole_windows), deadline_s=DEADLINE_S, what="it is read")
        waiting = threads.submit(read, file, GOES_ON_BYTES + READ, READ, stop)

        stop.set()

        with pytest.raises(Cancelled):
            waiting.result(DEADLINE_S)
        origin.held.set()
        assert first.result(DEADLINE_S) == expected(GOES_ON_BYTES)


def test_a_file_that_is_closed_has_nothing_more_read_for_it(
    windows: Windows, origin: Origin
) -> None:
    file = windows.of(len(DATA), origin.read_at)
    for offset in range(0, GOES_ON_BYTES, READ):
        read(file, offset)
    origin.held.clear()
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(read, file, GOES_ON_BYTES)
        wait_until(lambda: bool(origin.whole_windows), deadline_s=DEADLINE_S, what="it is read")

        file.close()

        with pytest.raises(Cancelled):
            waiting.result(DEADLINE_S)
    wait_until(lambda: windows.used_bytes == 0, deadline_s=DEADLINE_S, what="nothing is used")

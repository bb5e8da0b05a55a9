"""Reading ahead: the same bytes as without, memory within its budget, nothing left running."""

import contextlib
import io
import multiprocessing
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.chunk_files import ChunkFiles
from penstock.errors import Cancelled, OriginUnavailable
from penstock.object_file import ObjectFile
from penstock.object_info import ObjectInfo
from penstock.read_ahead import (
    HERE_AHEAD_MAX,
    HERE_MIN,
    HERE_SKIP_MIN,
    WINDOW_MAX,
    WINDOW_MIN,
    WINDOWS_MAX,
    Ahead,
    AheadBudget,
)
from penstock_node.testbed.processes import wait_until

_SIZE = 3 * WINDOW_MAX + 12_345
_DATA = random.Random(7).randbytes(_SIZE)
_LINES = b"".join(b"x" * (7 * at % 3_000) + b"\n" for at in range(3_000)) + b"no end"


class Store:
    """Stands for a cluster: answers from memory, and tells what it was asked."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.asked: list[tuple[int, int, bool]] = []
        """Offset, length, and whether the reader's own thread asked."""
        self.here_bytes = 0
        """So many from the start are at hand."""
        self.asked_here: list[tuple[int, int, int]] = []
        """Offset, length, and how much more was expected."""
        self.failures = self.own_failures = 0
        """How many reads fail from now on; and how many of the reader's own thread."""
        self.opened = threading.Event()
        self.opened.set()
        self._reader = threading.get_ident()

    def read_into(self, target: memoryview, offset: int, stop: threading.Event | None) -> None:
        self.asked.append((offset, len(target), threading.get_ident() == self._reader))
        while not self.opened.wait(0.01):
            if stop is not None and stop.is_set():
                raise Cancelled
        if self.own_failures and threading.get_ident() == self._reader:
            self.own_failures -= 1
            raise OriginUnavailable("later")
        if self.failures:
            self.failures -= 1
            raise OriginUnavailable("later")
        target[:] = self.data[offset : offset + len(target)]

    def read_here(
        self, target: memoryview, offset: int, ahead_bytes: int, _stop: threading.Event | None
    ) -> bool:
        self.asked_here.append((offset, len(target), ahead_bytes))
        is_here = offset + len(target) <= self.here_bytes
        if is_here:
            target[:] = self.data[offset : offset + len(target)]
        return is_here

    @property
    def ahead(self) -> list[tuple[int, int]]:
        return [(offset, length) for offset, length, is_own in self.asked if not is_own]


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def no_files(_stop: threading.Event) -> ChunkFiles:
    raise AssertionError("nobody asks for files")


def file_of(store: Store, ahead: Ahead) -> ObjectFile:
    info = ObjectInfo("penstock://data/object", "v1", len(store.data), None)
    return ObjectFile(
        info,
        store.read_into,
        read_here=store.read_here,
        ahead=lambda: ahead,
        chunk_files=no_files,
    )


def until_it_is_read(read: Callable[[int], bytes], size: int) -> bytes:
    """Return what a read gives that does not fail: a store fails a few times."""
    while True:
        with contextlib.suppress(OriginUnavailable):
            return read(size)


_STEPS = st.lists(
    st.tuples(st.just("read"), st.integers(0, 6 * WINDOW_MIN))
    | st.tuples(st.just("middling"), st.integers(HERE_MIN, WINDOW_MAX))
    | st.tuples(st.just("large"), st.integers(WINDOW_MAX, 2 * WINDOW_MAX))
    | st.tuples(st.just("line"), st.integers(0, 5_000))
    | st.tuples(st.just("seek"), st.integers(0, _SIZE))
    | st.tuples(st.just("fail"), st.integers(1, 3)),
    max_size=25,
)


@given(
    _STEPS,
    st.sampled_from([0, WINDOW_MIN, 8 * WINDOW_MAX]),
    st.sampled_from([0, WINDOW_MAX + 1, _SIZE]),
)
@settings(max_examples=100)
def test_whatever_is_asked_comes_as_from_a_file_in_memory(
    steps: list[tuple[str, int]], budget_bytes: int, here_bytes: int
) -> None:
    expected = io.BytesIO(_DATA)
    with ThreadPoolExecutor(2) as pool:
        budget = AheadBudget(budget_bytes)
        store = Store(_DATA)
        store.here_bytes = here_bytes
        file = file_of(store, Ahead(pool, budget))
        for step, number in steps:
            if step == "seek":
                file.seek(number)
                expected.seek(number)
            elif step == "fail":
                store.failures, store.own_failures = number // 2, number % 2
            elif step == "line":
                assert until_it_is_read(file.readline, number) == expected.readline(number)
            else:
                assert until_it_is_read(file.read, number) == expected.read(number)
            assert file.tell() == expected.tell()
            assert budget.used_bytes <= budget_bytes
        file.close()
    assert budget.used_bytes == 0


def test_lines_are_those_of_the_bytes(threads: ThreadPoolExecutor) -> None:
    with file_of(Store(_LINES), Ahead(threads)) as file:
        assert list(file) == _LINES.splitlines(keepends=True)


def test_text_comes_through_the_standard_wrappers(threads: ThreadPoolExecutor) -> None:
    file = file_of(Store(_LINES), Ahead(threads))
    with io.TextIOWrapper(io.BufferedReader(file), encoding="ascii") as text:
        assert [line.encode() for line in text] == _LINES.splitlines(keepends=True)


def test_small_reads_from_the_front_cost_few_large_ones(threads: ThreadPoolExecutor) -> None:
    store = Store(_DATA)

    with file_of(store, Ahead(threads)) as file:
        while file.read(4_096):
            pass

    assert len(store.asked) < 12
    assert max(length for _, length, _ in store.asked) == WINDOW_MAX


def test_the_next_windows_are_asked_for_before_this_one_is_used_up(
    threads: ThreadPoolExecutor,
) -> None:
    store = Store(_DATA)

    with file_of(store, Ahead(threads)) as file:
        for _ in range(WINDOWS_MAX):
            file.read(WINDOW_MIN // 4)
        position = file.tell()
        # A window that no thread has begun when the file is closed is not asked for.
        wait_until(
            lambda: len(store.ahead) == WINDOWS_MAX - 1, deadline_s=30, what="windows asked for"
        )

    assert all(offset >= position for offset, _ in store.ahead)


def test_what_is_at_hand_is_read_without_windows_and_more_is_expected_each_time(
    threads: ThreadPoolExecutor,
) -> None:
    store = Store(_DATA)
    store.here_bytes = _SIZE

    with file_of(store, Ahead(threads)) as file:
        for _ in range(5):
            file.read(HERE_MIN)

    assert store.asked == []
    lengths = [0, HERE_MIN, 4 * HERE_MIN, 16 * HERE_MIN, 64 * HERE_MIN]
    assert store.asked_here == [(at * HERE_MIN, HERE_MIN, lengths[at]) for at in range(5)]
    assert max(lengths) < HERE_AHEAD_MAX


def test_where_something_is_not_at_hand_it_is_asked_for_again_further_on(
    threads: ThreadPoolExecutor,
) -> None:
    store = Store(_DATA)

    with file_of(store, Ahead(threads)) as file:
        while file.tell() < 2 * HERE_SKIP_MIN:
            file.read(HERE_MIN)
        asked = [offset for offset, _, _ in store.asked_here]
        file.seek(0)
        file.read(HERE_MIN)
        file.read(HERE_MIN)

    assert asked == [0]
    assert store.asked_here[1:] == [(HERE_MIN, HERE_MIN, 0)]


def test_small_reads_and_reads_here_and_there_do_not_ask_what_is_at_hand(
    threads: ThreadPoolExecutor,
) -> None:
    store = Store(_DATA)
    store.here_bytes = _SIZE

    with file_of(store, Ahead(threads)) as file:
        file.read(4_096)
        for offset in (5 * HERE_MIN, HERE_MIN, 3 * HERE_MIN):
            file.seek(offset)
            file.read(HERE_MIN)

    assert store.asked_here == []


def test_after_a_read_that_failed_the_next_is_exact(threads: ThreadPoolExecutor) -> None:
    store = Store(_DATA)

    with file_of(store, Ahead(threads)) as file:
        begun = file.read(HERE_MIN)
        store.own_failures = 1
        with pytest.raises(OriginUnavailable):
            file.read(HERE_MIN)

        assert begun + file.read(HERE_MIN) + file.read() == _DATA


def test_reads_here_and_there_are_exact_and_nothing_is_read_ahead(
    threads: ThreadPoolExecutor,
) -> None:
    store, chance = Store(_DATA), random.Random(2)
    offsets = [chance.randrange(1, _SIZE - 5_000) for _ in range(50)]

    with file_of(store, Ahead(threads)) as file:
        for offset in offsets:
            file.seek(offset)
            file.read(4_096)

    assert [(offset, length) for offset, length, _ in store.asked] == [
        (offset, 4_096) for offset in offsets
    ]


def test_who_stops_going_on_is_read_ahead_of_no_longer(threads: ThreadPoolExecutor) -> None:
    store = Store(_DATA)
    with file_of(store, Ahead(threads)) as file:
        for _ in range(4):
            file.read(1_000)
        file.seek(WINDOW_MAX)
        store.asked.clear()

        file.read(1_000)

        assert [asked[:2] for asked in store.asked] == [(WINDOW_MAX, 1_000)]


def test_a_large_read_lands_in_the_callers_memory_at_once(threads: ThreadPoolExecutor) -> None:
    store = Store(_DATA)

    with file_of(store, Ahead(threads)) as file:
        file.read()

    assert store.asked == [(0, _SIZE, True)]


def test_what_could_not_be_read_ahead_is_asked_for_again(threads: ThreadPoolExecutor) -> None:
    store = Store(_DATA)
    with file_of(store, Ahead(threads)) as file:
        begun = file.read(1_000)
        store.failures = 2
        read = begun + file.read(1_000)
        store.failures = 0
        while len(read) < _SIZE:
            read += file.read(300_000)
    assert read == _DATA


def test_an_error_reaches_whoever_reads_the_bytes(threads: ThreadPoolExecutor) -> None:
    store = Store(_DATA)
    store.failures = 100

    with file_of(store, Ahead(threads)) as file, pytest.raises(OriginUnavailable):
        file.read(10)


def test_files_that_wait_leave_memory_to_those_that_begin(threads: ThreadPoolExecutor) -> None:
    budget = AheadBudget(16 * WINDOW_MIN)
    ahead = Ahead(threads, budget)
    greedy = file_of(Store(_DATA), ahead)
    for _ in range(8):
        greedy.read(WINDOW_MIN // 8)
    used = budget.used_bytes
    store = Store(_DATA)
    modest = file_of(store, ahead)

    modest.read(10)

    assert used <= 8 * WINDOW_MIN
    assert store.asked == [(0, WINDOW_MIN, True)]
    greedy.close()
    modest.close()


def test_a_stopped_reader_gives_up_although_a_window_is_on_its_way(
    threads: ThreadPoolExecutor,
) -> None:
    store, stop = Store(_DATA), threading.Event()
    file = file_of(store, Ahead(threads))
    file.read(WINDOW_MIN // 2)
    file.read(WINDOW_MIN // 2 - 1)
    store.opened.clear()
    stopping = threading.Timer(0.05, stop.set)
    stopping.start()

    with pytest.raises(Cancelled):
        file.read(WINDOW_MAX, stop=stop)

    stopping.join()
    file.close()


def test_closing_ends_what_is_under_way_and_returns_its_memory() -> None:
    store, budget = Store(_DATA), AheadBudget()
    with ThreadPoolExecutor(4) as pool:
        file = file_of(store, Ahead(pool, budget))
        file.read(1_000)
        store.opened.clear()
        file.read(1_000)

        file.close()

    assert budget.used_bytes == 0
    with pytest.raises(ValueError, match="closed"):
        file.read(1)


def _in_child(check: Callable[[], bool]) -> bool:
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    child = context.Process(target=lambda: answers.put(check()))
    child.start()
    child.join(20)
    assert child.exitcode == 0
    return bool(answers.get())


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_reads_on_without_its_parents_threads() -> None:
    store = Store(_DATA)
    with ThreadPoolExecutor(4) as pool:
        shared = [Ahead(pool)]
        info = ObjectInfo("penstock://data/object", "v1", _SIZE, None)
        file = ObjectFile(
            info,
            store.read_into,
            read_here=store.read_here,
            ahead=lambda: shared[0],
            chunk_files=no_files,
        )
        file.read(1_000)
        store.opened.clear()  # What is ahead stays on its way.
        file.read(1_000)

        def reads_on() -> bool:
            store.opened.set()
            with ThreadPoolExecutor(1) as own:
                shared[0] = Ahead(own)
                return file.read(_SIZE) == _DATA[2_000:]

        assert _in_child(reads_on)
        store.opened.set()
        assert file.read(100_000) == _DATA[2_000:102_000]
        file.close()

"""The line before one disk: how many write at once, and what those who wait are told."""

import functools
import threading
from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from penstock_node.store import writers as module
from penstock_node.store.writers import WRITERS_MAX, Writers
from penstock_node.testbed.processes import wait_until

DEADLINE_S = 30.0


class Disk:
    """Writes that stay until they are let go, and are counted."""

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.begun: list[int] = []
        self.inside = self.most = 0
        self._lock = threading.Lock()

    def write(self, number: int) -> bool:
        with self._lock:
            self.begun.append(number)
            self.inside += 1
            self.most = max(self.most, self.inside)
        self.let_go.wait(DEADLINE_S)
        with self._lock:
            self.inside -= 1
        return True

    def wait_full(self) -> None:
        wait_until(lambda: self.inside == WRITERS_MAX, deadline_s=DEADLINE_S, what="it is full")


@pytest.fixture
def disk() -> Iterator[Disk]:
    made = Disk()
    yield made
    made.let_go.set()


def submit(writers: Writers, disk: Disk, count: int) -> "list[Future[bool]]":
    return [writers.submit(functools.partial(disk.write, number)) for number in range(count)]


@pytest.fixture
def elsewhere() -> frozenset[threading.Thread]:
    """Threads of stores of earlier tests, which wait for a while whether there is more to write."""
    return frozenset(threading.enumerate())


def threads(elsewhere: frozenset[threading.Thread]) -> int:
    begun = set(threading.enumerate()) - elsewhere
    return sum(thread.name == "penstock-write" for thread in begun)


def test_so_many_write_at_once_and_the_rest_in_turn(
    disk: Disk, elsewhere: frozenset[threading.Thread], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IDLE_S", 0.01)
    writers = Writers()
    writes = submit(writers, disk, 5 * WRITERS_MAX)
    disk.wait_full()
    assert threads(elsewhere) == WRITERS_MAX, "those in line have none"

    disk.let_go.set()

    assert all(write.result(DEADLINE_S) for write in writes)
    assert disk.most == WRITERS_MAX
    # Of those who have begun together, any may be the first to say so.
    for place, number in enumerate(disk.begun):
        assert abs(number - place) < WRITERS_MAX, disk.begun
    wait_until(
        lambda: threads(elsewhere) == 0, deadline_s=DEADLINE_S, what="no thread waits for nothing"
    )


def test_a_thread_that_has_written_writes_what_comes_next() -> None:
    writers, seen = Writers(), set[str]()

    def write() -> bool:
        seen.add(threading.current_thread().name + str(threading.get_ident()))
        return True

    for _ in range(50):
        assert writers.submit(write).result(DEADLINE_S)
        wait_until(lambda: writers._idle == 1, deadline_s=DEADLINE_S, what="it waits for more")

    assert len(seen) == 1
    writers.stop(DEADLINE_S)
    assert writers._threads == 0


def test_who_waits_is_told_when_all_is_given_up_and_what_hangs_goes_on(disk: Disk) -> None:
    writers = Writers()
    writes = submit(writers, disk, 2 * WRITERS_MAX)
    disk.wait_full()

    writers.give_up()

    assert [write.result(DEADLINE_S) for write in writes] == [False] * len(writes)
    assert disk.inside == WRITERS_MAX
    disk.let_go.set()
    assert writers.submit(lambda: True).result(DEADLINE_S)
    assert len(disk.begun) == WRITERS_MAX, "what was in line is never written"


def test_a_failure_reaches_who_waits_and_ends_no_writer() -> None:
    def fail() -> bool:
        raise RuntimeError("a bug")

    writers = Writers()

    with pytest.raises(RuntimeError, match="a bug"):
        writers.submit(fail).result(DEADLINE_S)
    assert writers.submit(lambda: True).result(DEADLINE_S)


def test_stopping_waits_for_what_is_in_hand_and_drops_the_line(disk: Disk) -> None:
    writers = Writers()
    writes = submit(writers, disk, 2 * WRITERS_MAX)
    disk.wait_full()
    stopping = threading.Thread(target=writers.stop, args=(DEADLINE_S,))
    stopping.start()
    wait_until(lambda: not writers._line, deadline_s=DEADLINE_S, what="the line is dropped")

    disk.let_go.set()
    stopping.join(DEADLINE_S)

    assert disk.inside == 0
    assert [write.result(0) for write in writes] == [True] * WRITERS_MAX + [False] * WRITERS_MAX
    assert not writers.submit(lambda: True).result(0)


def test_stopping_does_not_wait_for_what_hangs(disk: Disk) -> None:
    writers = Writers()
    submit(writers, disk, WRITERS_MAX)
    disk.wait_full()

    writers.stop(0.0)

    assert disk.inside == WRITERS_MAX

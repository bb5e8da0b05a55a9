"""The verdict on a disk: what takes it out, what does not, and how long it stays out."""

import errno
import os
import threading
from pathlib import Path

import pytest

from penstock.errors import Overloaded
from penstock_node.store.disk import (
    ERRORS_MAX,
    ERRORS_WINDOW_S,
    FORGIVEN_AFTER_S,
    INSIDE_MAX,
    REST_FIRST_S,
    REST_MAX_S,
    STALLED_S,
    Disk,
)
from penstock_node.store.writers import WRITERS_MAX

DEADLINE_S = 30


class Clock:
    """Time that the test moves."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def disk(clock: Clock) -> Disk:
    made = Disk(Path("/mnt/nvme0"), clock=clock)
    made.take_back()
    return made


def error_of(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def test_a_disk_begins_out_of_use() -> None:
    assert Disk(Path("/mnt/nvme0")).reason == "it has not been opened"


def test_one_error_is_forgiven_and_a_few_in_a_row_are_not(disk: Disk) -> None:
    for _ in range(ERRORS_MAX - 1):
        disk.note(error_of(errno.EIO))
    assert disk.is_healthy
    assert disk.look_wanted.is_set()

    disk.note(error_of(errno.EIO))

    assert not disk.is_healthy
    assert disk.reason == "3 errors within 60 s, at last: [Errno 5] Input/output error"


def test_errors_far_apart_never_take_a_disk_out(disk: Disk, clock: Clock) -> None:
    for _ in range(10 * ERRORS_MAX):
        disk.note(error_of(errno.EIO))
        clock.now_s += ERRORS_WINDOW_S / (ERRORS_MAX - 1) + 1

    assert disk.is_healthy


def test_a_read_only_disk_is_out_at_once(disk: Disk) -> None:
    disk.note(error_of(errno.EROFS))

    assert "read-only" in disk.reason


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE])
def test_a_full_disk_or_process_is_no_bad_disk(disk: Disk, number: int) -> None:
    for _ in range(10 * ERRORS_MAX):
        disk.note(error_of(number))

    assert disk.is_healthy
    assert not disk.look_wanted.is_set()


def test_a_missing_file_asks_for_a_look_and_nothing_more(disk: Disk) -> None:
    for _ in range(10 * ERRORS_MAX):
        disk.note(error_of(errno.ENOENT))

    assert disk.is_healthy
    assert disk.look_wanted.is_set()


def test_an_operation_that_does_not_come_back_takes_the_disk_out(disk: Disk, clock: Clock) -> None:
    with disk.busy():
        clock.now_s += STALLED_S
        disk.note_stall()
        assert disk.is_healthy

        clock.now_s += 1
        disk.note_stall()

    assert disk.reason == "it hangs: an operation has not come back for 6.0 s"


def test_a_process_that_was_paused_has_waited_for_no_disk(disk: Disk, clock: Clock) -> None:
    with disk.busy():
        clock.now_s += 60.0
        disk.paused(60.0 - STALLED_S)
        disk.note_stall()
        assert disk.is_healthy

        clock.now_s += 0.1
        disk.note_stall()
        assert not disk.is_healthy, "and what hangs beside that hangs"


def test_work_that_goes_on_is_no_stall(disk: Disk, clock: Clock) -> None:
    with disk.busy():
        for _ in range(10):
            clock.now_s += STALLED_S
            disk.note_stall()
            disk.progress()

    assert disk.is_healthy
    assert not disk.is_in_use


class Guests:
    """Threads inside a disk until they are let go."""

    def __init__(self, disk: Disk, count: int) -> None:
        self._disk, self._let_go = disk, threading.Event()
        self._inside = threading.Barrier(count + 1)
        self._threads = [threading.Thread(target=self._stay) for _ in range(count)]
        for thread in self._threads:
            thread.start()
        self._inside.wait(DEADLINE_S)

    def _stay(self) -> None:
        with self._disk.use():
            self._inside.wait(DEADLINE_S)
            self._let_go.wait(DEADLINE_S)

    def leave(self) -> None:
        self._let_go.set()
        for thread in self._threads:
            thread.join(DEADLINE_S)


def test_so_many_threads_may_be_inside_and_the_next_is_sent_away(disk: Disk) -> None:
    guests = Guests(disk, INSIDE_MAX)
    assert disk.is_crowded

    with pytest.raises(Overloaded, match="do not come back"):
        disk.use().__enter__()

    guests.leave()
    with disk.use():
        assert not disk.is_crowded
    assert not disk.is_in_use


def test_nobody_waits_for_a_disk_that_is_out(disk: Disk) -> None:
    guests = Guests(disk, INSIDE_MAX)

    disk.take_out("it hangs")

    with disk.use():
        assert not disk.is_healthy
    guests.leave()


def test_the_bound_holds_while_many_come_and_go(disk: Disk) -> None:
    lock, inside, most = threading.Lock(), 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(300):
            with disk.use():
                with lock:
                    inside += 1
                    most = max(most, inside)
                with lock:
                    inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4 * INSIDE_MAX)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)

    assert 0 < most <= INSIDE_MAX
    assert not disk.is_in_use


def test_each_outage_is_longer_than_the_last_until_all_is_forgiven(
    disk: Disk, clock: Clock
) -> None:
    rests = []
    for _ in range(10):
        disk.take_out("it errs")
        began_s = clock.now_s
        while not disk.has_rested:
            clock.now_s += 1
        rests.append(clock.now_s - began_s)
        disk.take_back()
    assert rests[:3] == [REST_FIRST_S, 2 * REST_FIRST_S, 4 * REST_FIRST_S]
    assert rests[-1] == REST_MAX_S

    clock.now_s += FORGIVEN_AFTER_S
    disk.take_out("it errs")
    clock.now_s += REST_FIRST_S

    assert disk.has_rested


def test_a_disk_has_not_rested_while_a_thread_is_inside(disk: Disk, clock: Clock) -> None:
    guests = Guests(disk, 1)
    disk.take_out("it hangs")
    clock.now_s += REST_MAX_S

    assert not disk.has_rested
    guests.leave()
    assert disk.has_rested


def test_who_waits_for_a_write_is_told_when_the_disk_is_out(disk: Disk) -> None:
    held = threading.Event()
    writes = [disk.writers.submit(lambda: held.wait(DEADLINE_S)) for _ in range(WRITERS_MAX + 1)]

    disk.take_out("it hangs")

    assert [write.result(DEADLINE_S) for write in writes] == [False] * len(writes)
    held.set()


def test_the_first_reason_stands(disk: Disk) -> None:
    disk.take_out("it was unmounted")
    disk.take_out("it hangs")

    assert disk.reason == "it was unmounted"
    disk.take_back()
    assert disk.is_healthy

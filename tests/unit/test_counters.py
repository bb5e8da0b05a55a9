"""What is counted of reads: from many threads, and in a forked child."""

import os
import threading

import pytest

from penstock.counters import Counters

THREADS, EACH = 8, 2_000


def test_bytes_are_told_by_plane_by_source_and_all_together() -> None:
    counters = Counters()

    counters.add("bytes", "host", "disk", by=5)
    counters.add("bytes", "bulk", "disk", by=7)
    counters.add("bytes", "bulk", "origin", by=1)

    stats = counters.stats()
    assert stats["plane"] == {"host": 5, "bulk": 8}
    assert stats["source"] == {"disk": 12, "origin": 1}
    assert stats["bytes"] == 13


def test_what_was_never_counted_is_zero() -> None:
    stats = Counters().stats()

    assert (stats["bytes"], stats["reads"], stats["hedges"]) == (0, 0, 0)
    assert (stats["plane"], stats["asked_again"], stats["errors"]) == ({}, {}, {})
    assert (stats["read_s"], stats["paused_s"]) == (0.0, 0.0)


def test_no_count_of_many_threads_is_lost() -> None:
    counters = Counters()

    def count() -> None:
        for _ in range(EACH):
            counters.add("reads")
            counters.add("errors", "Overloaded")

    threads = [threading.Thread(target=count) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert counters.stats()["reads"] == THREADS * EACH
    assert counters.stats()["errors"] == {"Overloaded": THREADS * EACH}


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_begins_at_zero_whoever_was_counting() -> None:
    counters = Counters()
    counters.add("reads", by=3)
    with counters._lock:  # As if another thread of the parent's was counting.
        child = os.fork()
        if not child:
            counters.add("reads")
            os._exit(counters.stats()["reads"])
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 1
    assert counters.stats()["reads"] == 3


def test_a_part_of_a_load_is_counted_there_too() -> None:
    load, part = Counters(), Counters()
    load.add("bytes", "host", "disk", by=5)
    part.add("bytes", "host", "disk", by=6)
    part.add("hedges")

    load.take(part)

    assert load.stats()["source"] == {"disk": 11}
    assert load.stats()["hedges"] == 1

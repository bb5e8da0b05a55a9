"""Counts of durations: nothing is lost between threads, and buckets are as Prometheus has them."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait

import pytest

from penstock.planes.plane import Source
from penstock_node import durations
from penstock_node.durations import Durations, LoopLag, ReadCounts, Tally
from penstock_node.inflight import Inflight
from penstock_node.metrics import NodeMetrics
from penstock_node.process_metrics import CountedThreads
from penstock_node.store.disk import Spent

THREADS, EACH = 8, 2_000


def in_threads(count: Callable[[int], object]) -> None:
    """Call ``count`` from several threads, often."""

    def work(thread: int) -> None:
        for _ in range(EACH):
            count(thread)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, range(THREADS)))


def test_a_duration_counts_in_the_bucket_whose_bound_it_does_not_pass() -> None:
    taken = Durations((0.1, 1.0))

    for seconds in (0.05, 0.1, 0.5, 1.0, 7.0):
        taken.add(seconds)

    counts, seconds = taken.now()
    assert counts == [2, 2, 1]
    assert seconds == pytest.approx(8.65)


def test_what_fails_takes_its_time_too() -> None:
    taken = Durations((60.0,))

    with pytest.raises(ZeroDivisionError), taken.timing():
        raise ZeroDivisionError

    assert taken.now()[0] == [1, 0]


def test_no_read_is_lost_between_threads() -> None:
    counts = ReadCounts((1.0,))

    in_threads(
        lambda thread: counts.add(
            ("bulk", "host")[thread % 2], "disk", size_bytes=3, seconds=0.5, reads=2
        )
    )

    rows = counts.rows()
    assert rows.keys() == {("bulk", "disk"), ("host", "disk")}
    for row in rows.values():
        assert (row.reads, row.size_bytes, row.buckets) == (8 * EACH, 12 * EACH, [8 * EACH, 0])
        assert row.seconds == pytest.approx(4 * EACH)


def test_no_operation_on_a_disk_is_lost_between_threads() -> None:
    spent = Spent()

    in_threads(lambda thread: spent.add(thread, 0.25))

    assert spent.now() == (THREADS * EACH, THREADS * EACH / 4)


def test_a_tally_begins_with_nothing_of_what_it_was_told() -> None:
    tally = Tally("done", "failed")

    in_threads(lambda _thread: tally.add("done"))

    assert tally.now() == {"done": THREADS * EACH, "failed": 0}


def test_all_figures_of_reads_follow_from_one_sum() -> None:
    metrics = NodeMetrics(version="test", inflight=Inflight())
    pairs: list[tuple[str, Source]] = [("bulk", "disk"), ("host", "disk"), ("bulk", "origin")]
    for plane, source in pairs:
        metrics.served(plane=plane, source=source, key="k", length=10, seconds=0.003, reads=4)

    def value(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(name, labels)

    assert value("penstock_chunk_reads_total", source="disk") == 8
    assert value("penstock_read_bytes_total", source="origin") == 10
    assert value("penstock_served_bytes_total", plane="bulk") == 20
    taken = "penstock_read_duration_seconds"
    assert value(f"{taken}_count", plane="host", source="disk") == 4
    assert value(f"{taken}_bucket", plane="host", source="disk", le="0.002") == 0
    assert value(f"{taken}_bucket", plane="host", source="disk", le="0.01") == 4
    assert metrics.totals()["penstock_read_bytes_total"] == 30


async def test_an_event_loop_that_is_held_up_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durations, "LAG_LOOK_S", 0.0)
    ticks = iter([0.0, 3.0, 9.0, 9.0])
    lag = LoopLag(clock=lambda: next(ticks))

    with pytest.raises(RuntimeError, match="StopIteration"):  # There are no more ticks.
        await lag.run()

    assert lag.durations.now() == ([1, 0, 0, 0, 1, 0], 3.0)


def test_threads_tell_what_is_in_hand_and_what_waits() -> None:
    go_on = threading.Event()
    with CountedThreads(1, name="disk") as pool:
        calls = [pool.submit(go_on.wait), pool.submit(go_on.wait)]
        assert pool.calls == 2

        go_on.set()
        wait(calls)

    assert pool.calls == 0

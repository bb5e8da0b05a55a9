"""What every process of Penstock tells of itself: memory, descriptors, threads, its event loop.

Responsible for: these metrics, of a node and of a catalog alike; how many calls wait for a pool of
threads.
Not responsible for: what the process is for (`node_metrics`, `catalog_server.catalog_metrics`).
"""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import Metric

from penstock.thread_names import name_this_thread
from penstock_node.durations import LoopLag
from penstock_node.metrics import gauge, histogram, scrape

P = ParamSpec("P")
T = TypeVar("T")


class CountedThreads(ThreadPoolExecutor):
    """Threads that tell how many calls they have in hand, or waiting."""

    def __init__(self, count: int, *, name: str) -> None:
        """Start none yet; ``name`` is the pool's, of one word."""
        super().__init__(
            count,
            thread_name_prefix=f"penstock-{name}",
            initializer=name_this_thread,
            initargs=(f"penstock-{name}",),
        )
        self.name, self.count = name, count
        self._calls = 0
        self._calls_lock = threading.Lock()

    @property
    def calls(self) -> int:
        """How many are in hand or wait: those beyond ``count`` wait."""
        return self._calls

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """See `ThreadPoolExecutor.submit`."""
        with self._calls_lock:
            self._calls += 1
        try:
            called = super().submit(fn, *args, **kwargs)
        except BaseException:
            self._ended()
            raise
        called.add_done_callback(self._ended)
        return called

    def _ended(self, _call: "Future[T] | None" = None) -> None:
        with self._calls_lock:
            self._calls -= 1


def export_process(
    registry: CollectorRegistry, *, lag: LoopLag, pools: Iterable[CountedThreads] = ()
) -> None:
    """Export what the process is doing.

    Args:
        registry: Exports it.
        lag: Of its event loop.
        pools: Its threads.
    """
    ProcessCollector(registry=registry)
    scrape(registry, lambda: _collect(lag, list(pools)))


def _collect(lag: LoopLag, pools: Iterable[CountedThreads]) -> Iterable[Metric]:
    yield histogram(
        "penstock_event_loop_lag_seconds",
        "How late the event loop was, looked at twice a second: it is too busy, or held up.",
        [((), lag.durations)],
    )
    yield gauge(
        "penstock_threads",
        "Threads of the process, of all kinds.",
        [((), threading.active_count())],
    )
    yield gauge(
        "penstock_pool_threads",
        "Calls that a pool of threads works on at once.",
        [((pool.name,), pool.count) for pool in pools],
        "pool",
    )
    yield gauge(
        "penstock_pool_calls",
        "Calls that a pool of threads has in hand or waiting.",
        [((pool.name,), pool.calls) for pool in pools],
        "pool",
    )

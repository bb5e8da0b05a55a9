"""What a node counts, as Prometheus metrics. A node exports only its own.

Responsible for: the names, labels and help texts; gauges that ask the parts when scraped.
Not responsible for: serving them (`serve.admin`).
"""

import contextlib
import functools
import time
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from penstock_node.hottest import Hottest
from penstock_node.inflight import Inflight

FILL_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class NodeMetrics:
    """Counters that the read path bumps. Thread-safe."""

    def __init__(self, *, version: str, inflight: Inflight) -> None:
        self.registry = CollectorRegistry()
        self.hottest = Hottest()
        """Which directories are served most: of no bounded set, so no metric."""
        self.chunk_reads = self._counter(
            "penstock_chunk_reads", "Chunk reads answered with bytes.", "source"
        )
        self.chunk_read_failures = self._counter(
            "penstock_chunk_read_failures", "Chunk reads answered with an error.", "error"
        )
        self.read_bytes = self._counter(
            "penstock_read_bytes", "Bytes of chunk reads, by where they came from.", "source"
        )
        self.served_bytes = self._counter(
            "penstock_served_bytes", "Bytes sent to readers, by plane.", "plane"
        )
        self.handoff_bytes = Counter(
            "penstock_handoff_bytes",
            "Payload taken over from former owners in the background.",
            registry=self.registry,
        )
        self.fill_duration = Histogram(
            "penstock_fill_duration_seconds",
            "Time to bring a missing chunk in.",
            buckets=FILL_BUCKETS_S,
            registry=self.registry,
        )
        for name, text, ask in (
            ("", "Payload bytes in memory, on their way in or out.", lambda: inflight.used_bytes),
            ("_max", "What penstock_inflight_bytes never passes.", lambda: inflight.bytes_max),
        ):
            Gauge(f"penstock_inflight_bytes{name}", text, registry=self.registry).set_function(ask)
        # Looking labels up takes longer than counting.
        self._of_source = functools.cache(
            lambda source: (
                self.chunk_reads.labels(source=source),
                self.read_bytes.labels(source=source),
            )
        )
        self._of_plane = functools.cache(lambda plane: self.served_bytes.labels(plane=plane))
        build = Gauge(
            "penstock_build_info", "Always 1.", labelnames=("version",), registry=self.registry
        )
        build.labels(version=version).set(1)

    def _counter(self, name: str, text: str, label: str) -> Counter:
        return Counter(name, text, labelnames=(label,), registry=self.registry)

    @contextlib.contextmanager
    def filling(self) -> Iterator[None]:
        """Time a fill; one that fails does not count."""
        begun = time.monotonic()
        yield
        self.fill_duration.observe(time.monotonic() - begun)

    def served(self, *, plane: str, source: str, key: str, length: int, reads: int = 1) -> None:
        """Count answers for ``reads`` chunks of an object, of ``length`` bytes together."""
        chunk_reads, read_bytes = self._of_source(source)
        chunk_reads.inc(reads)
        read_bytes.inc(length)
        self._of_plane(plane).inc(length)
        self.hottest.note(key, length)

    def scrape_from(self, collect: Callable[[], Iterable[Metric]]) -> None:
        """Have ``collect`` asked at each scrape, for what other parts count themselves."""
        self.registry.register(_Asked(collect))

    def totals(self) -> dict[str, int]:
        """Return every counter's total, its labels added up, for an operator's overview."""
        totals: dict[str, int] = {}
        for family in self.registry.collect():
            if family.type == "counter":
                samples = (s.value for s in family.samples if s.name.endswith("_total"))
                totals[f"{family.name}_total"] = round(sum(samples))
        return totals


def gauge(
    name: str, text: str, values: Iterable[tuple[tuple[str, ...], float]], *labels: str
) -> GaugeMetricFamily:
    """Return a gauge for `NodeMetrics.scrape_from`: label values, and the value, of each line."""
    family = GaugeMetricFamily(name, text, labels=labels)
    for label_values, value in values:
        family.add_metric(label_values, value)
    return family


def counter(
    name: str, text: str, values: Iterable[tuple[tuple[str, ...], float]], *labels: str
) -> CounterMetricFamily:
    """Return a counter for `NodeMetrics.scrape_from`, as `gauge`."""
    family = CounterMetricFamily(name, text, labels=labels)
    for label_values, value in values:
        family.add_metric(label_values, value)
    return family


class _Asked(Collector):
    """Asks a part for its numbers at each scrape."""

    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        self._collect = collect

    def collect(self) -> Iterable[Metric]:
        return self._collect()

    def describe(self) -> Iterable[Metric]:
        return ()  # Else registering would already ask.

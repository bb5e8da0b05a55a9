"""What a node counts, as Prometheus metrics. A node exports only its own.

Responsible for: the names, labels and texts of what is counted as it happens; how parts tell what
they count themselves, when asked.
Not responsible for: serving them (`serve.admin`), what parts tell (`node_metrics`), what every
process tells (`process_metrics`).

Labels come from bounded sets: planes, sources, stages, names of errors, volumes, tiers.
"""

import contextlib
import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, TypeAlias, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from penstock.planes.plane import Source
from penstock_node.durations import Durations, ReadCounts
from penstock_node.hottest import Hottest
from penstock_node.inflight import Inflight

FILL_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
READ_BUCKETS_S = (0.0001, 0.0005, 0.002, 0.01, 0.05, 0.2, 1, 5, 30)
Stage: TypeAlias = Literal["memory", "peer", "origin", "owner"]
"""Of bringing a chunk in: waiting for memory; asking other nodes; asking the origin; for readers of
this machine, asking its owner."""

Rows: TypeAlias = Iterable[tuple[tuple[str, ...], float]]
"""Label values, and the value, of each line."""
DurationRows: TypeAlias = Iterable[tuple[tuple[str, ...], Durations]]


class NodeMetrics:
    """Counters that the read path bumps. Thread-safe."""

    def __init__(self, *, version: str, inflight: Inflight) -> None:
        self.registry = CollectorRegistry()
        self.reads = ReadCounts(READ_BUCKETS_S)
        self.hottest = Hottest()
        """Which directories are served most: of no bounded set, so no metric."""
        self.chunk_read_failures = Counter(
            "penstock_chunk_read_failures",
            "Chunk reads answered with an error.",
            labelnames=("error",),
            registry=self.registry,
        )
        self.handoff_bytes = Counter(
            "penstock_handoff_bytes",
            "Payload taken over from former owners in the background.",
            registry=self.registry,
        )
        self._fills = Durations(FILL_BUCKETS_S)
        self._stages: dict[Stage, Durations] = {}
        self._waiting: dict[str, Callable[[], int]] = {}
        build_info(self.registry, version=version)
        self.scrape_from(self._counted)
        self.scrape_from(lambda: _memory_metrics(inflight))

    @contextlib.contextmanager
    def filling(self) -> Iterator[None]:
        """Time a fill; one that fails does not count."""
        begun = time.monotonic()
        yield
        self._fills.add(time.monotonic() - begun)

    def stage(self, name: Stage) -> contextlib.AbstractContextManager[None]:
        """Return a ``with`` that times a stage of bringing a chunk in, however it ends."""
        return self._stages.setdefault(name, Durations(FILL_BUCKETS_S)).timing()

    def served(
        self, *, plane: str, source: Source, key: str, length: int, seconds: float, reads: int = 1
    ) -> None:
        """Count answers.

        Args:
            plane: How they go.
            source: Where their chunks came from.
            key: Of their object.
            length: Of all together, in bytes.
            seconds: From a request until its answer is there to be sent.
            reads: For how many chunks.
        """
        self.reads.add(plane, source, size_bytes=length, seconds=seconds, reads=reads)
        self.hottest.note(key, length)

    def waits(self, plane: str, count: Callable[[], int]) -> None:
        """Have ``count`` tell how many reads of a plane wait for chunks that are brought in."""
        self._waiting[plane] = count

    def _counted(self) -> Iterable[Metric]:
        yield from _read_metrics(self.reads)
        yield gauge(
            "penstock_waiting_reads",
            "Reads that wait for chunks on their way, by plane.",
            [((plane,), count()) for plane, count in self._waiting.items()],
            "plane",
        )
        yield histogram(
            "penstock_fill_duration_seconds",
            "Time to bring a missing chunk in.",
            [((), self._fills)],
        )
        yield histogram(
            "penstock_fill_stage_duration_seconds",
            "Where the time goes that bringing a chunk in takes: waiting for memory, asking "
            "peers, the origin or (for this machine's readers) the owner.",
            [((name,), durations) for name, durations in self._stages.items()],
            "stage",
        )

    def scrape_from(self, collect: Callable[[], Iterable[Metric]]) -> None:
        """Have ``collect`` asked at each scrape, for what other parts count themselves."""
        scrape(self.registry, collect)

    def totals(self) -> dict[str, int]:
        """Return the total of each of Penstock's own counters, for an operator's overview."""
        totals: dict[str, int] = {}
        for family in self.registry.collect():
            if family.type == "counter" and family.name.startswith("penstock_"):
                samples = (s.value for s in family.samples if s.name.endswith("_total"))
                totals[f"{family.name}_total"] = round(sum(samples))
        return totals


def _read_metrics(reads: ReadCounts) -> Iterable[Metric]:
    rows = reads.rows()
    # All from the start: Prometheus sees no rise of what was not there before.
    sources = get_args(Source)
    planes = sorted({plane for plane, _source in rows})
    yield counter(
        "penstock_chunk_reads",
        "Chunk reads answered with bytes.",
        [((s,), sum(row.reads for key, row in rows.items() if key[1] == s)) for s in sources],
        "source",
    )
    yield counter(
        "penstock_read_bytes",
        "Bytes of chunk reads, by where they came from.",
        [((s,), sum(row.size_bytes for key, row in rows.items() if key[1] == s)) for s in sources],
        "source",
    )
    yield counter(
        "penstock_served_bytes",
        "Bytes sent to readers, by plane.",
        [((p,), sum(row.size_bytes for key, row in rows.items() if key[0] == p)) for p in planes],
        "plane",
    )
    family = HistogramMetricFamily(
        "penstock_read_duration_seconds",
        "From a request for a chunk until it is there to be sent; host and grpc ask again for "
        "what is on its way for longer than 0.2 s, which begins anew.",
        labels=("plane", "source"),
    )
    for key, row in rows.items():
        family.add_metric(key, _cumulated(reads.bounds_s, row.buckets), row.seconds)
    yield family


def _memory_metrics(inflight: Inflight) -> Iterable[Metric]:
    for name, text, value in (
        ("", "Payload bytes in memory, on their way in or out.", inflight.used_bytes),
        ("_max", "What penstock_inflight_bytes never passes.", inflight.bytes_max),
    ):
        yield gauge(f"penstock_inflight_bytes{name}", text, [((), value)])
    yield gauge(
        "penstock_inflight_waiting",
        "Chunks that wait for memory to be in, by what it is for.",
        [((lane,), count) for lane, count in inflight.waiting().items()],
        "lane",
    )


def build_info(registry: CollectorRegistry, *, version: str) -> None:
    """Export which version this is."""
    build = Gauge("penstock_build_info", "Always 1.", labelnames=("version",), registry=registry)
    build.labels(version=version).set(1)


def scrape(registry: CollectorRegistry, collect: Callable[[], Iterable[Metric]]) -> None:
    """Have ``collect`` asked whenever ``registry`` is scraped."""
    registry.register(_Asked(collect))


def gauge(name: str, text: str, values: Rows, *labels: str) -> GaugeMetricFamily:
    """Return a gauge for `scrape`: label values, and the value, of each line."""
    family = GaugeMetricFamily(name, text, labels=labels)
    for label_values, value in values:
        family.add_metric(label_values, value)
    return family


def counter(name: str, text: str, values: Rows, *labels: str) -> CounterMetricFamily:
    """Return a counter for `scrape`, as `gauge`."""
    family = CounterMetricFamily(name, text, labels=labels)
    for label_values, value in values:
        family.add_metric(label_values, value)
    return family


def histogram(name: str, text: str, values: DurationRows, *labels: str) -> HistogramMetricFamily:
    """Return a histogram for `scrape`, as `gauge`."""
    family = HistogramMetricFamily(name, text, labels=labels)
    for label_values, durations in values:
        counts, seconds = durations.now()
        family.add_metric(label_values, _cumulated(durations.bounds_s, counts), seconds)
    return family


def _cumulated(bounds_s: Iterable[float], counts: Iterable[int]) -> list[tuple[str, float]]:
    """Return buckets as Prometheus has them: each with all that are below."""
    bounds = [*(f"{float(bound)}" for bound in bounds_s), "+Inf"]
    return list(zip(bounds, itertools.accumulate(counts), strict=True))


class _Asked(Collector):
    """Asks a part for its numbers at each scrape."""

    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        self._collect = collect

    def collect(self) -> Iterable[Metric]:
        return self._collect()

    def describe(self) -> Iterable[Metric]:
        return ()  # Else registering would already ask.

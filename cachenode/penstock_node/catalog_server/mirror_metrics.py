"""What a mirror exports: how far behind it is, and what it has brought into its region."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from penstock_node.catalog_server.bringing_volume import BroughtCounters
from penstock_node.catalog_server.mirroring import Mirror


class MirrorMetrics(Collector):
    """The figures of one mirror."""

    def __init__(
        self, following: Mirror, brought: BroughtCounters, *, registry: CollectorRegistry
    ) -> None:
        """Export them from now on.

        Args:
            following: Follows the source.
            brought: Counts what is brought.
            registry: Exports them.
        """
        self._following, self._brought = following, brought
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """See `Collector`."""
        following, brought = self._following, self._brought
        yield GaugeMetricFamily(
            "penstock_mirror_lag_seconds",
            "How long ago this mirror had all that its source had; 0 while it has.",
            value=following.lag_s,
        )
        yield GaugeMetricFamily(
            "penstock_mirror_lag_entries",
            "Entries that the source was heard to have, and that are not here.",
            value=max(0, following.source_seq - following.seq),
        )
        yield GaugeMetricFamily(
            "penstock_mirror_seq", "The number of the newest entry here.", value=following.seq
        )
        yield CounterMetricFamily(
            "penstock_mirror_copied_bytes",
            "Payload of files that this process has copied to the region's own store.",
            value=brought.copied_bytes,
        )
        yield CounterMetricFamily(
            "penstock_mirror_copied_files",
            "Files that this process has copied to the region's own store.",
            value=brought.copied_files,
        )
        yield CounterMetricFamily(
            "penstock_mirror_warmed_files",
            "Files that this process has had brought into the region's cache.",
            value=brought.warmed_files,
        )

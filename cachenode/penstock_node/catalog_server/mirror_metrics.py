"""What a mirror exports: how far behind it is, and what it has brought into its region."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from penstock_node.catalog_server.bringing import Bringing
from penstock_node.catalog_server.bringing_volume import BroughtCounters
from penstock_node.catalog_server.mirroring import Mirror
from penstock_node.metrics import gauge


class MirrorMetrics(Collector):
    """The figures of one mirror."""

    def __init__(
        self,
        following: Mirror,
        brought: BroughtCounters,
        *,
        bringing: Bringing | None = None,
        registry: CollectorRegistry,
    ) -> None:
        """Export them from now on.

        Args:
            following: Follows the source.
            brought: Counts what is brought.
            bringing: Brings it; None: nobody does, without a cluster.
            registry: Exports them.
        """
        self._following, self._brought, self._bringing = following, brought, bringing
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
        yield gauge(
            "penstock_mirror_healthy",
            "Whether the mirror gets on: 0 while its source does not answer, or is another's.",
            [((), not following.trouble)],
        )
        trouble = self._bringing.trouble if self._bringing else {}
        volumes = self._bringing.volumes if self._bringing else set()
        yield gauge(
            "penstock_mirror_bringing_healthy",
            "Whether data of the volume that rules name come here.",
            [((each,), not (trouble.get(each) or trouble.get(""))) for each in sorted(volumes)],
            "volume",
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

"""What the parts of a node tell when Prometheus asks: see `metrics` for what is counted as it
happens."""

from collections.abc import Callable, Iterable

from prometheus_client.core import Metric

from penstock_node.cluster import Cluster
from penstock_node.coordination import Coordination
from penstock_node.handover.handover import Handover
from penstock_node.metrics import counter, gauge
from penstock_node.origin import Origins
from penstock_node.store.store import Store


def node_gauges(
    *,
    cluster: Cluster,
    coordination: Coordination,
    store: Store,
    origins: Origins,
    handover: Handover,
) -> Callable[[], Iterable[Metric]]:
    """Return what `NodeMetrics.scrape_from` asks."""

    def collect() -> Iterable[Metric]:
        yield from _store_metrics(store)
        yield from _origin_metrics(origins)
        yield from _cluster_metrics(cluster, coordination)
        yield from _handover_metrics(handover)

    return collect


def _store_metrics(store: Store) -> Iterable[Metric]:
    usage = store.tier_usage()
    labels = [((str(tier.path), tier.role), tier) for tier in usage]
    yield gauge(
        "penstock_tier_used_bytes",
        "Bytes that count against the tier's capacity.",
        [(names, tier.used_bytes) for names, tier in labels],
        "tier",
        "role",
    )
    yield gauge(
        "penstock_tier_capacity_bytes",
        "The tier's budget.",
        [(names, tier.capacity_bytes) for names, tier in labels],
        "tier",
        "role",
    )
    yield gauge(
        "penstock_disk_healthy",
        "Whether the disk is in use: 0 while it errs, hangs, is read-only or not mounted.",
        [((str(tier.path),), tier.is_healthy) for tier in usage],
        "disk",
    )
    totals = store.statistics
    for name, text, value in (
        ("penstock_evicted_bytes", "Bytes evicted.", totals.evicted_bytes),
        ("penstock_corrupt_chunks", "Copies found bad and dropped.", totals.corrupt_chunks),
        ("penstock_store_write_errors", "Writes that a disk refused.", totals.write_errors),
        ("penstock_store_read_errors", "Reads that a disk refused.", totals.read_errors),
        (
            "penstock_store_shortages",
            "Files not opened for want of descriptors or memory.",
            totals.shortages,
        ),
        ("penstock_store_not_kept", "Chunks that no tier could keep.", totals.not_kept),
    ):
        yield counter(name, text, [((), value)])


def _origin_metrics(origins: Origins) -> Iterable[Metric]:
    by_volume = origins.counters()
    yield counter(
        "penstock_origin_requests",
        "Requests to origins, retries included.",
        [
            ((volume, operation), count)
            for volume, told in by_volume.items()
            for operation, count in (
                ("get", told.get_requests),
                ("head", told.head_requests),
                ("list", told.list_requests),
                ("put", told.put_requests),
            )
        ],
        "volume",
        "operation",
    )
    yield counter(
        "penstock_origin_bytes",
        "Payload read from origins.",
        [((volume,), told.bytes_read) for volume, told in by_volume.items()],
        "volume",
    )
    yield counter(
        "penstock_origin_written_bytes",
        "Payload given to origins to be written, published or not.",
        [((volume,), told.bytes_written) for volume, told in by_volume.items()],
        "volume",
    )
    yield counter(
        "penstock_origin_refused_calls",
        "Calls that were not made, as the origin did not answer.",
        [((volume,), told.refused_calls) for volume, told in by_volume.items()],
        "volume",
    )
    gates = origins.gates()
    yield gauge(
        "penstock_origin_healthy",
        "Whether the origin is asked: 0 while it does not answer and is only tried now and then.",
        [((volume,), all(gate.is_healthy for gate in some)) for volume, some in gates.items()],
        "volume",
    )
    yield gauge(
        "penstock_origin_waiting_calls",
        "Calls that wait for a slot at the origin, or for their turn in its rate.",
        [((volume,), sum(gate.waiting for gate in some)) for volume, some in gates.items()],
        "volume",
    )


def _cluster_metrics(cluster: Cluster, coordination: Coordination) -> Iterable[Metric]:
    view = cluster.routing.view
    nodes = view.placement.nodes if view else ()
    weight = next((node.weight for node in nodes if node.id == cluster.node_id), 0)
    for name, text, value in (
        ("penstock_placement_epoch", "The placement in force on this node.", cluster.epoch),
        ("penstock_weight", "This node's effective weight.", weight),
        ("penstock_etcd_connected", "Whether the coordinator answers.", coordination.connected),
    ):
        yield gauge(name, text, [((), value)])


def _handover_metrics(handover: Handover) -> Iterable[Metric]:
    given = handover.giving.given()
    for name, text, value in (
        (
            "penstock_handoff_waiting_bytes",
            "What former owners offer this node and it has not looked at yet.",
            handover.taking.waiting_bytes,
        ),
        (
            "penstock_handoff_left_bytes",
            "What new owners had no room for when they took over from this node.",
            given.left_bytes,
        ),
    ):
        yield gauge(name, text, [((), value)])

"""What a node tells of its tiers, their disks and its origins, when Prometheus asks.

Responsible for: names and texts, as `node_metrics`, whose part this is.
"""

from collections.abc import Callable, Iterable, Mapping

from prometheus_client.core import Metric

from penstock_node.metrics import counter, gauge, histogram
from penstock_node.origin import Origins
from penstock_node.origin.interface import OriginCounters
from penstock_node.store.store import Store, TierUsage


def store_metrics(store: Store) -> Iterable[Metric]:
    """Return what a node tells of its tiers and their disks."""
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
    yield gauge(
        "penstock_tier_chunks",
        "Chunks in the tier, as far as it has been scanned.",
        [(names, tier.chunk_count) for names, tier in labels],
        "tier",
        "role",
    )
    yield gauge(
        "penstock_tier_scanned",
        "Whether the tier knows all that it has; while it does not, it counts as full.",
        [(names, tier.is_scanned) for names, tier in labels],
        "tier",
        "role",
    )
    yield counter(
        "penstock_tier_evicted_bytes",
        "Bytes evicted from the tier.",
        [(names, tier.evicted_bytes) for names, tier in labels],
        "tier",
        "role",
    )
    yield from _disk_metrics(usage)
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


def _disk_metrics(usage: Iterable[TierUsage]) -> Iterable[Metric]:
    disks = [(str(tier.path), tier.disk) for tier in usage]
    spent = [
        ((name, operation), *each.now())
        for name, disk in disks
        for operation, each in (("read", disk.reads), ("write", disk.writes))
    ]
    labels = ("disk", "operation")
    yield counter(
        "penstock_disk_operations",
        "Reads and writes of the disk that are over.",
        [(names, count) for names, count, _seconds in spent],
        *labels,
    )
    yield counter(
        "penstock_disk_busy_seconds",
        "What threads spent inside the disk for them; divide by penstock_disk_operations_total.",
        [(names, seconds) for names, _count, seconds in spent],
        *labels,
    )
    yield gauge(
        "penstock_disk_threads",
        "Threads inside the disk now, its writers among them; 12 hold all others up.",
        [((name,), disk.inside_count) for name, disk in disks],
        "disk",
    )
    yield gauge(
        "penstock_disk_waiting_writes",
        "Chunks that wait for a writer of the disk.",
        [((name,), disk.writers.waiting_count) for name, disk in disks],
        "disk",
    )


def origin_metrics(origins: Origins) -> Iterable[Metric]:
    """Return what a node tells of the origins that it asks, by volume."""
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
    yield _by_volume(
        "penstock_origin_bytes",
        "Payload read from origins.",
        by_volume,
        lambda told: told.bytes_read,
    )
    yield _by_volume(
        "penstock_origin_written_bytes",
        "Payload given to origins to be written, published or not.",
        by_volume,
        lambda told: told.bytes_written,
    )
    yield _by_volume(
        "penstock_origin_refused_calls",
        "Calls that were not made, as the origin did not answer.",
        by_volume,
        lambda told: told.refused_calls,
    )
    yield from _request_metrics(by_volume)
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


def _by_volume(
    name: str,
    documentation: str,
    by_volume: Mapping[str, OriginCounters],
    count: Callable[[OriginCounters], float],
) -> Metric:
    return counter(
        name,
        documentation,
        [((volume,), count(told)) for volume, told in by_volume.items()],
        "volume",
    )


def _request_metrics(by_volume: Mapping[str, OriginCounters]) -> Iterable[Metric]:
    yield _by_volume(
        "penstock_origin_retries",
        "Requests to origins that were sent again.",
        by_volume,
        lambda told: told.retries,
    )
    yield counter(
        "penstock_origin_request_failures",
        "Requests to origins that failed: timeout, connection, throttled (429, 503), "
        "server_error, short, given_up, other, or the name of the error that readers were told.",
        [
            ((volume, error), count)
            for volume, told in by_volume.items()
            for error, count in told.failures.now().items()
        ],
        "volume",
        "error",
    )
    yield histogram(
        "penstock_origin_request_duration_seconds",
        "Requests to origins, failed ones too, from when they are sent; without any wait.",
        [
            ((volume, operation), durations)
            for volume, told in by_volume.items()
            for operation, durations in told.durations.items()
        ],
        "volume",
        "operation",
    )
    yield _by_volume(
        "penstock_origin_wait_seconds",
        "What calls waited for a slot at the origin, or for their turn in its rate.",
        by_volume,
        lambda told: told.waited_s,
    )

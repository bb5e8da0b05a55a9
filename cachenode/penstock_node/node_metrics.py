"""What the parts of a node tell when Prometheus asks: see `metrics` for what is counted as it
happens.

Responsible for: names and texts; one function a part. Nothing here is counted.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import get_args

from prometheus_client.core import Metric

from penstock_node.catalog_lookups import CatalogLookups
from penstock_node.cluster import Cluster
from penstock_node.coordination import Coordination
from penstock_node.coordination.maintenance import NodeState, state_of
from penstock_node.coordination.state import ClusterState
from penstock_node.fill import Filler
from penstock_node.handover.handover import Handover
from penstock_node.host_reads import HostReads
from penstock_node.metrics import counter, gauge, histogram
from penstock_node.opening import Opener
from penstock_node.origin import Origins
from penstock_node.pinned import Pinned
from penstock_node.storage_metrics import origin_metrics, store_metrics
from penstock_node.store.store import Store
from penstock_node.transport.engine import Engine
from penstock_node.warming import Warming
from penstock_node.warmups import Warmups

_STATES: tuple[NodeState, ...] = get_args(NodeState)


@dataclass(frozen=True, slots=True)
class Parts:
    """What is asked."""

    cluster: Cluster
    coordination: Coordination
    store: Store
    origins: Origins
    opener: Opener
    lookups: CatalogLookups
    handover: Handover
    filler: Filler
    host_reads: HostReads
    pinned: Pinned
    engine: Engine
    is_ready: Callable[[], bool]


def collect(parts: Parts) -> Iterable[Metric]:
    """Return what a node that serves tells; see `NodeMetrics.scrape_from`."""
    text = "Whether the node has joined and serves."
    yield gauge("penstock_ready", text, [((), parts.is_ready())])
    yield from store_metrics(parts.store)
    yield from origin_metrics(parts.origins)
    yield from _cluster_metrics(parts.cluster, parts.coordination)
    yield from _handover_metrics(parts.handover)
    yield from _opening_metrics(parts.opener, parts.lookups)
    yield from _engine_metrics(parts.engine)
    yield gauge(
        "penstock_flights",
        "Chunks on their way in or waiting for memory: of this node's share (owned), or of "
        "others' for this machine's readers (host). 1024 of each at most.",
        [(("owned",), parts.filler.flight_count), (("host",), parts.host_reads.fetch_count)],
        "kind",
    )
    yield from _pin_metrics(parts.pinned)


def _cluster_metrics(cluster: Cluster, coordination: Coordination) -> Iterable[Metric]:
    view = cluster.routing.view
    nodes = view.placement.nodes if view else ()
    weight = next((node.weight for node in nodes if node.id == cluster.node_id), 0)
    members = view.members if view else {}
    suspected = sum(cluster.away.is_suspected(each) for each in members)
    for name, text, value in (
        ("penstock_placement_epoch", "The placement in force on this node.", cluster.epoch),
        ("penstock_weight", "This node's effective weight.", weight),
        ("penstock_etcd_connected", "Whether the coordinator answers.", coordination.connected),
        (
            "penstock_placement_changed_timestamp_seconds",
            "When this node put the placement into force; 0: it has none.",
            cluster.changed_at,
        ),
        (
            "penstock_members_suspected",
            "Members that this node finds not to answer, and in whose stead it may act.",
            suspected,
        ),
    ):
        yield gauge(name, text, [((), value)])
    state = coordination.state
    counts = _states(state)
    yield gauge(
        "penstock_members",
        "Nodes of the cluster by state, as this node sees them.",
        [((name,), counts[name]) for name in _STATES],
        "state",
    )
    own = state_of(state, cluster.node_id)
    yield gauge(
        "penstock_node_state",
        "1 for the state that this node is in.",
        [((name,), name == own) for name in _STATES],
        "state",
    )
    yield counter(
        "penstock_tickets_refused",
        "Tickets that were refused: they are forged, another cluster's, or their time is over.",
        [((error,), count) for error, count in cluster.refused_tickets.now().items()],
        "error",
    )


def _states(state: ClusterState) -> Counter[NodeState]:
    """Return how many nodes are in each state; only those off the ring take a longer look."""
    weights = {node.id: node.weight for node in state.placement.nodes} if state.placement else {}
    counts = Counter[NodeState]()
    for node in weights.keys() | state.members.keys():
        if node not in state.members:
            counts["away"] += 1
        else:
            counts["alive" if weights.get(node, 1) else state_of(state, node)] += 1
    return counts


def _handover_metrics(handover: Handover) -> Iterable[Metric]:
    given = handover.giving.given()
    for name, text, value in (
        (
            "penstock_handoff_offered_bytes",
            "What this node holds of others' since the last change of the placement.",
            given.size_bytes,
        ),
        (
            "penstock_handoff_done_bytes",
            "Of penstock_handoff_offered_bytes: what new owners have, or had no room for.",
            given.done_bytes,
        ),
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


def _opening_metrics(opener: Opener, lookups: CatalogLookups) -> Iterable[Metric]:
    yield counter(
        "penstock_opens",
        "Objects that were asked for: opened, or the name of the error.",
        [((outcome,), count) for outcome, count in opener.outcomes.now().items()],
        "outcome",
    )
    yield histogram(
        "penstock_open_duration_seconds",
        "Requests to open objects, however many they name.",
        [((), opener.durations)],
    )
    yield histogram(
        "penstock_catalog_lookup_duration_seconds",
        "Calls to the catalog, failed ones too.",
        [((method,), durations) for method, durations in lookups.durations.items()],
        "method",
    )
    yield counter(
        "penstock_catalog_lookup_failures",
        "Calls to the catalog that failed.",
        [((error,), count) for error, count in lookups.failures.now().items()],
        "error",
    )


def _engine_metrics(engine: Engine) -> Iterable[Metric]:
    yield gauge(
        "penstock_connections",
        "Connections of readers that are open, by port.",
        [((port,), count) for port, count in engine.connections_by_name().items()],
        "port",
    )
    for name, text, value in (
        (
            "penstock_connections_max",
            "How many there may be; beyond it none is accepted.",
            engine.connections_max,
        ),
        (
            "penstock_connections_busy",
            "Connections with a request in hand, or an answer that is not through.",
            engine.busy_count,
        ),
        (
            "penstock_workers",
            "Threads that serve connections; more than 8 only while disks hold some.",
            engine.worker_count,
        ),
        (
            "penstock_workers_held",
            "Those that have been at one connection for over 0.1 s: a disk holds them.",
            engine.held_count,
        ),
    ):
        yield gauge(name, text, [((), value)])


def _pin_metrics(pinned: Pinned) -> Iterable[Metric]:
    kept = pinned.kept().values()
    for name, text, value in (
        (
            "penstock_pinned_bytes",
            "What this node is to keep of pinned objects.",
            sum(each.kept_bytes for each in kept),
        ),
        (
            "penstock_pinned_held_bytes",
            "What it has of them.",
            sum(each.held_bytes for each in kept),
        ),
    ):
        yield gauge(name, text, [((), value)])


def warming_metrics(warming: Warming, warmups: Warmups) -> Iterable[Metric]:
    """Return how far warm-ups are that come through this node."""
    yield gauge(
        "penstock_warming_chunks",
        "Chunks on their way into this node because of warm-ups.",
        [((), warming.begun_count)],
    )
    yield gauge(
        "penstock_warmups_running",
        "Warm-ups that this node drives itself (--no-wait, and those of mirrors).",
        [((), warmups.running_count)],
    )
    yield counter(
        "penstock_warmup_bytes",
        "Bytes of those that are over: cold (brought in), warm (were there), failed.",
        [((outcome,), count) for outcome, count in warmups.brought.now().items()],
        "outcome",
    )

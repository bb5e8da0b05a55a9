"""Short leases for a few, in a cluster whose other leases outlast the tests."""

from collections.abc import Iterator
from contextlib import contextmanager

from penstock import operator
from penstock_node.testbed.cluster import LocalCluster, NodeProcess
from penstock_node.testbed.processes import wait_until
from penstock_node.testbed.site import SHORT_LEASE_TTL_S

DEADLINE_S = 30.0


@contextmanager
def short_leases(cluster: LocalCluster) -> Iterator[None]:
    """Let leases that are granted within the block be short: those that nodes have stay."""
    before = _lease_ttl_s(cluster.running[0])
    _set(cluster, SHORT_LEASE_TTL_S)
    try:
        yield
    finally:
        _set(cluster, before)


def restart_with_short_lease(cluster: LocalCluster, name: str) -> NodeProcess:
    """Start a node again, so that it is away soon after it is killed."""
    node = cluster[name]
    with short_leases(cluster):
        node.stop()
        node.start()
        cluster.wait_placed(len(cluster.nodes))
    return node


def _lease_ttl_s(node: NodeProcess) -> float:
    with operator.connect(node.address) as connected:
        return float(connected.settings()["lease_ttl_s"])


def _set(cluster: LocalCluster, seconds: float) -> None:
    with operator.connect(cluster.running[0].address) as connected:
        connected.set_settings({"lease_ttl_s": seconds})
    wait_until(
        lambda: {_lease_ttl_s(node) for node in cluster.running} == {seconds},
        deadline_s=DEADLINE_S,
        what="all nodes know how long a lease is",
    )

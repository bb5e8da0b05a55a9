"""Facts of clusters in which nothing is wrong, for tests to put something wrong into."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from penstock.doctor.facts import (
    Asker,
    Clock,
    Disk,
    EtcdLook,
    Examined,
    Facts,
    KnownCluster,
    KnownNode,
    KnownVolume,
    Limits,
    NodeFacts,
    OriginLook,
    PeerLook,
    TicketKeyAge,
)
from penstock.doctor.finding import Checked, Finding
from penstock.settings import ClusterSettings

GB = 10**9
NOW = 1_700_000_000.0
NAMES = ("n1", "n2", "n3", "n4")
UID = "a" * 32
ETCD = "http://etcd-0:2379"
KEY = TicketKeyAge("k1", NOW - 3600)


def disk(name: str = "/mnt/nvme0", **fields: Any) -> Disk:
    """Return a disk of 1 TB, of which the tier may have 900 GB, that takes 5 ms for 4 MiB."""
    usual: dict[str, Any] = {
        "budget_bytes": 900 * GB,
        "used_bytes": 100 * GB,
        "total_bytes": 1000 * GB,
        "free_bytes": 890 * GB,
        "floor_bytes": 10 * GB,
        "file_system": "xfs",
        "device": 1,
        "write_s": 0.005,
        "read_s": 0.003,
        "measured_bytes": 4 << 20,
    }
    return Disk(name, **(usual | fields))


def peer(name: str, *, rate: float = 1e9, **fields: Any) -> PeerLook:
    """Return a look at a node over a link of ``rate`` bytes a second."""
    usual: dict[str, Any] = {
        "connect_s": 0.001,
        "received_bytes": 4 << 20,
        "receiving_s": (4 << 20) / rate,
    }
    return PeerLook(name, **(usual | fields))


def origin(volume: str = "models", *, seconds: float = 0.02, **fields: Any) -> OriginLook:
    """Return a look at an origin that answers within ``seconds``."""
    usual: dict[str, Any] = {"host": "s3", "list_s": seconds, "head_s": seconds, "read_s": seconds}
    return OriginLook(volume, **(usual | fields))


def examined(name: str, **fields: Any) -> Examined:
    """Return what a node tells of which all is well."""
    usual: dict[str, Any] = {
        "version": "1.2.3",
        "uid": UID,
        "epoch": 7,
        "ticket_keys": (KEY,),
        "signing_key": "k1",
        "disks": (disk(),),
        "etcd": (EtcdLook(ETCD, latency_s=0.002, version="3.5.17"),),
        "origins": (origin("models"), origin("lake")),
        "peers": tuple(peer(other) for other in NAMES if other != name),
        "limits": Limits(65_536, 200, 65_530, 300),
    }
    return Examined(**(usual | fields))


def cluster(**fields: Any) -> KnownCluster:
    """Return a cluster of four equal nodes."""
    usual: dict[str, Any] = {
        "asked": "n1",
        "name": "prod",
        "uid": UID,
        "epoch": 7,
        "is_connected": True,
        "settings": {**ClusterSettings().to_json(), "weight_unit_bytes": 900 * GB},
        "nodes": tuple(node(name) for name in NAMES),
        "volumes": (KnownVolume("models"), KnownVolume("lake")),
    }
    return KnownCluster(**(usual | fields))


def node(name: str, **fields: Any) -> KnownNode:
    """Return a node with a quarter of the ring."""
    usual: dict[str, Any] = {
        "host": f"host-{name}",
        "share": 0.25,
        "owned_capacity_bytes": 900 * GB,
        "grpc_address": f"{name}:7400",
        "bulk_address": f"{name}:7401",
        "admin_address": f"{name}:7402",
    }
    return KnownNode(name, **(usual | fields))


def facts(
    of_nodes: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    nodes: Mapping[str, NodeFacts] | None = None,
    **fields: Any,
) -> Facts:
    """Return facts of a cluster that is well, but for what the arguments say.

    Args:
        of_nodes: Fields of `Examined`, by node.
        nodes: Whole facts, by node.
        fields: Of `Facts`.
    """
    told = {
        name: NodeFacts(
            name, clock=Clock(0.0, 0.001), examined=examined(name, **(of_nodes or {}).get(name, {}))
        )
        for name in NAMES
    }
    usual = Facts(
        cluster=cluster(),
        nodes={**told, **(nodes or {})},
        asker=Asker("1.2.3", NOW),
        is_measured=True,
    )
    return replace(usual, **fields)


def told(checked: Checked) -> list[tuple[str, str]]:
    """Return how bad each finding is, and where."""
    return [(each.severity, str(each.place)) for each in checked.findings]


def only(checked: Checked) -> Finding:
    """Return the finding that there is."""
    (finding,) = checked.findings
    return finding

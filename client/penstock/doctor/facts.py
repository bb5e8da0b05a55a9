"""What was found of a cluster at one moment, in seconds and bytes: plain data, not judged."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class WeightSet:
    """A weight that an operator set."""

    weight: int
    reason: str
    set_at: float
    """Seconds since 1970."""
    purpose: str
    """Empty, ``cordon`` or ``drain``."""


@dataclass(frozen=True, slots=True)
class KnownNode:
    """A node as the cluster knows it, whether it answers or not."""

    id: str
    host: str = ""
    state: str = "alive"
    """As in `penstock.operator_results.NodeStatus`."""
    is_placed: bool = True
    weight: int = 100
    share: float = 0.0
    owned_capacity_bytes: int = 0
    override: WeightSet | None = None
    grpc_address: str = ""
    bulk_address: str = ""
    admin_address: str = ""
    away_s: float = 0.0
    """How long it has been away at least."""
    tls_ports: tuple[str, ...] = ()
    """As in a `Member`."""


@dataclass(frozen=True, slots=True)
class KnownVolume:
    """A volume."""

    name: str
    replicas: int = 0
    """0: the cluster's setting."""
    is_catalogued: bool = False


@dataclass(frozen=True, slots=True)
class KnownCluster:
    """The cluster as one node knows it."""

    asked: str
    """That node."""
    name: str
    uid: str
    epoch: int
    is_connected: bool
    """Whether etcd answers that node."""
    settings: Mapping[str, Any]
    nodes: tuple[KnownNode, ...]
    volumes: tuple[KnownVolume, ...] = ()
    unreadable_volumes: tuple[str, ...] = ()
    pins: tuple[str, ...] = ()
    lone_overrides: tuple[str, ...] = ()
    """Weights of nodes that the cluster does not know."""
    catalog_address: str = ""


@dataclass(frozen=True, slots=True)
class Clock:
    """A node's clock beside the asker's."""

    ahead_s: float
    """Negative: it is behind."""
    uncertainty_s: float
    """Half of the round trip: it may be so much more or less."""


@dataclass(frozen=True, slots=True)
class Disk:
    """One tier's disk."""

    path: str
    role: str = "owned"
    trouble: str = ""
    """Why it is out of use; empty: it is in use."""
    budget_bytes: int = 0
    used_bytes: int = 0
    total_bytes: int = 0
    free_bytes: int = 0
    floor_bytes: int = 0
    file_system: str = ""
    device: int = 0
    read_errors: int = 0
    write_errors: int = 0
    corrupt_chunks: int = 0
    write_s: float = 0.0
    read_s: float = 0.0
    measured_bytes: int = 0
    """0: not measured."""
    failure: str = ""


@dataclass(frozen=True, slots=True)
class EtcdLook:
    """A member of etcd, from one node."""

    endpoint: str
    failure: str = ""
    latency_s: float = 0.0
    version: str = ""
    database_bytes: int = 0
    quota_bytes: int = 0
    errors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OriginLook:
    """The origin of a volume, from one node."""

    volume: str
    host: str = ""
    is_healthy: bool = True
    waiting: int = 0
    list_s: float = 0.0
    head_s: float = 0.0
    read_s: float = 0.0
    failure: str = ""
    """An error's name; empty: it answers."""
    message: str = ""

    @property
    def latency_s(self) -> float:
        """Of a request over a connection that is there; 0: it was asked nothing."""
        return min((s for s in (self.head_s, self.read_s) if s), default=self.list_s)


@dataclass(frozen=True, slots=True)
class PeerLook:
    """Another node, from one node: what is received comes from the other."""

    id: str
    grpc_failure: str = ""
    bulk_failure: str = ""
    ticket_failure: str = ""
    connect_s: float = 0.0
    received_bytes: int = 0
    receiving_s: float = 0.0

    @property
    def bytes_per_s(self) -> float:
        """0: nothing was received."""
        return self.received_bytes / self.receiving_s if self.receiving_s else 0.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What the system allows a node's process, and what it uses; 0 for no limit."""

    descriptors_max: int = 0
    descriptors: int = 0
    mappings_max: int = 0
    mappings: int = 0


@dataclass(frozen=True, slots=True)
class TicketKeyAge:
    """A key that tickets are signed with."""

    id: str
    created_at: float
    retired_at: float = 0.0
    """0: it is not."""


@dataclass(frozen=True, slots=True)
class HotChunk:
    """A chunk that so much is asked for that its owner has others take copies."""

    url: str
    index: int
    wanted: int
    made: int
    age_s: float = 0.0
    """How long ago copies were last asked for."""


@dataclass(frozen=True, slots=True)
class Examined:
    """What one node tells of itself."""

    version: str = ""
    uid: str = ""
    epoch: int = 0
    is_connected: bool = True
    is_registered: bool = True
    ticket_keys: tuple[TicketKeyAge, ...] = ()
    signing_key: str = ""
    disks: tuple[Disk, ...] = ()
    etcd: tuple[EtcdLook, ...] = ()
    origins: tuple[OriginLook, ...] = ()
    peers: tuple[PeerLook, ...] = ()
    limits: Limits = Limits()
    hot_chunks: tuple[HotChunk, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """All that was found of one node."""

    id: str
    failure: str = ""
    """Why it was not examined."""
    clock: Clock | None = None
    examined: Examined | None = None
    bulk_failure: str = ""
    admin_failure: str = ""
    """Why these ports do not answer the asker."""


@dataclass(frozen=True, slots=True)
class CatalogFacts:
    """The cluster's catalog."""

    address: str
    failure: str = ""
    latency_s: float = 0.0
    mirror_of: str = ""
    lag_s: float = 0.0
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Asker:
    """The machine that asks."""

    version: str
    """Of the library."""
    now: float
    """Seconds since 1970."""
    socket: str = ""
    """Of a node on this machine; empty: none is there."""
    socket_failure: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """All of it."""

    cluster: KnownCluster
    nodes: Mapping[str, NodeFacts]
    asker: Asker
    catalog: CatalogFacts | None = None
    """None while none is registered."""
    is_measured: bool = True
    """False: neither disks nor links were."""
    link_floor_bytes_per_s: float = 0.0
    """What the operator says that every link should do; 0: nothing."""
    seconds: float = field(default=0.0, compare=False)
    """That it took."""

    @property
    def examined(self) -> dict[str, Examined]:
        """The nodes that were examined."""
        return {name: each.examined for name, each in self.nodes.items() if each.examined}

"""What a cluster does at this moment, as plain data: what `penstock top` and the admin port show.

Responsible for: the overview's lines, their sums, and their JSON.
Not responsible for: where they come from (the node's `overview`), how they travel
(`overview_messages`). Rates are by the second, over the last ten.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

SOURCES = ("memory", "disk", "peer", "origin")
PLANES = ("bulk", "host", "grpc", "s3", "hub")
SERIES = (
    *(f"read_bytes.{source}" for source in SOURCES),
    "origin_bytes",
    "failures",
    "evicted_bytes",
    "cached_bytes",
    "handoff_bytes",
)
"""What a node remembers for an hour: rates, and ``cached_bytes`` as it was."""
STEP_S = 10
"""From one sample of the hour to the next."""
SAMPLES_MAX = 360
AWAY = "away"


@dataclass(frozen=True, slots=True)
class Rates:
    """What a node does by the second."""

    read_bytes: Mapping[str, float] = field(default_factory=dict)
    """By source."""
    served_bytes: Mapping[str, float] = field(default_factory=dict)
    """By plane."""
    origin_bytes: float = 0.0
    origin_requests: float = 0.0
    failures: float = 0.0
    evicted_bytes: float = 0.0
    handoff_bytes: float = 0.0

    @property
    def served(self) -> float:
        """Of all planes."""
        return sum(self.served_bytes.values())

    @classmethod
    def sum_of(cls, some: Iterable["Rates"]) -> "Rates":
        """Return all together."""
        read, served = dict.fromkeys(SOURCES, 0.0), dict.fromkeys(PLANES, 0.0)
        sums = [0.0] * 5
        for rates in some:
            for name, value in rates.read_bytes.items():
                read[name] = read.get(name, 0.0) + value
            for name, value in rates.served_bytes.items():
                served[name] = served.get(name, 0.0) + value
            sums[0] += rates.origin_bytes
            sums[1] += rates.origin_requests
            sums[2] += rates.failures
            sums[3] += rates.evicted_bytes
            sums[4] += rates.handoff_bytes
        return cls(read, served, *sums)

    def to_json(self) -> dict[str, Any]:
        """Return it for JSON: bytes are whole, every source and plane is there."""
        read, served = self.read_bytes, self.served_bytes
        return {
            "read_bytes": {name: round(read.get(name, 0.0)) for name in SOURCES},
            "served_bytes": {name: round(served.get(name, 0.0)) for name in PLANES},
            "origin_bytes": round(self.origin_bytes),
            "origin_requests": round(self.origin_requests, 2),
            "failures": round(self.failures, 2),
            "evicted_bytes": round(self.evicted_bytes),
            "handoff_bytes": round(self.handoff_bytes),
        }


IDLE = Rates()


@dataclass(frozen=True, slots=True)
class TierLine:
    """One tier of a node; see the node's metrics."""

    path: str
    role: str
    used_bytes: int
    capacity_bytes: int
    is_healthy: bool

    def to_json(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "path": self.path,
            "role": self.role,
            "used_bytes": self.used_bytes,
            "capacity_bytes": self.capacity_bytes,
            "is_healthy": self.is_healthy,
        }


@dataclass(frozen=True, slots=True)
class WarmupLine:
    """A warm-up that is under way, and how far it is."""

    node: str
    """Who goes through it; empty: a program that is no node."""
    name: str
    chunks: int
    """Found so far, as are the ``bytes``."""
    chunks_done: int
    bytes: int
    bytes_done: int
    started_at: float
    """In seconds since 1970."""

    def to_json(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class ModelLine:
    """A directory whose objects are read."""

    url: str
    bytes: int
    """Of the objects in it that were opened of late."""
    held_bytes: int
    """What at least one node holds; an estimate where there are many chunks."""
    copies: float
    """How many nodes hold a chunk that any holds, on average."""
    read_bytes_per_s: float

    def to_json(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "url": self.url,
            "bytes": self.bytes,
            "held_bytes": self.held_bytes,
            "copies": round(self.copies, 2),
            "read_bytes_per_s": round(self.read_bytes_per_s),
        }


@dataclass(frozen=True, slots=True)
class NodeTold:
    """What a node tells of itself."""

    id: str
    version: str = ""
    rates: Rates = IDLE
    minute_bytes: float = 0.0
    """That were read within the last minute."""
    minute_hit_bytes: float = 0.0
    """Those of them that did not come from an origin."""
    cached_bytes: int = 0
    handoff_waiting_bytes: int = 0
    inflight_bytes: int = 0
    tiers: tuple[TierLine, ...] = ()
    warmups: tuple[WarmupLine, ...] = ()
    hottest: Mapping[str, float] = field(default_factory=dict)
    """Directories of object keys, and what is read of them by the second."""


@dataclass(frozen=True, slots=True)
class NodeLine:
    """One node, with what it told last, whether or not it answers."""

    host: str
    zone: str
    state: str
    """``alive``, ``away``, ``cordoned``, ``draining`` or ``drained``."""
    weight: int
    weight_source: str
    share: float
    owned_capacity_bytes: int
    seen_epoch: int
    told_at: float
    """In seconds since 1970; 0: it has not told anything yet."""
    told: NodeTold
    """Of a node that is away: without rates."""

    @property
    def id(self) -> str:
        """Its id."""
        return self.told.id

    @property
    def hit_ratio(self) -> float | None:
        """See `hit_ratio`."""
        return hit_ratio([self.told])

    @property
    def used_bytes(self) -> int:
        """Of all its tiers together, as is the ``capacity_bytes``."""
        return sum(tier.used_bytes for tier in self.told.tiers)

    @property
    def capacity_bytes(self) -> int:
        """What its tiers take together."""
        return sum(tier.capacity_bytes for tier in self.told.tiers)

    def to_json(self) -> dict[str, Any]:
        """Return it for JSON."""
        told = self.told
        return {
            "id": told.id,
            "host": self.host,
            "zone": self.zone,
            "state": self.state,
            "weight": self.weight,
            "weight_source": self.weight_source,
            "share": round(self.share, 6),
            "owned_capacity_bytes": self.owned_capacity_bytes,
            "cached_bytes": told.cached_bytes,
            "version": told.version,
            "seen_epoch": self.seen_epoch,
            "told_at": round(self.told_at, 3),
            "rates": told.rates.to_json(),
            "hit_ratio": _rounded(self.hit_ratio),
            "handoff_waiting_bytes": told.handoff_waiting_bytes,
            "inflight_bytes": told.inflight_bytes,
            "tiers": [tier.to_json() for tier in told.tiers],
        }


def hit_ratio(some: Iterable[NodeTold]) -> float | None:
    """Return the share of the bytes that nodes read within a minute and no origin was asked for.

    None when nothing was read. What a node has from another is a hit of its own, and the other's
    hit or miss besides.
    """
    read = hits = 0.0
    for told in some:
        read += told.minute_bytes
        hits += told.minute_hit_bytes
    return hits / read if read > 0 else None


def _rounded(ratio: float | None) -> float | None:
    return None if ratio is None else round(ratio, 4)


@dataclass(frozen=True, slots=True)
class Overview:
    """The whole cluster, as one node has gathered it."""

    cluster: str
    epoch: int
    at: float
    """In seconds since 1970, by the clock of the node that answers."""
    node: str
    """Who answers, and its ``version``."""
    version: str
    nodes: tuple[NodeLine, ...] = ()
    """Sorted by id."""
    warmups: tuple[WarmupLine, ...] = ()
    models: tuple[ModelLine, ...] = ()
    """The hottest first."""

    @property
    def there(self) -> list[NodeLine]:
        """The nodes that are not away."""
        return [node for node in self.nodes if node.state != AWAY]

    def total_rates(self) -> Rates:
        """Return what all do together."""
        return Rates.sum_of(node.told.rates for node in self.there)

    def to_json(self) -> dict[str, Any]:
        """Return the document that the admin port and ``penstock top --json`` answer with."""
        there = self.there
        return {
            "cluster": self.cluster,
            "epoch": self.epoch,
            "at": round(self.at, 3),
            "node": self.node,
            "version": self.version,
            "nodes": [node.to_json() for node in self.nodes],
            "total": {
                "rates": self.total_rates().to_json(),
                "hit_ratio": _rounded(hit_ratio(node.told for node in there)),
                "cached_bytes": sum(node.told.cached_bytes for node in there),
                "owned_capacity_bytes": sum(node.owned_capacity_bytes for node in there),
                "nodes": len(self.nodes),
                "away": len(self.nodes) - len(there),
            },
            "warmups": [warmup.to_json() for warmup in self.warmups],
            "models": [model.to_json() for model in self.models],
        }


@dataclass(frozen=True, slots=True)
class History:
    """Samples of at most an hour, the oldest first."""

    until: float
    """The end of the last one, in seconds since 1970."""
    series: Mapping[str, Sequence[float]]
    """By the names of `SERIES`; NaN where nothing is known."""

    def to_json(self) -> dict[str, Any]:
        """Return the document that the admin port answers with."""
        return {
            "step_s": STEP_S,
            "until": self.until,
            "series": {
                name: [None if math.isnan(value) else round(value, 2) for value in values]
                for name, values in self.series.items()
            },
        }

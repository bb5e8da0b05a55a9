"""What a cluster answers to an operator, as plain data."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """One node of the cluster, whether it answers or not."""

    id: str
    host: str
    zone: str
    state: str
    """``alive``, ``away``, ``cordoned``, ``draining`` or ``drained``."""
    weight: int
    weight_source: str
    """``auto``, or ``override`` when an operator set it."""
    share: float
    """Of the key space, 0 to 1."""
    owned_capacity_bytes: int
    cached_bytes: int
    """0 when the node did not answer."""
    grpc_address: str
    """Empty for a node that is away."""
    version: str
    """Of the node's program; empty when it did not answer."""
    seen_epoch: int
    """The newest epoch that it has acted on; 0 for a node that is away."""


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """The whole cluster at one moment."""

    cluster: str
    epoch: int
    nodes: tuple[NodeStatus, ...]
    """Sorted by id."""
    counters: Mapping[str, int]
    """Sums of what the nodes that answered counted since they started."""


@dataclass(frozen=True, slots=True)
class Move:
    """What goes from one node to another."""

    source: str
    target: str
    share: float
    """Of the key space, 0 to 1."""
    cached_bytes: int
    cached_chunks: int


@dataclass(frozen=True, slots=True)
class WeightsPreview:
    """What a change of weights would move. Nothing was changed."""

    epoch: int
    """The present one."""
    moves: tuple[Move, ...]
    unknown: tuple[str, ...]
    """Nodes that could not be asked: their cached bytes are not counted."""
    handoff_s: float
    """How long moving them takes, at the rate at which each node may take over."""


@dataclass(frozen=True, slots=True)
class WeightsSet:
    """A change of weights that is in force."""

    epoch: int
    weights: Mapping[str, int]
    """Of the nodes that were named, as they stand on the ring now."""


@dataclass(frozen=True, slots=True)
class Evicted:
    """What left the cache."""

    chunks: int
    bytes: int
    unreachable: tuple[str, ...]
    """Nodes that could not be asked: they may still hold chunks."""


@dataclass(frozen=True, slots=True)
class PinStatus:
    """What was at a url when it was pinned, and how much of it the nodes hold."""

    url: str
    objects: int
    bytes: int
    """Without copies."""
    cost_bytes: int
    """With all copies, as they were when it was pinned."""
    pinned_at: float
    """In seconds since 1970."""
    kept_bytes: int = 0
    """What the nodes that answered are to keep of it, with copies; 0: they do not know yet."""
    held_bytes: int = 0
    """What of that they hold, at their last look: seconds ago."""

    @property
    def share_held(self) -> float:
        """Of what is to be kept, 0 to 1."""
        if not self.kept_bytes:
            return 0.0 if self.bytes else 1.0
        return self.held_bytes / self.kept_bytes


@dataclass(frozen=True, slots=True)
class Pins:
    """Pins, and how much may be pinned."""

    pins: tuple[PinStatus, ...]
    budget_bytes: int
    """What all pins may take, with copies."""
    pinned_bytes: int
    """What they take."""
    unreachable: tuple[str, ...] = ()
    """Nodes that could not be asked."""


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """The objects of one directory, as far as they are known, and how much of them is held."""

    url: str
    """Of the directory; of the object at the top of a volume."""
    objects: int
    """That were opened since the nodes started, or are pinned."""
    bytes: int
    held_bytes: int
    """What at least one node holds."""
    copies: float
    """How many nodes hold a chunk that any holds, on average."""
    last_read: float
    """When one of them was opened last, to be read or warmed, in seconds since 1970; 0: not known.
    Who reads on opens again every ``open_ttl_s``."""

    @property
    def share_held(self) -> float:
        """Of its bytes, 0 to 1."""
        return self.held_bytes / self.bytes if self.bytes else 1.0


@dataclass(frozen=True, slots=True)
class Models:
    """What was opened of late or is pinned: the latest 2,000 objects, by directory."""

    models: tuple[ModelStatus, ...]
    unreachable: tuple[str, ...]
    """Nodes that could not be asked: more may be held."""


@dataclass(frozen=True, slots=True)
class DrainStatus:
    """How far a node is that hands everything over."""

    node: str
    state: str
    """As in `NodeStatus`; ``drained``: it is safe to stop."""
    epoch: int
    handed_bytes: int
    """What new owners have; with what the store keeps beside a chunk's own bytes."""
    left_bytes: int
    """What they had no room for, or have not got yet."""
    behind: tuple[str, ...]
    """Members that do not act on this epoch yet."""
    set_at: float
    """When it was taken off the ring, in seconds since 1970; 0 if it was not."""
    gone_at: float = 0.0
    """When its machine stops, in seconds since 1970; 0: when it is drained."""
    reason: str = ""
    """Why, as was said with it."""

    @property
    def is_begun(self) -> bool:
        """Whether it is being drained, or has been."""
        return self.state in ("draining", "drained")

"""The demo's figures: what each act measured, as values.

Not responsible for: taking them (`measure`, `acts`), judging them (`claims`).
"""

from dataclasses import dataclass

from penstock_node.demo.starters import StartedPart


@dataclass(frozen=True, slots=True)
class Asked:
    """What the object store was asked meanwhile, by its own account."""

    chunk_requests: int
    """Reads of a part of the model."""
    other_requests: int
    """``HEAD`` and listings."""
    failed_requests: int
    sent_bytes: int


@dataclass(frozen=True, slots=True)
class WholeRead:
    """One read of the whole model."""

    seconds: float
    size_bytes: int
    is_equal: bool
    """Whether its SHA-256 is the file's."""

    @property
    def bytes_per_s(self) -> float:
        """Throughput."""
        return self.size_bytes / self.seconds


@dataclass(frozen=True, slots=True)
class Latency:
    """How long reads of one chunk took, one after the other."""

    samples: int
    median_s: float
    p99_s: float


@dataclass(frozen=True, slots=True)
class Place:
    """Where one chunk is."""

    owner: str
    held_by: tuple[str, ...]
    size_bytes: int


@dataclass(frozen=True, slots=True, order=True)
class Moved:
    """Chunks that went from one owner to another."""

    source: str
    target: str
    chunks: int


@dataclass(frozen=True, slots=True)
class Parts:
    """Act 1: what runs."""

    parts: tuple[StartedPart, ...]


@dataclass(frozen=True, slots=True)
class NodeShare:
    """A node's part of the ring and of the model."""

    node: str
    capacity_bytes: int
    weight: int
    weight_source: str
    expected_share: float
    """Its weight's part of all weights."""
    ring_share: float
    """Of the key space."""
    chunks: int
    """Of the model, that it owns."""
    real_share: float
    """Of the model's chunks."""


@dataclass(frozen=True, slots=True)
class Shares:
    """Act 2: weights, and who owns what because of them."""

    chunk_bytes: int
    chunk_count: int
    nodes: tuple[NodeShare, ...]


@dataclass(frozen=True, slots=True)
class Pass:
    """Reading the model once in one state of the cache."""

    plane: str
    is_cold: bool
    whole: WholeRead
    whole_asked: Asked
    latency: Latency


@dataclass(frozen=True, slots=True)
class Reads:
    """Act 3: cold and warm."""

    passes: tuple[Pass, ...]


@dataclass(frozen=True, slots=True)
class Crowd:
    """Act 4: many processes at once on a cold cluster."""

    processes: int
    held_before: int
    """Chunks in any cache when they began."""
    seconds: float
    """Until the last one had read and checked the model."""
    delivered_bytes: int
    equal: int
    """Processes whose SHA-256 is the file's."""
    errors: tuple[str, ...]
    asked: Asked
    origin_ratio: float
    """Bytes from the object store, in sizes of the model."""


@dataclass(frozen=True, slots=True)
class WeightChange:
    """Act 5: a weight changed live."""

    node: str
    old_weight: int
    new_weight: int
    predicted: tuple[Moved, ...]
    """By the dry run."""
    predicted_bytes: int
    """On disks, by the dry run: with what the store keeps beside a chunk's own bytes."""
    moved: tuple[Moved, ...]
    """By the owners of each chunk before and after."""
    moved_bytes: int
    """What the node has on its disk more, once it was handed over."""
    epoch_before: int
    epoch_after: int
    seconds: float
    """From the order until every node acted on it."""
    handed_over_s: float
    """From the order until former owners had nothing left to hand over."""
    read: WholeRead
    """After that."""
    asked: Asked


@dataclass(frozen=True, slots=True)
class Kill:
    """Act 6: a node killed in the middle of a read."""

    node: str
    chunks_lost: int
    bytes_lost: int
    reads: tuple[WholeRead, ...]
    """The first was under way when the node was killed; the last began after its lease ended."""
    errors: tuple[str, ...]
    away_s: float
    """From the kill until the others counted it as away."""
    epoch_before: int
    epochs_after: tuple[int, ...]
    asked: Asked


@dataclass(frozen=True, slots=True)
class Figures:
    """All that was measured, by act."""

    parts: Parts
    shares: Shares
    reads: Reads
    crowd: Crowd
    weight_change: WeightChange
    kill: Kill
    model_bytes: int

"""A chunk as a node handles it: which one, and its bytes in memory."""

from dataclasses import dataclass, field
from functools import cached_property

from penstock.objects import ObjectId
from penstock.planes.plane import Source
from penstock_node.inflight import Loan


@dataclass(frozen=True)
class Chunk:
    """The ``index``-th chunk of an object, and the volume that the object was opened through."""

    object: ObjectId
    volume: str
    index: int

    @cached_property
    def id(self) -> bytes:
        """The chunk id; raises `InvalidRequest` when there is no such chunk."""
        return self.object.chunk_id(self.index)

    @property
    def length(self) -> int:
        """In bytes."""
        return self.object.chunk_length(self.index)

    @property
    def start(self) -> int:
        """Offset of the chunk's first byte within the object."""
        return self.index * self.object.chunk_size


@dataclass(frozen=True, slots=True)
class Arrival:
    """A whole chunk's bytes that have come in."""

    data: memoryview
    source: Source
    """Where they came from."""
    loan: Loan = field(repr=False)
    """Of the memory: it counts for as long as anyone has the bytes."""


@dataclass(frozen=True, slots=True)
class Payload:
    """The same, with the checksums of its blocks: what readers are given."""

    data: memoryview
    checksums: bytes
    loan: Loan = field(repr=False)


@dataclass(frozen=True, slots=True)
class Filled:
    """A chunk that was brought in."""

    source: Source
    """Where it came from."""
    payload: Payload | None = None
    """None: the store has it."""

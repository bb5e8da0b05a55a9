"""What a ledger hands out and takes back: handles on files, chunks on their way out, room.

Responsible for: nothing but what they are made of; the sums are the ledger's.
"""

from dataclasses import dataclass, field
from typing import TypeAlias

Since: TypeAlias = set[bytes]
"""The chunks that have left since a listing began."""


@dataclass(slots=True, eq=False)
class OpenFile:
    """One file that readers hold open. A chunk that is evicted and comes back has another."""

    chunk_id: bytes
    size_bytes: int
    handles: int = 0
    is_unlinked: bool = False


@dataclass(slots=True, eq=False)
class Departure:
    """A chunk on its way out: no longer in the index, its file not unlinked yet."""

    chunk_id: bytes
    size_bytes: int
    file: OpenFile | None = None


@dataclass(slots=True)
class Room:
    """A plan to make room: unlink ``doomed``, then settle."""

    size_bytes: int
    doomed: list[Departure] = field(default_factory=list)
    reserved_bytes: int = 0
    """Taken already, from what was free. Nobody can take it while the rest is made."""

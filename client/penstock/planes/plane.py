"""What every plane offers, and what the reader may rely on.

A plane moves whole verified blocks. It knows nothing of rings, owners or retries: the reader
decides whom to ask, and what to do about an error. Planes are blocking and thread-safe.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from penstock.checksums import verify_blocks
from penstock.deadline import Deadline
from penstock.errors import CorruptData, PenstockError
from penstock.membership.view import Member
from penstock.objects import ObjectId, cover_blocks

Source: TypeAlias = Literal["memory", "disk", "peer", "origin"]


@dataclass(frozen=True, slots=True)
class ReadContext:
    """What all pieces of one request share."""

    ticket: str
    object: ObjectId
    epoch: int
    """Of the sender's placement."""
    only_if_cached: bool = False
    suspects: tuple[str, ...] = ()
    """Nodes that the sender could not reach."""
    recheck: bool = False
    """Blocks sent before were wrong: the node looks at its copy before it answers."""
    on_behalf: bool = False
    """Sent by a node for another reader: never passed on to a third node."""
    traceparent: str = ""
    may_be_sent_on: bool = False
    """A node of which many want the same may name others instead of answering."""
    goes_to_holder: bool = False
    """A node to which another still has to hand the chunk over may name that one."""
    gives_up: Callable[[], bool] | None = None
    """Asked when the node has been silent for a moment: whether to end with `Slow`."""


@dataclass(frozen=True, slots=True)
class PieceRequest:
    """Bytes ``start`` to ``stop`` of a chunk, and the memory they shall land in."""

    index: int
    start: int
    stop: int
    into: memoryview
    """Writable, contiguous, of exactly ``stop - start`` bytes."""


@dataclass(frozen=True, slots=True)
class Landed:
    """A piece has landed, every block of it verified."""

    source: Source
    """Where the node that answered had it from."""
    epoch: int
    """Of that node's placement."""
    load: int = 0
    copies: int = 1
    plane: str = ""
    """The plane that moved it, where that is not the one that was asked."""


Outcome: TypeAlias = Landed | PenstockError
"""An error that ended several pieces has no traceback: its frames would hold their memory."""


class Plane(Protocol):
    """One way to read from a node.

    `read` never leaves unverified bytes behind a `Landed`; behind an error the piece's memory
    may hold anything. A piece that the node is still filling is waited for within the deadline;
    a node that is silent (`penstock.patience`) gives `NodeUnavailable`.
    """

    @property
    def name(self) -> str:
        """``grpc``, ``bulk`` or ``host``."""

    @property
    def pieces_max(self) -> int:
        """How many pieces one `read` may ask for."""

    def read(
        self,
        member: Member,
        context: ReadContext,
        pieces: Sequence[PieceRequest],
        *,
        deadline: Deadline,
    ) -> list[Outcome]:
        """Read pieces of one object from ``member``: one outcome per piece, in order."""

    def close(self) -> None:
        """Close connections. Reads in flight fail with `NodeUnavailable`."""

    def abandon(self) -> None:
        """In a forked child: forget connections without touching them."""


def land(piece: PieceRequest, chunk_length: int, blocks: bytes | memoryview, sums: bytes) -> None:
    """Verify the whole blocks around ``piece`` and copy its bytes into place.

    Raises:
        CorruptData: The blocks do not match ``sums``, or are not those asked for.
    """
    first, last = cover_blocks(piece.start, piece.stop, chunk_length)
    if len(blocks) != last - first:
        raise CorruptData(f"asked for {last - first} bytes, got {len(blocks)}")
    verify_blocks(blocks, sums)
    piece.into[:] = memoryview(blocks)[piece.start - first : piece.stop - first]

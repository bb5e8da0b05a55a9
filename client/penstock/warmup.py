"""What a warm-up tells: how far it is, and what has come of it."""

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Target: TypeAlias = Literal["owners", "self", "hosts"]
"""Where chunks are brought: to their owners; into the tiers of this machine's node; into those of
every node, each for its own machine."""


@dataclass(frozen=True, slots=True)
class WarmupProgress:
    """How far a warm-up is at one moment."""

    objects: int = 0
    """Found so far."""
    chunks: int = 0
    """Done: there, or failed."""
    total_bytes: int = 0
    """Of what was found so far; once for each host, where every host gets its own."""
    cold_bytes: int = 0
    """Brought in; in a dry run: not here."""
    warm_bytes: int = 0
    """Here before."""
    failed_bytes: int = 0
    is_total_final: bool = False
    """Whether all objects have been found."""
    total_chunks: int = 0
    """Of what was found so far, as `total_bytes`."""

    @property
    def done_bytes(self) -> int:
        """What is settled: equal to `total_bytes` at the end of a warm-up that was not stopped."""
        return self.cold_bytes + self.warm_bytes + self.failed_bytes


@dataclass(frozen=True, slots=True)
class WarmupFailure:
    """An object that is not warm as a whole, and why."""

    url: str
    error: str
    """A class name of `penstock.errors`."""
    message: str
    node: str = ""
    """Which node does not have it, where nodes were to get their own."""


@dataclass(frozen=True, slots=True)
class WarmupReport:
    """What has come of a warm-up. Sizes in bytes; see `WarmupProgress`."""

    objects: int
    chunks: int
    bytes: int
    cold_bytes: int
    warm_bytes: int
    failed_bytes: int
    failed: tuple[WarmupFailure, ...] = ()
    """The first thousand."""
    failed_objects: int = 0
    """All that failed, once for each node that does not have its own."""
    skipped: tuple[str, ...] = ()
    """Nodes that have no tier for their machine's readers, where hosts were to be warmed."""
    seconds: float = field(default=0.0, compare=False)
    is_complete: bool = True
    """False: it was stopped before."""

    @property
    def left_bytes(self) -> int:
        """What was stopped before it was settled."""
        return self.bytes - self.cold_bytes - self.warm_bytes - self.failed_bytes

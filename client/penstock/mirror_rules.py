"""What a mirror brings into its region, as operators say it and are told of it."""

import json
from dataclasses import dataclass

from penstock.errors import InvalidRequest

BYTES_PER_S_MAX = 1e15
"""More than any link takes; whole numbers up to it are the same as floats."""


@dataclass(frozen=True, slots=True)
class MirrorRules:
    """Which new data of a volume a mirror brings into its region. Checked when made."""

    copied: tuple[str, ...] = ()
    """Globs of paths: what is copied to the first of the volume's origins."""
    warmed: tuple[str, ...] = ()
    """Globs of paths: what is brought into the region's cache."""
    bytes_per_s: float = 0.0
    """Of what is copied; 0: no bound."""

    def __post_init__(self) -> None:
        """Check the rate.

        Raises:
            InvalidRequest: It is none.
        """
        if not 0 <= self.bytes_per_s <= BYTES_PER_S_MAX:
            raise InvalidRequest(f"bytes_per_s: want a number from 0 to {BYTES_PER_S_MAX:.0e}")

    @property
    def selection_key(self) -> str:
        """Names which files are meant: other rules have another one."""
        return json.dumps([self.copied, self.warmed])


@dataclass(frozen=True, slots=True)
class BroughtVolume:
    """How far a mirror is with the data of one volume."""

    name: str
    rules: MirrorRules
    seq: int
    """All entries up to it are settled."""
    copied_files: int
    """That have a copy in the region's own store."""
    copied_bytes: int
    trouble: str
    """Why it does not get on; empty: it does."""

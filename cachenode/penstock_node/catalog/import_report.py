"""What an import has done so far."""

from dataclasses import dataclass, field

from penstock_node.catalog.records import Difference

REFUSED_MAX = 1_000
"""Keys that are named; the others are counted."""


@dataclass(slots=True)
class ImportReport:
    """Counts of files, while an import goes on and when it is over."""

    listed: int = 0
    """By the origin, whether or not they were meant."""
    bytes: int = 0
    """Of those that were meant."""
    settled: int = 0
    """In the catalog as they are at the origin."""
    added: int = 0
    changed: int = 0
    removed: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)
    """The first keys that could not be imported, and why."""
    refused_count: int = 0

    @property
    def unchanged(self) -> int:
        """Files that the catalog had as they are."""
        return max(0, self.settled - self.added - self.changed)

    def refuse(self, key: str, reason: str) -> None:
        """Note a key that is not imported."""
        self.refused_count += 1
        if len(self.refused) < REFUSED_MAX:
            self.refused.append((key, reason))

    def count(self, found: Difference) -> None:
        """Note what was written."""
        self.added += len(found.new)
        self.changed += len(found.changed)
        self.removed += len(found.removed)

    def list_again(self, *, has_written: bool) -> None:
        """Forget what will be met again, since the listing begins anew."""
        self.listed = self.bytes = self.settled = self.refused_count = 0
        self.refused.clear()
        if not has_written:
            self.added = self.changed = self.removed = 0

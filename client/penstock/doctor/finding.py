"""What the doctor has to say: what is wrong, where, why it matters, and what to do."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

Severity: TypeAlias = Literal["problem", "warning", "advice"]
"""``problem``: something does not work, or is about to stop. ``warning``: it works, but worse than
it should. ``advice``: nothing is wrong, and it could be better."""
SEVERITIES: tuple[Severity, ...] = ("problem", "warning", "advice")
"""The worst first."""

Kind: TypeAlias = Literal[
    "cluster", "node", "disk", "link", "origin", "volume", "etcd", "catalog", "machine"
]


@dataclass(frozen=True, slots=True)
class Place:
    """Where something is wrong."""

    kind: Kind
    name: str = ""
    """Of an origin its volume; of a disk its path; of a link the node that sends."""
    node: str = ""
    """The node that found it; of a link the one that receives. Empty: all find the same."""

    def __str__(self) -> str:
        match self.kind:
            case "disk":
                return f"disk {self.node}:{self.name}"
            case "link":
                return f"link {self.name} -> {self.node}"
            case "origin" | "etcd":
                what = "origin of volume" if self.kind == "origin" else "etcd"
                return f"{what} {self.name}".rstrip() + (f", from {self.node}" if self.node else "")
            case "machine":
                return "this machine"
            case _:
                return f"{self.kind} {self.name}".rstrip()

    def concerns(self, node: str) -> bool:
        """Tell whether it has to do with ``node``."""
        return node in (self.node, self.name if self.kind in ("node", "link") else "")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be."""

    severity: Severity
    place: Place
    what: str
    """With the numbers."""
    why: str
    """What it costs, or what will come of it."""
    fix: str
    """What to do, with the command."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of one check."""

    name: str
    findings: Sequence[Finding]
    summary: str
    """What was looked at, in a few words with figures."""

    @property
    def is_passed(self) -> bool:
        """Whether there is no warning and no problem."""
        return all(finding.severity == "advice" for finding in self.findings)

"""What Kubernetes wants of this node, and what is to be done about it.

Responsible for: which cordons and taints mean a drain, within which time; and the next step from
what stands in the cluster. No I/O.
Not responsible for: taking steps (`upkeep`).

Kubernetes ends what it began and nothing else, and begins a thing once: who puts a node back by
hand while its machine is still cordoned has the last word, until there is another reason.
"""

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Literal, TypeAlias

from penstock_node.coordination.records import KUBERNETES, WeightOverride
from penstock_node.kubernetes.machine import Machine, Taint

UNSCHEDULABLE = "unschedulable"
SOONER_S = 5.0
"""A time that is so much shorter is told to the others."""

Step: TypeAlias = Literal["drain", "hurry", "put back"]


@dataclass(frozen=True, slots=True)
class TaintRule:
    """A taint that means a drain: ``key``, ``key=value``, ``key:effect``, ``key=value:effect``."""

    key: str
    value: str | None
    effect: str | None
    within_s: float

    @classmethod
    def parsed(cls, text: str, *, within_s: float) -> "TaintRule":
        """Return the rule that a text names."""
        rest, _, effect = text.partition(":")
        key, has_value, value = rest.partition("=")
        return cls(key, value if has_value else None, effect or None, within_s)

    def is_about(self, taint: Taint) -> bool:
        """Tell whether a taint is one of these."""
        return (
            taint.key == self.key
            and self.value in (None, taint.value)
            and self.effect in (None, taint.effect)
        )


@dataclass(frozen=True, slots=True)
class Wish:
    """That the node be drained."""

    reasons: frozenset[str]
    within_s: float

    def __str__(self) -> str:
        """Return what people read as the reason."""
        return f"{KUBERNETES}: {', '.join(sorted(self.reasons))}"


@dataclass(frozen=True, slots=True)
class DrainRules:
    """What means a drain."""

    on_cordon: bool
    within_s: float
    """For a cordon."""
    taints: Sequence[TaintRule]

    def wish(self, machine: Machine) -> Wish | None:
        """Return what is wanted; of several reasons the shortest time counts."""
        reasons = {
            str(taint): rule.within_s
            for rule in reversed(self.taints)  # Of two for one taint the first counts.
            for taint in machine.taints
            if rule.is_about(taint)
        }
        if self.on_cordon and machine.is_unschedulable:
            reasons[UNSCHEDULABLE] = self.within_s
        return Wish(frozenset(reasons), min(reasons.values())) if reasons else None


def answered_after(
    wish: Wish | None, override: WeightOverride | None, *, answered: Set[str]
) -> frozenset[str]:
    """Return the reasons that have had their drain: of those that there are still."""
    reasons = wish.reasons if wish else frozenset[str]()
    return reasons if is_drained(override) else reasons & answered


def next_step(
    wish: Wish | None, override: WeightOverride | None, *, answered: Set[str], now: float
) -> Step | None:
    """Return what is to be done.

    Args:
        wish: What Kubernetes wants now.
        override: This node's weight, as it stands.
        answered: Reasons that have had their drain.
        now: In seconds since 1970.
    """
    if wish is None:
        is_ours = override is not None and override.by == KUBERNETES
        return "put back" if is_ours and is_drained(override) else None
    if override is None or not is_drained(override):
        return None if wish.reasons <= answered else "drain"
    has_new_reason = not wish.reasons <= answered
    is_sooner = not override.gone_at or now + wish.within_s + SOONER_S < override.gone_at
    return "hurry" if has_new_reason and is_sooner else None


def is_drained(override: WeightOverride | None) -> bool:
    """Tell whether a node has been taken out to be drained, by whomever."""
    return override is not None and override.purpose == "drain"

"""Whose chunk it is: what this node may do about one that it does not have.

Responsible for: one decision, made from the ring, the members and who is unreachable. No I/O.
Not responsible for: finding out who is unreachable (`chunks`).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from penstock.membership.view import Member

NOBODY: Mapping[str, Member] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Duty:
    """This node keeps the chunk."""

    fills_from: Member | None
    """The owner to fill from: the first that may answer; None for that one itself, which reads
    the origin."""
    others: tuple[str, ...] = ()
    """The other live owners that keep a copy."""
    missed_by: tuple[str, ...] = ()
    """Owners that are away, and take it over when they are back."""
    is_guest: bool = False
    """It is others' and kept for a while: from ``fills_from``, if that has it, or not at all."""


def duty_of(
    node_id: str,
    owners: Sequence[str],
    *,
    members: Mapping[str, Member],
    unreachable: Collection[str],
    replicas: int,
    lapsed: Mapping[str, Member] = NOBODY,
) -> Duty | None:
    """Return this node's duty for a chunk, or None when it keeps no copy of it.

    Owners that are away or unreachable are passed over, so that the next one acts in their
    stead: the first live owner reads the origin, the others fill from it. One whose lease has
    ended and that may answer still keeps its place as the one to fill from: readers who have not
    learnt of it ask it as before, and only one may read the origin.

    Args:
        node_id: This node.
        owners: In the ring's order; more than ``replicas``, to have some in reserve.
        members: Who is alive.
        unreachable: Members that this node itself cannot reach.
        replicas: How many live owners keep the chunk.
        lapsed: Whose lease has ended, and who have not been found silent since.
    """
    live = [
        owner
        for owner in owners
        if owner == node_id or (owner in members and owner not in unreachable)
    ][:replicas]
    if node_id not in live:
        return None
    ahead = (owner for owner in owners[: owners.index(node_id)] if owner not in unreachable)
    may_answer = (members.get(owner) or lapsed.get(owner) for owner in ahead)
    return Duty(
        fills_from=next(filter(None, may_answer), None),
        others=tuple(owner for owner in live if owner != node_id),
        missed_by=tuple(owner for owner in owners[:replicas] if owner not in live),
    )

"""Taking a node out and putting it back: what is written for it.

Responsible for: cordon, drain and uncordon as transactions on the cluster as it is, and what
state a node is in.
Not responsible for: writing them (`operations`), moving chunks (`penstock_node.handover`).
"""

import datetime
from collections.abc import Iterable
from dataclasses import replace
from typing import Literal, TypeAlias

from penstock.errors import Conflict, InvalidRequest
from penstock_node.coordination import records
from penstock_node.coordination.records import Purpose, WeightOverride
from penstock_node.coordination.restore import Transaction
from penstock_node.coordination.state import ClusterState, check_node

NodeState: TypeAlias = Literal["alive", "away", "cordoned", "draining", "drained"]

_ADVICE: dict[Purpose, tuple[str, str]] = {
    "cordon": ("cordoned", "have it drained with: penstock drain {}"),
    "drain": ("being drained", "watch it with: penstock drain {} --follow"),
}
"""What a node is that was taken off for a purpose, and what else to do with it."""


def state_of(state: ClusterState, node: str) -> NodeState:
    """Return what state a node is in.

    It is drained when all members act on the placement without it, and it has nothing left to
    hand over: then it is safe to stop.
    """
    return states_of(state, [node])[node]


def states_of(state: ClusterState, nodes: Iterable[str]) -> dict[str, NodeState]:
    """Return what state each of some nodes is in: see `state_of`."""
    placed = state.placement.nodes if state.placement else ()
    weightless = {each.id for each in placed if each.weight == 0}
    return {node: _state_of(state, node, has_weight=node not in weightless) for node in nodes}


def _state_of(state: ClusterState, node: str, *, has_weight: bool) -> NodeState:
    member = state.members.get(node)
    if member is None:
        return "away"
    if has_weight:
        return "alive"
    override = state.weights.get(node)
    if override is None or override.purpose != "drain":
        return "cordoned"
    has_settled = member.member.settled_epoch >= state.epoch
    return "drained" if has_settled and not behind(state) else "draining"


def behind(state: ClusterState) -> list[str]:
    """Return the members that do not act on the present placement yet."""
    return sorted(
        node for node, record in state.members.items() if record.member.seen_epoch < state.epoch
    )


WITHIN_MAX_S = 7 * 86_400.0


def cordoned(
    state: ClusterState,
    node: str,
    *,
    purpose: Purpose,
    reason: str,
    now: float,
    by: str = "",
    within_s: float = 0.0,
) -> Transaction:
    """Return what takes a node off the ring; what it weighed before is kept.

    Args:
        state: The cluster as it is.
        node: Its id.
        purpose: What for.
        reason: For people who read it later.
        now: In seconds since 1970.
        by: See `WeightOverride.by`. Others than operators leave their cordons as they were.
        within_s: After so long the machine stops, drained or not; 0: when it is drained.

    Raises:
        InvalidRequest: The cluster does not know it, or it owns nothing.
        Conflict: It is cordoned already, or the last that owns anything, or to be drained and
            away.
    """
    check_within(within_s, purpose)
    check_node(state, node)
    _check_owner(state, node)
    present = state.weights.get(node)
    _check_not_cordoned(node, present, purpose)
    if purpose == "drain" and node not in state.members:
        raise Conflict(
            f"node {node!r} does not answer, so that it can hand nothing over: start it, or take "
            f"it off the ring with: penstock forget {node}"
        )
    other = _other_owner(state, node)
    before = present.before if present is not None and present.purpose and not by else present
    gone_at = now + within_s if within_s else 0.0
    wanted = WeightOverride(0, reason, now, purpose, before, by, gone_at)
    weight = records.WEIGHTS + node
    # Of two operators who take out the last two nodes, one finds that the other was faster.
    kept = (weight, records.NODES + node, records.WEIGHTS + other, records.MEMBERS + other)
    return Transaction(
        {key: state.mod_revision(key) for key in kept}, {weight: records.weight_to_json(wanted)}
    )


def check_within(within_s: float, purpose: Purpose) -> None:
    """Raise `InvalidRequest` for a time in which nothing can be drained."""
    if not 0 <= within_s <= WITHIN_MAX_S:
        raise InvalidRequest(f"within {within_s} s: want up to {WITHIN_MAX_S:.0f} s, or 0 for none")
    if within_s and purpose != "drain":
        raise InvalidRequest(f"within {within_s:g} s: only a drain ends; a cordon moves at leisure")


def _check_owner(state: ClusterState, node: str) -> None:
    if state.nodes[node].owned_capacity_bytes == 0:
        raise InvalidRequest(f"node {node!r} owns nothing: it can be stopped as it is")


def _check_not_cordoned(node: str, present: WeightOverride | None, purpose: Purpose) -> None:
    if present is None or present.purpose not in ("drain", purpose):
        return
    is_what, advice = _ADVICE[present.purpose]
    since = datetime.datetime.fromtimestamp(present.set_at, datetime.UTC)
    raise Conflict(
        f"node {node!r} is {is_what} already, since {since:%Y-%m-%d %H:%M:%S} UTC"
        f"{f' ({present.reason})' if present.reason else ''}: {advice.format(node)}, or put it "
        f"back with: penstock uncordon {node}"
    )


def hurried(state: ClusterState, node: str, *, gone_at: float) -> Transaction:
    """Return what has a drain be over sooner: its machine stops before it was to.

    Raises:
        InvalidRequest: The node is not being drained.
    """
    present = state.weights.get(node)
    if present is None or present.purpose != "drain":
        raise InvalidRequest(f"node {node!r} is not being drained")
    weight = records.WEIGHTS + node
    wanted = replace(present, gone_at=gone_at)
    return Transaction(
        {weight: state.mod_revision(weight)}, {weight: records.weight_to_json(wanted)}
    )


def has_other_owner(state: ClusterState, node: str) -> bool:
    """Tell whether another node could take over."""
    try:
        _other_owner(state, node)
    except Conflict:
        return False
    return True


def _other_owner(state: ClusterState, node: str) -> str:
    """Return a node that takes over: one that answers and has a share of the ring."""
    placed = state.placement.nodes if state.placement else ()
    for each in placed:
        override = state.weights.get(each.id)
        weight = each.weight if override is None else override.weight
        if each.id != node and weight > 0 and each.id in state.members:
            return each.id
    raise Conflict(
        f"node {node!r} is the last that answers and owns anything: nobody could take over; add a "
        "node, or give another one a weight"
    )


def uncordoned(state: ClusterState, node: str) -> Transaction:
    """Return what puts a node back with the weight that it had.

    Raises:
        InvalidRequest: The cluster does not know it, or it is not cordoned.
        Conflict: It does not answer.
    """
    check_node(state, node)
    present = state.weights.get(node)
    if present is None or not present.purpose:
        raise InvalidRequest(
            f"node {node!r} is not cordoned; a weight that was set is lifted by: penstock weight "
            f"auto {node}"
        )
    if node not in state.members:
        raise Conflict(f"node {node!r} does not answer: start it first, then put it back")
    weight = records.WEIGHTS + node
    conditions = {key: state.mod_revision(key) for key in (weight, records.MEMBERS + node)}
    if present.before is None:
        return Transaction(conditions, {}, (weight,))
    return Transaction(conditions, {weight: records.weight_to_json(present.before)})

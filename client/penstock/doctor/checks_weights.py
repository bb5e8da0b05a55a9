"""Whether shares of the ring follow from what nodes can hold."""

import datetime

from penstock.doctor.facts import Facts, KnownNode, WeightSet
from penstock.doctor.finding import Checked, Finding, Place
from penstock.doctor.judging import counted
from penstock.placement import WEIGHT_MAX, WEIGHT_UNIT
from penstock.units import format_duration, format_size

FAR = 2.0
"""A share twice, or half, of what the capacity says: the node evicts what others would keep, or
holds nothing in half of its room."""
FORGOTTEN_S = 24 * 3600.0
"""Maintenance is over within a day."""
COARSE = 10
"""Below this weight a step of one is a tenth of the node's share."""


def check_weights(facts: Facts) -> Checked:
    """Judge each node's weight against its capacity."""
    owners = [node for node in facts.cluster.nodes if node.is_placed and node.owned_capacity_bytes]
    findings: list[Finding] = []
    for node in owners:
        if node.override is not None and node.override.purpose:
            findings.append(_cordoned(node, facts.asker.now))
        elif node.override is not None:
            findings += _overridden(node, owners)
    findings += _unit(owners, int(facts.cluster.settings.get("weight_unit_bytes", 0)))
    overrides = sum(node.override is not None for node in owners)
    return Checked("weights", findings, f"{counted(len(owners), 'owner')}, {overrides} set by hand")


def _cordoned(node: KnownNode, now: float) -> Finding:
    override = node.override
    assert override is not None, "asked of those that were cordoned"
    age_s = max(0.0, now - override.set_at)
    return Finding(
        "warning" if age_s > FORGOTTEN_S else "advice",
        Place("node", node.id),
        f"{node.state} for {format_duration(age_s)}, since {_set(override)}",
        f"its {format_size(node.owned_capacity_bytes)} are no part of the cache",
        f"when the work is done: penstock uncordon {node.id}",
    )


def _set(override: WeightSet) -> str:
    """Return when it was set, and why."""
    since = datetime.datetime.fromtimestamp(override.set_at, datetime.UTC)
    reason = f" ({override.reason})" if override.reason else ""
    return f"{since:%Y-%m-%d %H:%M} UTC{reason}"


def _overridden(node: KnownNode, owners: list[KnownNode]) -> list[Finding]:
    override = node.override
    assert override is not None, "asked of those that have one"
    capacity = sum(each.owned_capacity_bytes for each in owners)
    fair = node.owned_capacity_bytes / capacity
    weights = sum(each.weight for each in owners)
    share = node.weight / weights if weights else 0.0
    if len(owners) < 2 or fair / FAR <= share <= fair * FAR:
        return []
    holds = format_size(node.owned_capacity_bytes)
    return [
        Finding(
            "warning",
            Place("node", node.id),
            f"weight {node.weight} was set by hand on {_set(override)}: a share of "
            f"{share * 100:.1f} %, where its capacity of {holds} stands for {fair * 100:.1f} %",
            "it has to evict what the others would have room for, and serves more than its part"
            if share > fair
            else "the others evict, while it has room",
            f"penstock weight auto {node.id}",
        )
    ]


def _unit(owners: list[KnownNode], unit_bytes: int) -> list[Finding]:
    if not unit_bytes:
        return []
    clamped, coarse = [], []
    for node in owners:
        wanted = WEIGHT_UNIT * node.owned_capacity_bytes / unit_bytes
        if wanted > WEIGHT_MAX or wanted < 1:
            clamped.append(node.id)
        elif wanted < COARSE:
            coarse.append(node.id)
    fix = "penstock settings set weight_unit_bytes=SIZE, of your smallest node; shares move"
    told = format_size(unit_bytes)
    findings = []
    if clamped:
        findings.append(
            Finding(
                "warning",
                Place("cluster"),
                f"weight_unit_bytes={told} does not fit {len(clamped)} nodes, {clamped[0]} first",
                f"weights end at 1 and at {WEIGHT_MAX:,}: their shares are not what they hold",
                fix,
            )
        )
    if coarse:
        findings.append(
            Finding(
                "advice",
                Place("cluster"),
                f"weight_unit_bytes={told} gives {len(coarse)} nodes a weight below {COARSE}",
                "weights are whole numbers: small ones round by a tenth",
                fix,
            )
        )
    return findings

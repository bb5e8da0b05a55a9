"""What coordinates the cluster: whether etcd answers every node, how fast, and how it is."""

import re
from collections import defaultdict

from penstock.doctor.facts import EtcdLook, Facts
from penstock.doctor.finding import Checked, Finding, Place
from penstock.doctor.judging import common, counted, milliseconds, named, outliers
from penstock.units import format_size

VERSION_LEAST = (3, 5, 3)
"""3.5.0 to 3.5.2 lose writes that they have acknowledged when they are killed."""
QUOTA_BYTES = 2 * 1024**3
"""etcd's own default, where it does not tell another."""
FULL_SHARE = 0.8
LATENCY_FLOOR_S = 0.1
"""etcd itself wants its members to answer each other within this; nodes renew leases there."""

_ETCD = Place("etcd")


def check_etcd(facts: Facts) -> Checked:
    """Judge it."""
    by_endpoint: dict[str, dict[str, EtcdLook]] = defaultdict(dict)
    for node, examined in facts.examined.items():
        for look in examined.etcd:
            by_endpoint[look.endpoint][node] = look
    if not by_endpoint:
        return Checked("etcd", [], "none: a cluster of one node needs none")
    findings: list[Finding] = []
    for endpoint, looks in sorted(by_endpoint.items()):
        findings += _reached(endpoint, looks)
        findings += _health(endpoint, looks)
    findings += _latency(by_endpoint)
    return Checked("etcd", findings, _summary(by_endpoint))


def _summary(by_endpoint: dict[str, dict[str, EtcdLook]]) -> str:
    answers = [
        look for looks in by_endpoint.values() for look in looks.values() if not look.failure
    ]
    versions = sorted({look.version for look in answers})
    slowest = max((look.latency_s for look in answers), default=0.0)
    return (
        f"{counted(len(by_endpoint), 'endpoint')}, version {named(versions) or 'not known'}, "
        f"answers within {milliseconds(slowest)}"
    )


def _reached(endpoint: str, looks: dict[str, EtcdLook]) -> list[Finding]:
    failed = {node: look.failure for node, look in looks.items() if look.failure}
    if not failed:
        return []
    reason = next(iter(failed.values()))
    if len(failed) == len(looks):
        return [
            Finding(
                "problem",
                Place("etcd", endpoint),
                f"answers none of the nodes: {reason}",
                "nodes go on from what they know, but nobody joins, leaves or changes anything; "
                "with every endpoint gone a node that restarts comes back only by its last view",
                f"start it, or see what lies between: etcdctl --endpoints={endpoint} "
                "endpoint health; an endpoint that is gone for good leaves [etcd] endpoints",
            )
        ]
    return [
        Finding(
            "warning",
            Place("etcd", endpoint, node),
            f"does not answer this node: {why}",
            "it answers other nodes: what lies between is at fault",
            f"on {node}: etcdctl --endpoints={endpoint} endpoint health, then firewalls, "
            "and [etcd] in its configuration",
        )
        for node, why in sorted(failed.items())
    ]


def _health(endpoint: str, looks: dict[str, EtcdLook]) -> list[Finding]:
    look = next((each for each in looks.values() if not each.failure), None)
    if look is None:
        return []
    place, findings = Place("etcd", endpoint), []
    for error in look.errors:
        is_full = "NOSPACE" in error
        findings.append(
            Finding(
                "problem",
                place,
                f"says of itself: {error}",
                "it takes no writes: leases end and nodes count as away"
                if is_full
                else "what it does not keep, the cluster loses",
                f"etcdctl --endpoints={endpoint} compact REVISION, defrag, then alarm disarm"
                if is_full
                else f"etcdctl --endpoints={endpoint} endpoint status -w table",
            )
        )
    if (0,) < version_of(look.version) < VERSION_LEAST:
        findings.append(
            Finding(
                "warning",
                place,
                f"is version {look.version}",
                "versions 3.5.0 to 3.5.2 can lose acknowledged writes when they are killed",
                "update it to 3.5.3 or later, one member after another",
            )
        )
    quota = look.quota_bytes or QUOTA_BYTES
    if look.database_bytes > FULL_SHARE * quota:
        findings.append(
            Finding(
                "warning",
                place,
                f"its database is {format_size(look.database_bytes)} of {format_size(quota)}",
                "when that is full it takes no more writes",
                f"etcdctl --endpoints={endpoint} compact REVISION, then defrag; or raise "
                "--quota-backend-bytes",
            )
        )
    return findings


def version_of(text: str) -> tuple[int, ...]:
    """Return the numbers of ``3.5.1``; ``(0,)`` when it is no version."""
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", text)
    return tuple(map(int, found.groups())) if found else (0,)


def _latency(by_endpoint: dict[str, dict[str, EtcdLook]]) -> list[Finding]:
    seconds = {
        (endpoint, node): look.latency_s
        for endpoint, looks in by_endpoint.items()
        for node, look in looks.items()
        if not look.failure
    }
    slow = [
        Finding(
            "warning",
            Place("etcd", *outlier.key),
            f"answers in {milliseconds(outlier.figure)}; usual here: {milliseconds(outlier.usual)}",
            "this node hears of changes late, and may lose its lease",
            "look at that machine's load and at the network between",
        )
        for outlier in outliers(seconds, floor=LATENCY_FLOOR_S)
    ]
    usual = common(seconds, floor=LATENCY_FLOOR_S)
    if usual is not None:
        slow.append(
            Finding(
                "advice",
                _ETCD,
                f"answers in {milliseconds(usual)}, wherever it is asked",
                "changes take as long to come into force; reads do not wait for it",
                "put its data on an SSD of its own, near the nodes",
            )
        )
    return slow

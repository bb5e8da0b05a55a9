"""Origins as nodes reach them: refused, silent, slow, held back by limits."""

from collections import defaultdict
from collections.abc import Mapping

from penstock.doctor.facts import Facts, OriginLook
from penstock.doctor.finding import Checked, Finding, Place
from penstock.doctor.judging import common, counted, milliseconds, named, outliers

LATENCY_FLOOR_S = 0.25
"""Object stores answer a small request within 20 to 100 ms."""


def check_origins(facts: Facts) -> Checked:
    """Judge the origin of each volume, from each node."""
    looks: dict[str, dict[str, OriginLook]] = defaultdict(dict)
    for node, examined in facts.examined.items():
        for look in examined.origins:
            looks[look.volume][node] = look
    findings: list[Finding] = []
    for volume, by_node in sorted(looks.items()):
        findings += _failing(volume, by_node)
        findings += _waiting(volume, by_node)
    seconds = {
        (volume, node): look.latency_s
        for volume, by_node in looks.items()
        for node, look in by_node.items()
        if not look.failure and look.latency_s
    }
    findings += _slow(looks, seconds)
    asked = counted(len(looks), "volume") if looks else "none"
    slowest = max(seconds.values(), default=0.0)
    within = f" asked, answers within {milliseconds(slowest)}" if seconds else ""
    return Checked("origins", findings, asked + within)


def _failing(volume: str, by_node: Mapping[str, OriginLook]) -> list[Finding]:
    """One finding a kind of failure: of all nodes together where it is the same for all."""
    by_failure: dict[str, dict[str, OriginLook]] = defaultdict(dict)
    for node, look in by_node.items():
        if look.failure:
            by_failure[look.failure][node] = look
    findings = []
    for failure, failed in sorted(by_failure.items()):
        if len(failed) == len(by_node):
            look = next(iter(failed.values()))
            where = f"all {len(failed)} nodes" if len(failed) > 1 else next(iter(failed))
            findings.append(_failure(Place("origin", volume), failure, look, where))
            continue
        for node, look in sorted(failed.items()):
            findings.append(_failure(Place("origin", volume, node), failure, look, node))
    return findings


def _failure(place: Place, failure: str, look: OriginLook, where: str) -> Finding:
    volume = place.name
    if failure == "NotPermitted":
        return Finding(
            "problem",
            place,
            f"refuses the credentials of {where}: {look.message}",
            "what is not cached cannot be read through it",
            f"correct the volume's secret in [secrets] on {where}, and restart it; the secret's "
            "name stands in: penstock volume ls",
        )
    if failure == "Overloaded":
        return Finding(
            "warning",
            place,
            f"has no turn for {where}: {look.message}",
            "fills wait for the volume's own limits, not for the origin",
            f"raise requests_max, requests_per_s or bytes_per_s of the volume {volume}, if the "
            "origin bears more: penstock volume add --replace",
        )
    if failure == "OriginUnavailable":
        left_alone = "" if look.is_healthy else " (it is left alone, and tried now and then)"
        return Finding(
            "problem",
            place,
            f"does not answer {where}{left_alone}: {look.message}",
            "what is not cached cannot be read; what is goes on",
            f"from {where}: curl -v {look.host}; then the endpoint in: penstock volume ls",
        )
    return Finding(
        "problem",
        place,
        f"cannot be read by {where}: {look.message}",
        "what is not cached cannot be read",
        f"see the volume's url and options: penstock volume ls --json; then the log of {where}",
    )


def _waiting(volume: str, by_node: Mapping[str, OriginLook]) -> list[Finding]:
    waiting = {node: look.waiting for node, look in by_node.items() if look.waiting}
    findings = []
    if waiting:
        findings.append(
            Finding(
                "advice",
                Place("origin", volume),
                f"{sum(waiting.values())} requests wait for their turn, on {named(list(waiting))}",
                "more is asked for than the volume's limits let through",
                "warm up ahead of the roll-out, or raise the volume's limits",
            )
        )
    tripped = [node for node, look in by_node.items() if not look.is_healthy and not look.failure]
    if tripped:
        findings.append(
            Finding(
                "warning",
                Place("origin", volume),
                f"is left alone by {named(tripped)}, as it did not answer; it does now",
                "until they try it again, what is not cached cannot be read there",
                "wait half a minute, and ask again: penstock doctor",
            )
        )
    return findings


def _slow(
    looks: Mapping[str, Mapping[str, OriginLook]], seconds: Mapping[tuple[str, str], float]
) -> list[Finding]:
    by_volume: dict[str, list[float]] = defaultdict(list)
    for (volume, _), figure in seconds.items():
        by_volume[volume].append(figure)
    best = {volume: min(figures) for volume, figures in by_volume.items()}
    findings, told = [], set()
    for slow in outliers(best, floor=LATENCY_FLOOR_S):
        told.add(slow.key)
        host = next(iter(looks[slow.key].values())).host
        findings.append(
            _slow_origin(
                Place("origin", slow.key),
                f"{host} is slow, from every node: {milliseconds(slow.figure)} at best; the "
                f"other volumes' take {milliseconds(slow.usual)}",
                "it, or the way there, is slow for all: see its own metrics, and its region",
            )
        )
    rest = {key: figure for key, figure in seconds.items() if key[0] not in told}
    for lone in outliers(rest, floor=LATENCY_FLOOR_S):
        volume, node = lone.key
        findings.append(
            _slow_origin(
                Place("origin", volume, node),
                f"{looks[volume][node].host} is slow from this node: {milliseconds(lone.figure)}; "
                f"usual here: {milliseconds(lone.usual)}",
                f"the way from {node} is slow: its network, its resolver, its proxy",
            )
        )
    usual = common(rest, floor=LATENCY_FLOOR_S)
    if usual is not None:
        findings.append(
            Finding(
                "advice",
                Place("cluster"),
                f"origins take {milliseconds(usual)} to answer a small request",
                "cold loads wait for it; what is cached does not",
                "a store in this region, or a warm-up ahead of the roll-out",
            )
        )
    return findings


def _slow_origin(place: Place, what: str, fix: str) -> Finding:
    why = "every chunk that is not cached waits as long; warm reads do not"
    return Finding("warning", place, what, why, fix)

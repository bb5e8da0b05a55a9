"""Ports and links between nodes, and from the asker; and whether nodes believe tickets.

A fault of one pair is the link's. What all pairs of one node have in common is the node's.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from statistics import median

from penstock.doctor.facts import Facts, PeerLook
from penstock.doctor.finding import Checked, Finding, Place
from penstock.doctor.judging import RATIO, common, counted, milliseconds, named, outliers
from penstock.settings import ClusterSettings
from penstock.ticket import SIGNS_AFTER_S
from penstock.units import format_duration, format_size

FLOOR_BYTES_PER_S = 100e6
"""A link that does this is as fast as the usual disk of a network: nothing below 1 Gb/s feeds a
GPU, and nothing above it is broken."""
PER_BYTES = 1e6
SLOW_S = PER_BYTES / FLOOR_BYTES_PER_S
"""Rates are compared by the seconds that so many bytes take."""
CONNECT_FLOOR_S = 0.05
"""Within a region connections take a millisecond."""
NODE_PAIRS_MIN = 2
"""So many pairs at least are needed to say that it is the node, and not the link."""
ROTATION = "ticket_key_rotation_s"
ROTATION_LATE_S = 6 * 3600.0
"""Keys are made anew by whichever node sees first that it is time."""

Pair = tuple[str, str]
"""Who receives, and from whom."""


def _looks(facts: Facts) -> dict[Pair, PeerLook]:
    return {
        (node, look.id): look
        for node, examined in sorted(facts.examined.items())
        for look in examined.peers
    }


def check_ports(facts: Facts) -> Checked:
    """Find ports that do not answer, from other nodes and from the asker."""
    looks = _looks(facts)
    findings: list[Finding] = []
    for port, failure_of in (
        ("bulk", lambda look: look.bulk_failure),
        ("gRPC", lambda look: look.grpc_failure),
    ):
        findings += _closed(looks, port, failure_of)
    for name, node in sorted(facts.nodes.items()):
        if not node.examined:
            continue
        if node.bulk_failure:
            findings.append(_from_asker(name, "bulk", node.bulk_failure))
        if node.admin_failure:
            findings.append(_from_asker(name, "admin", node.admin_failure))
    pairs = f"between {counted(len(looks), 'pair')} of nodes" if looks else "of one node"
    return Checked("ports", findings, f"gRPC and bulk answer, {pairs}")


def _closed(
    looks: Mapping[Pair, PeerLook], port: str, failure_of: Callable[[PeerLook], str]
) -> list[Finding]:
    failed = {pair: why for pair, look in looks.items() if (why := failure_of(look))}
    silent = _in_common(failed, looks, at=1)
    deaf = _in_common({p: why for p, why in failed.items() if p[1] not in silent}, looks, at=0)
    findings = [
        Finding(
            "problem",
            Place("node", node),
            f"its {port} port answers none of {counted} other nodes: {why}",
            "readers and other nodes cannot have its chunks from it",
            f"open the {port} port of {node} to the other nodes, or see why it is busy",
        )
        for node, (counted, why) in sorted(silent.items())
    ]
    findings += [
        Finding(
            "problem",
            Place("node", node),
            f"reaches the {port} port of none of {counted} other nodes: {why}",
            "it brings every chunk that it lacks from the origin",
            f"on {node}: see its network, its firewall and its routes",
        )
        for node, (counted, why) in sorted(deaf.items())
    ]
    for (receiver, sender), why in failed.items():
        if sender not in silent and receiver not in deaf:
            findings.append(
                Finding(
                    "problem",
                    Place("link", sender, receiver),
                    f"the {port} port of {sender} does not answer {receiver}: {why}",
                    "chunks come by way of other owners, or from the origin again",
                    f"on {receiver}: see firewalls and routes to {sender}",
                )
            )
    return findings


def _in_common(
    failed: Mapping[Pair, str], looks: Mapping[Pair, PeerLook], *, at: int
) -> dict[str, tuple[int, str]]:
    """Return nodes all of whose pairs failed, with how many these are, and why.

    Args:
        failed: Pairs that did, and why.
        looks: All pairs.
        at: 0: pairs in which the node receives; 1: in which it sends.
    """
    pairs_of: dict[str, list[Pair]] = defaultdict(list)
    for pair in looks:
        pairs_of[pair[at]].append(pair)
    return {
        node: (len(pairs), failed[pairs[0]])
        for node, pairs in pairs_of.items()
        if len(pairs) >= NODE_PAIRS_MIN and all(pair in failed for pair in pairs)
    }


def _from_asker(node: str, port: str, failure: str) -> Finding:
    if port == "admin":
        return Finding(
            "advice",
            Place("node", node),
            f"its admin port does not answer this machine: {failure}",
            "metrics and health cannot be looked at from here; nodes do not need it",
            "open it to where Prometheus runs, if that is here",
        )
    return Finding(
        "warning",
        Place("node", node),
        f"its bulk port does not answer this machine: {failure}",
        "readers here fall back to gRPC, at a quarter of the speed",
        f"open the bulk port of {node} to this machine",
    )


def check_links(facts: Facts) -> Checked:
    """Judge how fast bytes come from one node to another."""
    looks = {p: look for p, look in _looks(facts).items() if look.received_bytes}
    if not looks:
        return Checked(
            "links", [], "not measured" if not facts.is_measured else "one node has none"
        )
    seconds = {pair: PER_BYTES / look.bytes_per_s for pair, look in looks.items()}
    findings = _slow_nodes(seconds)
    told = {finding.place.name for finding in findings}
    rest = {pair: s for pair, s in seconds.items() if told.isdisjoint(pair)}
    findings += _slow(rest, facts) + _late(looks)
    usual = common(rest, floor=SLOW_S)
    if usual is not None:
        findings.append(
            Finding(
                "advice",
                Place("cluster"),
                f"links carry {_rate(usual)} over one connection",
                "that is less than an SSD reads: the network is what loads wait for",
                "compare with iperf3 between two of the machines; see their MTU and their NICs",
            )
        )
    rates = sorted(look.bytes_per_s for look in looks.values())
    return Checked(
        "links",
        findings,
        f"{len(looks)} measured, {format_size(rates[0])}/s to {format_size(rates[-1])}/s",
    )


def _slow_nodes(seconds: Mapping[Pair, float]) -> list[Finding]:
    """Find nodes all of whose links are slow, beside the links that they have no part in."""
    of_node: dict[str, list[float]] = defaultdict(list)
    for pair, taken in seconds.items():
        for name in pair:
            of_node[name].append(taken)
    findings = []
    for node, mine in sorted(of_node.items()):
        if len(mine) <= NODE_PAIRS_MIN or min(mine) <= SLOW_S:
            continue
        others = [taken for pair, taken in seconds.items() if node not in pair]
        if others and min(mine) > RATIO * median(others):
            what = f"all of its {len(mine)} links are slow"
            findings.append(_slow_link(Place("node", node), what, min(mine), median(others)))
    return findings


def _slow(seconds: Mapping[Pair, float], facts: Facts) -> list[Finding]:
    """Find links that stand out, or do less than the operator says."""
    usual = {slow.key: slow.usual for slow in outliers(seconds, floor=SLOW_S)}
    if facts.link_floor_bytes_per_s:
        least = PER_BYTES / facts.link_floor_bytes_per_s
        usual |= {pair: least for pair, s in seconds.items() if s > least and pair not in usual}
    return [
        _slow_link(Place("link", sender, receiver), "is slow", seconds[receiver, sender], expected)
        for (receiver, sender), expected in sorted(usual.items())
    ]


def _slow_link(place: Place, what: str, seconds: float, expected: float) -> Finding:
    machines = f"{place.name} and {place.node or 'others'}"
    return Finding(
        "warning",
        place,
        f"{what}: {_rate(seconds)}, where {_rate(expected)} is usual",
        "chunks that come over it hold up whoever loads them",
        f"compare with iperf3 between {machines}; see errors of their NICs: ethtool -S",
    )


def _rate(seconds: float) -> str:
    return f"{format_size(PER_BYTES / seconds)}/s"


def _late(looks: Mapping[Pair, PeerLook]) -> list[Finding]:
    seconds = {pair: look.connect_s for pair, look in looks.items()}
    return [
        Finding(
            "warning",
            Place("link", slow.key[1], slow.key[0]),
            f"takes {milliseconds(slow.figure)} to connect; the others {milliseconds(slow.usual)}",
            "small reads wait as long for each answer",
            f"ping between {slow.key[0]} and {slow.key[1]}; see the route between them",
        )
        for slow in outliers(seconds, floor=CONNECT_FLOOR_S)
    ]


def check_tickets(facts: Facts) -> Checked:
    """Judge whether nodes sign, with the same keys, and believe each other."""
    examined = {name: e for name, e in facts.examined.items() if e.is_connected}
    findings = [
        Finding(
            "problem",
            Place("node", name),
            "has no key that may sign tickets",
            "nothing can be opened through it",
            "see that it reaches etcd, and its clock; keys are made by the nodes themselves",
        )
        for name, each in sorted(examined.items())
        if not each.signing_key
    ]
    now = facts.asker.now
    by_keys: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name, each in examined.items():
        # What was made a moment ago need not be everywhere yet.
        old = sorted(k.id for k in each.ticket_keys if k.created_at + SIGNS_AFTER_S < now)
        by_keys[tuple(old)].append(name)
    usual = max(by_keys, key=lambda keys: len(by_keys[keys]), default=())
    for keys, names in by_keys.items():
        if keys != usual:
            findings += [_other_keys(name) for name in sorted(names)]
    findings += _refused(facts) + _unrotated(facts)
    return Checked(
        "tickets",
        findings,
        f"signed by {counted(len(examined), 'node')}, believed by all that were asked",
    )


def _other_keys(name: str) -> Finding:
    return Finding(
        "problem",
        Place("node", name),
        "has other ticket keys than most nodes",
        "reads that it signed for are refused elsewhere, or others' here",
        f"see that it follows etcd: penstock doctor --node {name}; restart it if it does",
    )


def _refused(facts: Facts) -> list[Finding]:
    refused = {p: look.ticket_failure for p, look in _looks(facts).items() if look.ticket_failure}
    by_signer: dict[str, list[str]] = defaultdict(list)
    for signer, verifier in refused:
        by_signer[signer].append(verifier)
    return [
        Finding(
            "problem",
            Place("node", signer),
            f"its tickets are refused by {named(verifiers)}: {refused[signer, verifiers[0]]}",
            "objects that are opened through it cannot be read there",
            "see the clocks, and the keys above",
        )
        for signer, verifiers in sorted(by_signer.items())
    ]


def _unrotated(facts: Facts) -> list[Finding]:
    newest = max(
        (key.created_at for each in facts.examined.values() for key in each.ticket_keys),
        default=facts.asker.now,
    )
    age_s = facts.asker.now - newest
    rotation_s = float(
        facts.cluster.settings.get(ROTATION, ClusterSettings().ticket_key_rotation_s)
    )
    if age_s < rotation_s + ROTATION_LATE_S:
        return []
    return [
        Finding(
            "warning",
            Place("cluster"),
            f"the newest ticket key is {format_duration(age_s)} old",
            f"keys are made anew each {format_duration(rotation_s)}: no node has been able to",
            "see that etcd takes writes",
        )
    ]

"""Whether all nodes answer, run one version, and agree on the time and on the placement."""

from collections import Counter, defaultdict

from penstock.doctor.facts import Examined, Facts, KnownNode
from penstock.doctor.finding import Checked, Finding, Place
from penstock.doctor.judging import counted, milliseconds, named
from penstock.ticket import LEEWAY_S
from penstock.units import format_duration

CLOCK_WARNING_S = 2.0
"""Machines that keep time by NTP differ by milliseconds."""
CLOCK_PROBLEM_S = LEEWAY_S / 2
"""Tickets are forgiven `LEEWAY_S` between two clocks: at half of it, it is time to act."""
UNCERTAINTY_SHARE = 1.0
"""A difference counts only beyond what the round trip leaves open."""


def check_nodes(facts: Facts) -> Checked:
    """Find those that do not answer, and versions that differ."""
    findings: list[Finding] = []
    for node in facts.cluster.nodes:
        found = facts.nodes.get(node.id)
        if found is not None and found.failure:
            findings.append(_silent(node, found.failure, facts))
    findings += _versions(facts)
    answered = len(facts.examined)
    return Checked("nodes", findings, f"{answered} of {len(facts.cluster.nodes)} answer")


def _silent(node: KnownNode, failure: str, facts: Facts) -> Finding:
    place, share = Place("node", node.id), f"{node.share * 100:.1f} %"
    if node.state != "away":
        return Finding(
            "problem",
            place,
            f"is a member, and could not be examined: {failure}",
            f"it holds {share} of the key space; its readers ask the next owner after a wait",
            f"on {node.host}: systemctl status penstock; then the port of {node.grpc_address}",
        )
    away = "is away"
    if node.away_s >= 1:
        away += f" for {format_duration(node.away_s)} at least"
    left_s = float(facts.cluster.settings.get("departure_grace_s", 0.0)) - node.away_s
    what = f"{away}: {failure}"
    if not node.is_placed:
        return Finding(
            "advice",
            place,
            what,
            "it has no place on the ring: nothing waits for it",
            f"if it will not come back: penstock forget {node.id}",
        )
    return Finding(
        "problem",
        place,
        what,
        f"the next owners serve its {share} of the key space, and fetch it anew; its place is "
        f"given away in {format_duration(max(0.0, left_s))}",
        f"start it on {node.host}: systemctl start penstock; if it will not come back: "
        f"penstock forget {node.id}",
    )


def _versions(facts: Facts) -> list[Finding]:
    by_version: dict[str, list[str]] = defaultdict(list)
    for name, examined in facts.examined.items():
        by_version[examined.version].append(name)
    if len(by_version) < 2:
        return []
    told = "; ".join(f"{version} on {named(nodes)}" for version, nodes in by_version.items())
    return [
        Finding(
            "advice",
            Place("cluster"),
            f"nodes run different versions: {told}",
            "that is how an update looks half way",
            "finish the update",
        )
    ]


def check_clocks(facts: Facts) -> Checked:
    """Find clocks that differ from most of the others, the asker's among them."""
    clocks = {name: each.clock for name, each in facts.nodes.items() if each.clock}
    if not clocks:
        return Checked("clocks", [], "none could be asked")
    # The asker is one of them: it is ahead of itself by nothing.
    usual = _middle([clock.ahead_s for clock in clocks.values()] + [0.0])
    findings = [
        _clock(Place("node", name), clock.ahead_s - usual)
        for name, clock in sorted(clocks.items())
        if _differs(clock.ahead_s - usual, clock.uncertainty_s)
    ]
    least = min(clock.uncertainty_s for clock in clocks.values())
    if _differs(usual, least):
        findings.append(_clock(Place("machine"), -usual))
    spread = [clock.ahead_s for clock in clocks.values()]
    doubt = max(clock.uncertainty_s for clock in clocks.values())
    within = max(max(spread) - min(spread), doubt)
    return Checked(
        "clocks", findings, f"{counted(len(clocks), 'node')} within {milliseconds(within)}"
    )


def _middle(values: list[float]) -> float:
    """Return the value in the middle; of two nodes and an asker two make the majority."""
    return sorted(values)[len(values) // 2]


def _differs(seconds: float, uncertainty_s: float) -> bool:
    return abs(seconds) > CLOCK_WARNING_S + UNCERTAINTY_SHARE * uncertainty_s


def _clock(place: Place, ahead_s: float) -> Finding:
    where = "ahead of" if ahead_s > 0 else "behind"
    return Finding(
        "problem" if abs(ahead_s) > CLOCK_PROBLEM_S else "warning",
        place,
        f"its clock is {format_duration(abs(ahead_s))} {where} the others",
        f"tickets are good for 15 minutes by the clock of who signs them; beyond {LEEWAY_S} s "
        "reads are refused as expired, or keys sign too early",
        "have it keep time: timedatectl set-ntp true, or chronyc makestep",
    )


def check_placement(facts: Facts) -> Checked:
    """Find nodes that act on another placement, or hear of no newer one."""
    examined = facts.examined
    if not examined:
        return Checked("placement", [], "no node answers")
    uid = Counter(each.uid for each in examined.values()).most_common(1)[0][0]
    epoch = max(each.epoch for each in examined.values() if each.uid == uid)
    all_cut_off = not any(each.is_connected for each in examined.values())
    findings = []
    for name, each in sorted(examined.items()):
        if each.uid != uid:
            findings.append(_stranger(name, each, uid))
        elif not each.is_connected and not all_cut_off:
            findings.append(_cut_off(name, each, epoch))
        elif each.epoch < epoch:
            findings.append(_behind(name, each, epoch))
        elif not each.is_registered:
            findings.append(_unregistered(name))
    return Checked("placement", findings, f"{counted(len(examined), 'node')} on epoch {epoch}")


def _stranger(name: str, each: Examined, uid: str) -> Finding:
    return Finding(
        "problem",
        Place("node", name),
        f"belongs to another cluster: uid {each.uid[:8]}, and not {uid[:8]}",
        "nobody believes its tickets, nor it those of others",
        "see which etcd, and which name of the cluster, its configuration has",
    )


def _cut_off(name: str, each: Examined, epoch: int) -> Finding:
    stale = f"and acts on epoch {each.epoch}, the others on {epoch}" if each.epoch < epoch else ""
    return Finding(
        "problem",
        Place("node", name),
        f"does not reach etcd {stale}".rstrip(),
        "it hears of no change; when its lease ends, others count it as away and take over",
        f"on {name}: etcdctl endpoint health --endpoints=… as in [etcd] of its configuration; "
        "then the network between",
    )


def _behind(name: str, each: Examined, epoch: int) -> Finding:
    return Finding(
        "warning",
        Place("node", name),
        f"acts on epoch {each.epoch}, the others on {epoch}",
        "it answers for chunks that it owns no more, and sends readers on",
        f"its log says why it does not take the newer one: journalctl -u penstock on {name}",
    )


def _unregistered(name: str) -> Finding:
    return Finding(
        "warning",
        Place("node", name),
        "has not registered since it started",
        "it serves by what it knew before; others count it as away",
        f"its log says why: journalctl -u penstock on {name}",
    )

"""Settings that do not fit, leftovers of nodes and volumes, hot chunks; and the asker's machine."""

from collections import Counter

from penstock.doctor.facts import Facts, HotChunk
from penstock.doctor.finding import Checked, Finding, Place
from penstock.doctor.judging import named
from penstock.volumes import URL_SCHEME

MAKING_S = 5.0
"""Copies of a chunk are there within a second."""
_CLUSTER = Place("cluster")


def check_settings(facts: Facts) -> Checked:
    """Judge settings against the nodes there are, and find what belongs to nothing any more."""
    findings = _replicas(facts) + _times(facts) + _leftovers(facts)
    copies = facts.cluster.settings.get("replicas", 1)
    return Checked("settings", findings, f"replicas={copies}; nothing is left of what is gone")


def _replicas(facts: Facts) -> list[Finding]:
    cluster = facts.cluster
    hosts = {node.host for node in cluster.nodes if node.is_placed and node.weight}
    findings = []
    wanted = {"the setting replicas": int(cluster.settings.get("replicas", 1))}
    wanted |= {
        f"replicas of the volume {v.name}": v.replicas for v in cluster.volumes if v.replicas
    }
    for what, copies in wanted.items():
        if copies > len(hosts) > 0:
            findings.append(
                Finding(
                    "warning",
                    _CLUSTER,
                    f"{what} is {copies}, and there are {len(hosts)} hosts with a share",
                    "several copies lie on one host: with it they are all gone",
                    f"add hosts, or lower it: penstock settings set replicas={len(hosts)}"
                    if what.startswith("the setting")
                    else f"add hosts, or lower it to {len(hosts)}: penstock volume add --replace",
                )
            )
    return findings


def _times(facts: Facts) -> list[Finding]:
    settings = facts.cluster.settings
    grace_s = float(settings.get("departure_grace_s", 600.0))
    lease_s = float(settings.get("lease_ttl_s", 10.0))
    if grace_s >= lease_s:
        return []
    return [
        Finding(
            "warning",
            _CLUSTER,
            f"departure_grace_s is {grace_s:g}, shorter than a lease of {lease_s:g} s",
            "each restart gives the node's place away, and moves its share twice",
            "penstock settings set departure_grace_s=10m",
        )
    ]


def _leftovers(facts: Facts) -> list[Finding]:
    cluster = facts.cluster
    volumes = {volume.name for volume in cluster.volumes}
    findings = [
        Finding(
            "problem",
            Place("volume", name),
            "its record in etcd cannot be read",
            "it is served by no node of this version",
            f"write it anew: penstock volume rm {name}, then penstock volume add",
        )
        for name in cluster.unreadable_volumes
    ]
    gone = [url for url in cluster.pins if _volume_of(url) not in volumes | {""}]
    if gone:
        findings.append(
            Finding(
                "warning",
                _CLUSTER,
                f"{len(gone)} pins are of volumes that are gone: {named(gone)}",
                "they count against what may be pinned, and keep nothing",
                f"penstock unpin {gone[0]}",
            )
        )
    if cluster.lone_overrides:
        findings.append(
            Finding(
                "advice",
                _CLUSTER,
                f"weights are set for nodes that are gone: {named(cluster.lone_overrides)}",
                "they come into force if a node of that name comes back",
                f"penstock weight auto {cluster.lone_overrides[0]}",
            )
        )
    return findings


def _volume_of(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return rest.partition("/")[0] if scheme == URL_SCHEME else ""


def check_hot_chunks(facts: Facts) -> Checked:
    """Name chunks that are asked for far more than others."""
    hot = [
        (node, chunk)
        for node, examined in sorted(facts.examined.items())
        for chunk in examined.hot_chunks
    ]
    hot.sort(key=lambda each: -each[1].wanted)
    findings = [_hot(node, chunk, facts) for node, chunk in hot[:10]]
    owners = Counter(node for node, _ in hot)
    return Checked("hot chunks", findings, f"{len(hot)}, on {len(owners)} nodes" if hot else "none")


def _hot(node: str, chunk: HotChunk, facts: Facts) -> Finding:
    owners = sum(1 for each in facts.cluster.nodes if each.is_placed and each.weight)
    is_alone = chunk.made == 1 and owners > 1 and chunk.age_s > MAKING_S
    what = (
        f"chunk {chunk.index} of {chunk.url} is asked for more than 64 MiB a second, a sixteenth "
        f"or more of all that the node is asked: {chunk.wanted} copies wanted, {chunk.made} there"
    )
    return Finding(
        "warning" if is_alone else "advice",
        Place("node", node),
        what,
        "no copies came about: its owner alone serves all who read it"
        if is_alone
        else "other nodes serve it too, for as long as that lasts",
        "if it lasts: a local tier on the machines that read it, so that it crosses the network "
        "once a machine; or replicas=3 of its volume",
    )


def check_asker(facts: Facts) -> Checked:
    """Judge the machine that asks: its node's socket, its library."""
    asker, findings = facts.asker, []
    if asker.socket_failure:
        findings.append(
            Finding(
                "warning",
                Place("machine"),
                f"the node's socket {asker.socket} does not answer: {asker.socket_failure}",
                "readers here go over the network for what this machine has",
                "give your user the group of its directory, mount it into the container, or "
                "start the node: systemctl status penstock",
            )
        )
    versions = {each.version for each in facts.examined.values()}
    if versions and asker.version not in versions:
        findings.append(
            Finding(
                "advice",
                Place("machine"),
                f"its library is version {asker.version}, the nodes run {named(sorted(versions))}",
                "newer nodes may tell what this one does not understand",
                f"pip install penstock=={max(versions)}",
            )
        )
    socket = f"socket {asker.socket} answers" if asker.socket else "no node on this machine"
    return Checked("this machine", findings, f"library {asker.version}; {socket}")

"""Who looks at what: every node at itself, and a part of the rest.

In a cluster of a thousand nodes not every link is measured, and not every node asks every origin:
how much is asked in all has a bound. Chance decides, so that another run looks at others.
"""

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from penstock.doctor.facts import Facts, KnownNode
from penstock.doctor.finding import Checked
from penstock.v1 import diagnosis_pb2

PEERS_EACH = 4
"""Nodes that each node looks at: one that stands alone among four is told from its links."""
TRANSFER_BYTES = 1024 * 1024
"""Received from each of them, twelve times at most: 1 ms each at 10 Gb/s, 10 ms at the floor below
which a link is slow."""
ORIGIN_LOOKS_MAX = 2_000
"""Of volumes by nodes, three requests each: an object store takes thousands by the second."""


OF_PAIRS = frozenset({"ports", "links", "tickets"})
"""Checks whose findings at a node follow from what other nodes find of it."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an operator wants to have looked at."""

    measures: bool = True
    """Disks and links too."""
    node: str = ""
    """This one alone; empty: all."""
    link_floor_bytes_per_s: float = 0.0
    """What every link should do; 0: only beside the others."""


def plan_all(
    nodes: Sequence[KnownNode],
    volumes: Iterable[str],
    *,
    wanted: Wanted,
    rng: random.Random,
) -> dict[str, diagnosis_pb2.ExamineRequest]:
    """Return what each node is asked.

    Args:
        nodes: Those that answer.
        volumes: Of the cluster.
        wanted: What to look at.
        rng: Chooses.
    """
    asked = [node for node in nodes if wanted.node in ("", node.id)]
    peers, by_node = _peers(nodes, rng), _volumes(asked, list(volumes), rng)
    return {
        node.id: diagnosis_pb2.ExamineRequest(
            measures_disks=wanted.measures,
            volumes=by_node[node.id],
            peers=peers[node.id],
            transfer_bytes=TRANSFER_BYTES if wanted.measures else 0,
        )
        for node in asked
    }


def _peers(
    nodes: Sequence[KnownNode], rng: random.Random
) -> Mapping[str, list[diagnosis_pb2.Peer]]:
    """Have each node look at the next few of a circle: so each is looked at by as many."""
    circle = list(nodes)
    rng.shuffle(circle)
    count = len(circle)
    return {
        node.id: [
            _peer(circle[(at + step) % count]) for step in range(1, min(PEERS_EACH + 1, count))
        ]
        for at, node in enumerate(circle)
    }


def _peer(node: KnownNode) -> diagnosis_pb2.Peer:
    return diagnosis_pb2.Peer(
        id=node.id,
        grpc_address=node.grpc_address,
        bulk_address=node.bulk_address,
        tls_ports=node.tls_ports,
    )


def _volumes(
    nodes: Sequence[KnownNode], volumes: Sequence[str], rng: random.Random
) -> Mapping[str, list[str]]:
    each = max(1, ORIGIN_LOOKS_MAX // max(1, len(nodes)))
    return {node.id: rng.sample(volumes, min(each, len(volumes))) for node in nodes}


def plan_again(
    checked: Iterable[Checked], nodes: Mapping[str, KnownNode], *, facts: Facts
) -> dict[str, diagnosis_pb2.ExamineRequest]:
    """Return what to look at once more, while nothing else is measured: all that stood out.

    Args:
        checked: What came of the first time. Advice is left as it is.
        nodes: Those that answer, by id.
        facts: Of the first time.
    """
    requests: dict[str, diagnosis_pb2.ExamineRequest] = defaultdict(diagnosis_pb2.ExamineRequest)
    size = TRANSFER_BYTES if facts.is_measured else 0
    pairs: set[tuple[str, str]] = set()
    places = {
        (each.name, f.place) for each in checked for f in each.findings if f.severity != "advice"
    }
    for check, place in places:
        if place.kind == "disk" and place.node in nodes:
            requests[place.node].measures_disks = facts.is_measured
            requests[place.node].disks.append(place.name)
        elif place.kind == "origin" and place.node in nodes:
            requests[place.node].volumes.append(place.name)
        elif place.kind == "link":
            pairs.add((place.node, place.name))
        elif place.kind == "node" and place.name in nodes:
            _ = requests[place.name]  # It is asked how it is.
            if check in OF_PAIRS:
                pairs |= {pair for pair in _pairs(facts) if place.name in pair}
    for receiver, sender in sorted(pairs):
        if {receiver, sender} <= nodes.keys():
            requests[receiver].transfer_bytes = size
            requests[receiver].peers.append(_peer(nodes[sender]))
    return dict(requests)


def _pairs(facts: Facts) -> set[tuple[str, str]]:
    return {(name, look.id) for name, each in facts.examined.items() for look in each.peers}

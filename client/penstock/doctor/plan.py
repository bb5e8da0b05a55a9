"""Who looks at what: every node at itself, and a part of the rest.

In a cluster of a thousand nodes not every link is measured, and not every node asks every origin:
how much is asked in all has a bound. Chance decides, so that another run looks at others.
"""

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from penstock.doctor.facts import KnownNode
from penstock.doctor.finding import Finding
from penstock.v1 import diagnosis_pb2

PEERS_EACH = 4
"""Nodes that each node looks at: one that stands alone among four is told from its links."""
TRANSFER_BYTES = 4 * 1024 * 1024
"""Received from each of them, three times at most: 3 ms at 10 Gb/s, each."""
ORIGIN_LOOKS_MAX = 2_000
"""Of volumes by nodes, three requests each: an object store takes thousands by the second."""


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
        admin_address=node.admin_address,
    )


def _volumes(
    nodes: Sequence[KnownNode], volumes: Sequence[str], rng: random.Random
) -> Mapping[str, list[str]]:
    each = max(1, ORIGIN_LOOKS_MAX // max(1, len(nodes)))
    return {node.id: rng.sample(volumes, min(each, len(volumes))) for node in nodes}


def plan_again(
    findings: Iterable[Finding], nodes: Mapping[str, KnownNode]
) -> dict[str, diagnosis_pb2.ExamineRequest]:
    """Return what to look at once more, while nothing else is measured: all that stood out.

    Args:
        findings: Of the first time. Advice is left as it is.
        nodes: Those that answer, by id.
    """
    requests: dict[str, diagnosis_pb2.ExamineRequest] = defaultdict(diagnosis_pb2.ExamineRequest)
    for place in {each.place for each in findings if each.severity != "advice"}:
        if place.kind == "disk" and place.node in nodes:
            requests[place.node].measures_disks = True
            requests[place.node].disks.append(place.name)
        elif place.kind == "origin" and place.node in nodes:
            requests[place.node].volumes.append(place.name)
        elif place.kind == "link" and {place.node, place.name} <= nodes.keys():
            requests[place.node].transfer_bytes = TRANSFER_BYTES
            requests[place.node].peers.append(_peer(nodes[place.name]))
        elif place.kind == "node" and place.name in nodes:
            _ = requests[place.name]  # It is asked how it is.
    return dict(requests)

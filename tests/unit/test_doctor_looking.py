"""Who is asked what, what is asked again, and which of two looks counts."""

import random
from collections import Counter
from dataclasses import replace
from typing import Any

from penstock.doctor.again import combined
from penstock.doctor.checks import judge
from penstock.doctor.facts import NodeFacts
from penstock.doctor.plan import (
    ORIGIN_LOOKS_MAX,
    PEERS_EACH,
    TRANSFER_BYTES,
    Wanted,
    plan_again,
    plan_all,
)
from tests.unit.doctor_facts import NAMES, cluster, disk, examined, facts, node, origin, peer

SEED = 5


def planned(count: int, volumes: int = 2, **wanted: Any) -> dict[str, Any]:
    nodes = [node(f"n{at}") for at in range(count)]
    names = [f"v{at}" for at in range(volumes)]
    return plan_all(nodes, names, wanted=Wanted(**wanted), rng=random.Random(SEED))


def test_in_a_small_cluster_every_node_looks_at_every_other() -> None:
    plan = planned(4)

    for name, request in plan.items():
        assert {each.id for each in request.peers} == plan.keys() - {name}
        assert request.measures_disks
        assert request.transfer_bytes == TRANSFER_BYTES
        assert sorted(request.volumes) == ["v0", "v1"]


def test_in_a_large_one_each_looks_at_a_few_and_is_looked_at_by_as_many() -> None:
    plan = planned(1000, volumes=100)

    looked_at = Counter(peer.id for request in plan.values() for peer in request.peers)
    assert set(looked_at.values()) == {PEERS_EACH}
    assert len(looked_at) == 1000
    assert all(name not in {p.id for p in request.peers} for name, request in plan.items())
    looks = sum(len(request.volumes) for request in plan.values())
    assert looks <= ORIGIN_LOOKS_MAX
    assert len({volume for request in plan.values() for volume in request.volumes}) == 100


def test_one_node_that_stands_alone_has_nobody_to_look_at() -> None:
    (request,) = planned(1).values()

    assert list(request.peers) == []


def test_quick_writes_and_moves_nothing_but_looks_at_ports_and_origins() -> None:
    for request in planned(3, measures=False).values():
        assert not request.measures_disks
        assert request.transfer_bytes == 0
        assert len(request.peers) == 2
        assert request.volumes


def test_of_one_node_that_is_wanted_the_others_are_only_its_peers() -> None:
    plan = planned(6, node="n3")

    assert plan.keys() == {"n3"}
    assert len(plan["n3"].peers) == PEERS_EACH


def test_what_stood_out_is_asked_again_and_nothing_else() -> None:
    slow = facts(
        {
            "n1": {"peers": (peer("n2"), peer("n3", rate=2e6), peer("n4"))},
            "n2": {"disks": (disk(write_s=2.0), disk("/mnt/nvme1"))},
            "n4": {"origins": (origin("models", seconds=3.0), origin("lake"))},
        }
    )

    again = plan_again(judge(slow), {name: node(name) for name in NAMES}, facts=slow)

    assert again.keys() == {"n1", "n2", "n4"}
    assert [each.id for each in again["n1"].peers] == ["n3"]
    assert again["n1"].transfer_bytes == TRANSFER_BYTES
    assert list(again["n2"].disks) == ["/mnt/nvme0"]
    assert again["n2"].measures_disks
    assert list(again["n4"].volumes) == ["models"]
    assert not again["n4"].measures_disks


def test_a_node_that_others_do_not_reach_is_looked_at_by_them_again() -> None:
    closed = peer("n3", bulk_failure="refused")
    looks = {
        name: {"peers": tuple(closed if o == "n3" else peer(o) for o in NAMES if o != name)}
        for name in ("n1", "n2", "n4")
    }
    found = facts(looks)

    again = plan_again(judge(found), {name: node(name) for name in NAMES}, facts=found)

    assert all([p.id for p in again[name].peers] == ["n3"] for name in ("n1", "n2", "n4"))


def test_nothing_is_asked_again_of_a_cluster_that_is_well_or_only_advised() -> None:
    shut = NodeFacts("n2", examined=examined("n2"), admin_failure="timed out")
    advised = facts(nodes={"n2": shut})
    assert [f.severity for each in judge(advised) for f in each.findings] == ["advice"]

    assert plan_again(judge(advised), {n: node(n) for n in NAMES}, facts=advised) == {}


def test_who_does_not_answer_is_not_asked_again() -> None:
    behind = facts({"n2": {"epoch": 6}}, cluster=cluster())

    assert plan_again(judge(behind), {"n1": node("n1")}, facts=behind) == {}


def test_of_two_figures_the_better_counts_and_of_two_states_the_later() -> None:
    first = examined(
        "n1",
        epoch=6,
        disks=(disk(write_s=2.0, read_s=0.1), disk("/mnt/nvme1")),
        peers=(peer("n2", rate=1e6), peer("n3")),
        origins=(origin("models", seconds=3.0), origin("lake", failure="OriginUnavailable")),
    )
    second = examined(
        "n1",
        epoch=7,
        disks=(disk(write_s=0.01, read_s=0.3), replace(disk("/mnt/nvme1"), measured_bytes=0)),
        peers=(peer("n2", rate=1e9),),
        origins=(origin("models", seconds=0.1), origin("lake")),
    )

    both = combined(first, second)

    assert both.epoch == 7
    assert [(each.write_s, each.read_s) for each in both.disks] == [(0.01, 0.1), (0.005, 0.003)]
    assert [round(each.bytes_per_s) for each in both.peers] == [10**9, 10**9]
    assert [each.latency_s for each in both.origins] == [0.1, 0.02]
    assert not any(each.failure for each in both.origins)


def test_a_port_that_answers_the_second_time_is_open() -> None:
    first = examined("n1", peers=(peer("n2", bulk_failure="refused", received_bytes=0),))
    second = examined("n1", peers=(peer("n2"),))

    (look,) = combined(first, second).peers

    assert look.bulk_failure == ""
    assert round(look.bytes_per_s) == 10**9

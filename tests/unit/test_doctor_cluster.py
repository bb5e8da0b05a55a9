"""What the doctor says of etcd, nodes, clocks, placement, weights, settings: and when nothing."""

from dataclasses import replace
from typing import Any

import pytest

from penstock.doctor.checks import judge, worst_first
from penstock.doctor.checks_catalog import check_catalog
from penstock.doctor.checks_cluster import check_asker, check_hot_chunks, check_settings
from penstock.doctor.checks_etcd import check_etcd
from penstock.doctor.checks_nodes import check_clocks, check_nodes, check_placement
from penstock.doctor.checks_weights import check_weights
from penstock.doctor.facts import (
    Asker,
    CatalogFacts,
    Clock,
    EtcdLook,
    HotChunk,
    KnownVolume,
    NodeFacts,
    WeightSet,
)
from tests.unit.doctor_facts import (
    ETCD,
    GB,
    NAMES,
    NOW,
    cluster,
    examined,
    facts,
    node,
    only,
    told,
)


def etcd(**fields: Any) -> dict[str, tuple[EtcdLook, ...]]:
    usual: dict[str, Any] = {"latency_s": 0.002, "version": "3.5.17"}
    return {"etcd": (EtcdLook(ETCD, **(usual | fields)),)}


def clocks(ahead: dict[str, float], *, uncertainty_s: float = 0.001) -> dict[str, NodeFacts]:
    return {
        name: NodeFacts(name, clock=Clock(seconds, uncertainty_s), examined=examined(name))
        for name, seconds in ahead.items()
    }


def test_a_cluster_that_is_well_has_no_finding_and_a_line_for_each_check() -> None:
    checked = judge(facts())

    assert worst_first(checked) == []
    assert len({each.name for each in checked}) == len(checked) == 15
    assert all(each.summary and each.is_passed for each in checked)


def test_the_worst_comes_first() -> None:
    wrong = facts({"n2": {"epoch": 6}, "n3": {"signing_key": ""}, "n4": {"version": "1.2.2"}})

    severities = [each.severity for each in worst_first(judge(wrong))]

    assert severities == ["problem", "warning", "advice"]


# etcd


def test_an_etcd_that_answers_nobody_is_a_problem_of_its_own() -> None:
    gone = {name: etcd(failure="no answer") for name in NAMES}

    assert told(check_etcd(facts(gone))) == [("problem", f"etcd {ETCD}")]


def test_an_etcd_that_one_node_does_not_reach_is_found_at_that_node() -> None:
    found = only(check_etcd(facts({"n3": etcd(failure="no answer")})))

    assert (found.severity, str(found.place)) == ("warning", f"etcd {ETCD}, from n3")


@pytest.mark.parametrize(
    ("fields", "severity"),
    [
        ({"errors": ("memberID:1 alarm:NOSPACE ",)}, "problem"),
        ({"errors": ("etcdserver: no leader",)}, "problem"),
        ({"version": "3.5.2"}, "warning"),
        ({"version": "3.4.30"}, "warning"),
        ({"database_bytes": 1_800_000_000}, "warning"),
        ({"database_bytes": 1_800_000_000, "quota_bytes": 2_000_000_000}, "warning"),
    ],
)
def test_what_etcd_tells_of_itself_is_judged_once(fields: dict[str, Any], severity: str) -> None:
    everywhere = {name: etcd(**fields) for name in NAMES}

    assert told(check_etcd(facts(everywhere))) == [(severity, f"etcd {ETCD}")]


@pytest.mark.parametrize(
    "fields",
    [
        {"version": "3.5.3"},
        {"version": "3.6.0"},
        {"database_bytes": 1_700_000_000},
        {"database_bytes": 1_800_000_000, "quota_bytes": 8_000_000_000},
        {"latency_s": 0.09},
    ],
)
def test_an_etcd_just_beside_that_is_well(fields: dict[str, Any]) -> None:
    assert told(check_etcd(facts({name: etcd(**fields) for name in NAMES}))) == []


def test_an_etcd_that_is_late_for_one_node_is_told_from_one_that_is_for_all() -> None:
    one = check_etcd(facts({"n2": etcd(latency_s=0.3)}))
    all_alike = check_etcd(facts({name: etcd(latency_s=0.3) for name in NAMES}))

    assert told(one) == [("warning", f"etcd {ETCD}, from n2")]
    assert told(all_alike) == [("advice", "etcd")]


def test_a_cluster_of_one_needs_no_etcd() -> None:
    assert told(check_etcd(facts({name: {"etcd": ()} for name in NAMES}))) == []


# Nodes


def test_a_node_that_is_away_is_told_from_a_member_that_does_not_answer() -> None:
    lost = {"n2": NodeFacts("n2", "refused")}
    away = cluster(nodes=(node("n1"), node("n2", state="away", away_s=90.0), node("n3")))

    silent = only(check_nodes(facts(nodes=lost)))
    gone = only(check_nodes(facts(nodes=lost, cluster=away)))

    assert (silent.severity, str(silent.place)) == ("problem", "node n2")
    assert "is a member" in silent.what
    assert "is away for 90 s" in gone.what
    assert "25.0 %" in gone.why
    assert "given away in 8" in gone.why  # 600 s less 90.
    assert "penstock forget n2" in gone.fix


def test_a_node_without_a_place_is_missed_by_nobody() -> None:
    away = cluster(nodes=(node("n1"), node("n2", state="away", is_placed=False)))

    found = check_nodes(facts(nodes={"n2": NodeFacts("n2", "refused")}, cluster=away))

    assert told(found) == [("advice", "node n2")]


def test_versions_that_differ_are_an_update_half_way() -> None:
    assert told(check_nodes(facts({"n2": {"version": "1.2.4"}}))) == [("advice", "cluster")]


# Clocks


@pytest.mark.parametrize(
    ("ahead_s", "found"),
    [
        (1.9, []),
        (-1.9, []),
        (2.5, [("warning", "node n3")]),
        (-29, [("warning", "node n3")]),
        (31, [("problem", "node n3")]),
        (-31, [("problem", "node n3")]),
    ],
)
def test_a_clock_that_differs_from_the_others_is_found(
    ahead_s: float, found: list[tuple[str, str]]
) -> None:
    told_of = clocks({"n1": 0.0, "n2": 0.1, "n3": ahead_s, "n4": 0.0})

    assert told(check_clocks(facts(nodes=told_of))) == found


def test_a_long_round_trip_says_little_of_a_clock() -> None:
    told_of = clocks(dict.fromkeys(NAMES, 0.0)) | clocks({"n3": 4.0}, uncertainty_s=2.5)

    assert told(check_clocks(facts(nodes=told_of))) == []


def test_if_all_nodes_agree_it_is_the_askers_clock() -> None:
    behind = check_clocks(facts(nodes=clocks(dict.fromkeys(NAMES, 40.0))))

    found = only(behind)
    assert (found.severity, str(found.place)) == ("problem", "this machine")
    assert "40 s behind" in found.what


# Placement


def test_a_node_that_is_behind_is_told_from_one_that_does_not_reach_etcd() -> None:
    behind = only(check_placement(facts({"n2": {"epoch": 6}})))
    cut_off = only(check_placement(facts({"n2": {"epoch": 6, "is_connected": False}})))

    assert (behind.severity, behind.what) == ("warning", "acts on epoch 6, the others on 7")
    assert (cut_off.severity, str(cut_off.place)) == ("problem", "node n2")
    assert "does not reach etcd and acts on epoch 6" in cut_off.what


def test_a_node_of_another_cluster_and_one_that_never_registered_are_found() -> None:
    stranger = check_placement(facts({"n2": {"uid": "b" * 32, "epoch": 900}}))
    late = check_placement(facts({"n3": {"is_registered": False}}))

    assert told(stranger) == [("problem", "node n2")]
    assert told(late) == [("warning", "node n3")]


def test_that_nobody_reaches_etcd_is_etcds_matter() -> None:
    alone = facts({name: {"is_connected": False} for name in NAMES})

    assert told(check_placement(alone)) == []


# Weights


def weighing(**by_name: WeightSet) -> Any:
    owners = [
        replace(node(name, override=by_name.get(name)), weight=by_name[name].weight)
        if name in by_name
        else node(name)
        for name in NAMES
    ]
    return facts(cluster=cluster(nodes=tuple(owners)))


@pytest.mark.parametrize(
    ("weight", "found"),
    [
        (299, []),  # 49.9 %, where 25 % would be fair.
        (301, [("warning", "node n2")]),
        (43, []),  # 12.5 %
        (42, [("warning", "node n2")]),
    ],
)
def test_a_weight_far_from_what_the_capacity_says_is_found(
    weight: int, found: list[tuple[str, str]]
) -> None:
    assert told(check_weights(weighing(n2=WeightSet(weight, "a try", NOW, "")))) == found


def test_a_bad_weight_is_told_with_what_it_does_to_shares() -> None:
    found = only(check_weights(weighing(n2=WeightSet(1700, "a try", NOW, ""))))

    assert "1700 was set by hand on 2023-11-14 22:13 UTC (a try): a share of 85.0 %" in found.what
    assert "25.0 %" in found.what
    assert found.fix == "penstock weight auto n2"


@pytest.mark.parametrize(("hours", "severity"), [(23, "advice"), (25, "warning")])
def test_a_node_that_stays_cordoned_was_forgotten(hours: int, severity: str) -> None:
    since = WeightSet(0, "kernel update", NOW - 3600 * hours, "cordon")

    found = only(check_weights(weighing(n2=since)))

    assert (found.severity, str(found.place)) == (severity, "node n2")
    assert "(kernel update)" in found.what
    assert found.fix.endswith("penstock uncordon n2")


@pytest.mark.parametrize(
    ("unit_gb", "found"),
    [
        (900, []),
        (9, []),  # A weight of 10,000.
        (8, [("warning", "cluster")]),
        (9_000, []),  # A weight of 10.
        (9_100, [("advice", "cluster")]),
        (91_000, [("warning", "cluster")]),
    ],
)
def test_a_unit_that_weights_cannot_be_told_in_is_found(
    unit_gb: int, found: list[tuple[str, str]]
) -> None:
    settings = {**cluster().settings, "weight_unit_bytes": unit_gb * GB}

    assert told(check_weights(facts(cluster=cluster(settings=settings)))) == found


# Settings


@pytest.mark.parametrize(("replicas", "hosts", "count"), [(3, 3, 0), (3, 2, 1), (1, 1, 0)])
def test_more_copies_than_hosts_are_found(replicas: int, hosts: int, count: int) -> None:
    settings = {**cluster().settings, "replicas": replicas}
    nodes = tuple(replace(node(name), host=f"h{at % hosts}") for at, name in enumerate(NAMES))

    found = check_settings(facts(cluster=cluster(settings=settings, nodes=nodes)))

    assert told(found) == [("warning", "cluster")] * count


def test_a_volumes_own_copies_count_too() -> None:
    nodes = tuple(replace(node(name), host="one") for name in NAMES)
    volumes = (KnownVolume("models", replicas=2),)

    found = only(check_settings(facts(cluster=cluster(nodes=nodes, volumes=volumes))))

    assert "replicas of the volume models is 2" in found.what


def test_leftovers_of_what_is_gone_are_found() -> None:
    left = cluster(
        pins=("penstock://models/a", "penstock://gone/b"),
        lone_overrides=("n9",),
        unreadable_volumes=("odd",),
    )

    found = check_settings(facts(cluster=left))

    assert told(found) == [
        ("problem", "volume odd"),
        ("warning", "cluster"),
        ("advice", "cluster"),
    ]
    assert "penstock unpin penstock://gone/b" in found.findings[1].fix


def test_a_grace_shorter_than_a_lease_is_found() -> None:
    settings = {**cluster().settings, "departure_grace_s": 9.0}

    assert told(check_settings(facts(cluster=cluster(settings=settings)))) == [
        ("warning", "cluster")
    ]


# Hot chunks, the catalog, the asker


@pytest.mark.parametrize(
    ("chunk", "severity"),
    [
        (HotChunk("penstock://models/a", 3, wanted=4, made=4), "advice"),
        (HotChunk("penstock://models/a", 3, wanted=4, made=1, age_s=1.0), "advice"),
        (HotChunk("penstock://models/a", 3, wanted=4, made=1, age_s=6.0), "warning"),
    ],
)
def test_a_hot_chunk_is_named(chunk: HotChunk, severity: str) -> None:
    found = only(check_hot_chunks(facts({"n2": {"hot_chunks": (chunk,)}})))

    assert (found.severity, str(found.place)) == (severity, "node n2")
    assert "chunk 3 of penstock://models/a" in found.what


def test_catalogued_volumes_want_a_catalog() -> None:
    catalogued = cluster(volumes=(KnownVolume("lake", is_catalogued=True),))

    assert told(check_catalog(facts(cluster=catalogued))) == [("problem", "catalog")]
    assert told(check_catalog(facts())) == []


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({}, []),
        ({"failure": "refused"}, ["problem"]),
        ({"mirror_of": "a:1", "trouble": "no answer"}, ["problem"]),
        ({"mirror_of": "a:1", "lag_s": 301.0}, ["warning"]),
        ({"mirror_of": "a:1", "lag_s": 299.0}, []),
        ({"latency_s": 1.1}, ["warning"]),
        ({"latency_s": 0.9}, []),
    ],
)
def test_a_catalog_is_judged(fields: dict[str, Any], found: list[str]) -> None:
    checked = check_catalog(facts(catalog=CatalogFacts("c:7410", **fields)))

    assert [each.severity for each in checked.findings] == found


def test_the_askers_machine_is_looked_at_too() -> None:
    refused = Asker("1.2.3", NOW, "/run/penstock/node.sock", "Permission denied")
    old = Asker("1.1.0", NOW)

    assert told(check_asker(facts(asker=refused))) == [("warning", "this machine")]
    assert told(check_asker(facts(asker=old))) == [("advice", "this machine")]

"""What the doctor says of disks, origins, links, ports, tickets: and when nothing."""

from typing import Any

import pytest

from penstock.doctor.checks_disks import check_disks, check_limits
from penstock.doctor.checks_links import check_links, check_ports, check_tickets
from penstock.doctor.checks_origins import check_origins
from penstock.doctor.facts import Limits, NodeFacts, TicketKeyAge
from penstock.doctor.judging import common, outliers
from tests.unit.doctor_facts import (
    GB,
    KEY,
    NAMES,
    NOW,
    disk,
    examined,
    facts,
    only,
    origin,
    peer,
    told,
)

DISK = "disk n2:/mnt/nvme0"


def disks(**fields: Any) -> dict[str, dict[str, Any]]:
    """Return what a disk of n2 is, beside the others' that are well."""
    return {"n2": {"disks": (disk(**fields),)}}


# Slow


def test_only_what_is_slow_beside_the_others_and_wherever_it_is_stands_out() -> None:
    assert [each.key for each in outliers({"a": 1.0, "b": 9.0, "c": 1.1}, floor=2.0)] == ["b"]
    assert outliers({"a": 1.0, "b": 9.0, "c": 1.1}, floor=9.0) == []
    assert outliers({"a": 3.0, "b": 9.0, "c": 3.1}, floor=2.0) == []
    assert outliers({"a": 9.0}, floor=2.0) == []


def test_what_is_slow_everywhere_is_common() -> None:
    assert common({"a": 3.0, "b": 3.1}, floor=2.0) is not None
    assert common({"a": 1.9, "b": 1.8}, floor=2.0) is None
    assert common({}, floor=2.0) is None


# Disks


@pytest.mark.parametrize(
    ("fields", "severity"),
    [
        ({"trouble": "it is read-only"}, "problem"),
        ({"failure": "no answer in 4 s"}, "problem"),
        ({"read_errors": 1}, "warning"),
        ({"write_errors": 2}, "warning"),
        ({"corrupt_chunks": 1}, "warning"),
        ({"role": "memory", "file_system": "ext4"}, "warning"),
        ({"write_s": 0.21}, "warning"),
        ({"read_s": 0.21}, "warning"),
        ({"write_s": 2.0, "read_s": 2.0}, "warning"),
        ({"budget_bytes": 1001 * GB}, "warning"),
        # 900 GB of budget, of which 100 are used; others have left 800 less the floor and some.
        ({"free_bytes": 760 * GB}, "warning"),
        ({"free_bytes": 9 * GB}, "problem"),
        ({"failure": "no room for a file of 4 MiB", "free_bytes": 0}, "problem"),
    ],
)
def test_a_disk_with_something_wrong_is_named(fields: dict[str, Any], severity: str) -> None:
    assert told(check_disks(facts(disks(**fields)))) == [(severity, DISK)]


@pytest.mark.parametrize(
    "fields",
    [
        {"role": "memory", "file_system": "tmpfs"},
        {"write_s": 0.19},  # Far slower than the others, but not slow.
        {"budget_bytes": 900 * GB, "free_bytes": 770 * GB},  # Others take less than a twentieth.
        {"used_bytes": 900 * GB, "free_bytes": 5 * GB},  # The cache itself has filled it.
    ],
)
def test_a_disk_just_beside_that_is_well(fields: dict[str, Any]) -> None:
    assert told(check_disks(facts(disks(**fields)))) == []


def test_disks_that_are_all_slow_are_told_as_advice_with_the_figure() -> None:
    slow = {name: {"disks": (disk(write_s=0.5),)} for name in NAMES}

    found = only(check_disks(facts(slow)))

    assert (found.severity, str(found.place)) == ("advice", "cluster")
    assert "500 ms to write 4 MiB" in found.what


def test_budgets_of_tiers_on_one_file_system_add_up() -> None:
    apart = (disk(budget_bytes=600 * GB), disk("/mnt/nvme1", budget_bytes=600 * GB, device=2))
    together = (disk(budget_bytes=600 * GB), disk("/mnt/nvme0/b", budget_bytes=600 * GB))

    assert told(check_disks(facts({"n2": {"disks": apart}}))) == []
    assert told(check_disks(facts({"n2": {"disks": together}}))) == [("warning", DISK)]


def test_of_a_disk_that_is_lost_nothing_else_is_said() -> None:
    found = check_disks(facts(disks(trouble="it errs", read_errors=9, free_bytes=0)))

    assert told(found) == [("problem", DISK)]


@pytest.mark.parametrize(
    ("limits", "found"),
    [
        (Limits(65_536, 200, 65_530, 300), []),
        (Limits(0, 200, 65_530, 300), []),
        (Limits(65_536, 60_000, 65_530, 300), ["problem"]),
        (Limits(65_536, 200, 65_530, 60_000), ["problem"]),
        (Limits(1_024, 200, 65_530, 300), ["advice"]),
    ],
)
def test_a_process_near_its_limits_is_found(limits: Limits, found: list[str]) -> None:
    checked = check_limits(facts({"n2": {"limits": limits}}))

    assert [each.severity for each in checked.findings] == found


# Origins


def asking(**looks: Any) -> dict[str, dict[str, Any]]:
    return {name: {"origins": (look, origin("lake"))} for name, look in looks.items()}


@pytest.mark.parametrize(
    ("failure", "severity", "said"),
    [
        ("NotPermitted", "problem", "refuses the credentials"),
        ("OriginUnavailable", "problem", "does not answer"),
        ("Overloaded", "warning", "has no turn"),
        ("InvalidRequest", "problem", "cannot be read"),
    ],
)
def test_a_failure_of_one_node_is_told_from_that_of_all(
    failure: str, severity: str, said: str
) -> None:
    bad = origin(failure=failure, message="why")

    one = only(check_origins(facts(asking(n2=bad))))
    every = only(check_origins(facts(asking(**dict.fromkeys(NAMES, bad)))))

    assert (one.severity, str(one.place)) == (severity, "origin of volume models, from n2")
    assert (every.severity, str(every.place)) == (severity, "origin of volume models")
    assert said in one.what
    assert said in every.what


def test_a_slow_origin_is_told_from_a_node_that_reaches_it_slowly() -> None:
    slow = origin(seconds=0.3)

    all_nodes = check_origins(facts(asking(**dict.fromkeys(NAMES, slow))))
    one_node = check_origins(facts(asking(n2=slow)))
    not_slow = check_origins(facts(asking(n2=origin(seconds=0.24))))

    assert told(all_nodes) == [("warning", "origin of volume models")]
    assert told(one_node) == [("warning", "origin of volume models, from n2")]
    assert told(not_slow) == []


def test_origins_that_are_all_slow_are_advice() -> None:
    slow = {name: {"origins": (origin("models", seconds=0.5),)} for name in NAMES}

    assert told(check_origins(facts(slow))) == [("advice", "cluster")]


def test_an_origin_that_is_left_alone_or_waited_for_is_told() -> None:
    assert told(check_origins(facts(asking(n2=origin(is_healthy=False))))) == [
        ("warning", "origin of volume models")
    ]
    assert told(check_origins(facts(asking(n2=origin(waiting=3))))) == [
        ("advice", "origin of volume models")
    ]


# Ports


def looking(name: str, **looks: Any) -> dict[str, dict[str, Any]]:
    """Return how a node finds the others, those named otherwise than well."""
    others = [other for other in NAMES if other != name]
    return {name: {"peers": tuple(looks.get(other) or peer(other) for other in others)}}


@pytest.mark.parametrize("port", ["grpc_failure", "bulk_failure"])
def test_a_port_that_one_does_not_reach_is_the_links(port: str) -> None:
    fields: dict[str, Any] = {port: "refused"}
    closed = looking("n1", n3=peer("n3", **fields))

    assert told(check_ports(facts(closed))) == [("problem", "link n3 -> n1")]


def test_a_port_that_nobody_reaches_is_the_nodes() -> None:
    closed = peer("n3", bulk_failure="refused")
    looks = looking("n1", n3=closed) | looking("n2", n3=closed) | looking("n4", n3=closed)

    found = only(check_ports(facts(looks)))

    assert str(found.place) == "node n3"
    assert "answers none of 3" in found.what


def test_a_node_that_reaches_nobody_is_the_place() -> None:
    deaf = looking("n2", **{name: peer(name, bulk_failure="no route") for name in NAMES})

    found = only(check_ports(facts(deaf)))

    assert str(found.place) == "node n2"
    assert "reaches" in found.what


@pytest.mark.parametrize(
    ("port", "severity"), [("bulk_failure", "warning"), ("admin_failure", "advice")]
)
def test_ports_are_tried_from_the_asker_too(port: str, severity: str) -> None:
    shut: Any = {port: "timed out"}
    nodes = {"n2": NodeFacts("n2", examined=examined("n2"), **shut)}

    assert told(check_ports(facts(nodes=nodes))) == [(severity, "node n2")]


# Links


def test_a_slow_link_is_told_in_its_direction() -> None:
    found = only(check_links(facts(looking("n1", n3=peer("n3", rate=20e6)))))

    assert (found.severity, str(found.place)) == ("warning", "link n3 -> n1")
    assert "20.0 MB/s" in found.what
    assert "1.0 GB/s" in found.what


def test_a_node_whose_links_are_all_slow_is_the_place() -> None:
    slow = {n: looking(n, n2=peer("n2", rate=20e6))[n] for n in NAMES if n != "n2"}
    slow |= looking("n2", **{name: peer(name, rate=20e6) for name in NAMES})

    assert told(check_links(facts(slow))) == [("warning", "node n2")]


def test_of_three_nodes_the_slow_one_is_found_though_most_links_are_slow() -> None:
    three, rates = ("n1", "n2", "n3"), {("n1", "n2"): 1e9, ("n2", "n1"): 1e9}
    looks = {
        name: {"peers": tuple(peer(m, rate=rates.get((name, m), 20e6)) for m in three if m != name)}
        for name in three
    }
    of_three = facts(looks | {"n4": {"peers": ()}})

    assert told(check_links(of_three)) == [("warning", "node n3")]


@pytest.mark.parametrize("rate", [110e6, 900e6])
def test_a_link_that_is_slower_but_not_slow_is_well(rate: float) -> None:
    assert told(check_links(facts(looking("n1", n3=peer("n3", rate=rate))))) == []


def test_links_that_are_all_slow_are_advice() -> None:
    slow = {n: looking(n, **{m: peer(m, rate=90e6) for m in NAMES})[n] for n in NAMES}

    assert told(check_links(facts(slow))) == [("advice", "cluster")]


def test_a_floor_that_the_operator_states_counts_whatever_the_others_do() -> None:
    slower = looking("n1", n3=peer("n3", rate=400e6))

    assert told(check_links(facts(slower, link_floor_bytes_per_s=500e6))) == [
        ("warning", "link n3 -> n1")
    ]
    assert told(check_links(facts(slower, link_floor_bytes_per_s=300e6))) == []


def test_a_link_that_connects_late_is_found() -> None:
    assert told(check_links(facts(looking("n1", n3=peer("n3", connect_s=0.06))))) == [
        ("warning", "link n3 -> n1")
    ]
    assert told(check_links(facts(looking("n1", n3=peer("n3", connect_s=0.04))))) == []


# Tickets


def test_a_node_that_cannot_sign_and_one_with_other_keys_are_found() -> None:
    mute = check_tickets(facts({"n2": {"signing_key": ""}}))
    other = check_tickets(facts({"n2": {"ticket_keys": (TicketKeyAge("k9", NOW - 3600),)}}))

    assert told(mute) == [("problem", "node n2")]
    assert told(other) == [("problem", "node n2")]


def test_a_key_that_was_made_a_moment_ago_need_not_be_everywhere() -> None:
    newer = (KEY, TicketKeyAge("k2", NOW - 5))

    assert told(check_tickets(facts({"n2": {"ticket_keys": newer}}))) == []


def test_tickets_that_others_refuse_are_their_signers() -> None:
    refused = peer("n3", ticket_failure="NotPermitted: forged")

    found = only(check_tickets(facts(looking("n1", n3=refused))))

    assert str(found.place) == "node n1"
    assert "refused by n3" in found.what


@pytest.mark.parametrize(("hours", "count"), [(29, 0), (31, 1)])
def test_keys_that_nobody_makes_anew_are_found(hours: int, count: int) -> None:
    old = (TicketKeyAge("k1", NOW - 3600 * hours),)

    found = check_tickets(facts({name: {"ticket_keys": old} for name in NAMES}))

    assert told(found) == [("warning", "cluster")] * count

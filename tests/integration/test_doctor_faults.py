"""`penstock doctor` on a real cluster: it finds each fault, where it is, and nothing else.

Which part is the faulty one is drawn from a seed: try another with ``--chaos-seed``.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from penstock.cli.app import app
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.s3 import S3Server
from tests.integration.faulty_site import FaultySite

SEED = 7
OLD_ETCD = "etcd"
"""The testbed's etcd is 3.5.1, which the doctor says, rightly, each time."""
FAULTS = {
    "slow_disk": ("disks", "warning", "is slow"),
    "full_disk": ("disks", "problem", "is full"),
    "slow_link": ("links", "warning", "is slow"),
    "slow_origin": ("origins", "warning", "is slow"),
    "hot_chunk": ("hot chunks", "advice", "llama/config.json"),
    "bad_weight": ("weights", "warning", "(a test of last year): a share of"),
    "stale_placement": ("placement", "problem", "does not reach etcd"),
    "clock_skew": ("clocks", "", "its clock is"),
    "wrong_credentials": ("origins", "problem", "refuses the credentials"),
    "dead_node": ("nodes", "problem", "is away"),
}
"""Each with the check that finds it, how bad it is, and what is said."""


@pytest.fixture(scope="module")
def faulty(
    tmp_path_factory: pytest.TempPathFactory,
    s3: S3Server,
    etcd: EtcdServer,
    pytestconfig: pytest.Config,
) -> Iterator[FaultySite]:
    seed = pytestconfig.getoption("--chaos-seed") or SEED
    with FaultySite(tmp_path_factory.mktemp("doctor"), s3, etcd, seed=seed) as made:
        yield made


def doctor(faulty: FaultySite, *words: str) -> Result:
    # Wide: a test's directories have long names.
    env = {"PENSTOCK_ADDRESS": faulty.site.address, "COLUMNS": "400"}
    return CliRunner().invoke(app, ["doctor", *words], env=env, catch_exceptions=False)


def findings(told: Result) -> list[dict[str, Any]]:
    """Return the findings, but for etcd's version."""
    found: list[dict[str, Any]] = json.loads(told.stdout)["findings"]
    return [each for each in found if each["check"] != OLD_ETCD]


@pytest.mark.timeout(150)  # It starts all parts.
def test_a_cluster_that_is_well_is_said_to_be(faulty: FaultySite) -> None:
    told = doctor(faulty, "--json")

    assert [each for each in findings(told) if each["severity"] != "advice"] == []
    assert told.exit_code == 0
    assert all(json.loads(told.stdout)["checked"].values())


@pytest.mark.timeout(120)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_where_it_is_and_nowhere_else(faulty: FaultySite, fault: str) -> None:
    check, severity, said = FAULTS[fault]
    with getattr(faulty, fault)() as place:
        told = doctor(faulty, "--json")

    found = findings(told)
    (named,) = [each for each in found if each["check"] == check and each["where"] == place]
    assert said in named["what"]
    assert severity in ("", named["severity"])
    assert named["fix"]
    worse = {each["where"] for each in found if each["severity"] != "advice"}
    assert worse <= {place}
    assert told.exit_code == (named["severity"] == "problem")


@pytest.mark.timeout(120)
def test_asked_through_the_node_that_is_cut_off_it_finds_the_same(faulty: FaultySite) -> None:
    with faulty.stale_placement() as place:
        address = faulty.site.cluster[faulty.drawn.stale].address
        env = {"PENSTOCK_ADDRESS": address}
        told = CliRunner().invoke(app, ["doctor", "--quick", "--json"], env=env)

    worse = {(e["check"], e["where"]) for e in findings(told) if e["severity"] != "advice"}
    assert worse == {("placement", place)}, findings(told)
    assert json.loads(told.stdout)["epoch"] > 1


@pytest.mark.timeout(120)
def test_of_one_node_only_what_concerns_it_is_told(faulty: FaultySite) -> None:
    full, other = faulty.drawn.full_disk, faulty.drawn.heavy
    with faulty.full_disk() as place:
        itself = doctor(faulty, "--node", full, "--quick", "--json")
        another = doctor(faulty, "--node", other, "--quick", "--json")

    assert [each["where"] for each in findings(itself) if each["severity"] == "problem"] == [place]
    assert findings(another) == []


@pytest.mark.timeout(120)
def test_for_people_the_worst_comes_first_with_what_to_do(faulty: FaultySite) -> None:
    with faulty.full_disk() as place:
        told = doctor(faulty)

    lines = told.stdout.splitlines()
    first = next(at for at, line in enumerate(lines) if line.startswith(("problem", "warning")))
    assert lines[first].startswith(f"problem  {place}: is full")
    assert lines[first + 1].startswith("         why: the tier can use")
    assert lines[first + 2].startswith("         do:  on ")
    assert any(line.startswith("ok       links") for line in lines)
    assert lines[-1] == "1 problem, 1 warning"


@pytest.mark.timeout(120)
def test_quick_measures_nothing(faulty: FaultySite) -> None:
    told = json.loads(doctor(faulty, "--quick", "--json").stdout)

    assert told["checked"]["links"] == "not measured"
    assert "not measured" in told["checked"]["disks"]

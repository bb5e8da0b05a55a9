"""The archive of a support case: what it is called, who may read it, and what it replaces."""

import json
import os
import stat
import tarfile
from pathlib import Path
from typing import Any

import pytest

from penstock.errors import Conflict, InvalidRequest
from penstock.operator_results import ClusterStatus
from penstock.support import Asked, Gathered, GatheredFile
from penstock.support_bundle import Bundle, default_name

STATUS = ClusterStatus("prod", 3, (), {})


def told(node: str = "gpu-17", name: str = "facts.json", text: str = "{}") -> Gathered:
    return Gathered(Asked("node", node, "host:1", "alive"), [GatheredFile(name, text, False, "")])


def write(path: Path, *gathered: Gathered, force: bool = False) -> dict[str, Any]:
    with Bundle(path, force=force, clock=1_800_000_000.0).writing() as bundle:
        bundle.add_status(STATUS)
        for each in gathered:
            bundle.add(each)
    return bundle.manifest


def members(path: Path) -> dict[str, str]:
    with tarfile.open(path) as archive:
        found = {each.name: archive.extractfile(each) for each in archive.getmembers()}
        return {name: file.read().decode() for name, file in found.items() if file}


def test_all_of_it_lies_below_one_directory_with_a_manifest_that_lists_it(tmp_path: Path) -> None:
    path = tmp_path / "case.tar.gz"

    manifest = write(path, told())

    found = members(path)
    assert set(found) == {
        "case/README.txt",
        "case/cluster/status.json",
        "case/nodes/gpu-17/facts.json",
        "case/manifest.json",
    }
    assert "Secrets are left out" in found["case/README.txt"]
    written = json.loads(found["case/manifest.json"])
    assert {f"case/{each['name']}" for each in written["files"]} == set(found) - {
        "case/manifest.json"
    }
    assert written["processes"] == manifest["processes"]
    assert written["made_at"] == "2027-01-15T08:00:00+00:00"


def test_its_owner_alone_may_read_it(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        write(tmp_path / "case.tar.gz", told())
    finally:
        os.umask(old)

    assert stat.S_IMODE((tmp_path / "case.tar.gz").stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["case.tar.gz"]


def test_a_file_that_is_there_is_kept_unless_it_is_to_be_replaced(tmp_path: Path) -> None:
    path = tmp_path / "case.tar.gz"
    path.write_text("mine")

    with pytest.raises(Conflict, match="--force"):
        Bundle(path)
    assert path.read_text() == "mine"

    write(path, told(), force=True)
    assert "case/manifest.json" in members(path)


def test_a_file_that_comes_meanwhile_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "case.tar.gz"

    with pytest.raises(Conflict, match="--force"), Bundle(path).writing():
        path.write_text("another's")

    assert path.read_text() == "another's"
    assert [each.name for each in tmp_path.iterdir()] == ["case.tar.gz"]


def test_what_fails_halfway_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        with Bundle(tmp_path / "case.tar.gz").writing() as bundle:
            bundle.add(told())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()

    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(InvalidRequest, match=r"nowhere.*No such file"),
        Bundle(tmp_path / "nowhere/case.tar.gz").writing(),
    ):
        pass


def test_who_told_nothing_is_named_with_the_reason(tmp_path: Path) -> None:
    silent = Gathered(Asked("node", "gpu-18", "", "away"), trouble="NodeUnavailable: it is away")
    lacking = Gathered(
        Asked("node", "gpu-19", "host:1", "alive"),
        [GatheredFile("disks.json", "", False, "not within 5 s")],
    )

    processes = write(tmp_path / "case.tar.gz", silent, lacking)["processes"]

    assert [(each["id"], each["answered"]) for each in processes] == [
        ("gpu-18", False),
        ("gpu-19", True),
    ]
    assert processes[0]["trouble"] == "NodeUnavailable: it is away"
    assert processes[1]["missing"] == {"disks.json": "not within 5 s"}


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "..", "a b\n", ""])
def test_odd_names_lead_nowhere_else(tmp_path: Path, name: str) -> None:
    write(tmp_path / "case.tar.gz", told(name, name))

    for member in members(tmp_path / "case.tar.gz"):
        assert member.startswith("case/")
        assert ".." not in member.split("/")
        assert len(member.split("/")) <= 4


def test_what_looks_like_a_secret_is_masked_once_more(tmp_path: Path) -> None:
    write(tmp_path / "case.tar.gz", told(text="postgresql://u:hunter2@db/x"))

    assert "hunter2" not in "".join(members(tmp_path / "case.tar.gz").values())


def test_its_own_name_says_of_which_cluster_and_when() -> None:
    assert default_name("prod", now=1_800_000_000.0) == (
        "penstock-support-prod-20270115T080000Z.tar.gz"
    )

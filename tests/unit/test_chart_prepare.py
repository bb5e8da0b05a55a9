"""How the init container of the chart tells disks apart and names nodes. What it gives to whom, as
root, is looked at where its pod is run: tests/integration/test_chart_processes.py."""

import importlib.util
import os
import stat
from pathlib import Path
from types import ModuleType

import pytest

FILE = Path(__file__).parents[2] / "helm/penstock/files/prepare.py"
# As a kernel tells it: of a disk below its mount point, of the root's own file system, of a
# subvolume of that.
MOUNTS = """\
600 500 8:1 / / ro,relatime - overlay overlay rw
700 600 259:1 /penstock /tiers/nvme0 rw,noatime - xfs /dev/nvme0n1 rw
701 600 259:2 / /tiers/nvme1 rw,noatime - xfs /dev/nvme1n1 rw
702 600 8:2 /mnt/nvme2/penstock /tiers/nvme2 rw,relatime - ext4 /dev/sda1 rw
703 600 8:3 /@/mnt/nvme3/penstock /tiers/nvme3 rw,relatime - btrfs /dev/sda1 rw
"""


@pytest.fixture(scope="module")
def prepare() -> ModuleType:
    spec = importlib.util.spec_from_file_location("prepare", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("disk", "host_path", "is_apart"),
    [
        ("nvme0", "/mnt/nvme0/penstock", True),
        ("nvme1", "/mnt/nvme1", True),
        ("nvme2", "/mnt/nvme2/penstock", False),
        ("nvme3", "/mnt/nvme3/penstock", False),
        ("nvme4", "/mnt/nvme4/penstock", False),
    ],
)
def test_a_disk_that_is_not_mounted_is_told_from_one_that_is(
    prepare: ModuleType, disk: str, host_path: str, is_apart: bool
) -> None:
    assert prepare.is_mounted_apart(f"/tiers/{disk}", host_path, MOUNTS) is is_apart


def test_a_node_is_called_after_its_machine(prepare: ModuleType) -> None:
    assert prepare.node_id("gpu-17.internal") == "gpu-17.internal"
    assert prepare.node_id("GPU-17") == "gpu-17"


def test_machines_whose_names_are_too_long_are_told_apart(prepare: ModuleType) -> None:
    names = {prepare.node_id("ip-10-0-0-1." + "very-long" * 8 + suffix) for suffix in "ab"}

    assert len(names) == 2
    assert {len(name) for name in names} == {63}


def test_an_id_that_is_there_stays(prepare: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "node_id").write_text("mine\n")

    prepare.name_node(tmp_path, "gpu-17", os.getuid(), os.getgid())

    assert (tmp_path / "node_id").read_text() == "mine\n"


def test_a_directory_that_is_the_nodes_is_left_as_it_is(
    prepare: ModuleType, tmp_path: Path
) -> None:
    tmp_path.chmod(0o750)

    prepare.give(tmp_path, os.getuid(), os.getgid(), mode=0o700)

    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o750

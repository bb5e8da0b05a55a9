"""Snapshots on a real file system that shares blocks: XFS or btrfs, mounted for the test."""

import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import penstock
from penstock_node.testbed.cluster import LocalCluster, NodeSpec, TierSpec
from penstock_node.testbed.loop_disk import SIZE_BYTES, LoopDisk, maker
from penstock_node.testbed.processes import PartFailed

MIB = 1024 * 1024
CHUNK = 64 * 1024
PAYLOAD = random.Random(5).randbytes(20 * MIB + 12_345)


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    if maker() is None:
        pytest.skip("needs root, loop devices and mkfs.xfs or mkfs.btrfs")
    disk = LoopDisk(tmp_path_factory.mktemp("disk"))
    try:
        disk.__enter__()
    except PartFailed as failed:
        pytest.skip(f"nothing can be mounted here: {failed}")
    try:
        yield disk.path
    finally:
        disk.__exit__(None, None, None)


@pytest.fixture(scope="module")
def address(disk: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A node alone, whose chunks lie on that disk."""
    directory = tmp_path_factory.mktemp("cluster")
    origin = directory / "origin"
    origin.mkdir()
    (origin / "model").write_bytes(PAYLOAD)
    (origin / "cold").write_bytes(PAYLOAD[::-1])
    with (origin / "huge").open("wb") as huge:
        huge.truncate(SIZE_BYTES)
    with tempfile.TemporaryDirectory(prefix="penstock-") as sockets:
        spec = NodeSpec(
            "node",
            (TierSpec("owned", 64 * MIB, disk / "tier"),),
            config={"allow_file_roots": [str(origin)], "socket": f"{sockets}/node.sock"},
        )
        with LocalCluster(
            directory,
            [spec],
            etcd=None,
            settings={"chunk_size": CHUNK},
            volumes={"data": {"url": f"file://{origin}/"}},
        ) as cluster:
            yield f"unix:{cluster['node'].file.socket}"


def test_a_node_alone_brings_what_it_lacks_and_gives_files_of_it(address: str, disk: Path) -> None:
    with penstock.connect(address) as cache:
        report = cache.take_snapshot("penstock://data/cold", disk / "cold")

    assert (disk / "cold/cold").read_bytes() == PAYLOAD[::-1]
    assert report.copied.get("reflink", 0) > 0
    assert sum(report.copied.values()) == len(PAYLOAD)


def used_bytes(disk: Path) -> int:
    os.sync()
    status = os.statvfs(disk)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


@pytest.mark.parametrize("verify", ["full", "node"])
def test_blocks_of_the_nodes_files_are_shared_and_take_no_space(
    address: str, disk: Path, verify: str
) -> None:
    with penstock.connect(address) as cache:
        cache.read("penstock://data/model")
        before = used_bytes(disk)
        report = cache.take_snapshot(
            "penstock://data/model",
            disk / verify,
            verify=verify,  # type: ignore[arg-type]  # one of the two
        )
        after = used_bytes(disk)

    assert (disk / verify / "model").read_bytes() == PAYLOAD
    assert report.copied == {"reflink": len(PAYLOAD)}
    assert after - before < len(PAYLOAD) // 4


def test_what_does_not_fit_is_refused_before_anything_is_written(address: str, disk: Path) -> None:
    with (
        penstock.connect(address) as cache,
        pytest.raises(penstock.NoSpace, match=r"335\.5 MB are to come"),
    ):
        cache.snapshot("penstock://data/huge", disk / "huge")

    assert not (disk / "huge/huge").exists()
    assert list((disk / "huge/.penstock/partial").iterdir()) == []

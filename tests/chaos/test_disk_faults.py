"""A node of two disks, one of which goes bad: its readers notice nothing, its weight follows."""

import contextlib
import random
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

import pytest

import penstock
from penstock_node.testbed.cluster import LocalCluster, NodeProcess, NodeSpec, TierSpec
from penstock_node.testbed.odd_disk import OddDisk, small_disk
from penstock_node.testbed.processes import wait_until
from penstock_node.testbed.s3 import S3Server

CAPACITY_BYTES = 64 << 20
CHUNK_BYTES = 256 << 10
OBJECT_BYTES = 4 << 20
DEADLINE_S = 20.0
PAUSE_S = 0.05
"""Between two reads: leaves the processors to the node."""
Plane: TypeAlias = Literal["auto", "bulk", "grpc"]
PLANES: tuple[Plane, ...] = ("bulk", "grpc")
BOTH_DISKS, ONE_DISK = 100, 50
"""Weights of the node: as many bytes as it began with are 100."""


@dataclass
class Rig:
    """One node with an ordinary disk and an odd one, over an origin of its own."""

    node: NodeProcess
    s3: S3Server
    bucket: str
    odd: Path
    plain: Path
    objects: dict[str, bytes] = field(default_factory=dict)
    _rng: random.Random = field(default_factory=lambda: random.Random(4))

    def put(self, name: str) -> str:
        """Store an object at the origin; return its url."""
        data = self._rng.randbytes(OBJECT_BYTES)
        self.s3.put(self.bucket, name, data)
        self.objects[url := f"penstock://models/{name}"] = data
        return url

    def read(self, url: str, *, plane: Plane = "auto") -> None:
        """Read an object, with a client of its own, and see that it is right."""
        with penstock.connect(self.node.address, plane=plane) as cache:
            assert cache.read(url) == self.objects[url]

    def is_healthy(self, disk: Path) -> bool:
        return bool(self.node.metrics()[f'penstock_disk_healthy{{disk="{disk}"}}'])

    def wait(self, *, odd_is_healthy: bool, weight: int) -> None:
        """Wait until the node tells so of the odd disk and of itself; the other disk is well."""

        def has_come() -> bool:
            told = self.node.metrics()["penstock_weight"]
            return self.is_healthy(self.odd) == odd_is_healthy and told == weight

        wait_until(has_come, deadline_s=DEADLINE_S, what=f"{self.odd} is {odd_is_healthy}")
        assert self.is_healthy(self.plain)

    def metric(self, name: str) -> float:
        return self.node.metrics()[name]

    def chunks_on(self, disk: Path) -> list[Path]:
        return list(disk.glob("chunks/*/*"))


def rig_on(directory: Path, s3: S3Server, *, odd: Path) -> Rig:
    bucket = directory.name.replace("_", "-")[:60].strip("-")
    s3.create_bucket(bucket)
    tiers = (TierSpec("owned", CAPACITY_BYTES, odd), TierSpec("owned", CAPACITY_BYTES))
    cluster = LocalCluster(
        directory,
        [NodeSpec("solo", tiers)],
        etcd=None,
        settings={"chunk_size": CHUNK_BYTES},
        volumes={"models": {"url": f"s3://{bucket}/", "options": s3.options}},
    )
    node = cluster["solo"]
    return Rig(node, s3, bucket, odd=odd, plain=node.tier_paths[1])


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[OddDisk]:
    with OddDisk(tmp_path / "mount", below=tmp_path / "odd") as made:
        yield made


@pytest.fixture
def rig(tmp_path: Path, s3: S3Server, disk: OddDisk) -> Iterator[Rig]:
    made = rig_on(tmp_path, s3, odd=disk.path)
    with made.node:
        yield made
        if disk.is_mounted:
            disk.become("well")  # A process whose threads hang in a disk does not stop.


@contextlib.contextmanager
def readers(rig: Rig, url: str) -> Iterator[None]:
    """Read one object over and over, on two planes, while something happens; all must go well."""
    stop = threading.Event()

    def read(plane: Plane) -> None:
        while not stop.wait(PAUSE_S):
            rig.read(url, plane=plane)

    with ThreadPoolExecutor() as threads:
        reading = [threads.submit(read, plane) for plane in PLANES]
        try:
            yield
        finally:
            stop.set()
        for each in reading:
            each.result()


def test_a_disk_that_returns_errors_is_left_out_and_taken_back(rig: Rig, disk: OddDisk) -> None:
    url = rig.put("model.bin")
    rig.read(url)
    assert rig.chunks_on(disk.backing)
    assert rig.chunks_on(rig.plain)

    with readers(rig, url):
        disk.become("failing")
        rig.wait(odd_is_healthy=False, weight=ONE_DISK)
        rig.read(rig.put("other.bin"))
        disk.become("well")
        rig.wait(odd_is_healthy=True, weight=BOTH_DISKS)

    rig.read(rig.put("another.bin"))
    assert rig.metric("penstock_corrupt_chunks_total") == 0


def test_a_disk_that_hangs_holds_up_nobody_for_long(rig: Rig, disk: OddDisk) -> None:
    url = rig.put("model.bin")
    rig.read(url)

    with readers(rig, url):
        disk.become("hanging")
        rig.wait(odd_is_healthy=False, weight=ONE_DISK)
        rig.read(url)
        rig.read(rig.put("other.bin"))
        disk.become("well")

    rig.wait(odd_is_healthy=True, weight=BOTH_DISKS)
    rig.read(url)


def test_a_disk_that_turns_read_only_is_left_out(rig: Rig, disk: OddDisk) -> None:
    url = rig.put("model.bin")
    rig.read(url)

    with readers(rig, url):
        disk.become("read-only")
        rig.read(rig.put("other.bin"))
        rig.wait(odd_is_healthy=False, weight=ONE_DISK)


def test_a_tier_unmounted_under_load_is_left_out_until_it_is_mounted_again(
    rig: Rig, disk: OddDisk
) -> None:
    url = rig.put("model.bin")
    rig.read(url)
    kept = rig.chunks_on(disk.backing)

    with readers(rig, url):
        disk.unmount()
        rig.wait(odd_is_healthy=False, weight=ONE_DISK)
        rig.read(rig.put("other.bin"))
        assert list(disk.path.iterdir()) == [], "nothing is written below the mount point"
        disk.mount()
        rig.wait(odd_is_healthy=True, weight=BOTH_DISKS)

    assert set(kept) <= set(rig.chunks_on(disk.backing))


def test_a_bad_file_on_a_disk_that_was_away_is_found(rig: Rig, disk: OddDisk) -> None:
    url = rig.put("model.bin")
    rig.read(url)
    disk.unmount()
    rig.wait(odd_is_healthy=False, weight=ONE_DISK)
    flipped, cut, *_ = sorted(rig.chunks_on(disk.backing))
    flip_byte(flipped)
    with cut.open("r+b") as file:
        file.truncate(1000)

    disk.mount()
    rig.wait(odd_is_healthy=True, weight=BOTH_DISKS)
    with penstock.connect(rig.node.address) as cache:
        held = [chunk for chunk in cache.locate(url).chunks if chunk.held_by]
        assert len(held) == OBJECT_BYTES // CHUNK_BYTES

    rig.read(url)
    assert rig.metric("penstock_corrupt_chunks_total") == 2


def flip_byte(path: Path) -> None:
    with path.open("r+b") as file:
        first = file.read(1)
        file.seek(0)
        file.write(bytes([first[0] ^ 1]))


def test_a_disk_that_others_fill_evicts_and_costs_no_reader_anything(
    tmp_path: Path, s3: S3Server
) -> None:
    with small_disk(tmp_path / "small", size_bytes=8 << 20) as small:
        rig = rig_on(tmp_path, s3, odd=small)
        with rig.node:
            first, second = rig.put("first.bin"), rig.put("second.bin")
            rig.read(first)
            free_bytes = shutil.disk_usage(small).free
            (small / "of-others").write_bytes(bytes(free_bytes - CHUNK_BYTES))

            rig.read(second)
            rig.read(first)

            assert rig.metric("penstock_evicted_bytes_total") > 0
            assert rig.is_healthy(small)


def test_a_node_starts_without_a_disk_that_is_dead_and_takes_it_in_later(
    rig: Rig, disk: OddDisk
) -> None:
    url = rig.put("model.bin")
    rig.read(url)
    rig.node.stop()
    disk.become("failing")

    rig.node.start()

    rig.wait(odd_is_healthy=False, weight=ONE_DISK)
    assert "a disk is out of use" in rig.node.process.log_tail()
    rig.read(url)
    disk.become("well")
    rig.wait(odd_is_healthy=True, weight=BOTH_DISKS)
    rig.read(url)

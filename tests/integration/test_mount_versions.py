"""Overwritten objects in a mount: no file has bytes of two versions, and what is opened is new."""

import errno
import mmap
import os
import random
import tempfile
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.mounted import MountProcess
from penstock_node.testbed.processes import wait_until
from penstock_node.testbed.s3 import S3Server
from penstock_node.testbed.site import MIB, Site
from tests.integration.mount_rig import (
    SEEN_WITHIN_S,
    SETTINGS,
    MountRig,
    host_node,
    opened,
    verb,
)

OLD, NEW = random.Random(1).randbytes(3 * MIB + 5), random.Random(2).randbytes(2 * MIB + 77)
LONGER = random.Random(3).randbytes(4 * MIB + 1)
PAGE = 4096


@pytest.fixture(scope="module")
def rig(
    s3: S3Server, etcd: EtcdServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MountRig]:
    with tempfile.TemporaryDirectory(prefix="penstock-") as sockets:
        nodes = (host_node(Path(sockets, "node.sock")),)
        directory = tmp_path_factory.mktemp("versions")
        with Site(directory, s3, etcd, nodes=nodes, settings=SETTINGS) as site:
            yield MountRig(site, tmp_path_factory.mktemp("mounts"))


@pytest.fixture(scope="module")
def mounted(rig: MountRig) -> Iterator[MountProcess]:
    with rig.mount("all") as running:
        yield running


@pytest.fixture
def file(rig: MountRig, mounted: MountProcess, request: pytest.FixtureRequest) -> Path:
    """A file of the test's own, with the old bytes."""
    path = f"{request.node.name.strip(']').replace('[', '-')}.bin"
    rig.put(path, OLD)
    return mounted.point / "models" / path


def overwrite(rig: MountRig, file: Path, data: bytes) -> None:
    """Overwrite an object, and wait until an open gives the new version."""
    rig.put(file.name, data)
    wait_until(
        lambda: file.read_bytes() == data,
        deadline_s=SEEN_WITHIN_S,
        what="the new version is seen",
    )


def served_bytes(rig: MountRig) -> float:
    """All that the node has given to readers so far, by whatever plane."""
    return rig.site.cluster.total("penstock_served_bytes_total")


@pytest.mark.parametrize("new", [NEW, LONGER, b"", b"short"])
def test_a_file_that_is_opened_after_an_overwrite_has_the_new_bytes_and_size(
    rig: MountRig, file: Path, new: bytes
) -> None:
    assert file.read_bytes() == OLD

    overwrite(rig, file, new)

    assert file.stat().st_size == len(new)
    with opened(file) as descriptor:
        assert os.fstat(descriptor).st_size == len(new)
        assert os.read(descriptor, 8 * MIB) == new


def test_an_open_gives_the_new_version_however_long_names_and_listings_are_believed(
    rig: MountRig, file: Path
) -> None:
    wait_until(lambda: file in file.parent.iterdir(), deadline_s=SEEN_WITHIN_S, what="it is listed")
    with rig.mount("believes", "--name-ttl=24h", "--list-ttl=24h") as believing:
        there = believing.point / "models" / file.name
        listed = [each for each in there.parent.iterdir() if each == there]
        assert (len(listed), there.read_bytes()) == (1, OLD)

        overwrite(rig, there, LONGER)

        assert there.stat().st_size == len(LONGER)


def test_an_open_gives_the_new_version_while_nodes_list_the_old_one(
    s3: S3Server, etcd: EtcdServer, tmp_path: Path
) -> None:
    settings = {**SETTINGS, "list_ttl_s": 60.0}
    directory = tmp_path / "old-listings"
    directory.mkdir()
    nodes = (host_node(tmp_path / "node.sock"),)
    with Site(directory, s3, etcd, nodes=nodes, settings=settings) as site:
        rig = MountRig(site, tmp_path)
        for name in ("file", "other"):
            rig.put(name, OLD)
        with rig.mount("mnt") as mounted:
            there = mounted.point / "models"
            # One name looked at alone, then all listed: the next look lists again.
            assert (there / "other").stat().st_size == len(OLD)
            assert sorted(each.name for each in there.iterdir()) == ["file", "other"]
            assert (there / "file").read_bytes() == OLD

            overwrite(rig, there / "file", NEW)

            assert (there / "file").stat().st_size == len(NEW)


def test_no_open_ever_has_bytes_or_a_size_of_two_versions(rig: MountRig, file: Path) -> None:
    versions = [OLD, NEW, LONGER]
    seen: set[int] = set()
    failures: list[str] = []
    is_over = threading.Event()

    def read() -> None:
        while not is_over.is_set():
            try:
                data = file.read_bytes()
            except OSError as error:
                if error.errno != errno.ESTALE:
                    failures.append(repr(error))
                continue
            if data not in versions:
                failures.append(f"{len(data)} bytes of no version")
            seen.add(len(data))

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for version in [NEW, LONGER, OLD, NEW]:
        rig.put(file.name, version)
        size = len(version)
        wait_until(partial(seen.__contains__, size), deadline_s=SEEN_WITHIN_S, what="it is read")
        seen.clear()
    is_over.set()
    for reader in readers:
        reader.join()

    assert failures == []


def test_a_file_that_is_open_stays_what_it_was_beside_the_new_one(
    rig: MountRig, file: Path
) -> None:
    with opened(file) as before:
        assert os.pread(before, len(OLD), 0) == OLD  # So the cluster has it.
        os.posix_fadvise(before, 0, 0, os.POSIX_FADV_DONTNEED)
        old_map = mmap.mmap(before, 0, access=mmap.ACCESS_READ)
        overwrite(rig, file, LONGER)

        with (
            opened(file) as after,
            old_map,
            mmap.mmap(after, 0, access=mmap.ACCESS_READ) as new_map,
        ):
            # In turn, page by page: each has pages of its own.
            for at in range(0, len(OLD), 16 * PAGE):
                assert os.pread(after, PAGE, at) == LONGER[at : at + PAGE]
                assert os.pread(before, PAGE, at) == OLD[at : at + PAGE]
            assert (old_map[:], new_map[:]) == (OLD, LONGER)
            assert os.fstat(before).st_size == len(OLD)
            assert os.fstat(after).st_size == len(LONGER)


def test_a_version_that_is_no_longer_to_be_had_is_a_stale_file(rig: MountRig, file: Path) -> None:
    url = f"penstock://models/{file.name}"
    with opened(file) as before:
        assert os.pread(before, PAGE, 0) == OLD[:PAGE]
        rig.put(file.name, NEW)
        assert verb("evict", url, "--address", rig.site.address).returncode == 0
        os.posix_fadvise(before, 0, 0, os.POSIX_FADV_DONTNEED)

        with pytest.raises(OSError, match="Stale file handle") as refused:
            os.pread(before, MIB, 2 * MIB)

    assert refused.value.errno == errno.ESTALE
    overwrite(rig, file, NEW)
    assert file.read_bytes() == NEW


def test_an_overwrite_with_the_same_size_is_another_version(rig: MountRig, file: Path) -> None:
    same_size = OLD[::-1]
    assert file.read_bytes() == OLD

    rig.put(file.name, same_size)

    wait_until(lambda: file.read_bytes() == same_size, deadline_s=SEEN_WITHIN_S, what="it is seen")


def test_what_the_kernel_has_of_a_version_is_not_read_again_at_the_next_open(
    rig: MountRig, file: Path
) -> None:
    assert file.read_bytes() == OLD
    before = served_bytes(rig)

    heads = rig.site.origin_requests("head")
    wait_until(
        lambda: file.read_bytes() == OLD and rig.site.origin_requests("head") > heads,
        deadline_s=SEEN_WITHIN_S,
        what="the origin is asked again, and has the same version",
    )
    assert file.read_bytes() == OLD
    assert served_bytes(rig) == before

    with opened(file) as descriptor:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    assert file.read_bytes() == OLD
    assert served_bytes(rig) > before


def test_a_listing_shows_the_new_size_and_the_file_behind_it_is_that(
    rig: MountRig, file: Path
) -> None:
    def is_listed_with(data: bytes) -> bool:
        with os.scandir(file.parent) as entries:
            return any(
                (each.name, each.stat().st_size) == (file.name, len(data)) for each in entries
            )

    wait_until(partial(is_listed_with, OLD), deadline_s=SEEN_WITHIN_S, what="it is listed")
    rig.put(file.name, NEW)

    wait_until(partial(is_listed_with, NEW), deadline_s=SEEN_WITHIN_S, what="it is listed anew")

    assert file.read_bytes() == NEW

"""What programs find in a mount: names, attributes and bytes, by the tools that people use."""

import errno
import hashlib
import mmap
import os
import random
import stat
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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
    output_of,
    verb,
)

MANY = 1_200
MODEL = {
    "model/config.json": b'{"model_type": "tiny"}',
    "model/weights.safetensors": random.Random(1).randbytes(9 * MIB + 12_345),
    "model/deep/er/part.bin": random.Random(2).randbytes(300_000),
    "model/empty": b"",
}
ODD_NAMES = (
    "two words",
    "ünïcödé 日本 🐳",
    "per%20cent",
    "what?",
    "hash#tag",
    "quote'\"`",
    "-rf",
    "*",
    "[a]{b}",
    "dot.",
    "~tilde$HOME",
    "a=b&c+d,e;f:g@h!",
)
LISTS_FOR_MANY = 2 * (MANY // 1000 + 2)
"""Requests to the origin for one listing of `MANY`, and as many again to be sure of nothing."""


@pytest.fixture(scope="module")
def rig(
    s3: S3Server, etcd: EtcdServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MountRig]:
    with tempfile.TemporaryDirectory(prefix="penstock-") as sockets:
        nodes = (host_node(Path(sockets, "node.sock")),)
        directory = tmp_path_factory.mktemp("mount")
        with Site(directory, s3, etcd, nodes=nodes, settings=SETTINGS) as site:
            made = MountRig(site, tmp_path_factory.mktemp("mounts"))
            for path, data in MODEL.items():
                made.put(path, data)
            for name in ODD_NAMES:
                made.put(f"odd/{name}", name.encode())
            with ThreadPoolExecutor(8) as threads:
                list(
                    threads.map(lambda at: made.put(f"many/f{at:05}", b"x" * (at + 1)), range(MANY))
                )
            made.put("twice", b"the object")
            made.put("twice-and-more", b"in between")
            made.put("twice/below", b"below it")
            yield made


@pytest.fixture(scope="module")
def mounted(rig: MountRig) -> Iterator[MountProcess]:
    with rig.mount("all") as running:
        yield running


@pytest.fixture(scope="module")
def volume(mounted: MountProcess) -> Path:
    return mounted.point / "models"


@pytest.fixture(scope="module")
def model(volume: Path) -> Path:
    return volume / "model"


def names(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_volumes_are_the_directories_at_the_top(mounted: MountProcess) -> None:
    assert names(mounted.point) == ["models"]
    with pytest.raises(FileNotFoundError):
        (mounted.point / "other").stat()


def test_a_directory_holds_its_objects_and_directories(model: Path) -> None:
    kinds = {entry.name: entry.is_dir() for entry in os.scandir(model)}

    assert kinds == {
        "config.json": False,
        "deep": True,
        "empty": False,
        "weights.safetensors": False,
    }
    assert names(model / "deep/er") == ["part.bin"]


@pytest.mark.parametrize("path", MODEL)
def test_a_file_has_every_byte_of_its_object(volume: Path, path: str) -> None:
    assert (volume / path).read_bytes() == MODEL[path]


def test_attributes_are_the_objects_and_the_owner_is_who_mounted(
    rig: MountRig, volume: Path
) -> None:
    path = "model/weights.safetensors"
    with rig.site.cluster.connect() as cache:
        modified = cache.stat(f"penstock://models/{path}").modified
    assert modified is not None

    found, directory = (volume / path).stat(), (volume / "model").stat()

    assert (found.st_size, int(found.st_mtime)) == (len(MODEL[path]), int(modified.timestamp()))
    assert found.st_blocks == -(-len(MODEL[path]) // 512)
    assert (found.st_mode, directory.st_mode) == (stat.S_IFREG | 0o444, stat.S_IFDIR | 0o555)
    assert {found.st_uid, directory.st_uid} == {os.getuid()}
    assert {found.st_gid, directory.st_gid} == {os.getgid()}
    assert (found.st_nlink, directory.st_nlink) == (1, 2)


def test_an_inode_number_is_the_same_in_another_mount_and_in_listings(
    rig: MountRig, volume: Path
) -> None:
    file = volume / "model/config.json"
    listed = {entry.name: entry.inode() for entry in os.scandir(file.parent)}

    with rig.mount("again") as again:
        seen_there = (again.point / "models/model/config.json").stat().st_ino

    assert file.stat().st_ino == listed["config.json"] == seen_there


@pytest.mark.parametrize("name", ODD_NAMES)
def test_every_name_that_an_object_can_have_is_listed_and_opened(volume: Path, name: str) -> None:
    assert name in names(volume / "odd")
    assert (volume / "odd" / name).read_bytes() == name.encode()


@pytest.mark.parametrize("name", [b"\xff\xfe", b"new\nline", b"n" * 255, "ü".encode() * 127])
def test_a_name_that_no_object_has_is_not_found(volume: Path, name: bytes) -> None:
    with pytest.raises(FileNotFoundError):
        Path(volume, "odd", os.fsdecode(name)).stat()


def test_an_object_with_others_below_it_is_a_directory_looked_up_or_listed(
    rig: MountRig, volume: Path
) -> None:
    with rig.mount("lookups") as fresh:
        below = fresh.point / "models/twice/below"
        assert below.read_bytes() == b"below it"  # Before anybody has listed anything.

    kinds = [(each.name, each.is_dir()) for each in os.scandir(volume) if "twice" in each.name]

    assert sorted(kinds) == [("twice", True), ("twice-and-more", False)]
    assert (volume / "twice" / "below").read_bytes() == b"below it"


def test_the_log_tells_once_that_an_object_is_hidden_by_a_directory(rig: MountRig) -> None:
    with rig.mount("hidden") as fresh:
        for _ in range(3):
            names(fresh.point / "models")
        log = fresh.process.log_tail()

    assert log.count("penstock://models/twice is an object, and others lie below it") == 1


def test_copies_archives_and_checksums_by_the_usual_tools_are_right(
    model: Path, tmp_path: Path
) -> None:
    big = model / "weights.safetensors"
    data = MODEL["model/weights.safetensors"]

    subprocess.run(["cp", "-r", model, tmp_path / "copy"], check=True)
    subprocess.run(["tar", "-cf", tmp_path / "a.tar", "-C", model, "."], check=True)
    subprocess.run(
        ["dd", f"if={big}", f"of={tmp_path / 'dd'}", "bs=1M", "skip=1", "status=none"], check=True
    )

    assert (tmp_path / "copy/weights.safetensors").read_bytes() == data
    assert (tmp_path / "copy/deep/er/part.bin").read_bytes() == MODEL["model/deep/er/part.bin"]
    with tarfile.open(tmp_path / "a.tar") as archive:
        member = archive.extractfile("./weights.safetensors")
        assert member is not None
        assert member.read() == data
    assert (tmp_path / "dd").read_bytes() == data[MIB:]
    assert output_of("sha256sum", big).split()[0] == sha256(data)
    assert output_of("cat", big.with_name("config.json")) == MODEL["model/config.json"].decode()


def test_find_du_ls_stat_and_df_tell_what_there_is(mounted: MountProcess, model: Path) -> None:
    found = output_of("find", model, "-type", "f").split()
    total = sum(map(len, MODEL.values()))
    blocks = sum(-(-len(data) // 512) for data in MODEL.values())

    assert len(found) == len(MODEL)
    assert output_of("du", "-sb", "--apparent-size", model).split()[0] == str(total)
    assert output_of("du", "-s", "--block-size=512", model).split()[0] == str(blocks)
    assert "-r--r--r-- 1 " in output_of("ls", "-l", model)
    assert output_of("stat", "-f", "--format=%T", model).strip() in ("fuseblk", "fuse")
    df = output_of("df", "--output=source,size,used,avail,fstype", mounted.point).splitlines()[1]
    assert df.split() == ["penstock://", str(1 << 40), "0", "0", "fuse.penstock"]


def test_a_map_of_a_file_has_its_bytes_wherever_it_is_touched(model: Path) -> None:
    data, rng = MODEL["model/weights.safetensors"], random.Random(3)
    with (model / "weights.safetensors").open("rb") as file:
        view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        with view:
            for _ in range(50):
                at = rng.randrange(len(data))
                assert view[at : at + 5_000] == data[at : at + 5_000]


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDONLY | os.O_DIRECT])
def test_reads_at_any_offset_have_the_right_bytes_and_end_at_the_end(
    model: Path, flags: int
) -> None:
    data, rng = MODEL["model/weights.safetensors"], random.Random(4)
    with opened(model / "weights.safetensors", flags) as descriptor:
        for _ in range(50):
            at = rng.randrange(len(data)) // 4096 * 4096
            length = rng.choice([4096, 65_536, 3 * MIB])
            buffer = mmap.mmap(-1, length)
            got = os.preadv(descriptor, [buffer], at)
            assert got == min(length, len(data) - at)
            assert buffer[:got] == data[at : at + got]
        assert os.preadv(descriptor, [bytearray(4096)], 10 * MIB) == 0


def test_threads_that_read_parts_of_one_file_get_the_right_bytes(model: Path) -> None:
    data, threads = MODEL["model/weights.safetensors"], 16
    part = -(-len(data) // threads)
    with opened(model / "weights.safetensors") as descriptor, ThreadPoolExecutor(threads) as pool:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        parts = pool.map(lambda at: os.pread(descriptor, part, at * part), range(threads))

        assert b"".join(parts) == data


def test_thousands_of_files_are_open_at_once_in_little_memory(
    mounted: MountProcess, volume: Path
) -> None:
    paths = [volume / f"many/f{at:05}" for at in range(1_000)] * 2
    descriptors = []
    try:
        for path in paths:
            descriptors.append(os.open(path, os.O_RDONLY))  # noqa: PERF401 - all are closed
        sizes = [len(os.read(descriptor, 4096)) for descriptor in descriptors]
        held = len(names(Path(f"/proc/{mounted.process.pid}/fd")))
    finally:
        for descriptor in descriptors:
            os.close(descriptor)

    assert sizes == [min(at, 4096) for at in range(1, 1_001)] * 2
    assert held < 700, "an open file holds no descriptor of the mount's"


def test_a_long_listing_of_a_large_directory_costs_a_request_a_page(rig: MountRig) -> None:
    # A listing that is believed for as long as this takes, on the slowest machine.
    with rig.mount("large", "--list-ttl=60s") as fresh:
        directory = fresh.point / "models/many"
        directory.stat()
        lists, heads = (rig.site.origin_requests(kind) for kind in ("list", "head"))

        lines = output_of("ls", "-l", directory).splitlines()

        assert len(lines) == MANY + 1
        assert lines[-1].split()[4] == str(MANY)
        assert rig.site.origin_requests("list") - lists <= LISTS_FOR_MANY
        assert rig.site.origin_requests("head") == heads


def test_many_names_of_a_directory_opened_one_by_one_cost_few_listings(rig: MountRig) -> None:
    with rig.mount("by-name", "--list-ttl=60s") as fresh:
        directory = fresh.point / "models/many"
        lists = rig.site.origin_requests("list")

        sizes = [(directory / f"f{at:05}").stat().st_size for at in range(500)]

        assert sizes == list(range(1, 501))
        # Of the directory, of what lies below the first name, and a page of all names.
        assert rig.site.origin_requests("list") - lists <= 6


def test_a_directory_is_read_again_from_the_middle_and_from_the_beginning(volume: Path) -> None:
    script = (
        "opendir(my $d, $ARGV[0]) or die; my @a; push @a, scalar readdir $d for 1..900;"
        "my $at = telldir $d; my $next = readdir $d; readdir $d for 1..200; seekdir($d, $at);"
        "die unless $next eq readdir $d; rewinddir $d; my @all = readdir $d; print scalar @all"
    )

    assert output_of("perl", "-e", script, volume / "many") == str(MANY + 2)


@pytest.mark.parametrize(
    "change",
    [
        lambda at: (at / "new").write_bytes(b""),
        lambda at: (at / "new").mkdir(),
        lambda at: (at / "config.json").unlink(),
        lambda at: (at / "config.json").rename(at / "other"),
        lambda at: (at / "config.json").chmod(0o600),
        lambda at: (at / "config.json").open("r+b"),
        lambda at: os.truncate(at / "config.json", 1),
        lambda at: os.utime(at / "config.json"),
        lambda at: (at / "link").symlink_to("config.json"),
        lambda at: os.link(at / "config.json", at / "link"),
        lambda at: os.setxattr(at / "config.json", "user.x", b"y"),
        lambda at: (at / "deep").rmdir(),
    ],
)
def test_whatever_would_change_something_is_refused(model: Path, change: object) -> None:
    assert callable(change)

    with pytest.raises(OSError) as refused:  # noqa: PT011 - its number is looked at
        change(model)

    assert refused.value.errno == errno.EROFS


def test_extended_attributes_tell_the_url_and_the_version(rig: MountRig, model: Path) -> None:
    url = "penstock://models/model/config.json"
    with rig.site.cluster.connect() as cache:
        version = cache.stat(url).version

    file = model / "config.json"

    assert os.listxattr(file) == ["user.penstock.url", "user.penstock.version"]
    assert os.getxattr(file, "user.penstock.url") == url.encode()
    assert os.getxattr(file, "user.penstock.version") == version.encode()
    assert os.getxattr(model, "user.penstock.url") == b"penstock://models/model"
    with pytest.raises(OSError, match="No data"):
        os.getxattr(file, "user.other")


@pytest.mark.parametrize(
    "url", ["penstock://models/model", "penstock://models/model/", "s3://{bucket}/model"]
)
def test_a_url_shows_what_lies_below_it_alone(rig: MountRig, url: str) -> None:
    with rig.mount("part", url.format(bucket=rig.site.name)) as part:
        assert names(part.point) == ["config.json", "deep", "empty", "weights.safetensors"]
        assert (part.point / "deep/er/part.bin").read_bytes() == MODEL["model/deep/er/part.bin"]
        assert (part.point / "config.json").read_bytes() == MODEL["model/config.json"]


def test_objects_and_volumes_come_and_go(
    rig: MountRig, mounted: MountProcess, volume: Path
) -> None:
    file = volume / "comes/and-goes"
    assert not file.exists()

    rig.put("comes/and-goes", b"now")
    wait_until(file.exists, deadline_s=SEEN_WITHIN_S, what="a new object is seen")
    assert names(file.parent) == ["and-goes"]
    rig.remove("comes/and-goes")
    wait_until(lambda: not file.exists(), deadline_s=SEEN_WITHIN_S, what="it is gone")

    added = ["volume", "add", "second", f"s3://{rig.site.name}/model/"]
    options = [f"--option={key}={value}".lower() for key, value in rig.site.s3.options.items()]
    assert verb(*added, *options, "--address", rig.site.address).returncode == 0
    seen = mounted.point / "second/config.json"
    wait_until(seen.exists, deadline_s=SEEN_WITHIN_S, what="a new volume is seen")
    assert verb("volume", "rm", "second", "--address", rig.site.address).returncode == 0
    wait_until(lambda: not seen.exists(), deadline_s=SEEN_WITHIN_S, what="it is gone")


def test_scans_by_several_programs_at_once_see_everything(volume: Path) -> None:
    seen: list[int] = []

    def scan() -> None:
        seen.append(sum(len(files) for _, _, files in os.walk(volume)))

    threads = [threading.Thread(target=scan) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    everything = len(MODEL) + len(ODD_NAMES) + MANY + 2
    assert seen == [everything] * 6

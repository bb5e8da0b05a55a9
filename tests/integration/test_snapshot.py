"""Snapshots: files that appear whole, by several processes, after kills, in both layouts."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from typer.testing import CliRunner

import penstock
import penstock.aio
from penstock.cli.app import app
from penstock.snapshots.manifest import Manifest
from penstock_node.testbed.cluster import NodeSpec, TierSpec
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.odd_origin import OddObject, OddOrigin
from penstock_node.testbed.processes import wait_until
from penstock_node.testbed.s3 import S3Server
from penstock_node.testbed.site import Site

MIB = 1024 * 1024
CHUNK = 64 * 1024
READS_ANSWERED = 5
ENDS_WITHIN_S = 20
MODEL = {
    "config.json": b'{"model_type": "tiny"}',
    "model.safetensors": random.Random(1).randbytes(3 * MIB + 12_345),
    "deep/er/weights ü.bin": random.Random(2).randbytes(5 * CHUNK),
    "empty": b"",
}
TOTAL = sum(map(len, MODEL.values()))


@dataclass(frozen=True, slots=True)
class Rig:
    """An owner, and a node of this machine with a socket, over S3."""

    site: Site

    def put(self, folder: str, files: dict[str, bytes]) -> str:
        for path, data in files.items():
            self.site.s3.put(self.site.name, f"{folder}/{path}", data)
        return f"penstock://models/{folder}"

    def connect(self, plane: str = "bulk") -> penstock.Cache:
        return penstock.connect(self.site.address, plane=plane)

    @property
    def host_address(self) -> str:
        return f"unix:{self.site.cluster['host'].file.socket}"

    def command(self, *words: str | Path, address: str = "") -> list[str]:
        told = ("--address", address or self.site.address)
        return [sys.executable, "-m", "penstock", *map(str, words), *told]

    def run(self, *words: str | Path) -> Any:
        """Run a verb in this process: most of a program's time is its start."""
        told = (*map(str, words), "--address", self.site.address)
        return CliRunner().invoke(app, told)


@pytest.fixture(scope="module")
def rig(s3: S3Server, etcd: EtcdServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with tempfile.TemporaryDirectory(prefix="penstock-") as sockets:
        nodes = (
            NodeSpec("owner", (TierSpec("owned", 128 * MIB),)),
            NodeSpec(
                "host",
                (TierSpec("local", 128 * MIB),),
                config={"socket": f"{sockets}/node.sock"},
            ),
        )
        settings = {"chunk_size": CHUNK, "list_ttl_s": 0}  # What is open is believed for 10 s.
        directory = tmp_path_factory.mktemp("snapshots")
        with Site(directory, s3, etcd, nodes=nodes, settings=settings) as site:
            yield Rig(site)


@pytest.fixture(scope="module")
def model(rig: Rig) -> str:
    return rig.put("org/tiny", MODEL)


def tree(directory: Path) -> dict[str, bytes]:
    """Every file of a snapshot but for what Penstock keeps of it."""
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and ".penstock" not in path.relative_to(directory).parts
    }


def test_a_tree_is_brought_and_then_not_read_again(rig: Rig, model: str, tmp_path: Path) -> None:
    with rig.connect() as cache:
        first = cache.take_snapshot(model, tmp_path / "tiny")
        again = cache.take_snapshot(model + "/", tmp_path / "tiny")

    assert tree(tmp_path / "tiny") == MODEL
    assert (first.path, first.files, first.bytes) == (tmp_path / "tiny", 4, TOTAL)
    assert (first.fetched_files, first.fetched_bytes, first.copied) == (4, TOTAL, {"read": TOTAL})
    assert sum(first.sources.values()) == TOTAL
    assert (again.kept_files, again.kept_bytes, again.fetched_files) == (4, TOTAL, 0)
    assert (again.copied, sum(again.sources.values())) == ({}, 0)


def test_files_of_this_machines_node_are_copied_by_the_kernel(
    rig: Rig, model: str, tmp_path: Path
) -> None:
    with penstock.connect(rig.host_address) as cache:
        cache.read(f"{model}/model.safetensors")  # Now the node keeps it in files.
        report = cache.take_snapshot(model, tmp_path / "tiny")

    assert tree(tmp_path / "tiny") == MODEL
    by_kernel = sum(size for way, size in report.copied.items() if way != "read")
    assert by_kernel >= len(MODEL["model.safetensors"])
    assert sum(report.copied.values()) == TOTAL


def test_a_chunk_file_that_is_wrong_is_not_what_lands(rig: Rig, tmp_path: Path) -> None:
    url = rig.put("flipped", {"file": MODEL["model.safetensors"]})
    (tier,) = rig.site.cluster["host"].tier_paths
    before = set(tier.glob("chunks/*/*"))
    with penstock.connect(rig.host_address) as cache:
        cache.read(f"{url}/file")
        whole = [
            path for path in set(tier.glob("chunks/*/*")) - before if path.stat().st_size > CHUNK
        ]
        for path in whole[:3]:
            path.chmod(0o600)
            with path.open("r+b") as file:
                file.seek(100)
                byte = file.read(1)
                file.seek(100)
                file.write(bytes([byte[0] ^ 1]))
        report = cache.take_snapshot(url, tmp_path / "there")

    assert (tmp_path / "there/file").read_bytes() == MODEL["model.safetensors"]
    assert report.copied["read"] == 3 * CHUNK


def test_the_hubs_own_library_finds_the_model_offline(rig: Rig, model: str, tmp_path: Path) -> None:
    with rig.connect() as cache:
        report = cache.take_snapshot(model, tmp_path, layout="hub", ignore_patterns="*.bin")
    config = huggingface_hub.hf_hub_download(
        "org/tiny", "config.json", cache_dir=tmp_path, local_files_only=True
    )
    found = huggingface_hub.snapshot_download("org/tiny", cache_dir=tmp_path, local_files_only=True)
    scanned = huggingface_hub.scan_cache_dir(tmp_path)

    assert Path(found) == report.path
    assert Path(config).read_bytes() == MODEL["config.json"]
    expected = {name: data for name, data in MODEL.items() if not name.endswith(".bin")}
    assert tree(Path(found)) == expected
    assert scanned.warnings == []
    (repo,) = scanned.repos
    assert (repo.repo_id, list(repo.refs)) == ("org/tiny", ["main"])


def test_a_new_version_is_another_commit_and_what_did_not_change_is_not_read_again(
    rig: Rig, tmp_path: Path
) -> None:
    url = rig.put("org/moving", {"weights": b"same" * 1000, "config": b"old"})
    with rig.connect() as cache:
        old = cache.take_snapshot(url, tmp_path, layout="hub")
        rig.put("org/moving", {"config": b"new!"})
        new = cache.take_snapshot(url, tmp_path, layout="hub")

    assert (old.path / "config").read_bytes() == b"old"
    assert (new.path / "config").read_bytes() == b"new!"
    assert new.path.parent == old.path.parent
    assert (new.kept_files, new.fetched_files) == (1, 1)
    ref = tmp_path / "models--org--moving/refs/main"
    assert ref.read_text() == new.path.name


def test_an_overwritten_object_replaces_the_file_which_is_whole_until_then(
    rig: Rig, tmp_path: Path
) -> None:
    old, new = (random.Random(seed).randbytes(2 * MIB) for seed in (7, 8))
    url = rig.put("overwritten", {"file": old})
    seen: set[bytes] = set()
    with rig.connect() as cache:
        cache.snapshot(url, tmp_path / "there")
        rig.put("overwritten", {"file": new})
        with (tmp_path / "there/file").open("rb") as before:
            report = cache.take_snapshot(
                url,
                tmp_path / "there",
                on_progress=lambda _done, _total: seen.add((tmp_path / "there/file").read_bytes()),
            )
            assert before.read() == old

    assert (tmp_path / "there/file").read_bytes() == new
    assert seen <= {old, new}
    assert (report.fetched_files, report.continued_bytes) == (1, 0)


def test_processes_that_want_the_same_bring_each_byte_once(
    rig: Rig, model: str, tmp_path: Path
) -> None:
    words = rig.command("get", "-r", model, tmp_path / "shared", "--json")
    running = [
        subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)
    ]
    told = [(process.communicate(timeout=50), process.returncode) for process in running]
    reports = [json.loads(out) for (out, _), _ in told]

    assert [status for _, status in told] == [0, 0]
    assert sum(report["fetched_bytes"] for report in reports) == TOTAL
    assert sum(sum(report["copied"].values()) for report in reports) == TOTAL
    assert all(report["bytes"] == TOTAL for report in reports)
    assert tree(tmp_path / "shared") == MODEL


class HeldOrigin(OddOrigin):
    """Sends the bytes of the first few reads; those of the rest wait until they are let go."""

    def __init__(self) -> None:
        super().__init__()
        self.is_holding = threading.Event()
        self.let_go = threading.Event()

    def take(self, path: str) -> OddObject | None:
        reads = sum(request.method == "GET" for request in self.requests)
        served = super().take(path)
        if reads <= READS_ANSWERED or served is None:
            return served
        self.is_holding.set()
        return replace(served, held_until=self.let_go)


@dataclass(frozen=True, slots=True)
class HalfBrought:
    """A process that brings a file: some pieces have landed, the rest waits for the origin."""

    url: str
    payload: bytes
    process: subprocess.Popen[bytes]
    words: tuple[str | Path, ...]
    let_go: threading.Event


@contextlib.contextmanager
def half_brought(rig: Rig, volume: str, target: Path) -> Iterator[HalfBrought]:
    payload = random.Random(volume).randbytes(40 * CHUNK + 5)
    url = f"penstock://{volume}/model.bin"
    with HeldOrigin() as held:
        held.put("model.bin", OddObject(payload, etag='"1"'))
        added = rig.run("volume", "add", volume, held.url, "--option", "allow_http=true")
        assert added.exit_code == 0, added.stderr
        words = ("get", url, target, "--json")
        interruptible = ["env", "--default-signal=INT", *rig.command(*words)]
        with subprocess.Popen(interruptible, stdout=subprocess.DEVNULL) as getting:
            try:
                wait_until(held.is_holding.is_set, deadline_s=30, what="a read waits")
                wait_until(
                    lambda: landed_pieces(target.parent) > 0, deadline_s=30, what="pieces land"
                )
                yield HalfBrought(url, payload, getting, words, held.let_go)
            finally:
                getting.kill()
                held.let_go.set()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_what_a_killed_process_has_brought_is_continued(
    rig: Rig, tmp_path: Path, number: signal.Signals
) -> None:
    target = tmp_path / "model"
    target.write_bytes(b"old")
    with half_brought(rig, f"killed-{number}", target) as half:
        half.process.send_signal(number)
        status = half.process.wait(ENDS_WITHIN_S)
        half.let_go.set()
        before = target.read_bytes()
        done = rig.run(*half.words)

    assert status == (130 if number == signal.SIGINT else -number)
    assert before == b"old"
    report = json.loads(done.stdout)
    assert 0 < report["continued_bytes"] < len(half.payload)
    assert report["continued_bytes"] + sum(report["copied"].values()) == len(half.payload)
    assert target.read_bytes() == half.payload
    assert list((tmp_path / ".penstock/partial").iterdir()) == []


def test_who_waits_for_a_process_that_is_killed_takes_over(rig: Rig, tmp_path: Path) -> None:
    waits = threading.Event()
    target = tmp_path / "model"
    with (
        rig.connect() as cache,
        ThreadPoolExecutor(1) as thread,
        half_brought(rig, "taken-over", target) as half,
    ):
        waiting = thread.submit(
            cache.take_snapshot,
            half.url,
            tmp_path,
            kind="file",
            name="model",
            on_progress=lambda done, _total: waits.set() if done else None,
        )
        assert waits.wait(30), "it sees what the other has brought"
        half.process.kill()
        half.let_go.set()
        report = waiting.result(50)

    assert target.read_bytes() == half.payload
    assert (report.fetched_files, report.shared_files) == (1, 0)
    assert 0 < report.continued_bytes < len(half.payload)


def landed_pieces(directory: Path) -> int:
    """Return how many whole records the only journal below a directory has."""
    for journal in directory.glob(".penstock/partial/*.pieces"):
        return len(journal.read_bytes().partition(b"\n")[2]) // 16
    return 0


def test_a_byte_that_a_dead_process_left_wrong_is_brought_again(rig: Rig, tmp_path: Path) -> None:
    url = rig.put("left", {"file": MODEL["model.safetensors"]})
    stop = threading.Event()
    with rig.connect() as cache:
        with pytest.raises(penstock.Cancelled):
            cache.snapshot(
                url,
                tmp_path,
                stop=stop,
                on_progress=lambda done, _total: stop.set() if done else None,
            )
        (partial,) = (tmp_path / ".penstock/partial").glob("*.part")
        with partial.open("r+b") as file:
            written = file.read()
            file.seek(0)
            file.write(bytes(byte ^ 1 for byte in written))
        report = cache.take_snapshot(url, tmp_path)

    assert (tmp_path / "file").read_bytes() == MODEL["model.safetensors"]
    assert report.continued_bytes == 0


def test_files_that_were_changed_here_are_brought_again_and_touched_ones_are_not(
    rig: Rig, model: str, tmp_path: Path
) -> None:
    with rig.connect() as cache:
        cache.snapshot(model, tmp_path)
        (tmp_path / "config.json").write_bytes(b"changed here, and longer")
        os.utime(tmp_path / "model.safetensors")
        flipped = bytearray(MODEL["deep/er/weights ü.bin"])
        flipped[7] ^= 1
        looks_untouched(tmp_path / "deep/er/weights ü.bin", bytes(flipped))
        seen = cache.take_snapshot(model, tmp_path)
        checked = cache.take_snapshot(model, tmp_path, check=True)

    assert (seen.fetched_files, seen.kept_files) == (1, 3)
    assert (checked.fetched_files, checked.kept_files) == (1, 3)
    assert tree(tmp_path) == MODEL


def looks_untouched(path: Path, data: bytes) -> None:
    """Change a file's bytes as a disk would: neither its size nor its time."""
    status = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_budget_removes_who_was_used_least_recently_and_nobody_in_use(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_SNAPSHOTS", str(tmp_path))  # The same as root=tmp_path.
    urls = [rig.put(f"budget/m{n}", {"file": bytes([n]) * MIB}) for n in range(4)]
    budget = 3 * MIB - MIB // 2  # Two of them, and what is kept of each.
    with rig.connect() as cache:
        one, two = (cache.snapshot(url, budget_bytes=budget) for url in urls[:2])
        with pytest.raises(penstock.NoSpace, match="in use"):
            cache.snapshot(urls[2], budget_bytes=budget)
        both_are_there = one.exists() and two.exists()
        penstock.release_snapshot(one)
        third = cache.take_snapshot(urls[2], root=str(tmp_path), budget_bytes=budget)
        with pytest.raises(penstock.NoSpace, match=r"budget of 100\.0 kB"):
            cache.snapshot(urls[3], budget_bytes=100_000)

    assert both_are_there
    assert third.removed == [one.name]
    assert not one.exists()
    assert (two / "file").read_bytes() == bytes([1]) * MIB
    assert (third.path / "file").read_bytes() == bytes([2]) * MIB
    for path in (two, third.path):
        penstock.release_snapshot(path)


def test_an_old_commit_makes_room_for_the_new_one_of_its_repository(
    rig: Rig, tmp_path: Path
) -> None:
    url = rig.put("org/rolled", {"shared": b"s" * MIB, "weights": b"1" * MIB})
    budget = 4 * MIB - MIB // 2
    with rig.connect() as cache:
        first = cache.snapshot(url, tmp_path, layout="hub", budget_bytes=budget)
        penstock.release_snapshot(first)
        rig.put("org/rolled", {"weights": b"2" * MIB})
        second = cache.snapshot(url, tmp_path, layout="hub", budget_bytes=budget)
        penstock.release_snapshot(second)
        rig.put("org/rolled", {"weights": b"3" * MIB})
        third = cache.take_snapshot(url, tmp_path, layout="hub", budget_bytes=budget)

    assert (third.kept_files, third.fetched_files) == (1, 1)
    assert not first.exists()
    assert tree(second) == {"shared": b"s" * MIB, "weights": b"2" * MIB}
    assert tree(third.path) == {"shared": b"s" * MIB, "weights": b"3" * MIB}
    penstock.release_snapshot(third.path)


def test_an_origins_own_url_names_the_same_tree(rig: Rig, model: str, tmp_path: Path) -> None:
    with rig.connect() as cache:
        cache.snapshot(f"s3://{rig.site.name}/org/tiny", tmp_path / "tree")
        file = cache.snapshot(f"s3://{rig.site.name}/org/tiny/config.json", tmp_path / "file")

    assert tree(tmp_path / "tree") == MODEL
    assert file == tmp_path / "file/config.json"
    assert file.read_bytes() == MODEL["config.json"]


async def test_a_snapshot_is_awaited_in_an_asyncio_program(
    rig: Rig, model: str, tmp_path: Path
) -> None:
    path = await penstock.aio.snapshot(
        model, tmp_path, address=rig.site.address, allow_patterns="*.json"
    )

    assert tree(path) == {"config.json": MODEL["config.json"]}


def test_a_single_object_goes_where_it_is_told(rig: Rig, model: str, tmp_path: Path) -> None:
    named = rig.run("get", f"{model}/config.json", tmp_path / "mine.json")
    inside = rig.run("get", f"{model}/config.json", tmp_path)

    assert (named.exit_code, inside.exit_code) == (0, 0), named.stderr + inside.stderr
    assert tree(tmp_path) == {
        "mine.json": MODEL["config.json"],
        "config.json": MODEL["config.json"],
    }
    assert str(tmp_path / "mine.json") in named.stdout
    assert "penstock: copied 22 B in" in named.stderr


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (("-r", "penstock://absent/x", "{}"), 1, "there is no volume 'absent'"),
        (("penstock://models/org/tiny", "{}"), 1, "is a directory and no object"),
        (("-r", "penstock://models/org/tiny/config.json", "{}"), 1, "is an object and no"),
        (("-r", "penstock://models/org/nothing", "{}"), 1, "there is nothing at"),
        (("penstock://models/org/tiny/nothing", "{}"), 1, "no such"),
        (("-r", "penstock://models/org/tiny", "{}/file"), 1, "Not a directory"),
        (("penstock://models/org/tiny/empty", "{}/absent/x"), 1, "there is no directory"),
        (("penstock://models/org/tiny/empty", "/dev/null"), 1, "no regular file"),
        (("-r", "penstock://models/org/tiny", "{}", "--include", "*.x"), 1, "none of the 4"),
        (("-r", "penstock://models/org/tiny", "{}", "--layout", "odd"), 2, "layout='odd'"),
        (("-r", "penstock://models/org/tiny", "{}", "--budget", "1GB"), 2, "a budget is for"),
        (("penstock://models/org/tiny/empty", "{}", "--include", "*"), 2, "add -r"),
    ],
)
def test_what_cannot_be_is_refused_and_says_why(
    rig: Rig,
    model: str,
    tmp_path: Path,
    words: tuple[str, ...],
    status: int,
    says: str,
) -> None:
    (tmp_path / "file").write_bytes(b"kept")

    done = rig.run("get", *(word.format(tmp_path) for word in words), "--json")

    assert done.exit_code == status, done.stdout + done.stderr
    told = json.loads(done.stdout)["message"] if status == 1 else " ".join(done.stderr.split())
    assert says in told
    assert "Traceback" not in done.stderr
    assert (tmp_path / "file").read_bytes() == b"kept"


def test_a_link_that_leads_out_of_the_directory_is_not_followed(
    rig: Rig, model: str, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "in/deep").symlink_to(tmp_path / "out")
    with (
        rig.connect() as cache,
        pytest.raises(penstock.InvalidRequest, match="leads out of"),
    ):
        cache.snapshot(model, tmp_path / "in")

    assert list((tmp_path / "out").rglob("*.bin")) == []


def test_an_object_that_is_a_directory_too_is_refused_by_name(rig: Rig, tmp_path: Path) -> None:
    url = rig.put("twice", {"a/b": b"below"})
    store = rig.site.s3.bucket(rig.site.name)
    store.put("twice/a", b"above")
    with rig.connect() as cache:
        if {info.url for info in cache.list(url)} != {f"{url}/a", f"{url}/a/b"}:
            pytest.skip("this S3 server keeps files: it has no such objects")
        with pytest.raises(penstock.InvalidRequest, match="'a': are objects and directories"):
            cache.snapshot(url, tmp_path)


def test_the_manifest_tells_version_size_and_checksum(rig: Rig, model: str, tmp_path: Path) -> None:
    with rig.connect() as cache:
        cache.snapshot(model, tmp_path, allow_patterns="config.json")
        version = cache.stat(f"{model}/config.json").version
    record = Manifest(tmp_path / ".penstock/manifest").get("config.json")

    assert record is not None
    assert (record.version, record.size) == (version, len(MODEL["config.json"]))
    assert record.checksum.startswith(f"xxh3t-{CHUNK}:")

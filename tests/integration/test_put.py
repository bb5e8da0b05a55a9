"""Putting objects through real nodes: seen whole or not at all, whatever ends in the middle."""

import asyncio
import contextlib
import hashlib
import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from typer.testing import CliRunner, Result

import penstock
import penstock.aio
from penstock.checksums import block_checksums
from penstock.cli.app import app
from penstock.cli.progress import Unwatched
from penstock.cli.put_tree import TreePut
from penstock.errors import CorruptData
from penstock.rpc import ABORT_PUT, FINISH_PUT, SEND_PART, START_PUT, Channels
from penstock.v1 import put_pb2
from penstock_node.testbed.cluster import LocalCluster, NodeProcess, NodeSpec
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.processes import wait_until
from penstock_node.testbed.s3 import S3Server

MIB = 1024 * 1024
CHUNK = 256 * 1024
BUCKET = "puts"
PART = 64 * 1024
OPEN_TTL_S = 2.0
SLOW_BYTES_PER_S = 8 * MIB
"""So that what is put is still on its way when something ends."""
DATA = random.Random(8).randbytes(9 * MIB + 321)
SIZES = [0, 1, PART, PART + 1, 8 * MIB, len(DATA)]
ENDS_WITHIN_S = 20


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("volume").resolve()
    (made / "inner").mkdir()
    return made / "inner"


@pytest.fixture(scope="module")
def cluster(
    s3: S3Server, etcd: EtcdServer, directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalCluster]:
    s3.create_bucket(BUCKET)
    stored = {"options": s3.options, "writable": True}
    limits = {"bytes_per_s": SLOW_BYTES_PER_S}
    config = {"allow_file_roots": [str(directory.parent)], "inflight_max": 64 * MIB}
    with LocalCluster(
        tmp_path_factory.mktemp("puts"),
        [NodeSpec(name, config=config) for name in ("n1", "n2")],
        etcd=etcd.endpoint,
        name="puts",
        settings={"chunk_size": CHUNK, "lease_ttl_s": 2, "open_ttl_s": OPEN_TTL_S},
        volumes={
            "s3": {"url": f"s3://{BUCKET}/s3/", **stored},
            "files": {"url": f"file://{directory}/", "writable": True},
            "slow": {"url": f"s3://{BUCKET}/slow/", "limits": limits, **stored},
            "fast": {"url": f"s3://{BUCKET}/slow/", **stored},
            "kept": {"url": f"s3://{BUCKET}/s3/kept/", "options": s3.options},
            "refuses": {"url": "s3://no-such-bucket/", **stored},
            "web": {"url": "https://models.example/"},
        },
    ) as running:
        yield running


@pytest.fixture
def cache(cluster: LocalCluster) -> Iterator[penstock.Cache]:
    with cluster.connect() as connected:
        yield connected


@pytest.fixture(scope="module")
def direct(s3: S3Server) -> Any:
    """The origin, past any cache."""
    unsigned = Config(signature_version=UNSIGNED)
    return boto3.client("s3", endpoint_url=s3.endpoint, region_name="us-east-1", config=unsigned)


def uploads(direct: Any, prefix: str = "") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = direct.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
    return [upload for upload in found if upload["Key"].startswith(prefix)]


def parts(direct: Any, upload: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = direct.list_parts(
        Bucket=BUCKET, Key=upload["Key"], UploadId=upload["UploadId"]
    ).get("Parts", [])
    return found


def keys(direct: Any, prefix: str) -> list[str]:
    listed = direct.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
    return [found["Key"] for found in listed]


# Warm ---------------------------------------------------------------------------------------


def test_what_was_put_is_warmed_where_that_is_asked_for(
    cluster: LocalCluster, cache: penstock.Cache, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("a", "b"):
        (tree / name).write_bytes(DATA[: 3 * CHUNK])

    def put(*arguments: str | Path) -> Result:
        command = ["put", "--warm", "--address", cluster["n1"].address, *map(str, arguments)]
        return CliRunner().invoke(app, command)

    one = put(tree / "a", "penstock://s3/warm/one")
    all_of_it = put("-r", tree, "penstock://s3/warm/tree")

    assert (one.exit_code, all_of_it.exit_code) == (0, 0), one.output + all_of_it.output
    assert "warmed 2 objects" in all_of_it.output
    for name in ("one", "tree/a", "tree/b"):
        chunks = cache.locate(f"penstock://s3/warm/{name}").chunks
        assert len(chunks) == 3
        assert all(chunk.held_by for chunk in chunks), name


# Whole objects ------------------------------------------------------------------------------


@pytest.mark.parametrize("volume", ["s3", "files"])
@pytest.mark.parametrize("size", SIZES)
def test_what_is_put_is_read_by_everybody(
    cluster: LocalCluster, cache: penstock.Cache, volume: str, size: int
) -> None:
    url, data = f"penstock://{volume}/round/{size}", DATA[:size]
    told: list[int] = []

    info = cache.put(url, data, part_bytes=PART if size < MIB else 4 * MIB, on_progress=told.append)

    assert (info.url, info.size) == (url, size)
    assert told == sorted(told)
    assert told[-1:] == ([size] if size else [])
    with cluster.connect() as other:
        assert other.stat(url).version == info.version
        assert hashlib.sha256(other.read(url)).digest() == hashlib.sha256(data).digest()


def test_files_streams_and_bytes_are_put_alike(cache: penstock.Cache, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(DATA)
    sources: list[Any] = [tmp_path / "file", str(tmp_path / "file"), io.BytesIO(DATA), DATA]

    for at, source in enumerate(sources):
        assert cache.put(f"penstock://s3/kinds/{at}", source).size == len(DATA)
        assert cache.read(f"penstock://s3/kinds/{at}") == DATA


async def test_the_asyncio_twin_puts_too(cluster: LocalCluster) -> None:
    address = cluster["n1"].address
    async with await penstock.aio.connect(address) as cache:
        info = await cache.put("penstock://s3/twin", DATA)
        assert await cache.read("penstock://s3/twin") == DATA

    assert info.size == len(DATA)


async def test_a_cancelled_put_leaves_nothing(cluster: LocalCluster, direct: Any) -> None:
    address = cluster["n1"].address
    async with await penstock.aio.connect(address) as cache:
        begun = asyncio.Event()
        loop = asyncio.get_running_loop()

        def tell(_: int) -> None:
            loop.call_soon_threadsafe(begun.set)

        putting = asyncio.create_task(
            cache.put("penstock://slow/cancelled", DATA * 6, on_progress=tell)
        )
        await begun.wait()
        putting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await putting

    wait_until(lambda: uploads(direct) == [], deadline_s=30, what="nothing is left")
    assert keys(direct, "slow/cancelled") == []


def test_more_than_a_node_has_memory_for_waits_its_turn(cache: penstock.Cache) -> None:
    """A node lends 64 MiB here, each of these takes half of it and more, for over a second."""
    names = [f"penstock://slow/many/{number}" for number in range(6)]

    with ThreadPoolExecutor(len(names)) as threads:
        infos = list(threads.map(lambda url: cache.put(url, DATA), names))

    assert [info.size for info in infos] == [len(DATA)] * len(names)


# Versions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("volume", ["s3", "files"])
def test_a_new_version_is_seen_at_once_by_its_writer_and_soon_by_all(
    cluster: LocalCluster, cache: penstock.Cache, s3: S3Server, directory: Path, volume: str
) -> None:
    url = f"penstock://{volume}/versions"
    place = f"s3://{BUCKET}/s3" if volume == "s3" else f"file://{directory}"
    cache.put(url, b"first" * 1000)
    with cluster.connect() as reader, cluster.connect() as late:
        assert reader.read(url) == cache.read(f"{place}/versions") == b"first" * 1000
        file = reader.open(url)

        cache.put(url, b"second")

        assert cache.read(url) == cache.read(f"{place}/versions") == b"second"
        assert late.read(url) == b"second"
        wait_until(lambda: reader.read(url) == b"second", deadline_s=30, what="all see it")
        assert file.info.size == 5000


def test_a_reader_of_the_version_before_is_told(cluster: LocalCluster) -> None:
    url = "penstock://s3/replaced"
    with cluster.connect() as writer, cluster.connect() as reader:
        writer.put(url, DATA)
        opened = reader.open(url)

        writer.put(url, DATA[::-1])

        with pytest.raises(penstock.ObjectChanged):
            opened.readinto(bytearray(len(DATA)))


@pytest.mark.parametrize("volume", ["s3", "files"])
@pytest.mark.parametrize("size", [5, len(DATA)])
def test_nothing_is_replaced_that_should_not_be(
    cache: penstock.Cache, volume: str, size: int
) -> None:
    url = f"penstock://{volume}/absent-{size}"
    cache.put(url, DATA[:size], if_absent=True)

    with pytest.raises(penstock.Conflict, match="exists already"):
        cache.put(url, b"other", if_absent=True)

    assert cache.read(url) == DATA[:size]


def test_a_file_that_changes_while_it_is_sent_is_not_put(
    cache: penstock.Cache, tmp_path: Path, direct: Any
) -> None:
    file = tmp_path / "file"
    file.write_bytes(DATA)

    def touch(_: int) -> None:
        os.utime(file, ns=(1, 1))

    with pytest.raises(penstock.Conflict, match="changed while it was sent"):
        cache.put("penstock://s3/changing", file, on_progress=touch, part_bytes=CHUNK)

    assert keys(direct, "s3/changing") == []
    wait_until(lambda: uploads(direct) == [], deadline_s=30, what="nothing is left")


def test_of_writers_at_the_same_time_one_is_last_and_none_is_mixed(
    cluster: LocalCluster, cache: penstock.Cache
) -> None:
    url = "penstock://s3/contested"

    def put(number: int) -> str:
        try:
            return str(cache.put(url, bytes([number]) * (100_000 + number)).size)
        except penstock.Conflict as error:
            return str(error)

    with ThreadPoolExecutor(8) as threads:
        told = set(threads.map(put, range(40)))

    data = cache.read(url, refresh=True)
    assert data == bytes([data[0]]) * (100_000 + data[0])
    assert all(each.isdecimal() or "overwritten by somebody else" in each for each in told)


# Refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "error", "message"),
    [
        ("penstock://kept/model", penstock.NotPermitted, "writable = true"),
        (f"s3://{BUCKET}/s3/kept/model", penstock.NotPermitted, "volume 'kept' is read-only"),
        ("penstock://web/model", penstock.NotPermitted, "cannot be written"),
        ("penstock://unknown/model", penstock.NotPermitted, "no volume 'unknown'"),
        ("penstock://refuses/model", penstock.NotPermitted, "refuses volume 'refuses'"),
        ("penstock://s3/directory/", penstock.InvalidRequest, "is a directory"),
        ("penstock://s3", penstock.InvalidRequest, "1 to 1024 bytes"),
        ("penstock://s3/a/../b", penstock.InvalidRequest, "segment"),
        ("penstock://s3/a//b", penstock.InvalidRequest, "segment"),
        ("penstock://files/versions/below", penstock.InvalidRequest, "part of the path is a file"),
    ],
)
@pytest.mark.parametrize("size", [5, len(DATA)])
def test_what_cannot_be_written_is_refused_with_the_reason(
    cache: penstock.Cache,
    url: str,
    error: type[penstock.PenstockError],
    message: str,
    size: int,
) -> None:
    cache.put("penstock://files/versions", b"a file")

    with pytest.raises(error, match=message):
        cache.put(url, DATA[:size])


@pytest.mark.parametrize("part_bytes", [0, 8 * MIB + 1])
def test_parts_have_bounds(cache: penstock.Cache, part_bytes: int) -> None:
    with pytest.raises(penstock.InvalidRequest, match="part_bytes"):
        cache.put("penstock://s3/bounds", io.BytesIO(DATA), part_bytes=part_bytes)


def test_wrong_bytes_are_not_passed_on(cluster: LocalCluster, direct: Any) -> None:
    channels = Channels()
    address = cluster["n1"].address
    start = put_pb2.StartPutRequest(url="penstock://s3/wrong", size=PART, part_bytes=PART)
    name = channels.call(address, START_PUT, start).put

    part = put_pb2.SendPartRequest(put=name, data=DATA[:PART], checksums=block_checksums(DATA[:9]))
    with pytest.raises(CorruptData):
        channels.call(address, SEND_PART, part)
    end = put_pb2.FinishPutRequest(put=name, parts=1, size=PART)
    answer = channels.call(address, FINISH_PUT, end)
    channels.call(address, ABORT_PUT, put_pb2.AbortPutRequest(put=name))

    assert not answer.HasField("object")
    with pytest.raises(penstock.Cancelled):
        channels.call(address, FINISH_PUT, end)
    assert keys(direct, "s3/wrong") == []
    channels.close()


# What ends in the middle --------------------------------------------------------------------


@contextlib.contextmanager
def put_under_way(
    cluster: LocalCluster, direct: Any, name: str, tmp_path: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A `penstock put` of which the origin has some parts already."""
    (tmp_path / "file").write_bytes(DATA * 6)
    words = ["put", str(tmp_path / "file"), f"penstock://slow/{name}"]
    address = ",".join(node.address for node in cluster.running)
    command = [sys.executable, "-m", "penstock", *words, "--address", address]
    # A shell that starts the tests in the background has interrupts ignored in all below it.
    interruptible = ["env", "--default-signal=INT", *command]
    with subprocess.Popen(interruptible, stderr=subprocess.PIPE) as putting:
        try:
            wait_until(
                lambda: any(parts(direct, each) for each in uploads(direct, f"slow/{name}")),
                deadline_s=30,
                what="the origin has parts",
            )
            assert putting.poll() is None
            yield putting
        finally:
            putting.kill()


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
def test_a_sender_that_ends_leaves_nothing(
    cluster: LocalCluster,
    cache: penstock.Cache,
    direct: Any,
    tmp_path: Path,
    number: signal.Signals,
    status: int,
) -> None:
    name = f"ended-{number}"
    with put_under_way(cluster, direct, name, tmp_path) as putting:
        putting.send_signal(number)
        putting.wait(ENDS_WITHIN_S)

    wait_until(lambda: uploads(direct) == [], deadline_s=60, what="nothing is left")
    assert putting.returncode == status
    assert keys(direct, f"slow/{name}") == []
    # Not by its silence, after half a minute.
    reason = "gave it up" if status > 0 else "is gone"
    logs = [(node.directory / "node.log").read_text() for node in cluster.running]
    ended = [line for log in logs for line in log.splitlines() if name in line]
    assert any(f"slow/{name}: its sender {reason}" in line for line in ended), ended
    with pytest.raises(penstock.ObjectNotFound):
        cache.stat(f"penstock://slow/{name}", refresh=True)


def carrier(cluster: LocalCluster, before: dict[str, float]) -> NodeProcess:
    """Return the node that what is put goes through."""
    carriers: list[NodeProcess] = []

    def is_counted() -> bool:
        written = written_bytes(cluster)
        carriers[:] = [node for node in cluster.running if written[node.id] > before[node.id]]
        return bool(carriers)

    # The origin lists a part a moment before the node counts it.
    wait_until(is_counted, deadline_s=30, what="a node counts what it wrote")
    (found,) = carriers
    return found


def written_bytes(cluster: LocalCluster) -> dict[str, float]:
    name = 'penstock_origin_written_bytes_total{volume="slow"}'
    return {node.id: node.metrics().get(name, 0.0) for node in cluster.running}


@pytest.mark.parametrize("end", [NodeProcess.stop, NodeProcess.kill])
def test_a_put_whose_node_ends_fails_and_can_be_put_again(
    cluster: LocalCluster,
    direct: Any,
    tmp_path: Path,
    end: Callable[[NodeProcess], Any],
) -> None:
    name, before = f"lost-{end.__name__}", written_bytes(cluster)
    with put_under_way(cluster, direct, name, tmp_path) as putting:
        node = carrier(cluster, before)
        end(node)
        _, said = putting.communicate(timeout=60)
    visible, left = keys(direct, f"slow/{name}"), uploads(direct)
    with cluster.connect() as cache:
        cache.put(f"penstock://fast/{name}", tmp_path / "file")
        again = cache.read(f"penstock://fast/{name}")
    node.start()
    cluster.wait_placed(2)

    assert putting.returncode == 1
    assert b"nothing was published" in said
    assert visible == []
    # A node that is killed has no time for it: the bucket's own rule ends what is left.
    assert len(left) == (1 if end is NodeProcess.kill else 0)
    for upload in left:
        direct.abort_multipart_upload(Bucket=BUCKET, Key=upload["Key"], UploadId=upload["UploadId"])
    assert again == DATA * 6


# The verb -----------------------------------------------------------------------------------


Cli = Callable[..., Result]


@pytest.fixture
def cli(cluster: LocalCluster) -> Cli:
    address = ",".join(node.address for node in cluster.running)

    def run(*words: Any, given: bytes | None = None) -> Result:
        env = {"PENSTOCK_ADDRESS": address, "COLUMNS": "200"}
        verb = ["put", *map(str, words)]
        return CliRunner().invoke(app, verb, env=env, input=given, catch_exceptions=False)

    return run


def test_the_verb_puts_a_file_and_what_is_piped_into_it(
    cli: Cli, cache: penstock.Cache, tmp_path: Path
) -> None:
    (tmp_path / "model").write_bytes(DATA)

    below = cli(tmp_path / "model", "penstock://s3/verb/", "--json")
    named = cli(tmp_path / "model", "penstock://s3/verb/named")
    piped = cli("-", "penstock://s3/verb/piped", "--json", given=DATA)
    empty = cli("-", "penstock://s3/verb/empty", "--json", given=b"")

    told = json.loads(below.stdout)
    assert (told["url"], told["bytes"]) == ("penstock://s3/verb/model", len(DATA))
    assert told["version"] == cache.stat("penstock://s3/verb/model").version
    assert "penstock://s3/verb/named, version " in named.stdout
    assert (piped.exit_code, json.loads(piped.stdout)["bytes"]) == (0, len(DATA))
    assert (empty.exit_code, json.loads(empty.stdout)["bytes"]) == (0, 0)
    for name in ("model", "named", "piped"):
        assert cache.read(f"penstock://s3/verb/{name}") == DATA


def test_the_verb_refuses_what_it_cannot_put(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")

    refusals = [
        (cli("-", "penstock://s3/piped/", given=b"x"), 2, "name the object"),
        (cli(tmp_path / "file", "penstock://s3/x", "-r"), 2, "is no directory"),
        (cli(tmp_path, "penstock://s3/x"), 1, "add -r"),
        (cli(tmp_path / "absent", "penstock://s3/x"), 1, "No such file"),
        (cli(tmp_path / "file", "penstock://kept/x"), 1, "writable = true"),
    ]

    for result, status, message in refusals:
        assert result.exit_code == status, result.output
        assert message in result.output


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "deep" / "er").mkdir(parents=True)
    (root / "nothing").mkdir()
    (root / "deep" / "er" / "large").write_bytes(DATA)
    (root / "deep" / "emp ty ü %2F").write_bytes(b"")
    (tmp_path / "blob").write_bytes(b"by a link")
    (root / "linked").symlink_to(tmp_path / "blob")
    for number in range(20):
        (root / f"small-{number}").write_bytes(b"%d" % number)
    return root


def expected(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


@pytest.mark.parametrize("volume", ["s3", "files"])
def test_a_directory_is_put_with_all_its_files(
    cli: Cli, cache: penstock.Cache, tree: Path, volume: str
) -> None:
    result = cli("-r", tree, f"penstock://{volume}/tree/", "--json")

    wanted = expected(tree)
    told = json.loads(result.stdout)
    assert result.exit_code == 0
    assert (told["objects"], told["bytes"]) == (23, sum(map(len, wanted.values())))
    assert (told["failed"], told["left_out"], told["empty_directories"]) == ([], [], 1)
    prefix = f"penstock://{volume}/tree/"
    found = {info.url.removeprefix(prefix): cache.read(info.url) for info in cache.list(prefix)}
    assert found == wanted


def test_what_of_a_directory_is_not_put_is_told_and_is_a_failure(
    cli: Cli, cache: penstock.Cache, tree: Path
) -> None:
    cache.put("penstock://s3/part/small-3", b"before")
    (tree / "broken").symlink_to(tree / "absent")
    (tree / "bad\nname").write_bytes(b"x")
    with socket.socket(socket.AF_UNIX) as bound, contextlib.chdir(tree):
        bound.bind("socket")
        result = cli("-r", tree, "penstock://s3/part", "--if-absent", "--json")
        shown = cli("-r", tree, "penstock://s3/part", "--if-absent")

    told = json.loads(result.stdout)
    assert result.exit_code == shown.exit_code == 1
    assert told["objects"] == 22
    assert {(Path(each["path"]).name, each["error"]) for each in told["failed"]} == {
        ("small-3", "Conflict"),
        ("bad\nname", "InvalidRequest"),
    }
    assert {(Path(each["path"]).name, each["reason"]) for each in told["left_out"]} == {
        ("broken", "a link to nothing"),
        ("socket", "a socket"),
    }
    assert cache.read("penstock://s3/part/small-3") == b"before"
    assert "a socket" in shown.stdout
    assert "exists already" in shown.stdout


def test_a_directory_for_a_volume_that_is_read_only_is_not_tried_file_by_file(
    cli: Cli, tree: Path
) -> None:
    result = cli("-r", tree, "penstock://kept/tree", "--json")

    told = json.loads(result.stdout)
    assert (result.exit_code, told["objects"], told["is_cut_short"]) == (1, 0, True)
    assert told["failed_count"] < 23
    assert {each["error"] for each in told["failed"]} == {"NotPermitted"}


@dataclass(slots=True)
class Watched(Unwatched):
    """A progress bar that remembers what it showed."""

    total: int = 0
    done: list[int] = field(default_factory=list)

    def begin(self, total_bytes: int) -> None:
        self.total = total_bytes

    def grow(self, total_bytes: int) -> None:
        self.total = total_bytes

    def advance(self, done_bytes: int) -> None:
        self.done.append(done_bytes)


def test_progress_of_a_directory_ends_at_all_of_it(cache: penstock.Cache, tree: Path) -> None:
    whole, part = Watched(), Watched()
    all_bytes = sum(map(len, expected(tree).values()))
    (tree / "bad\nname").write_bytes(DATA)

    TreePut(cache, tree, "penstock://s3/bar", if_absent=False, watcher=whole).run()
    (tree / "deep" / "er" / "large").write_bytes(b"other")
    report = TreePut(cache, tree, "penstock://s3/bar", if_absent=True, watcher=part).run()

    assert whole.done[-1] == whole.total == all_bytes
    assert report.failed_count == 24
    assert part.done[-1] == part.total == 0


def test_a_directory_that_is_given_up_leaves_nothing(
    cluster: LocalCluster, cache: penstock.Cache, tree: Path, direct: Any
) -> None:
    class Impatient(Unwatched):
        def advance(self, done_bytes: int) -> None:
            if uploads(direct):
                raise KeyboardInterrupt

    (tree / "deep" / "er" / "large").write_bytes(DATA * 6)
    with pytest.raises(KeyboardInterrupt):
        TreePut(cache, tree, "penstock://slow/bar", if_absent=False, watcher=Impatient()).run()

    wait_until(lambda: uploads(direct) == [], deadline_s=30, what="nothing is left")
    assert keys(direct, "slow/bar/deep/er/large") == []

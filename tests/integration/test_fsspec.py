"""penstock:// through fsspec: what it tells, what it reads, and where it travels."""

import asyncio
import errno
import io
import multiprocessing
import os
import pickle
import random
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

import penstock
from penstock.fsspec import PenstockFileSystem
from penstock_node.testbed.cluster import LocalCluster, NodeSpec
from penstock_node.testbed.processes import wait_until
from penstock_node.testbed.s3 import S3Server

CHUNK_BYTES = 128 * 1024
BIG = random.Random(11).randbytes(9 * CHUNK_BYTES + 777)
ODD_NAMES = (
    "a b", "ü", "日本", "100%", "%41", "x?y=1", "x#y", "a+b", "q'uote", 'q"uote', "back\\slash",
    "[set]", "{br,ace}", "~", "semi;colon", "a::b", "-", "..dots", "e\u0301",
)  # fmt: skip


class Parts:
    """A node over a directory and a bucket, for which every question is asked anew."""

    def __init__(self, directory: Path, s3: S3Server) -> None:
        s3.create_bucket("fsspec")
        s3.put("fsspec", "twin", b"the object")
        s3.put("fsspec", "twin/inner", b"below it")
        self.origin = directory / "origin"
        self.origin.mkdir()
        self.cluster = LocalCluster(
            directory,
            [NodeSpec("node", config={"allow_file_roots": [str(self.origin)]})],
            etcd=None,
            settings={
                "chunk_size": CHUNK_BYTES,
                "open_ttl_s": 0,
                "list_ttl_s": 0,
                "not_found_ttl_s": 0,
            },
            volumes={
                "data": {"url": f"file://{self.origin}/"},
                "store": {"url": "s3://fsspec/", "options": s3.options},
            },
        )
        for path, data in {
            "models/llama/model.safetensors": BIG,
            "models/llama/config.json": b"{}\n",
            "models/llama/tokens/a.txt": b"one\ntwo\nthree",
            "models/readme.md": b"# models\n",
            "top": b"top",
        }.items():
            self.write(path, data)

    def write(self, path: str, data: bytes) -> None:
        target = self.origin / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)

    @property
    def address(self) -> str:
        return self.cluster["node"].address


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory, s3: S3Server) -> Iterator[Parts]:
    made = Parts(tmp_path_factory.mktemp("fsspec"), s3)
    with made.cluster:
        yield made


@pytest.fixture
def fs(parts: Parts) -> PenstockFileSystem:
    found = fsspec.filesystem("penstock", address=parts.address)
    assert isinstance(found, PenstockFileSystem)
    return found


# What it tells --------------------------------------------------------------------------------


def test_the_root_has_the_volumes_as_directories(fs: PenstockFileSystem) -> None:
    assert fs.ls("", detail=False) == ["data", "store"]
    assert fs.info("data") == {"name": "data", "size": 0, "type": "directory"}
    assert fs.isdir("penstock://")


def test_a_directory_tells_what_lies_directly_in_it(fs: PenstockFileSystem) -> None:
    listed = fs.ls("penstock://data/models/llama/")

    told = [(entry["name"], entry["type"], entry["size"]) for entry in listed]
    assert told == [
        ("data/models/llama/config.json", "file", 3),
        ("data/models/llama/model.safetensors", "file", len(BIG)),
        ("data/models/llama/tokens", "directory", 0),
    ]
    assert listed[0]["mtime"].tzinfo is not None
    assert listed[0]["version"] == fs.info("data/models/llama/config.json")["version"]


def test_find_walk_glob_and_du_agree_on_what_there_is(fs: PenstockFileSystem) -> None:
    llama = [
        "data/models/llama/config.json",
        "data/models/llama/model.safetensors",
        "data/models/llama/tokens/a.txt",
    ]

    assert fs.find("data/models/llama") == llama
    assert fs.find("data/models", maxdepth=1) == ["data/models/readme.md"]
    assert fs.find("data/models/llama", withdirs=True) == [
        "data/models/llama",
        *llama[:2],
        "data/models/llama/tokens",
        llama[2],
    ]
    assert fs.find(llama[0]) == [llama[0]]
    assert fs.glob("data/models/**/*.json") == [llama[0]]
    assert fs.glob("data/models/llama/*") == [*llama[:2], "data/models/llama/tokens"]
    walked = [(directory, sorted(files)) for directory, _, files in fs.walk("data/models/llama")]
    assert walked == [
        ("data/models/llama", ["config.json", "model.safetensors"]),
        ("data/models/llama/tokens", ["a.txt"]),
    ]
    assert fs.du("data/models/llama") == sum(fs.size(path) for path in llama)


def test_a_listing_of_thousands_is_told_page_by_page_and_asked_for_once_a_page(
    parts: Parts, fs: PenstockFileSystem
) -> None:
    for at in range(2_100):
        parts.write(f"many/{at:05}", b"")
    for at in range(1_050):
        parts.write(f"many/dir-{at:05}/x", b"")
    before = _lists(parts)

    names = fs.ls("data/many", detail=False)

    assert names == sorted(names)
    assert len(names) == 3_150
    assert _lists(parts) - before <= 8  # Of four pages.
    assert len(fs.find("data/many")) == 3_150


def _lists(parts: Parts) -> float:
    metrics = parts.cluster["node"].metrics()
    return metrics.get('penstock_origin_requests_total{operation="list",volume="data"}', 0)


def test_what_is_not_there_is_not_found(fs: PenstockFileSystem) -> None:
    for path in ("data/none", "data/models/llama/none", "nowhere", "nowhere/x"):
        assert not fs.exists(path)
        assert not fs.isfile(path)
        with pytest.raises((FileNotFoundError, PermissionError)):
            fs.info(path)
        with pytest.raises((FileNotFoundError, PermissionError)):
            fs.open(path)
    with pytest.raises(FileNotFoundError, match="none") as caught:
        fs.ls("data/none")
    assert isinstance(caught.value, penstock.ObjectNotFound)


def test_no_answer_of_the_cluster_is_not_taken_for_no_file() -> None:
    lost = PenstockFileSystem("127.0.0.1:1", skip_instance_cache=True)

    with pytest.raises(penstock.ClusterUnavailable, match=r"127\.0\.0\.1:1"):
        lost.exists("data/top")


def test_an_object_may_have_a_directorys_name(fs: PenstockFileSystem) -> None:
    listed = [(entry["name"], entry["type"]) for entry in fs.ls("store")]

    assert listed == [("store/twin", "file"), ("store/twin", "directory")]
    assert fs.isfile("store/twin")
    assert fs.cat_file("store/twin") == b"the object"
    assert fs.ls("store/twin", detail=False) == ["store/twin/inner"]
    assert fs.find("store") == ["store/twin", "store/twin/inner"]
    assert fs.cat_file("store/twin/inner") == b"below it"


@pytest.mark.parametrize("name", ODD_NAMES)
def test_every_character_of_a_name_is_kept(parts: Parts, fs: PenstockFileSystem, name: str) -> None:
    directory = f"odd/{ODD_NAMES.index(name)}"
    parts.write(f"{directory}/{name}", name.encode())
    path = f"data/{directory}/{name}"

    assert fs.ls(f"data/{directory}", detail=False) == [path]
    assert fs.find(f"data/{directory}") == [path]
    assert fs.info(path)["size"] == len(name.encode())
    assert fs.cat_file(path) == name.encode()
    assert fs.open(f"penstock://{path}").read() == name.encode()


def test_the_key_of_an_object_changes_with_it(parts: Parts, fs: PenstockFileSystem) -> None:
    parts.write("changing", b"one")
    key, checksum = fs.ukey("data/changing"), fs.checksum("data/changing")
    assert fs.ukey("data/changing") == key

    parts.write("changing", b"three")

    assert fs.ukey("data/changing") != key
    assert fs.checksum("data/changing") != checksum
    assert fs.modified("data/changing") is not None


# What it reads --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "end"), [(None, None), (5, 20), (-10, None), (None, -5), (3, None), (10, 5), (0, 0)]
)
def test_slices_are_those_of_the_bytes(
    fs: PenstockFileSystem, start: int | None, end: int | None
) -> None:
    assert fs.cat_file("data/models/llama/model.safetensors", start, end) == BIG[start:end]


def test_many_ranges_of_many_objects_come_in_their_order(fs: PenstockFileSystem) -> None:
    chance = random.Random(1)
    paths, starts, ends = [], [], []
    for _ in range(200):
        path = chance.choice(["data/models/llama/model.safetensors", "data/top", "data/none"])
        paths.append(path)
        starts.append(chance.randrange(len(BIG)))
        ends.append(starts[-1] + chance.randrange(3 * CHUNK_BYTES))

    read = fs.cat_ranges(paths, starts, ends)

    content = {"data/models/llama/model.safetensors": BIG, "data/top": b"top"}
    for path, start, end, data in zip(paths, starts, ends, read, strict=True):
        if path in content:
            assert data == content[path][start:end]
        else:
            assert isinstance(data, FileNotFoundError)
    with pytest.raises(FileNotFoundError):
        fs.cat_ranges(paths, starts, ends, on_error="raise")


def test_cat_reads_a_pattern_a_list_or_a_tree(fs: PenstockFileSystem) -> None:
    assert fs.cat("data/top") == b"top"
    assert fs.cat("data/models/*.md") == {"data/models/readme.md": b"# models\n"}
    assert fs.cat(["data/top", "data/none"], on_error="omit") == {"data/top": b"top"}
    tree = fs.cat("data/models/llama", recursive=True)
    assert tree["data/models/llama/tokens/a.txt"] == b"one\ntwo\nthree"
    assert len(tree) == 3


def test_files_are_read_in_every_way_that_files_are(fs: PenstockFileSystem) -> None:
    with fs.open("data/models/llama/model.safetensors") as file:
        assert (file.size, file.mode, file.seekable()) == (len(BIG), "rb", True)
        assert file.read(1_000) == BIG[:1_000]
        file.seek(-500, io.SEEK_END)
        assert file.read() == BIG[-500:]
    with fs.open("data/models/llama/tokens/a.txt", "r") as text:
        assert list(text) == ["one\n", "two\n", "three"]
    with fsspec.open(
        "penstock://data/models/llama/tokens/a.txt", "rt", address=fs.storage_options["address"]
    ) as text:
        assert text.readline() == "one\n"
    assert fs.head("data/models/llama/model.safetensors", 10) == BIG[:10]
    assert fs.tail("data/models/llama/model.safetensors", 10) == BIG[-10:]
    assert fs.read_block("data/models/llama/tokens/a.txt", 1, 5, b"\n") == b"two\n"


def test_files_are_copied_to_local_ones(fs: PenstockFileSystem, tmp_path: Path) -> None:
    fs.get("data/models/llama", f"{tmp_path}/here/", recursive=True)

    assert (tmp_path / "here/llama/model.safetensors").read_bytes() == BIG


def test_nothing_is_written_and_the_error_says_what_writes(fs: PenstockFileSystem) -> None:
    writes: list[Callable[[], object]] = [
        lambda: fs.open("data/new", "wb"),
        lambda: fs.pipe_file("data/new", b"x"),
        lambda: fs.rm("data/top"),
        lambda: fs.mkdir("data/dir"),
        lambda: fs.touch("data/top"),
    ]
    for write in writes:
        with pytest.raises(OSError, match=r"Cache\.put") as caught:
            write()
        assert caught.value.errno == errno.EROFS


def test_an_open_file_never_gives_bytes_of_another_version(
    parts: Parts, fs: PenstockFileSystem
) -> None:
    old, new = (random.Random(seed).randbytes(6 * CHUNK_BYTES) for seed in (1, 2))
    parts.write("mixed", old)
    with fs.open("data/mixed") as file:
        begun = file.read(CHUNK_BYTES)
        parts.write("mixed", new)
        read = begun
        with pytest.raises(penstock.ObjectChanged):  # noqa: PT012 - some of it is cached
            while True:
                read += file.read(CHUNK_BYTES)
    assert old.startswith(read)
    assert fs.cat_file("data/mixed") == new


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(penstock.InvalidRequest, match="adress"):
        PenstockFileSystem(adress="gpu-17:7400")


# asyncio --------------------------------------------------------------------------------------


def test_the_asyncio_calls_tell_and_read_the_same(parts: Parts) -> None:
    async def ask() -> None:
        fs = PenstockFileSystem(parts.address, asynchronous=True, skip_instance_cache=True)
        path = "data/models/llama/model.safetensors"
        assert (await fs._info(path))["size"] == len(BIG)
        assert await fs._exists(path)
        assert not await fs._exists("data/none")
        assert await fs._isdir("data/models")
        assert await fs._isfile(path)
        assert len(await fs._ls("data/models/llama")) == 3
        assert len(await fs._find("data/models/llama")) == 3
        assert await fs._glob("data/models/llama/*.json") == ["data/models/llama/config.json"]
        assert [each[0] async for each in fs._walk("data/models/llama")] == [
            "data/models/llama",
            "data/models/llama/tokens",
        ]
        assert await fs._cat_file(path, 10, 20) == BIG[10:20]
        some = await fs._cat_ranges([path] * 3, [0, 5, 9], [5, 9, None])
        assert b"".join(some) == BIG
        assert await fs._cat(["data/top"]) == {"data/top": b"top"}
        async with await fs.open_async(path) as file:
            assert await file.read(100) == BIG[:100]
            assert file.size == len(BIG)

    asyncio.run(ask())


# Where it travels -----------------------------------------------------------------------------


def test_file_systems_and_files_are_pickled_and_read_on(fs: PenstockFileSystem) -> None:
    assert pickle.loads(pickle.dumps(fs)) is fs  # noqa: S301 - our own
    with fs.open("data/models/llama/model.safetensors") as file:
        file.seek(100)
        with pickle.loads(pickle.dumps(file)) as copy:  # noqa: S301
            assert copy.read(50) == BIG[100:150]
    assert fsspec.AbstractFileSystem.from_json(fs.to_json()) is fs


def test_a_pickled_file_of_another_version_is_refused_where_it_arrives(
    parts: Parts, fs: PenstockFileSystem
) -> None:
    parts.write("pickled", b"one")
    with fs.open("data/pickled") as file:
        pickled = pickle.dumps(file)
    parts.write("pickled", b"other")

    with pytest.raises(penstock.ObjectChanged, match="no longer at version"):
        pickle.loads(pickled)  # noqa: S301


def test_a_file_of_a_cache_says_why_it_cannot_be_pickled(parts: Parts) -> None:
    with (
        penstock.connect(parts.address) as cache,
        cache.open("penstock://data/top") as file,
        pytest.raises(TypeError, match="fsspec"),
    ):
        pickle.dumps(file)


def _read_pickled(pickled: bytes, answers: Any) -> None:
    try:
        fs = pickle.loads(pickled)  # noqa: S301
        answers.put(fs.cat_file("data/top"))
    except penstock.PenstockError as error:
        answers.put((type(error).__name__, str(error)))


def _in_process(method: str, target: Callable[..., None], *args: object) -> Any:
    context: Any = multiprocessing.get_context(method)
    answers = context.SimpleQueue()
    child = context.Process(target=target, args=(*args, answers))
    child.start()
    child.join(30)
    assert child.exitcode == 0
    return answers.get()


def test_a_pickle_connects_where_it_arrives(fs: PenstockFileSystem) -> None:
    assert _in_process("spawn", _read_pickled, pickle.dumps(fs)) == b"top"


def test_a_pickle_where_no_node_can_be_reached_names_the_address() -> None:
    lost = PenstockFileSystem("127.0.0.1:1")

    name, message = _in_process("spawn", _read_pickled, pickle.dumps(lost))

    assert name == "ClusterUnavailable"
    assert "127.0.0.1:1" in message


def _read_forked(fs: PenstockFileSystem, file: Any, answers: Any) -> None:
    path = "data/models/llama/model.safetensors"
    listed = fs.ls("data/models/llama", detail=False)
    ranges = fs.cat_ranges([path, path], [0, 100], [100, 200])
    awaited = asyncio.run(fs._cat_file(path, 0, 50))
    found = fs.glob("data/models/llama/*")
    answers.put(
        len(listed) == len(found) == 3
        and b"".join(ranges) == BIG[:200]
        and awaited == BIG[:50]
        and file.read() == BIG[1_000:]
    )


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_forked_in_the_middle_of_reads_reads_on(fs: PenstockFileSystem) -> None:
    asyncio.run(fs._cat_file("data/top"))  # So that there are threads to be missed.
    stop, wrong = threading.Event(), list[str]()

    def read_on() -> None:
        while not stop.is_set():
            if fs.cat_file("data/models/llama/model.safetensors") != BIG:
                wrong.append("wrong bytes")

    readers = [threading.Thread(target=read_on) for _ in range(2)]
    for reader in readers:
        reader.start()
    with fs.open("data/models/llama/model.safetensors") as file:
        file.read(500)
        file.read(500)
        for _ in range(10):
            assert _in_process("fork", _read_forked, fs, file)
            file.seek(1_000)
    stop.set()
    for reader in readers:
        reader.join()
    assert not wrong


def test_thousands_of_files_are_open_at_once_in_bounded_memory(fs: PenstockFileSystem) -> None:
    with fs.open("data/top") as warm:
        warm.read()
    before, descriptors = _resident_bytes(), len(open_files())
    files = [fs.open("data/models/llama/model.safetensors") for _ in range(3_000)]
    for file in files:
        file.read(10_000)
    for file in files:
        assert file.read(10_000) == BIG[10_000:20_000]

    grown = _resident_bytes() - before
    opened = len(open_files()) - descriptors
    for file in files:
        file.close()
    assert grown < 400 * 1024 * 1024
    assert opened < 100
    wait_until(lambda: fs.cache._core.ahead.budget.used_bytes == 0, deadline_s=20, what="freed")


def open_files() -> list[Path]:
    return list(Path("/proc/self/fd").iterdir())


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_urls_are_literal(parts: Parts, fs: PenstockFileSystem) -> None:
    parts.write("a%20b", b"percent")

    assert fs.cat_file("data/a%20b") == b"percent"
    assert not fs.exists(urllib.parse.unquote("data/a%20b"))

"""What a cluster of three tells of itself while it is read, and once a node is away."""

import json
import os
import pty
import random
import signal
import subprocess
import sys
import termios
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import penstock
from penstock import operator
from penstock.cli.app import app
from penstock.errors import InvalidRequest
from penstock.overview import PLANES, SERIES, SOURCES
from penstock.volumes import Volume
from penstock_node.overview.chunk_map import OBJECTS_MAX
from penstock_node.testbed.cluster import LocalCluster, NodeProcess, NodeSpec, TierSpec
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.odd_origin import OddObject, OddOrigin
from penstock_node.testbed.processes import wait_until
from tests.integration.short_lease import restart_with_short_lease

MIB = 1 << 20
CHUNK = 64 * 1024
FILES = {"llama/a.bin": 40 * CHUNK + 100, "llama/b.bin": 8 * CHUNK, "sdxl/unet.bin": 12 * CHUNK}
LLAMA, SDXL = "penstock://models/llama/", "penstock://models/sdxl/"
LLAMA_BYTES = FILES["llama/a.bin"] + FILES["llama/b.bin"]
SLOW, SLOW_CHUNKS = "penstock://slow/", 40
SLOW_BYTES = SLOW_CHUNKS * CHUNK - 1
NAMES = ("n1", "n2", "n3")
CLOSED = "n3"
ANYWHERE = "0.0.0.0"  # noqa: S104 - what a node does then is looked at
DEADLINE_S = 30.0
SCREEN_IS_LEFT, CURSOR_IS_SHOWN = b"\x1b[?1049l", b"\x1b[?25h"

Cli = Callable[..., Result]


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("origin").resolve()
    for at, (name, size) in enumerate(FILES.items()):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(random.Random(at).randbytes(size))
    (folder / "many").mkdir()
    for at in range(OBJECTS_MAX + 1):
        (folder / f"many/{at:02}").write_bytes(b"x" * at)
    (folder / "slow").mkdir()
    (folder / "slow/model.bin").write_bytes(random.Random(9).randbytes(SLOW_BYTES))
    return folder


@pytest.fixture(scope="module")
def cluster(
    etcd: EtcdServer, origin: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalCluster]:
    open_to_all = {"listen_host": ANYWHERE, "advertise_host": "127.0.0.1", "insecure": True}
    nodes = [
        NodeSpec(
            name,
            (TierSpec("owned", 16 * MIB),),
            config={
                "allow_file_roots": [str(origin)],
                **(open_to_all if name == CLOSED else {}),
            },
        )
        for name in NAMES
    ]
    with LocalCluster(
        tmp_path_factory.mktemp("cluster"),
        nodes,
        etcd=etcd.endpoint,
        name="overview",
        settings={"chunk_size": CHUNK, "lease_ttl_s": 30},
        volumes={
            "models": {"url": f"file://{origin}/"},
            "slow": {"url": f"file://{origin}/slow/", "limits": {"requests_per_s": 4}},
        },
    ) as running:
        yield running


@pytest.fixture(scope="module")
def cache(cluster: LocalCluster) -> Iterator[penstock.Cache]:
    with cluster.connect() as connected:
        yield connected


@pytest.fixture
def cli(cluster: LocalCluster) -> Cli:
    address = ",".join(node.address for node in cluster.running)

    def run(*words: str) -> Result:
        env = {"PENSTOCK_ADDRESS": address, "COLUMNS": "160"}
        return CliRunner().invoke(app, list(words), env=env, catch_exceptions=False)

    return run


def ask(process: NodeProcess, path: str, **query: str) -> tuple[int, Any]:
    url = f"http://{process.file.admin_address}/api/{path}?{urllib.parse.urlencode(query)}"
    try:
        with urllib.request.urlopen(url, timeout=10) as told:
            return told.status, json.loads(told.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def told(process: NodeProcess, path: str = "overview", **query: str) -> Any:
    status, document = ask(process, path, **query)
    assert status == 200, document
    return document


def reached(node: NodeProcess, what: str, is_so: Callable[[Any], bool]) -> Any:
    """Wait until what a node tells of the cluster is so, and return it."""
    last: list[Any] = []

    def look() -> bool:
        last[:] = [told(node)]
        return is_so(last[0])

    wait_until(look, deadline_s=DEADLINE_S, what=f"the overview tells that {what}")
    return last[0]


def read_all(cache: penstock.Cache) -> None:
    for name, size in FILES.items():
        assert len(cache.read(f"penstock://models/{name}")) == size


def test_what_is_read_is_told_by_source_plane_and_model(
    cluster: LocalCluster, cache: penstock.Cache
) -> None:
    read_all(cache)

    first = reached(
        cluster["n1"],
        "all three nodes were read from",
        lambda told: all(sum(n["rates"]["read_bytes"].values()) > 0 for n in told["nodes"]),
    )

    total = first["total"]
    assert total["rates"]["read_bytes"].keys() == set(SOURCES)
    assert total["rates"]["served_bytes"].keys() == set(PLANES)
    assert total["rates"]["origin_bytes"] > 0
    each = [node["rates"]["served_bytes"]["bulk"] for node in first["nodes"]]
    assert total["rates"]["served_bytes"]["bulk"] == pytest.approx(sum(each), abs=len(each))
    assert total["hit_ratio"] < 0.5, "all of it came from the origin"
    assert (total["nodes"], total["away"]) == (3, 0)
    assert all(node["told_at"] > 0 and node["version"] for node in first["nodes"])

    def hits_are_most() -> bool:
        read_all(cache)
        return bool(told(cluster["n1"])["total"]["hit_ratio"] > 0.5)

    wait_until(hits_are_most, deadline_s=DEADLINE_S, what="most of what is read is cached")
    last = reached(
        cluster["n1"],
        "both models are held as a whole",
        lambda told: sum(m["held_bytes"] == m["bytes"] > 0 for m in told["models"]) == 2,
    )
    models = {model["url"]: model for model in last["models"]}
    assert models[LLAMA]["bytes"] == LLAMA_BYTES
    assert models[SDXL]["bytes"] == FILES["sdxl/unet.bin"]
    assert models[LLAMA]["copies"] == models[SDXL]["copies"] == 1.0
    assert models[LLAMA]["read_bytes_per_s"] > models[SDXL]["read_bytes_per_s"] > 0


def test_a_map_of_chunks_agrees_with_locate(cluster: LocalCluster, cache: penstock.Cache) -> None:
    read_all(cache)

    document = told(cluster["n2"], "chunks", url=LLAMA)

    assert not document["truncated"]
    nodes, objects = document["nodes"], document["objects"]
    assert nodes == list(NAMES)
    assert [each["url"] for each in objects] == [f"{LLAMA}a.bin", f"{LLAMA}b.bin"]
    for each in objects:
        located = cache.locate(each["url"])
        assert (each["size"], each["chunk_size"]) == (located.object.size, CHUNK)
        assert [
            ([nodes[at] for at in owners], [nodes[at] for at in holders])
            for owners, holders in each["chunks"]
        ] == [(list(chunk.owners), list(chunk.held_by)) for chunk in located.chunks]
    (alone,) = told(cluster["n2"], "chunks", url=f"{LLAMA}a.bin")["objects"]
    assert alone == objects[0]


def test_a_map_of_many_objects_has_the_first_of_them_and_says_so(cluster: LocalCluster) -> None:
    document = told(cluster["n1"], "chunks", url="penstock://models/many")

    assert document["truncated"]
    assert [each["url"][-2:] for each in document["objects"]] == [
        f"{at:02}" for at in range(OBJECTS_MAX)
    ]
    assert [len(each["chunks"]) for each in document["objects"]] == [0] + [1] * (OBJECTS_MAX - 1)


@pytest.mark.parametrize(
    ("path", "query", "status", "error"),
    [
        ("chunks", {"url": "penstock://models/nothing"}, 404, "ObjectNotFound"),
        ("chunks", {"url": "penstock://nowhere/x"}, 403, "NotPermitted"),
        ("chunks", {}, 400, "InvalidRequest"),
        ("history", {"node": "n9"}, 400, "InvalidRequest"),
    ],
)
def test_what_cannot_be_told_is_an_error_by_name(
    cluster: LocalCluster, path: str, query: dict[str, str], status: int, error: str
) -> None:
    got, document = ask(cluster["n1"], path, **query)

    assert (got, document["error"]) == (status, error)
    assert document["message"]


@pytest.mark.parametrize("path", ["overview", "history", "chunks", "cluster"])
def test_a_port_that_others_reach_tells_nothing_unless_it_is_told_to(
    cluster: LocalCluster, path: str
) -> None:
    status, document = ask(cluster[CLOSED], path)

    assert (status, document["error"]) == (403, "NotPermitted")
    assert "admin_open = true" in document["message"]


def test_a_warm_up_that_a_node_does_by_itself_is_told_with_how_far_it_is(
    cluster: LocalCluster, cache: penstock.Cache
) -> None:
    by = cache.start_warmup([SLOW])

    overview = reached(
        cluster["n1"],
        "a part of it is done",
        lambda told: any(0 < w["chunks_done"] < w["chunks"] for w in told["warmups"]),
    )

    (warmup,) = overview["warmups"]
    assert (warmup["node"], warmup["name"]) == (by, SLOW)
    assert 0 < warmup["bytes_done"] < warmup["bytes"] == SLOW_BYTES
    assert warmup["chunks"] == SLOW_CHUNKS
    assert abs(overview["at"] - warmup["started_at"]) < DEADLINE_S


def test_a_warm_up_that_a_program_goes_through_is_told_while_it_lasts(
    cluster: LocalCluster, cache: penstock.Cache, odd: OddOrigin
) -> None:
    may_end = threading.Event()
    odd.put("here.bin", OddObject(bytes(2 * CHUNK), etag='"h"'))
    odd.put("held.bin", OddObject(bytes(3 * CHUNK), etag='"w"', held_until=may_end))
    with operator.connect(cluster["n1"].address) as connected:
        connected.put_volume(Volume("web", odd.url, {"allow_http": True, "read_timeout": "45s"}))
    wait_until(
        lambda: all("web" in volumes_of(node) for node in cluster.running),
        deadline_s=DEADLINE_S,
        what="all nodes know of the volume",
    )

    with ThreadPoolExecutor(1) as threads:
        urls = ["penstock://web/here.bin", "penstock://web/held.bin"]
        warming = threads.submit(cache.warmup, urls)
        try:
            overview = reached(
                cluster["n1"],
                "one of two files is there",
                lambda told: any(each["chunks_done"] == 2 for each in of_programs(told)),
            )
            assert not warming.done()
        finally:
            may_end.set()
        report = warming.result(DEADLINE_S)

    assert report.bytes == 5 * CHUNK
    (warmup,) = of_programs(overview)
    assert (warmup["name"], warmup["chunks"]) == (f"{urls[0]} and 1 more", 5)
    reached(cluster["n1"], "it is over", lambda told: not of_programs(told))


def volumes_of(node: NodeProcess) -> set[str]:
    with operator.connect(node.address) as connected:
        return {volume.name for volume in connected.volumes()}


def of_programs(overview: Any) -> list[Any]:
    return [each for each in overview["warmups"] if not each["node"]]


def test_top_prints_a_picture_where_there_is_no_terminal(cli: Cli) -> None:
    result = cli("top")

    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("cluster overview, epoch ")
    assert "3 nodes" in lines[0]
    names = [line.split()[0] for line in lines if line.split()[1:2] == ["alive"]]
    assert sorted(names) == list(NAMES)
    by_name = cli("top", "--once", "--sort", "node").stdout.splitlines()
    assert [x.split()[0] for x in by_name if x.split()[1:2] == ["alive"]] == list(NAMES)


def test_top_prints_the_document_of_the_admin_port(cli: Cli, cluster: LocalCluster) -> None:
    result = cli("top", "--once", "--json")

    assert result.exit_code == 0, result.output
    document, same = json.loads(result.stdout), told(cluster["n1"])
    assert document.keys() == same.keys()
    assert [node.keys() for node in document["nodes"]] == [node.keys() for node in same["nodes"]]
    assert [node["id"] for node in document["nodes"]] == list(NAMES)


def test_top_refuses_what_is_no_column_and_no_duration(cli: Cli) -> None:
    assert cli("top", "--sort", "colour").exit_code == 2
    assert cli("top", "--every", "soon").exit_code == 2
    assert cli("top", "--every", "1ms").exit_code == 2
    assert cli("status", "--watch", "--models").exit_code == 2


class Terminal:
    """A verb in a terminal of its own, of 80 columns and 24 lines."""

    def __init__(self, cluster: LocalCluster, *words: str) -> None:
        self._ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (24, 80))
        address = ",".join(node.address for node in cluster.running)
        # A shell that starts tests in the background has them ignore it, and they pass that on.
        before = signal.signal(signal.SIGINT, signal.SIG_DFL)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "penstock", *words, "--address", address],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm-256color"},
        )
        signal.signal(signal.SIGINT, before)
        os.close(theirs)
        self.seen = b""

    def read_until(self, is_so: Callable[[bytes], bool]) -> None:
        while not is_so(self.seen):
            try:
                self.seen += os.read(self._ours, 65536)
            except OSError:  # Linux's word for a terminal that nobody writes to any more.
                break
        assert is_so(self.seen), self.seen

    def interrupt(self) -> int:
        """As Ctrl-C does; returns the exit status."""
        self._process.send_signal(signal.SIGINT)
        self.read_until(lambda seen: SCREEN_IS_LEFT in seen)
        return self._process.wait(DEADLINE_S)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._ours)


@pytest.mark.parametrize("words", [("top", "--every", "200ms"), ("status", "--watch")])
def test_in_a_terminal_the_picture_is_drawn_anew_until_ctrl_c(
    cluster: LocalCluster, words: tuple[str, ...]
) -> None:
    terminal = Terminal(cluster, *words)
    try:
        terminal.read_until(lambda seen: seen.count(b"cluster overview") >= 2)

        assert terminal.interrupt() == 128 + signal.SIGINT
        assert terminal.seen.rindex(CURSOR_IS_SHOWN) > terminal.seen.rindex(b"cluster overview")
        assert b"Traceback" not in terminal.seen
    finally:
        terminal.close()


def test_status_is_told_again_and_again_as_json(cluster: LocalCluster) -> None:
    address = ",".join(node.address for node in cluster.running)
    words = ["status", "--watch", "--every", "200ms", "--json", "--address", address]
    watching = subprocess.Popen(
        [sys.executable, "-m", "penstock", *words], stdout=subprocess.PIPE, text=True
    )
    try:
        assert watching.stdout is not None
        lines = [json.loads(watching.stdout.readline()) for _ in range(2)]
    finally:
        watching.kill()
        watching.communicate()

    assert [[node["id"] for node in line["nodes"]] for line in lines] == [list(NAMES)] * 2


def test_the_history_of_all_is_the_sum_of_what_nodes_told(
    cluster: LocalCluster, cache: penstock.Cache
) -> None:
    before = told(cluster["n1"], "history")

    def has_grown() -> bool:
        read_all(cache)
        return bool(told(cluster["n1"], "history")["until"] > before["until"])

    wait_until(has_grown, deadline_s=DEADLINE_S, what="there is one more sample")
    each = [told(cluster["n1"], "history", node=name) for name in NAMES]
    number = min(history["until"] for history in each)

    def at(history: Any, series: str) -> float:
        behind = round((history["until"] - number) / history["step_s"])
        return float(history["series"][series][-1 - behind])

    def is_summed() -> bool:
        total = told(cluster["n1"], "history")
        return all(
            at(total, name) == pytest.approx(sum(at(one, name) for one in each), rel=1e-4, abs=1)
            for name in SERIES
        )

    wait_until(is_summed, deadline_s=DEADLINE_S, what="all nodes have told that sample")
    assert each[0]["step_s"] == 10
    assert each[0]["series"].keys() == set(SERIES)
    assert sum(at(one, "read_bytes.disk") for one in each) > 0


def test_the_library_of_operators_tells_the_same(cluster: LocalCluster) -> None:
    with operator.connect(cluster["n2"].address) as connected:
        overview = connected.overviews.gathered()
        history = connected.overviews.history("n1")
        with pytest.raises(InvalidRequest, match="no node 'n9'"):
            connected.overviews.history("n9")

    assert (overview.node, overview.cluster) == ("n2", "overview")
    assert [node.id for node in overview.there] == list(NAMES)
    assert all(len(values) >= 1 for values in history.series.values())


def test_a_node_that_is_away_is_shown_with_what_it_told_last(cluster: LocalCluster) -> None:
    lost = restart_with_short_lease(cluster, "n2")
    all_told = reached(
        cluster["n1"],
        "n2 has told what it has",
        lambda told: told["total"]["away"] == 0 and told["nodes"][1]["cached_bytes"] > 0,
    )
    before = all_told["nodes"][1]

    lost.kill()
    try:
        overview = reached(
            cluster["n1"], "n2 is away", lambda told: told["nodes"][1]["state"] == "away"
        )
    finally:
        cluster["n2"].start()

    node = overview["nodes"][1]
    assert (node["id"], node["version"]) == ("n2", before["version"])
    assert node["cached_bytes"] > 0
    assert node["tiers"] == before["tiers"]
    assert 0 < node["told_at"] < overview["at"]
    assert node["hit_ratio"] is None
    assert sum(node["rates"]["read_bytes"].values()) == 0
    total = overview["total"]
    assert (total["nodes"], total["away"]) == (3, 1)
    assert total["owned_capacity_bytes"] == 2 * 16 * MIB
    there = [overview["nodes"][0], overview["nodes"][2]]
    assert total["cached_bytes"] == sum(each["cached_bytes"] for each in there)
    reached(cluster["n1"], "n2 is back", lambda told: told["total"]["away"] == 0)

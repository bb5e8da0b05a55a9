"""A rolling upgrade: nodes and clients of this version beside those of the one before it.

The version before is the wheel of a commit of this repository's history, built here: nothing is
fetched. In a clone without that history (``git clone --depth``) these tests are skipped, and say
so; CI has it all.
"""

import compileall
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock import operator
from penstock_node.testbed.cluster import NodeSpec, TierSpec
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.s3 import S3Server
from penstock_node.testbed.site import MIB, Site, StoredObject

ROOT = Path(__file__).parents[2]
BEFORE = "389a6d4e22"
"""Of 2026-11-27, before tracing, the overview, the doctor, metrics and advice on capacity: of the
wire they changed calls, headers and members' records. With each release it becomes the last one."""
SOURCES = ("client", "cachenode", "pyproject.toml", "README.md", "LICENSE")
OLD, NEW = "old", "new"
DEADLINE_S = 30.0
PROGRAM = """
import hashlib, json, sys
import penstock
import penstock.cli

address, url, prefix = sys.argv[1:]
with penstock.connect(address) as cache:
    data = cache.read(url)
    report = cache.warmup([prefix])
    print(json.dumps({
        "is_old": "PREVIOUS" in penstock.__file__,
        "read": hashlib.sha256(data).hexdigest(),
        "part": hashlib.sha256(cache.read(url, 100_000, 300_000)).hexdigest(),
        "over grpc": hashlib.sha256(penstock.connect(address, plane="grpc").read(url)).hexdigest(),
        "listed": sorted(info.url for info in cache.list(prefix)),
        "warmed": report.bytes - report.failed_bytes,
        "held": sorted({holder for chunk in cache.locate(url).chunks for holder in chunk.held_by}),
    }))
sys.argv = ["penstock", "status", "--json", "--address", address]
penstock.cli.main()
"""


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where the wheel of the version before is unpacked."""
    at = tmp_path_factory.mktemp("PREVIOUS")
    archive = subprocess.run(
        ["git", "-C", str(ROOT), "archive", BEFORE, *SOURCES], capture_output=True, check=False
    )
    if archive.returncode and is_without_history():
        pytest.skip(f"this clone does not have {BEFORE}: git fetch --unshallow")
    assert archive.returncode == 0, archive.stderr
    (at / "tree").mkdir()
    subprocess.run(["tar", "-x", "-C", str(at / "tree")], input=archive.stdout, check=True)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(at)]
    subprocess.run(build, cwd=at / "tree", check=True, capture_output=True)
    [wheel] = at.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        opened.extractall(at / "unpacked")
    # Else its first node compiles a thousand modules while its start is waited for.
    compileall.compile_dir(at / "unpacked", quiet=2)
    return at / "unpacked"


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, etcd: EtcdServer, s3: S3Server, before: Path
) -> Iterator[Site]:
    """A node of each version, in one cluster."""
    tiers = (TierSpec("local", 64 * MIB), TierSpec("owned", 64 * MIB))
    nodes = [NodeSpec(OLD, tiers, environment={"PYTHONPATH": str(before)}), NodeSpec(NEW, tiers)]
    with Site(tmp_path_factory.mktemp("rolling-upgrade"), s3, etcd, nodes=nodes) as made:
        yield made


@pytest.fixture(scope="module")
def stored(site: Site) -> StoredObject:
    """An object that has chunks at both nodes."""
    return site.put("model/weights.bin", size=6 * MIB + 11)


def is_without_history() -> bool:
    """Tell whether this is no clone, or one of the newest commits alone."""
    asked = ["git", "-C", str(ROOT), "rev-parse", "--is-shallow-repository"]
    return subprocess.run(asked, capture_output=True, check=False).stdout.strip() != b"false"


def run(words: list[str], *, python_path: Path | None) -> str:
    environment = os.environ | ({"PYTHONPATH": str(python_path)} if python_path else {})
    done = subprocess.run(
        [sys.executable, *words], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_old_node_is_of_the_old_version(site: Site, before: Path) -> None:
    environment = Path(f"/proc/{site.cluster[OLD].process.pid}/environ").read_bytes().split(b"\0")

    assert f"PYTHONPATH={before}".encode() in environment
    assert not (before / "penstock/thread_names.py").exists()


@pytest.mark.parametrize("node", [OLD, NEW])
@pytest.mark.parametrize("client", [OLD, NEW])
def test_clients_of_either_version_read_list_and_warm_through_nodes_of_either(
    site: Site, stored: StoredObject, before: Path, client: str, node: str
) -> None:
    python_path = before if client == OLD else None
    address, prefix = site.cluster[node].address, "penstock://models/model/"

    lines = run(["-c", PROGRAM, address, stored.url, prefix], python_path=python_path)
    told, status = (json.loads(part) for part in lines.split("\n", 1))

    assert told["is_old"] is (client == OLD)
    assert told["read"] == told["over grpc"] == stored.sha256
    part = StoredObject("part", stored.data[100_000:400_000])
    assert told["part"] == part.sha256
    assert told["listed"] == [stored.url]
    assert told["warmed"] == len(stored.data)
    assert told["held"] == [NEW, OLD]
    assert {each["id"]: each["state"] for each in status["nodes"]} == {OLD: "alive", NEW: "alive"}


@pytest.mark.parametrize("leaving", [OLD, NEW])
def test_nodes_of_two_versions_hand_over_to_each_other_and_fill_from_each_other(
    site: Site, stored: StoredObject, leaving: str
) -> None:
    staying = NEW if leaving == OLD else OLD
    with site.cluster.connect() as cache:
        assert cache.read(stored.url) == stored.data
    asked = site.s3.counters().sent_bytes

    with operator.connect(site.address) as operators:
        operators.cordon(leaving, drain=True)
        drained = operators.wait_drained(leaving, timeout_s=DEADLINE_S)
    with site.cluster.connect(site.cluster[staying]) as cache:
        holders = [set(chunk.held_by) for chunk in cache.locate(stored.url).chunks]
        data = cache.read(stored.url)
    with operator.connect(site.address) as operators:
        operators.uncordon(leaving)
    site.cluster.wait_settled(deadline_s=DEADLINE_S)
    with site.cluster.connect(site.cluster[leaving], plane="grpc") as cache:
        through_the_other = cache.read(stored.url)

    assert drained.state == "drained"
    assert drained.left_bytes == 0
    assert all(staying in each for each in holders)
    assert data == through_the_other == stored.data
    assert site.s3.counters().sent_bytes == asked, "nothing of it came from the origin again"

"""A mirror of another region's catalog, and a cluster that reads by it."""

import contextlib
import json
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import obstore
import pytest

import penstock
from penstock import operator
from penstock.catalog import CatalogStatus, ImportProgress, ImportWanted
from penstock.catalog_file import CatalogFile
from penstock.catalog_rpc import DESCRIBE
from penstock.rpc import Channels
from penstock.v1 import catalog_pb2
from penstock_node.catalog.database import Database
from penstock_node.catalog.files import Files
from penstock_node.testbed.catalog import CatalogServer
from penstock_node.testbed.cluster import LocalCluster, NodeSpec, TierSpec
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.processes import wait_until
from penstock_node.testbed.s3 import S3Server

MIB = 1024 * 1024
CHUNK_BYTES = 256 * 1024
DEADLINE_S = 30.0
SETTINGS = {"chunk_size": CHUNK_BYTES, "open_ttl_s": 0, "list_ttl_s": 0, "not_found_ttl_s": 0}


@dataclass
class Region:
    """A cluster of one node, and its catalog."""

    cluster: LocalCluster
    catalog: CatalogServer

    @property
    def address(self) -> str:
        return self.cluster["n1"].address

    def status(self) -> CatalogStatus:
        with operator.connect(self.address) as operators:
            return operators.catalog.status()

    def files(self) -> dict[str, str]:
        """Return each file's version."""
        with operator.connect(self.address) as operators:
            return {f.path: f.version for f in operators.catalog.files("penstock://lake/")}


@dataclass
class World:
    """A region that imports, and one that mirrors it."""

    near: Region
    far: Region
    s3: S3Server
    bucket: str
    rng: random.Random

    def put(self, path: str, *, size: int = 1000) -> bytes:
        data = self.rng.randbytes(size)
        self.s3.put(self.bucket, path, data)
        return data

    def import_all(self, at: str) -> ImportProgress:
        with operator.connect(self.near.address) as operators:
            wanted = ImportWanted("lake", f"s3://{self.bucket}/{at}", at, prune=True)
            return operators.catalog.run_import(wanted)

    def wait_level(self) -> CatalogStatus:
        """Wait until the mirror has all that there is."""
        newest = self.near.status().seq
        wait_until(
            lambda: self.far.status().seq >= newest,
            deadline_s=DEADLINE_S,
            what="the mirror is level",
        )
        return self.far.status()


def region(directory: Path, etcd: EtcdServer, lake: dict[str, Any], **keys: Any) -> Region:
    name = f"{directory.parent.name}-{directory.name}"
    spec = NodeSpec("n1", (TierSpec("owned", 64 * MIB),))
    cluster = LocalCluster(
        directory,
        [spec],
        etcd=etcd.endpoint,
        name=name,
        settings=SETTINGS,
        volumes={"lake": lake},
    )
    catalog = CatalogServer(directory / "catalog", etcd=etcd.endpoint, cluster=name, **keys)
    return Region(cluster, catalog)


@pytest.fixture(scope="module")
def world(
    tmp_path_factory: pytest.TempPathFactory, s3: S3Server, etcd: EtcdServer
) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("world")
    s3.create_bucket(directory.name)
    origin = {"url": f"s3://{directory.name}/", "options": s3.options}
    lake = {"catalogued": True, "origins": [origin], "writable": True}
    near = region(directory / "near", etcd, lake)
    with near.cluster, near.catalog:
        far = region(directory / "far", etcd, lake, mirror_of=near.catalog.address)
        with far.cluster, far.catalog:
            for each in (near, far):
                each.catalog.wait_found(each.address)
            yield World(near, far, s3, directory.name, random.Random(1))


def test_what_is_imported_is_read_in_the_other_region(world: World) -> None:
    data = {name: world.put(f"first/{name}", size=600_000) for name in ("x", "y/z")}
    world.import_all("first")

    told = world.wait_level()

    assert (told.seq, told.lag_s, told.trouble) == (told.source_seq, 0.0, "")
    assert told.volumes == ("lake",)
    with world.far.cluster.connect() as cache:
        for name, expected in data.items():
            assert cache.read(f"penstock://lake/first/{name}") == expected
        sent = world.s3.counters().sent_bytes
        assert cache.read("penstock://lake/first/x") == data["x"]
        assert world.s3.counters().sent_bytes == sent


def test_the_mirror_has_each_change_and_the_whole_history(world: World) -> None:
    for name in ("kept", "changed", "removed"):
        world.put(f"history/{name}")
    world.import_all("history")
    world.put("history/changed")
    obstore.delete(world.s3.bucket(world.bucket), "history/removed")
    world.import_all("history")
    world.wait_level()

    assert world.far.files() == world.near.files()
    for name in ("kept", "changed", "removed"):
        url = f"penstock://lake/history/{name}"
        with (
            operator.connect(world.near.address) as near,
            operator.connect(world.far.address) as far,
        ):
            assert far.catalog.versions(url) == near.catalog.versions(url)


def test_what_was_overwritten_is_found_by_a_read_in_the_mirror_and_noted_at_the_source(
    world: World,
) -> None:
    world.put("moving/x")
    world.import_all("moving")
    world.wait_level()
    newer = world.put("moving/x")

    with world.far.cluster.connect() as cache:
        assert cache.read("penstock://lake/moving/x") == newer
    assert world.near.files()["moving/x"] == world.far.files()["moving/x"]


def test_a_mirror_takes_no_imports_and_no_puts(world: World) -> None:
    with operator.connect(world.far.address) as operators, world.far.cluster.connect() as cache:
        with pytest.raises(penstock.NotPermitted, match=world.near.catalog.address):
            operators.catalog.run_import(ImportWanted("lake", f"s3://{world.bucket}/"))
        with pytest.raises(penstock.NotPermitted, match=world.near.catalog.address):
            cache.put("penstock://lake/put/x", b"nowhere")
    with pytest.raises(FileNotFoundError):
        obstore.head(world.s3.bucket(world.bucket), "put/x")


def test_a_mirror_that_is_killed_while_it_follows_misses_nothing(world: World) -> None:
    over = threading.Event()
    for at in range(300):
        world.put(f"many/{at}", size=1)
    for pause_s in (0.0, 0.05, 0.2):
        world.far.catalog.kill()
        for at in range(0, 300, 3):
            world.put(f"many/{at}", size=2)
        world.far.catalog.start()
        world.import_all("many")
        over.wait(pause_s)
    world.far.catalog.wait_found(world.far.address)
    world.wait_level()

    assert world.far.files() == world.near.files()


@pytest.mark.parametrize("has_more", [False, True])
def test_a_mirror_of_another_catalog_than_its_database_is_of_says_so_and_takes_nothing(
    world: World, etcd: EtcdServer, tmp_path: Path, *, has_more: bool
) -> None:
    world.put("other/x")
    world.import_all("other")
    newest = world.wait_level().seq
    world.far.catalog.stop()
    copied = tmp_path / "copy.db"
    shutil.copy(world.far.catalog.state_dir / "catalog.db", copied)
    world.far.catalog.start()
    other = Database(f"sqlite:///{tmp_path}/other.db")
    other.upgrade()
    if has_more:
        made = (CatalogFile(f"{n}", "1", 1, 1, "s3://b/x", "1") for n in range(newest + 10))
        Files(other).volume("pond").put(list(made))
    other.close()
    with (
        CatalogServer(
            tmp_path / "source",
            etcd=etcd.endpoint,
            cluster=f"other-{has_more}",
            database=f"sqlite:///{tmp_path}/other.db",
        ) as source,
        CatalogServer(
            tmp_path / "wrong",
            etcd=etcd.endpoint,
            cluster=f"wrong-{has_more}",
            database=f"sqlite:///{copied}",
            mirror_of=source.address,
        ) as wrong,
        contextlib.closing(Channels()) as channels,
    ):

        def told() -> catalog_pb2.DescribeCatalogResponse:
            return channels.call(wrong.address, DESCRIBE, catalog_pb2.DescribeCatalogRequest())

        wait_until(lambda: bool(told().trouble), deadline_s=DEADLINE_S, what="it is told")
        assert "this database is no copy of that one" in told().trouble
        assert told().seq == newest
        assert told().lag_s > 0


def test_while_the_source_is_away_the_mirror_serves_what_it_has_and_says_how_old_that_is(
    world: World,
) -> None:
    data = world.put("away/x")
    world.import_all("away")
    world.wait_level()
    address = world.near.catalog.address
    world.near.catalog.kill()

    with world.far.cluster.connect() as cache:
        assert cache.read("penstock://lake/away/x") == data
        assert [info.url for info in cache.list("penstock://lake/away/")] == [
            "penstock://lake/away/x"
        ]
    wait_until(lambda: bool(world.far.status().trouble), deadline_s=DEADLINE_S, what="it is told")
    assert address in world.far.status().trouble
    assert world.far.status().lag_s > 0

    verb = ("mirror", "status", "--json", "--address", world.far.address)
    shown = subprocess.run(
        [sys.executable, "-m", "penstock", *verb],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert shown.returncode == 1
    assert "does not answer" in shown.stderr
    (lake,) = json.loads(shown.stdout)["volumes"]
    assert lake["name"] == "lake"
    assert lake["lag_s"] > 0

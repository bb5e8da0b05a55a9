"""Catalogued volumes, from a bucket that was there before to bytes in a reader's hands."""

import json
import random
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import fsspec
import obstore
import pytest

import penstock
from penstock import operator
from penstock.catalog import ImportProgress, ImportWanted
from penstock_node.testbed.catalog import CatalogServer
from penstock_node.testbed.cluster import LocalCluster, NodeSpec, TierSpec
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.mounted import MountProcess
from penstock_node.testbed.s3 import S3Server

MIB = 1024 * 1024
CHUNK_BYTES = 256 * 1024
DEADLINE_S = 30.0
SETTINGS = {"chunk_size": CHUNK_BYTES, "open_ttl_s": 0, "list_ttl_s": 0, "lease_ttl_s": 2}


@dataclass
class Lake:
    """A cluster with a catalogued volume over two buckets, and the catalog."""

    cluster: LocalCluster
    catalog: CatalogServer
    s3: S3Server
    bucket: str
    rng: random.Random

    @property
    def address(self) -> str:
        return ",".join(node.address for node in self.cluster.running)

    def put(self, path: str, *, bucket: str = "", size: int = 600_000) -> bytes:
        data = self.rng.randbytes(size)
        self.s3.put(bucket or self.bucket, path, data)
        return data

    def import_all(self, at: str, *, to: str, prune: bool = False) -> ImportProgress:
        with operator.connect(self.address) as operators:
            wanted = ImportWanted("lake", f"s3://{self.bucket}/{at}", to, prune=prune)
            return operators.catalog.run_import(wanted)


@pytest.fixture(scope="module")
def lake(
    tmp_path_factory: pytest.TempPathFactory, s3: S3Server, etcd: EtcdServer
) -> Iterator[Lake]:
    directory = tmp_path_factory.mktemp("lake")
    name = directory.name
    for bucket in (name, f"{name}-other"):
        s3.create_bucket(bucket)
    origins = [{"url": f"s3://{each}/", "options": s3.options} for each in (name, f"{name}-other")]
    cluster = LocalCluster(
        directory,
        [NodeSpec(each, (TierSpec("owned", 64 * MIB),), config={"s3_port": 0}) for each in "ab"],
        etcd=etcd.endpoint,
        name=name,
        settings=SETTINGS,
        volumes={"lake": {"catalogued": True, "origins": origins, "writable": True}},
    )
    with (
        cluster,
        CatalogServer(directory / "catalog", etcd=etcd.endpoint, cluster=name) as catalog,
    ):
        made = Lake(cluster, catalog, s3, name, random.Random(1))
        wait_registered(made)
        yield made


def wait_registered(lake: Lake) -> None:
    for node in lake.cluster.running:
        lake.catalog.wait_found(node.address)


def test_what_a_bucket_has_is_read_as_soon_as_it_is_imported_and_costs_the_origin_once(
    lake: Lake,
) -> None:
    stored = {f"first/{name}": lake.put(f"first/{name}") for name in ("x", "y/z", "é ?#%")}

    report = lake.import_all("first", to="models")

    assert (report.listed, report.added, report.unchanged) == (3, 3, 0)
    with lake.cluster.connect() as cache:
        for path, data in stored.items():
            assert cache.read(f"penstock://lake/models/{path.removeprefix('first/')}") == data
        sent = lake.s3.counters().sent_bytes
        for path, data in stored.items():
            assert cache.read(f"penstock://lake/models/{path.removeprefix('first/')}") == data
        assert lake.s3.counters().sent_bytes == sent
        urls = [info.url for info in cache.list("penstock://lake/models/")]
    assert urls == [f"penstock://lake/models/{name}" for name in ("x", "y/z", "é ?#%")]


def test_a_second_import_writes_nothing_and_a_third_what_changed(lake: Lake) -> None:
    for name in ("a", "b", "c"):
        lake.put(f"again/{name}", size=1000)
    first = lake.import_all("again", to="again")

    second = lake.import_all("again", to="again")
    changed = lake.put("again/b", size=1000)
    third = lake.import_all("again", to="again", prune=True)

    assert (first.added, second.unchanged, second.seq) == (3, 3, first.seq)
    assert (third.changed, third.unchanged, third.seq) == (1, 2, first.seq + 1)
    with lake.cluster.connect() as cache:
        assert cache.read("penstock://lake/again/b") == changed


def test_what_was_overwritten_since_the_import_is_noted_by_the_read_that_finds_it(
    lake: Lake,
) -> None:
    lake.put("moving/x")
    lake.import_all("moving", to="moving")
    url = "penstock://lake/moving/x"
    with lake.cluster.connect() as cache, operator.connect(lake.address) as operators:
        before = cache.stat(url).version
        with cache.open(url) as file:
            newer = lake.put("moving/x")
            with pytest.raises(penstock.ObjectChanged):
                file.read()

        assert cache.read(url) == newer
        told = [change.file.version for change in operators.catalog.versions(url)]
    assert told[1:] == [before]
    assert told[0] != before


def test_what_is_gone_at_its_source_is_noted_by_the_read_that_finds_it(lake: Lake) -> None:
    lake.put("going/x")
    lake.import_all("going", to="going")
    obstore.delete(lake.s3.bucket(lake.bucket), "going/x")
    url = "penstock://lake/going/x"
    with lake.cluster.connect() as cache, operator.connect(lake.address) as operators:
        with pytest.raises(penstock.ObjectNotFound):
            cache.read(url)

        removed, before = operators.catalog.versions(url)
    assert (removed.is_removed, before.is_removed) == (True, False)


def test_files_of_several_buckets_lie_in_one_volume(lake: Lake) -> None:
    here, there = lake.put("both/x"), lake.put("both/x", bucket=f"{lake.bucket}-other")
    lake.import_all("both", to="here")
    with operator.connect(lake.address) as operators:
        wanted = ImportWanted("lake", f"s3://{lake.bucket}-other/both", "there")
        operators.catalog.run_import(wanted)

    with lake.cluster.connect() as cache:
        assert cache.read("penstock://lake/here/x") == here
        assert cache.read("penstock://lake/there/x") == there


def test_an_open_file_that_has_moved_to_another_bucket_is_read_there(lake: Lake) -> None:
    data = lake.put("moved/x", size=64 * CHUNK_BYTES)
    lake.import_all("moved", to="moved")
    with lake.cluster.connect() as cache, cache.open("penstock://lake/moved/x") as file:
        assert file.read(1000) == data[:1000]
        lake.s3.put(f"{lake.bucket}-other", "moved/x", data)
        obstore.delete(lake.s3.bucket(lake.bucket), "moved/x")
        with operator.connect(lake.address) as operators:
            wanted = ImportWanted("lake", f"s3://{lake.bucket}-other/moved", "moved")
            assert operators.catalog.run_import(wanted).changed == 1
        failed = lake.s3.counters().failed_requests

        assert file.read() == data[1000:]

    nodes_that_find_it_out = len(lake.cluster.running)
    at_once = 8  # Chunks that are under way when the first of them fails.
    assert lake.s3.counters().failed_requests - failed <= nodes_that_find_it_out * at_once


def test_while_the_catalog_is_away_what_is_open_is_read_and_the_rest_says_so(lake: Lake) -> None:
    data = lake.put("away/x", size=8 * CHUNK_BYTES)  # Of both nodes.
    lake.put("away/overwritten")
    lake.import_all("away", to="away")
    with (
        lake.cluster.connect() as cache,
        cache.open("penstock://lake/away/x") as file,
        cache.open("penstock://lake/away/overwritten") as other,
    ):
        assert file.read(1000) == data[:1000]
        lake.catalog.kill()
        lake.put("away/overwritten")
        with pytest.raises(penstock.ObjectChanged):
            other.read()

        assert file.read() == data[1000:]
        assert cache.read("penstock://lake/away/x") == data  # As it was known to be.
        with pytest.raises(penstock.CatalogUnavailable):
            cache.read("penstock://lake/away/never-opened")

        lake.catalog.start()
        wait_registered(lake)
        assert cache.read("penstock://lake/away/x") == data


def test_what_is_put_lies_in_the_first_origin_and_is_in_the_catalog_at_once(lake: Lake) -> None:
    url, first, second = "penstock://lake/put/x", lake.rng.randbytes(1000), lake.rng.randbytes(900)
    with lake.cluster.connect() as cache, operator.connect(lake.address) as operators:
        cache.put(url, first)
        assert cache.read(url) == first
        with pytest.raises(penstock.Conflict):
            cache.put(url, second, if_absent=True)
        cache.put(url, second)
        assert cache.read(url) == second
        versions = operators.catalog.versions(url)

    assert obstore.get(lake.s3.bucket(lake.bucket), "put/x").bytes() == second
    assert [change.file.size for change in versions] == [900, 1000]


def test_what_is_put_over_an_imported_file_is_written_where_that_lies(lake: Lake) -> None:
    lake.put("source/x", bucket=f"{lake.bucket}-other")
    with lake.cluster.connect() as cache, operator.connect(lake.address) as operators:
        wanted = ImportWanted("lake", f"s3://{lake.bucket}-other/source", "over")
        operators.catalog.run_import(wanted)

        cache.put("penstock://lake/over/x", b"newer")

        assert cache.read("penstock://lake/over/x") == b"newer"
    assert obstore.get(lake.s3.bucket(f"{lake.bucket}-other"), "source/x").bytes() == b"newer"


def test_the_s3_gateway_has_the_volume_as_a_bucket(lake: Lake) -> None:
    data = lake.put("gateway/x")
    lake.import_all("gateway", to="gateway")
    address = lake.cluster["a"].file.s3_address

    with urllib.request.urlopen(f"http://{address}/lake/gateway/x", timeout=30) as answer:
        assert answer.read() == data


def test_fsspec_and_the_mount_have_it_as_any_other_volume(lake: Lake, tmp_path: Path) -> None:
    data = {name: lake.put(f"surfaces/{name}") for name in ("x", "deep/y")}
    lake.import_all("surfaces", to="surfaces")

    files = fsspec.filesystem("penstock", address=lake.address)
    assert files.find("lake/surfaces") == ["lake/surfaces/deep/y", "lake/surfaces/x"]
    assert files.cat("lake/surfaces/deep/y") == data["deep/y"]
    assert files.info("lake/surfaces/deep")["type"] == "directory"

    point, log = tmp_path / "mount", tmp_path / "mount.log"
    with MountProcess(point, address=lake.address, log=log):
        top = point / "lake" / "surfaces"
        assert sorted(each.name for each in top.iterdir()) == ["deep", "x"]
        assert (top / "x").read_bytes() == data["x"]
        assert (top / "deep" / "y").read_bytes() == data["deep/y"]


def test_who_falls_back_to_the_origin_reads_the_file_where_it_lies(lake: Lake) -> None:
    data = lake.put("fallback/x", size=1000)
    lake.import_all("fallback", to="elsewhere")
    with lake.cluster.connect(fallback="origin") as cache:
        handle = cache.open("penstock://lake/elsewhere/x")
        opened = cache._core.opens.open("penstock://lake/elsewhere/x").opened
        (source,) = opened.sources
        assert source.url == f"s3://{lake.bucket}/fallback/x"
        assert handle.read() == data


def test_a_place_outside_the_volumes_origins_is_refused_with_the_fix(lake: Lake) -> None:
    with (
        operator.connect(lake.address) as operators,
        pytest.raises(penstock.NotPermitted, match="volume add lake --catalogued --origin"),
    ):
        operators.catalog.run_import(ImportWanted("lake", "s3://somebody-elses/"))


def test_a_volume_that_is_not_there_is_named_with_how_to_add_it_and_no_other(lake: Lake) -> None:
    with operator.connect(lake.address) as operators:
        for ask in (
            lambda: operators.catalog.run_import(ImportWanted("pond", f"s3://{lake.bucket}/")),
            lambda: list(operators.catalog.files("penstock://pond/")),
            lambda: operators.catalog.usage("penstock://pond/"),
            lambda: operators.catalog.versions("penstock://pond/x"),
        ):
            with pytest.raises(penstock.InvalidRequest, match=r"'pond'; .* add pond") as told:
                ask()
            assert "lake" not in str(told.value)


def test_the_command_line_adds_a_volume_imports_and_shows_it(lake: Lake) -> None:
    for name, size in (("x.bin", 1000), ("y.txt", 10), ("deep/z.bin", 2000)):
        lake.put(f"shell/{name}", size=size)

    def run(*arguments: str) -> dict[str, object]:
        done = subprocess.run(
            [sys.executable, "-m", "penstock", *arguments, "--json", "--address", lake.address],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    options = [f"--option={key}={value}" for key, value in lake.s3.options.items()]
    place = f"s3://{lake.bucket}/shell"
    run("volume", "add", "shell", "--catalogued", "--origin", place, *options)

    dry = run("import", "shell", place, "--dry-run")
    done = run("import", "shell", place, "--exclude", "*.txt")

    assert (dry["added"], done["added"]) == (3, 2)
    listed = run("ls", "penstock://shell/")["objects"]
    found = run("find", "penstock://shell/", "--name", "z*", "--larger", "2kB")["objects"]
    assert isinstance(listed, list)
    assert isinstance(found, list)
    assert [each["url"] for each in listed] == [
        "penstock://shell/deep/z.bin",
        "penstock://shell/x.bin",
    ]
    assert [each["url"] for each in found] == ["penstock://shell/deep/z.bin"]
    usage = run("du", "penstock://shell/")
    assert (usage["files"], usage["bytes"]) == (2, 3000)
    assert usage["directories"] == [{"url": "penstock://shell/deep/", "files": 1, "bytes": 2000}]
    versions = run("versions", "penstock://shell/x.bin")["versions"]
    assert isinstance(versions, list)
    assert [each["source_url"] for each in versions] == [f"{place}/x.bin"]


@pytest.mark.parametrize(("more", "status"), [((), 0), (("--strict",), 1)])
def test_a_place_where_nothing_is_is_said_and_fails_only_where_that_is_wanted(
    lake: Lake, more: tuple[str, ...], status: int
) -> None:
    place = f"s3://{lake.bucket}/nothing-is-here"
    words = ["import", "lake", place, *more, "--address", lake.address]

    done = subprocess.run(
        [sys.executable, "-m", "penstock", *words],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == status, done.stderr
    assert f"there is nothing at {place}" in done.stderr


def test_the_catalog_and_its_nodes_tell_how_they_get_on(lake: Lake) -> None:
    lake.put("told/one")
    lake.import_all("told", to="told")
    with lake.cluster.connect() as cache:
        cache.stat("penstock://lake/told/one")

    url = f"http://{lake.catalog.admin_address}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    of_catalog = dict(line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
    of_nodes = [node.metrics() for node in lake.cluster.running]
    assert of_catalog["penstock_catalog_registered"] == "1.0"
    assert float(of_catalog['penstock_catalog_imports_total{outcome="done"}']) >= 1
    assert float(of_catalog['penstock_grpc_requests_total{code="OK",method="Catalog.Stat"}']) >= 1
    listed = 'penstock_origin_request_duration_seconds_count{operation="list",volume="lake"}'
    assert float(of_catalog[listed]) >= 1
    looked = 'penstock_catalog_lookup_duration_seconds_count{method="Stat"}'
    assert sum(told.get(looked, 0) for told in of_nodes) >= 1

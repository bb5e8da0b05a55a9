"""A region with a store of its own that mirrors another: which bytes come from where."""

import json
import random
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import obstore
import pytest

import penstock
from penstock import operator
from penstock.catalog import ImportWanted
from penstock.mirror_rules import BroughtVolume, MirrorRules
from penstock_node.testbed.catalog import CatalogServer
from penstock_node.testbed.cluster import LocalCluster, NodeSpec, TierSpec
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.processes import wait_until
from penstock_node.testbed.s3 import S3Counters, S3Server

MIB = 1024 * 1024
CHUNK_BYTES = 256 * 1024
SIZE = 6 * CHUNK_BYTES - 1000
DEADLINE_S = 60.0
SETTINGS = {"chunk_size": CHUNK_BYTES, "open_ttl_s": 0, "list_ttl_s": 0, "not_found_ttl_s": 0}
BUCKET = "lake"
OTHER_BUCKET = "not-there"
"""One of the near region alone: what lies in it cannot be read in the far one."""


@dataclass
class Region:
    """A cluster of one node, its catalog, and its object store."""

    cluster: LocalCluster
    catalog: CatalogServer
    s3: S3Server

    @property
    def address(self) -> str:
        return self.cluster["n1"].address

    def seq(self) -> int:
        with operator.connect(self.address) as operators:
            return operators.catalog.status().seq


@dataclass
class World:
    """A region that imports, and one that mirrors it and has a store of its own."""

    near: Region
    far: Region
    rng: random.Random

    def put(self, path: str, *, size: int = SIZE) -> bytes:
        data = self.rng.randbytes(size)
        self.near.s3.put(BUCKET, path, data)
        return data

    def publish(self, at: str) -> None:
        """Import a directory, and wait until the mirror has it."""
        with operator.connect(self.near.address) as operators:
            wanted = ImportWanted("lake", f"s3://{BUCKET}/{at}", at, prune=True)
            operators.catalog.run_import(wanted)
        newest = self.near.seq()
        wait_until(lambda: self.far.seq() >= newest, deadline_s=DEADLINE_S, what="it is level")

    def bring(self, rules: MirrorRules) -> BroughtVolume:
        """Set rules, and wait until all that there is is settled."""
        with operator.connect(self.far.address) as operators:
            operators.catalog.set_mirror_rules("lake", rules)
        return self.wait_brought(rules)

    def wait_brought(self, rules: MirrorRules) -> BroughtVolume:
        newest = self.far.seq()

        def is_settled() -> bool:
            brought = self.brought()
            return brought is not None and brought.rules == rules and brought.seq >= newest

        wait_until(is_settled, deadline_s=DEADLINE_S, what="all is brought")
        brought = self.brought()
        assert brought is not None
        return brought

    def brought(self) -> BroughtVolume | None:
        with operator.connect(self.far.address) as operators:
            return next(iter(operators.catalog.status().brought), None)

    def read(self, path: str) -> tuple[bytes, S3Counters, S3Counters]:
        """Read in the far region; also what that asked of the source's store, and of its own."""
        before = self.near.s3.counters(), self.far.s3.counters()
        with self.far.cluster.connect() as cache:
            data = cache.read(f"penstock://lake/{path}")
        return data, self.near.s3.counters() - before[0], self.far.s3.counters() - before[1]

    def copies(self, at: str) -> set[str]:
        found = obstore.list(self.far.s3.bucket("copy"), at).collect()
        return {each["path"] for each in found}

    def read_uncached(self, path: str) -> int:
        """Return how much the far region's own store sent for a read of what is not cached."""
        with operator.connect(self.far.address) as operators:
            operators.evict([f"penstock://lake/{path}"])
        return self.read(path)[2].sent_bytes

    def is_troubled(self) -> bool:
        brought = self.brought()
        return brought is not None and bool(brought.trouble)

    def has_copies(self, at: str, least: int) -> bool:
        return len(self.copies(at)) >= least


def asked(counters: S3Counters) -> int:
    """Return how many requests were reads or heads."""
    return counters.range_requests + counters.whole_requests + counters.failed_requests


def region(
    directory: Path, etcd: EtcdServer, s3: S3Server, origins: list[Any], **keys: Any
) -> Region:
    name = f"{directory.parent.name}-{directory.name}"
    cluster = LocalCluster(
        directory,
        [NodeSpec("n1", (TierSpec("owned", 64 * MIB),))],
        etcd=etcd.endpoint,
        name=name,
        settings=SETTINGS,
        volumes={"lake": {"catalogued": True, "origins": origins}},
    )
    catalog = CatalogServer(directory / "catalog", etcd=etcd.endpoint, cluster=name, **keys)
    return Region(cluster, catalog, s3)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, etcd: EtcdServer) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("world")
    with S3Server(directory / "s3-near") as source, S3Server(directory / "s3-far") as own:
        source.create_bucket(BUCKET)
        own.create_bucket("copy")
        at_source = {"url": f"s3://{BUCKET}/", "options": source.options}
        copy = {"url": "s3://copy/", "options": own.options}
        source.create_bucket(OTHER_BUCKET)
        not_there = {"url": f"s3://{OTHER_BUCKET}/", "options": source.options}
        near = region(directory / "near", etcd, source, [at_source, not_there])
        with near.cluster, near.catalog:
            far = region(
                directory / "far", etcd, own, [copy, at_source], mirror_of=near.catalog.address
            )
            with far.cluster, far.catalog:
                for each in (near, far):
                    each.catalog.wait_found(each.address)
                yield World(near, far, random.Random(7))


@pytest.fixture(autouse=True)
def _no_rules(world: World) -> Iterator[None]:
    yield
    with operator.connect(world.far.address) as operators:
        operators.catalog.set_mirror_rules("lake", MirrorRules())


def test_without_a_copy_the_source_is_read_and_the_own_store_asked_once(world: World) -> None:
    data = world.put("plain/x")
    world.publish("plain")

    read, source, own = world.read("plain/x")

    assert read == data
    assert source.sent_bytes == SIZE
    assert own.sent_bytes == 0
    assert asked(own) == 1


def test_what_is_copied_is_read_from_the_own_store_alone(world: World) -> None:
    data = {f"copied/{name}": world.put(f"copied/{name}") for name in ("a", "b")}
    world.put("copied/c.tmp")
    empty = world.put("copied/empty", size=0)
    world.publish("copied")

    brought = world.bring(MirrorRules(("copied/[abe]*",)))

    assert world.copies("copied/") == {*data, "copied/empty"}
    assert brought.copied_bytes >= 2 * SIZE
    for path, expected in {**data, "copied/empty": empty}.items():
        read, source, own = world.read(path)
        assert read == expected
        assert source.sent_bytes == 0
        assert own.sent_bytes == len(expected)


def test_new_versions_are_copied_by_themselves_and_the_old_copy_is_no_more_read(
    world: World,
) -> None:
    world.put("again/x")
    world.publish("again")
    rules = MirrorRules(("again/**",))
    world.bring(rules)
    world.read("again/x")
    newer = world.put("again/x")
    world.publish("again")
    world.wait_brought(rules)

    read, source, _ = world.read("again/x")

    assert (read, source.sent_bytes) == (newer, 0)


def test_a_copy_that_somebody_has_deleted_costs_one_request_and_the_source_is_read(
    world: World,
) -> None:
    data = world.put("lost/x")
    world.publish("lost")
    world.bring(MirrorRules(("lost/**",)))
    obstore.delete(world.far.s3.bucket("copy"), "lost/x")

    read, source, own = world.read("lost/x")

    assert read == data
    assert source.sent_bytes == SIZE
    # Chunks that were asked for at once may each have found it absent.
    assert 1 <= own.failed_requests <= 6


def test_a_copy_with_other_bytes_is_not_believed(world: World) -> None:
    data = world.put("spoilt/x")
    world.publish("spoilt")
    world.bring(MirrorRules(("spoilt/**",)))
    world.far.s3.put("copy", "spoilt/x", random.Random(8).randbytes(SIZE))

    read, source, _ = world.read("spoilt/x")

    assert (read, source.sent_bytes) == (data, SIZE)


def test_what_the_stores_replicate_themselves_is_found(world: World) -> None:
    data = world.put("replicated/x")
    world.far.s3.put("copy", "replicated/x", data)
    world.publish("replicated")

    read, source, own = world.read("replicated/x")

    assert (read, source.sent_bytes, own.sent_bytes) == (data, 0, SIZE)


def test_what_is_warmed_is_read_without_any_store(world: World) -> None:
    data = world.put("warm/x")
    world.publish("warm")
    before = world.near.s3.counters()

    world.bring(MirrorRules(warmed=("warm/**",)))

    assert (world.near.s3.counters() - before).sent_bytes == SIZE
    read, source, own = world.read("warm/x")
    assert (read, source.sent_bytes, own.sent_bytes) == (data, 0, 0)


def test_what_is_copied_and_warmed_crosses_the_link_once(world: World) -> None:
    data = world.put("both/x")
    world.publish("both")
    before = world.near.s3.counters()

    world.bring(MirrorRules(("both/**",), ("both/**",), bytes_per_s=100 * MIB))

    read, source, own = world.read("both/x")
    assert (read, source.sent_bytes, own.sent_bytes) == (data, 0, 0)
    assert (world.near.s3.counters() - before).sent_bytes == SIZE


def test_a_new_version_is_warmed_though_nodes_have_just_opened_the_old_one(world: World) -> None:
    world.put("warm/again")
    world.publish("warm")
    world.read("warm/again")
    with operator.connect(world.far.address) as operators:
        operators.set_settings({"open_ttl_s": 3600})
        world.read("warm/again")  # From now on its node believes in this version.
        newer = world.put("warm/again")
        world.publish("warm")
        world.bring(MirrorRules(warmed=("warm/again",)))
        operators.set_settings({"open_ttl_s": 0})

    read, source, own = world.read("warm/again")
    assert (read, source.sent_bytes, own.sent_bytes) == (newer, 0, 0)


def test_what_cannot_be_warmed_is_told_and_warmed_when_it_can(world: World) -> None:
    data = world.put("later/x")
    world.publish("later")
    rules = MirrorRules(warmed=("later/**",))
    world.near.s3.kill()
    try:
        with operator.connect(world.far.address) as operators:
            operators.catalog.set_mirror_rules("lake", rules)
        wait_until(world.is_troubled, deadline_s=DEADLINE_S, what="it is told")
    finally:
        world.near.s3.start()
    world.wait_brought(rules)

    read, source, _ = world.read("later/x")
    assert (read, source.sent_bytes) == (data, 0)


def test_what_the_region_may_not_read_keeps_nothing_else_from_its_cache(world: World) -> None:
    world.near.s3.put(OTHER_BUCKET, "x", b"x")
    with operator.connect(world.near.address) as operators:
        operators.catalog.run_import(ImportWanted("lake", f"s3://{OTHER_BUCKET}", "mixed"))
    data = world.put("mixed/y")
    world.publish("mixed")

    with operator.connect(world.far.address) as operators:
        operators.catalog.set_mirror_rules("lake", MirrorRules(warmed=("mixed/**",)))
    wait_until(world.is_troubled, deadline_s=DEADLINE_S, what="it is told")

    read, source, _ = world.read("mixed/y")
    assert (read, source.sent_bytes) == (data, 0)
    brought = world.brought()
    assert brought is not None
    assert "minute: 1; the first is mixed/x: " in brought.trouble


def test_who_falls_back_to_the_origin_goes_on_from_a_copy_to_the_source(world: World) -> None:
    data = world.put("without/x")
    world.publish("without")
    world.bring(MirrorRules(("without/**",)))
    node = world.far.cluster["n1"]
    with world.far.cluster.connect(fallback="origin") as cache:
        file = cache.open("penstock://lake/without/x")
        world.far.s3.put("copy", "without/x", random.Random(9).randbytes(SIZE))
        node.kill()
        try:
            assert file.read() == data
        finally:
            node.start()
            world.far.catalog.wait_found(world.far.address)


def test_rules_are_refused_that_cannot_be_heeded(world: World) -> None:
    with operator.connect(world.near.address) as operators:
        refused = pytest.raises(penstock.InvalidRequest, match="no mirror")
        with refused:
            operators.catalog.set_mirror_rules("lake", MirrorRules(("**",)))
    with operator.connect(world.far.address) as operators:
        with pytest.raises(penstock.InvalidRequest, match="no catalogued volume"):
            operators.catalog.set_mirror_rules("pond", MirrorRules(("**",)))
        with pytest.raises(penstock.InvalidRequest, match="not closed"):
            operators.catalog.set_mirror_rules("lake", MirrorRules(("a[",)))


def test_the_command_line_sets_rules_and_tells_what_was_copied(world: World) -> None:
    world.put("verbs/x")
    world.publish("verbs")
    verb = ("set", "lake", "--copy-data", "verbs/**", "--rate", "50MiB")
    shown = _mirror(world, *verb)
    assert "verbs/** is copied" in shown.stdout
    world.wait_brought(MirrorRules(("verbs/**",), bytes_per_s=50 * MIB))

    (lake,) = json.loads(_mirror(world, "status", "--json").stdout)["volumes"]

    assert lake["copied_bytes"] >= SIZE
    assert lake["copy_data"] == ["verbs/**"]
    assert lake["brought_seq"] == lake["seq"]
    assert "copied" in _mirror(world, "status").stdout


def test_a_mirror_exports_how_far_it_is_and_what_it_has_copied(world: World) -> None:
    world.put("figures/x")
    world.publish("figures")
    before = _figures(world)
    world.bring(MirrorRules(("figures/x",)))

    after = _figures(world)

    assert after["penstock_mirror_lag_entries"] == 0
    assert after["penstock_mirror_lag_seconds"] == 0
    assert after["penstock_mirror_seq"] == world.far.seq()
    copied = "penstock_mirror_copied_bytes_total"
    assert after[copied] - before[copied] == SIZE


def _figures(world: World) -> dict[str, float]:
    told = json.loads((world.far.catalog.state_dir / "catalog.json").read_bytes())
    with urllib.request.urlopen(f"http://{told['admin_address']}/metrics", timeout=20) as answer:
        text = answer.read().decode()
    samples = (line.split() for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in samples if "{" not in name}


def _mirror(world: World, *verb: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "penstock", "mirror", *verb, "--address", world.far.address],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_catalog_that_is_killed_while_it_copies_leaves_nothing_out(world: World) -> None:
    data = {f"killed/{at}": world.put(f"killed/{at}", size=300_000) for at in range(60)}
    world.publish("killed")
    rules = MirrorRules(("killed/**",), bytes_per_s=6 * MIB)
    with operator.connect(world.far.address) as operators:
        operators.catalog.set_mirror_rules("lake", rules)
    for least in (5, 25):
        wait_until(
            partial(world.has_copies, "killed/", least),
            deadline_s=DEADLINE_S,
            what="some are copied",
        )
        world.far.catalog.kill()
        world.far.catalog.start()
        world.far.catalog.wait_found(world.far.address)
    world.wait_brought(rules)

    assert world.copies("killed/") == set(data)
    for path in ("killed/0", "killed/30", "killed/59"):
        read, source, _ = world.read(path)
        assert (read, source.sent_bytes) == (data[path], 0)


def test_while_the_own_store_is_away_the_source_is_read(world: World) -> None:
    data = world.put("down/x")
    world.put("down/later")
    world.publish("down")
    world.bring(MirrorRules(("down/**",)))
    world.far.s3.kill()
    try:
        with world.far.cluster.connect() as cache:
            assert cache.read("penstock://lake/down/x") == data
    finally:
        world.far.s3.start()
    wait_until(
        lambda: world.read_uncached("down/later") > 0,
        deadline_s=DEADLINE_S,
        what="the own store is read again",
    )


def test_while_the_source_region_is_away_copies_are_read_and_the_rest_is_an_error(
    world: World,
) -> None:
    copied, _ = world.put("gone/copied"), world.put("gone/not")
    world.publish("gone")
    world.bring(MirrorRules(("gone/copied",)))
    world.near.catalog.kill()
    world.near.s3.kill()

    with world.far.cluster.connect() as cache:
        assert cache.read("penstock://lake/gone/copied") == copied
        assert cache.stat("penstock://lake/gone/not").size == SIZE
        with pytest.raises(penstock.OriginUnavailable, match=BUCKET):
            cache.read("penstock://lake/gone/not")

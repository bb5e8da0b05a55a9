"""Two copies of each chunk, over real nodes: made once, made again, and enough."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from penstock_node.testbed.cluster import NodeSpec, TierSpec
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.processes import wait_until
from penstock_node.testbed.readers import Readers
from penstock_node.testbed.s3 import S3Server
from penstock_node.testbed.site import MIB, Site, StoredObject

pytestmark = pytest.mark.timeout(180)  # So that a wait ends first, and says what for.

DEADLINE_S = 60.0
CHUNK_BYTES = 64 * 1024
OBJECT_BYTES = 8 * MIB
NODES = [NodeSpec(f"n{i}", (TierSpec("owned", 64 * MIB),)) for i in (1, 2, 3)]
SETTINGS = {
    "chunk_size": CHUNK_BYTES,
    "replicas": 2,
    "repair_after_s": 1.0,
    "handoff_bytes_per_s": 1_000_000_000,
}
LOSING = SETTINGS | {"lease_ttl_s": 6.0}
"""Where a lost node's lease is to end. Nobody else's does, or the counts would not be exact."""


class Copied:
    """A site that keeps two copies, and one object that is cached."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.stored: StoredObject = site.put("model.bin", size=OBJECT_BYTES)
        self.before = site.s3.counters().sent_bytes
        self.check()

    def check(self) -> None:
        with self.site.cluster.connect() as cache:
            assert cache.read(self.stored.url) == self.stored.data

    def wait_copied(self, copies: int = 2) -> None:
        """Wait until so many nodes that run hold each chunk."""

        def is_copied() -> bool:
            with self.site.cluster.connect() as cache:
                chunks = cache.locate(self.stored.url).chunks
            return all(len(chunk.held_by) >= copies for chunk in chunks)

        wait_until(is_copied, deadline_s=DEADLINE_S, what=f"{copies} nodes have each chunk")

    def sent_by_origin(self) -> int:
        return self.site.s3.counters().sent_bytes - self.before


@pytest.fixture
def copied(tmp_path: Path, s3: S3Server, etcd: EtcdServer) -> Iterator[Copied]:
    directory = tmp_path / f"copies-{tmp_path.name}"
    with Site(directory, s3, etcd, nodes=NODES, settings=SETTINGS) as site:
        yield Copied(site)


@pytest.fixture
def losing(tmp_path: Path, s3: S3Server, etcd: EtcdServer) -> Iterator[Copied]:
    """The same, and a node that is lost is soon no member."""
    directory = tmp_path / f"losing-{tmp_path.name}"
    with Site(directory, s3, etcd, nodes=NODES, settings=LOSING) as site:
        yield Copied(site)


def test_the_second_copy_is_made_from_the_first(copied: Copied) -> None:
    copied.wait_copied()

    with copied.site.cluster.connect() as cache:
        located = cache.locate(copied.stored.url)
    assert all(set(chunk.owners) <= set(chunk.held_by) for chunk in located.chunks)
    assert copied.sent_by_origin() == OBJECT_BYTES


def test_the_copies_lie_in_two_zones_and_the_loss_of_one_costs_nothing(
    tmp_path: Path, s3: S3Server, etcd: EtcdServer
) -> None:
    zones = {"a1": "rack-a", "a2": "rack-a", "b1": "rack-b", "b2": "rack-b"}
    nodes = [NodeSpec(name, NODES[0].tiers, {"zone": zone}) for name, zone in zones.items()]
    directory = tmp_path / f"zones-{tmp_path.name}"
    with Site(directory, s3, etcd, nodes=nodes, settings=LOSING) as site:
        copied = Copied(site)
        copied.wait_copied()
        with site.cluster.connect() as cache:
            chunks = cache.locate(copied.stored.url).chunks
        assert all({zones[node] for node in chunk.held_by} == {*zones.values()} for chunk in chunks)
        assert {node for chunk in chunks for node in chunk.held_by} == set(zones)

        for name in ("b1", "b2"):
            site.cluster[name].kill()

        copied.check()
        copied.wait_copied()  # In the zone that is left, until the other is back.
        assert copied.sent_by_origin() == OBJECT_BYTES


def test_a_node_that_is_lost_costs_nothing_and_its_copies_are_made_again(
    losing: Copied, tmp_path: Path
) -> None:
    losing.wait_copied()
    with Readers(tmp_path / "r", losing.site.address, losing.stored.url, processes=2) as readers:
        readers.release().wait_reads(1)

        losing.site.cluster["n2"].kill()

        readers.wait_reads(2)
        losing.wait_copied()
        reports = readers.finish()
    assert [report.errors for report in reports] == [[], []]
    assert {digest for report in reports for digest in report.digests} == {losing.stored.sha256}
    losing.site.cluster["n1"].kill()
    losing.check()
    assert losing.sent_by_origin() == OBJECT_BYTES


def test_each_node_is_restarted_under_load_and_nothing_moves(
    copied: Copied, tmp_path: Path
) -> None:
    copied.wait_copied()
    epoch = copied.site.epoch
    with Readers(tmp_path / "r", copied.site.address, copied.stored.url, processes=2) as readers:
        readers.release().wait_reads(1)
        for node in copied.site.cluster.nodes.values():
            node.stop()
            readers.wait_reads(1)
            node.start()
            copied.site.cluster.wait_placed(len(NODES))
        readers.wait_reads(1)
        reports = readers.finish()

    assert [report.errors for report in reports] == [[], []]
    assert {digest for report in reports for digest in report.digests} == {copied.stored.sha256}
    assert copied.site.epochs() == {epoch}
    assert copied.sent_by_origin() == OBJECT_BYTES


def test_a_frozen_node_costs_nothing(copied: Copied) -> None:
    copied.wait_copied()
    frozen = copied.site.cluster["n2"]
    with copied.site.cluster.connect() as cache:
        assert cache.read(copied.stored.url) == copied.stored.data
        frozen.process.pause()
        try:
            assert cache.read(copied.stored.url) == copied.stored.data
        finally:
            frozen.process.resume()

    assert copied.sent_by_origin() == OBJECT_BYTES


def test_one_chunk_that_is_read_again_and_again_is_read_from_both_copies(copied: Copied) -> None:
    copied.wait_copied()
    with copied.site.cluster.connect() as cache:
        owners = cache.locate(copied.stored.url).chunks[0].owners
        before = {name: chunk_reads(copied.site, name) for name in owners}

        def both_give_it() -> bool:
            for _ in range(20):
                assert cache.read(copied.stored.url, 0, 10) == copied.stored.data[:10]
            return all(chunk_reads(copied.site, name) > before[name] + 5 for name in owners)

        wait_until(both_give_it, deadline_s=DEADLINE_S, what="it is read from both")


def chunk_reads(site: Site, node: str) -> float:
    metrics = site.cluster[node].metrics()
    return sum(value for name, value in metrics.items() if "penstock_chunk_reads_total" in name)


def test_what_is_read_before_copies_are_made_again_delays_them_not(
    tmp_path: Path, s3: S3Server, etcd: EtcdServer
) -> None:
    """Who notes what the lost node misses has not handed over, and had nothing for the others."""
    settings = LOSING | {"repair_after_s": 5.0}
    directory = tmp_path / f"repair-{tmp_path.name}"
    with Site(directory, s3, etcd, nodes=NODES, settings=settings) as site:
        copied = Copied(site)
        copied.wait_copied()
        site.cluster.wait_settled(deadline_s=DEADLINE_S)
        site.cluster["n2"].kill()
        cold = site.put("cold.bin", size=OBJECT_BYTES)
        with site.cluster.connect() as cache:
            assert cache.read(cold.url) == cold.data

        copied.wait_copied()

        site.cluster["n1"].kill()
        copied.check()
        assert copied.sent_by_origin() == 2 * OBJECT_BYTES


def test_cold_reads_of_two_copies_wait_in_no_circle_for_memory(
    tmp_path: Path, s3: S3Server, etcd: EtcdServer
) -> None:
    """Each node has room for one chunk on its way from a peer, and for two from the origin."""
    nodes = [replace(node, config={"inflight_max": 5 * CHUNK_BYTES}) for node in NODES]
    directory = tmp_path / f"lanes-{tmp_path.name}"
    with Site(directory, s3, etcd, nodes=nodes, settings=SETTINGS) as site:
        stored, before = site.put("model.bin", size=OBJECT_BYTES), site.s3.counters().sent_bytes
        with Readers(tmp_path / "r", site.address, stored.url, processes=3, reads_max=1) as readers:
            reports = readers.release().wait_done()

        assert [report.errors for report in reports] == [[], [], []]
        assert {digest for report in reports for digest in report.digests} == {stored.sha256}
        assert site.s3.counters().sent_bytes - before == OBJECT_BYTES

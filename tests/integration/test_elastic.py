"""Machines that come and go move nothing: readers, and elastic members that have not joined."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import penstock
from penstock_node.testbed.cluster import NodeProcess, NodeSpec, TierSpec
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.processes import wait_until
from penstock_node.testbed.readers import Readers
from penstock_node.testbed.s3 import S3Server
from penstock_node.testbed.site import MIB, THREE_NODES, Site

pytestmark = pytest.mark.timeout(180)  # So that a wait ends first, and says what for.

DEADLINE_S = 60.0
OBJECT_BYTES = 4 * MIB
WAVES = 5
READERS_AT_ONCE = 4
LEASE_TTL_S = 6.0
"""That of who is lost ends within the test, and no other's."""
COMERS = WAVES * (2 + 2 * READERS_AT_ONCE)
"""Two nodes a wave, and twice some processes with the library."""
LOCAL = TierSpec("local", 16 * MIB)
OWNED = TierSpec("owned", 256 * MIB)


@pytest.fixture
def site(tmp_path: Path, s3: S3Server, etcd: EtcdServer) -> Iterator[Site]:
    directory = tmp_path / f"elastic-{tmp_path.name}"
    settings = {"replicas": 2, "lease_ttl_s": LEASE_TTL_S}
    with Site(directory, s3, etcd, nodes=THREE_NODES, settings=settings) as started:
        yield started


def comers(site: Site, wave: int, sockets: Path) -> list[NodeProcess]:
    """Start an elastic member and a reader of this wave, each for readers of its own machine."""
    elastic, reader = f"elastic{wave}", f"reader{wave}"
    return site.cluster.start_more(
        [
            NodeSpec(
                elastic,
                (OWNED, LOCAL),
                {"join_after": "10m", "socket": str(sockets / f"{elastic}.sock")},
            ),
            NodeSpec(reader, (LOCAL,), {"socket": str(sockets / f"{reader}.sock")}),
        ]
    )


def leave(node: NodeProcess, *, is_lost: bool) -> None:
    if is_lost:
        node.kill()
    else:
        assert node.stop() == 0


def test_fifty_short_lived_readers_and_elastic_members_move_no_epoch_and_no_byte(
    site: Site, tmp_path: Path
) -> None:
    stored = site.put("model.bin", size=OBJECT_BYTES)
    with site.cluster.connect() as cache:
        assert cache.read(stored.url) == stored.data
    wait_until(lambda: is_copied(site, stored.url), deadline_s=DEADLINE_S, what="all is copied")
    site.cluster.wait_settled(deadline_s=DEADLINE_S)
    epoch, sent = site.epoch, site.s3.counters().sent_bytes
    moved = site.cluster.total("penstock_handoff_bytes_total")
    came = 0

    for wave in range(WAVES):
        nodes = comers(site, wave, tmp_path)
        addresses = [site.address, f"unix:{nodes[wave % 2].file.socket}"]
        for at, address in enumerate(addresses):
            directory = tmp_path / f"r{wave}-{at}"
            with Readers(
                directory, address, stored.url, processes=READERS_AT_ONCE, reads_max=1
            ) as readers:
                reports = readers.release().wait_done()
            assert [report.errors for report in reports] == [[]] * READERS_AT_ONCE
            assert {each for report in reports for each in report.digests} == {stored.sha256}
            came += len(reports)
        assert site.epochs() == {epoch}
        assert site.cluster.total("penstock_handoff_bytes_total") == moved
        for node in nodes:
            leave(node, is_lost=wave % 2 == 1)
            came += 1
        wait_until(
            lambda: members(site) == {each.name for each in THREE_NODES},
            deadline_s=DEADLINE_S,
            what="those who left are no members",
        )

    assert came == COMERS == 50
    assert site.epochs() == {epoch}
    assert site.cluster.total("penstock_handoff_bytes_total") == moved
    assert site.s3.counters().sent_bytes == sent
    assert is_copied(site, stored.url)


def members(site: Site) -> set[str]:
    with site.cluster.connect() as cache:
        return set(cache.cluster_view.members)


def is_copied(site: Site, url: str) -> bool:
    with site.cluster.connect() as cache:
        return all(set(chunk.owners) <= set(chunk.held_by) for chunk in cache.locate(url).chunks)


def test_an_elastic_member_joins_when_its_time_has_come(site: Site, tmp_path: Path) -> None:
    stored = site.put("model.bin", size=OBJECT_BYTES)
    with site.cluster.connect() as cache:
        assert cache.read(stored.url) == stored.data
    epoch, sent = site.epoch, site.s3.counters().sent_bytes
    socket = tmp_path / "e.sock"
    elastic = NodeSpec("elastic", (OWNED, LOCAL), {"join_after": "3s", "socket": str(socket)})

    (node,) = site.cluster.start_more([elastic])
    with penstock.connect(f"unix:{socket}") as cache:
        assert cache.read(stored.url) == stored.data

    def has_joined() -> bool:
        with site.cluster.connect() as cache:
            return any(placed.id == node.id for placed in cache.cluster_view.placement.nodes)

    wait_until(has_joined, deadline_s=DEADLINE_S, what="it is on the ring")
    site.cluster.wait_settled(deadline_s=DEADLINE_S)
    assert site.epoch == epoch + 1
    assert node.metrics()["penstock_handoff_bytes_total"] > 0
    assert is_copied(site, stored.url)
    assert site.s3.counters().sent_bytes == sent

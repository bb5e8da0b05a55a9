"""One volume of two copies inside one of a single copy, over real nodes.

``models`` holds the bucket, ``kept`` what lies below ``kept/`` in it; both name the same objects.
"""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from penstock import operator, rpc
from penstock.object_info import ChunkLocation
from penstock.rpc import Channels
from penstock.v1 import cache_pb2
from penstock.volumes import Volume
from penstock_node.testbed.cluster import NodeSpec, TierSpec
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.processes import wait_until
from penstock_node.testbed.s3 import S3Server
from penstock_node.testbed.site import MIB, Site, StoredObject
from penstock_node.testbed.wire import Wire, chunk_request

DEADLINE_S = 60.0
CHUNK_BYTES = 64 * 1024
OBJECT_BYTES = 4 * MIB
NODES = [NodeSpec(f"n{i}", (TierSpec("owned", 64 * MIB),)) for i in (1, 2, 3)]
SETTINGS = {"chunk_size": CHUNK_BYTES, "handoff_bytes_per_s": 1_000_000_000}


class Mixed:
    """A site with the two volumes."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.keep(copies=2)

    def keep(self, *, copies: int | None) -> None:
        """Have so many copies kept of ``kept``; returns once every node knows."""
        url = f"s3://{self.site.name}/kept/"
        kept = Volume("kept", url, self.site.s3.options, replicas=copies)
        with operator.connect(self.site.address) as connected:
            connected.put_volume(kept, replace=True)

        def is_known() -> bool:
            return all(self._volume_at(node.address) == kept for node in self.site.cluster.running)

        wait_until(is_known, deadline_s=DEADLINE_S, what="all nodes know of the volume")

    def _volume_at(self, address: str) -> Volume | None:
        with operator.connect(address) as connected:
            return next((each for each in connected.volumes() if each.name == "kept"), None)

    def put(self, path: str) -> StoredObject:
        """Store an object and have it cached."""
        stored = self.site.put(path, size=OBJECT_BYTES)
        self.check(stored)
        return stored

    def check(self, stored: StoredObject) -> None:
        with self.site.cluster.connect() as cache:
            assert cache.read(stored.url) == stored.data

    def chunks(self, stored: StoredObject) -> tuple[ChunkLocation, ...]:
        with self.site.cluster.connect() as cache:
            return cache.locate(stored.url).chunks

    def wait_copied(self, stored: StoredObject, *, copies: int) -> None:
        """Wait until each chunk is at its owners, so many of them, and nothing is under way."""

        def is_copied() -> bool:
            chunks = self.chunks(stored)
            assert {len(chunk.owners) for chunk in chunks} == {copies}
            return all(set(chunk.owners) <= set(chunk.held_by) for chunk in chunks)

        wait_until(is_copied, deadline_s=DEADLINE_S, what=f"{copies} nodes have each chunk")
        self.site.cluster.wait_settled(deadline_s=DEADLINE_S)

    def sent_by_origin(self) -> int:
        return self.site.s3.counters().sent_bytes


@pytest.fixture
def mixed(tmp_path: Path, s3: S3Server, etcd: EtcdServer) -> Iterator[Mixed]:
    directory = tmp_path / f"volumes-{tmp_path.name}"
    with Site(directory, s3, etcd, nodes=NODES, settings=SETTINGS) as site:
        yield Mixed(site)


def copies_told(site: Site, stored: StoredObject) -> tuple[int, str]:
    """Return what opening says, and what the bulk port says of the first chunk."""
    with site.cluster.connect() as cache:
        owner = site.cluster[cache.locate(stored.url).chunks[0].owners[0]]
    with closing(Channels()) as channels, Wire(owner.file.bulk_address) as wire:
        answer = channels.call(owner.address, rpc.OPEN, cache_pb2.OpenRequest(urls=[stored.url]))
        opened = answer.results[0].object
        chunk = wire.ask(chunk_request(0, opened.ticket))
    return opened.replicas, chunk.headers["penstock-copies"]


def test_a_node_that_is_lost_costs_what_had_one_copy_and_nothing_of_what_had_two(
    mixed: Mixed,
) -> None:
    twice, once = mixed.put("kept/twice.bin"), mixed.put("once.bin")
    mixed.wait_copied(twice, copies=2)
    assert {chunk.held_by for chunk in mixed.chunks(once)} == {("n1",), ("n2",), ("n3",)}
    assert copies_told(mixed.site, twice) == (2, "2")
    assert copies_told(mixed.site, once) == (1, "1")
    lost = sum(chunk.owners == ("n2",) for chunk in mixed.chunks(once))
    before = mixed.sent_by_origin()

    mixed.site.cluster["n2"].kill()

    mixed.check(twice)
    assert mixed.sent_by_origin() == before
    mixed.check(once)
    assert 0 < mixed.sent_by_origin() - before <= lost * CHUNK_BYTES


def test_a_volume_is_given_a_second_copy_and_later_no_more_of_them(mixed: Mixed) -> None:
    mixed.keep(copies=None)
    stored = mixed.put("kept/early.bin")
    mixed.wait_copied(stored, copies=1)
    assert {len(chunk.held_by) for chunk in mixed.chunks(stored)} == {1}
    before, epoch = mixed.sent_by_origin(), mixed.site.epoch

    mixed.keep(copies=2)

    mixed.wait_copied(stored, copies=2)
    assert mixed.sent_by_origin() == before

    mixed.keep(copies=1)
    late = mixed.put("kept/late.bin")
    mixed.wait_copied(late, copies=1)
    assert {len(chunk.held_by) for chunk in mixed.chunks(late)} == {1}
    assert mixed.site.epoch == epoch


def test_a_drain_hands_each_chunk_to_as_many_as_keep_it(mixed: Mixed) -> None:
    twice, once = mixed.put("kept/twice.bin"), mixed.put("once.bin")
    mixed.wait_copied(twice, copies=2)
    before = mixed.sent_by_origin()

    with operator.connect(mixed.site.address) as connected:
        connected.cordon("n2", drain=True)
        drained = connected.wait_drained("n2", timeout_s=DEADLINE_S)
    mixed.site.cluster["n2"].stop()

    assert (drained.state, drained.left_bytes) == ("drained", 0)
    assert all(set(chunk.held_by) == {"n1", "n3"} for chunk in mixed.chunks(twice))
    assert all(chunk.held_by == chunk.owners for chunk in mixed.chunks(once))
    mixed.check(twice)
    mixed.check(once)
    assert mixed.sent_by_origin() == before

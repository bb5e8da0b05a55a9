"""One small object that everybody reads at once, over real nodes: more of them serve it."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import penstock
from penstock_node.testbed.cluster import NodeSpec, TierSpec
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.processes import wait_until
from penstock_node.testbed.s3 import S3Server
from penstock_node.testbed.site import MIB, Site, StoredObject

pytestmark = pytest.mark.timeout(180)  # So that a wait ends first, and says what for.

DEADLINE_S = 60.0
OBJECT_BYTES = 1 * MIB
NODES = [NodeSpec(f"n{i}", (TierSpec("owned", 64 * MIB),)) for i in (1, 2, 3, 4)]
READERS = 4


@pytest.fixture
def site(tmp_path: Path, s3: S3Server, etcd: EtcdServer) -> Iterator[Site]:
    directory = tmp_path / f"hot-{tmp_path.name}"
    with Site(directory, s3, etcd, nodes=NODES, settings={"chunk_size": OBJECT_BYTES}) as made:
        yield made


def chunk_reads(site: Site) -> dict[str, float]:
    """Return how many chunks each node has served."""
    return {
        name: sum(v for key, v in node.metrics().items() if "penstock_chunk_reads_total" in key)
        for name, node in site.cluster.nodes.items()
    }


def read_on(cache: penstock.Cache, stored: StoredObject, over: threading.Event) -> int:
    """Read until it is over; return how often."""
    reads = 0
    while not over.is_set():
        assert cache.read(stored.url) == stored.data
        reads += 1
    return reads


def test_an_object_that_many_read_at_once_is_served_by_more_nodes_than_its_owner(
    site: Site,
) -> None:
    stored = site.put("config.bin", size=OBJECT_BYTES)
    over = threading.Event()
    with site.cluster.connect(plane="bulk") as cache:
        assert cache.read(stored.url) == stored.data
        (owner,) = cache.locate(stored.url).chunks[0].owners
        epoch = site.epoch
        sent, before = site.s3.counters().sent_bytes, chunk_reads(site)

        def all_serve() -> bool:
            return all(reads - before[name] > 50 for name, reads in chunk_reads(site).items())

        with ThreadPoolExecutor(READERS) as threads:
            reading = [threads.submit(read_on, cache, stored, over) for _ in range(READERS)]
            try:
                wait_until(all_serve, deadline_s=DEADLINE_S, what="all nodes serve it")
            finally:
                over.set()
            assert all(reader.result() > 0 for reader in reading)
        located = cache.locate(stored.url).chunks[0]

    assert set(located.held_by) == set(site.cluster.nodes)
    assert located.owners == (owner,)
    assert site.s3.counters().sent_bytes == sent
    assert site.epochs() == {epoch}

"""Disks that return other bytes, are too small, or fuller than their budget says."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock_node.store.chunk_file import ChunkFile
from penstock_node.testbed.cluster import NodeProcess, NodeSpec, TierSpec
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.processes import Process
from penstock_node.testbed.s3 import S3Server
from penstock_node.testbed.site import CHUNK_BYTES, MIB, Site, StoredObject

TINY_BYTES = 2 * MIB


@pytest.fixture
def stored(site: Site, request: pytest.FixtureRequest) -> StoredObject:
    """An object of this test's own, that no node has cached."""
    return site.put(f"{request.node.name}.bin")


def flip_one_byte(site: Site, stored: StoredObject, *, at: int = 100_000) -> NodeProcess:
    """Damage one cached chunk on the disk of the one node that holds it; return the node."""
    with site.cluster.connect() as cache:
        location = cache.locate(stored.url)
    chunk = location.chunks[1]
    (holder,) = chunk.held_by
    node = site.cluster[holder]
    path = node.tier_paths[0] / "chunks" / ChunkFile(location.object, 1).relative_path
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(at)
        octet = file.read(1)[0]
        file.seek(at)
        file.write(bytes([octet ^ 1]))
    path.chmod(0o400)
    return node


def corrupt_chunks(node: NodeProcess) -> float:
    return node.metrics()["penstock_corrupt_chunks_total"]


def test_a_byte_flipped_under_a_running_node_is_never_returned_and_filled_again(
    site: Site, stored: StoredObject
) -> None:
    with site.cluster.connect() as cache:
        cache.read(stored.url)
        node = flip_one_byte(site, stored)
        found, asked = corrupt_chunks(node), site.origin_requests("get")

        data, again = cache.read(stored.url), cache.read(stored.url)

        (holder,) = cache.locate(stored.url).chunks[1].held_by
    assert data == again == stored.data
    assert corrupt_chunks(node) == found + 1
    assert site.origin_requests("get") == asked + 1
    assert holder == node.id


def test_a_byte_flipped_while_a_node_was_down_is_found_by_the_node_itself(
    site: Site, stored: StoredObject
) -> None:
    with site.cluster.connect() as cache:
        cache.read(stored.url)
    node = flip_one_byte(site, stored)
    node.stop()
    asked = site.origin_requests("get")
    node.start()
    site.cluster.wait_placed(3)

    with site.cluster.connect() as cache:
        data = cache.read(stored.url)

    assert data == stored.data
    assert corrupt_chunks(node) == 1
    assert site.origin_requests("get") == asked + 1


@pytest.fixture(scope="module")
def tiny_site(
    tmp_path_factory: pytest.TempPathFactory, s3: S3Server, own_etcd: EtcdServer
) -> Iterator[Site]:
    """One node whose cache has room for a part of an object only."""
    directory = tmp_path_factory.mktemp("tiny")
    nodes = [NodeSpec("tiny", (TierSpec("owned", TINY_BYTES),))]
    with Site(directory, s3, own_etcd, nodes=nodes) as made:
        yield made


def test_a_cache_smaller_than_the_object_serves_it_within_its_budget(tiny_site: Site) -> None:
    stored, node = tiny_site.put("large.bin"), tiny_site.cluster["tiny"]
    used_bytes = f'penstock_tier_used_bytes{{role="owned",tier="{node.tier_paths[0]}"}}'
    with tiny_site.cluster.connect() as cache:
        reads = []
        for _ in range(3):
            reads.append(cache.read(stored.url))
            assert 0 < node.metrics()[used_bytes] <= TINY_BYTES
            assert allocated_bytes(node.tier_paths[0]) <= TINY_BYTES

    assert [data == stored.data for data in reads] == [True] * 3


def allocated_bytes(directory: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in directory.rglob("*") if path.is_file())


def on_small_disk(node: NodeProcess, size_bytes: int) -> NodeProcess:
    """Let the node's tier lie on a disk of ``size_bytes``, which its budget knows nothing of."""
    tier = node.tier_paths[0]
    tier.mkdir()
    # Root may mount as it is; anybody else becomes root of a user namespace of their own.
    unshare = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    mount = f'mount -t tmpfs -o size={size_bytes} tmpfs "{tier}" && exec "$0" "$@"'
    run = [sys.executable, "-m", "penstock", "node", "--config", str(node.config_file)]
    node.process = Process([*unshare, "sh", "-c", mount, *run], log=node.directory / "node.log")
    return node


def test_a_disk_fuller_than_the_budget_costs_no_reader_anything(
    tmp_path_factory: pytest.TempPathFactory, s3: S3Server, own_etcd: EtcdServer
) -> None:
    directory = tmp_path_factory.mktemp("full")
    site = Site(directory, s3, own_etcd, nodes=[NodeSpec("full")])
    node = on_small_disk(site.cluster["full"], TINY_BYTES)
    with site, site.cluster.connect() as cache:
        stored = site.put("large.bin")

        reads = [cache.read(stored.url) for _ in range(3)]

        held = sum(bool(chunk.held_by) for chunk in cache.locate(stored.url).chunks)
        assert node.process.running
        assert node.metrics()["penstock_store_write_errors_total"] > 0
    assert [data == stored.data for data in reads] == [True] * 3
    assert 0 < held <= TINY_BYTES // CHUNK_BYTES

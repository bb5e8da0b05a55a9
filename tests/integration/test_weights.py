"""Weights over real nodes: where they come from, how far they reach, what they move."""

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import penstock
from penstock import operator
from penstock.object_info import ObjectLocation
from penstock_node.store.chunk_file import ChunkFile
from penstock_node.testbed.cluster import NodeSpec, TierSpec
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.processes import wait_until
from penstock_node.testbed.readers import Readers
from penstock_node.testbed.s3 import S3Server
from penstock_node.testbed.site import MIB, Site

DEADLINE_S = 30.0
SMALL_CHUNK_BYTES = 64 * 1024
"""So that an object has hundreds of chunks, and each pair of nodes some that move."""
OBJECT_BYTES = 16 * MIB
NODES = [NodeSpec(f"n{i}", (TierSpec("owned", i * 128 * MIB),)) for i in (1, 2, 3)]


@pytest.fixture(scope="module")
def module_site(
    tmp_path_factory: pytest.TempPathFactory, s3: S3Server, etcd: EtcdServer
) -> Iterator[Site]:
    """Three nodes of capacities 1 : 2 : 3 for all tests of this module; use `site`."""
    directory, settings = tmp_path_factory.mktemp("weights"), {"chunk_size": SMALL_CHUNK_BYTES}
    with Site(directory, s3, etcd, nodes=NODES, settings=settings) as made:
        yield made


@pytest.fixture
def site(module_site: Site) -> Iterator[Site]:
    """Three nodes with automatic weights, before each test and after it."""
    yield module_site
    with operator.connect(module_site.address) as connected:
        epoch = connected.set_weights({spec.name: None for spec in NODES}).epoch
    wait_until(lambda: module_site.epochs() == {epoch}, deadline_s=DEADLINE_S, what="all agree")


def weights(cache: penstock.Cache) -> dict[str, int]:
    return {node.id: node.weight for node in cache.cluster_view.placement.nodes}


@pytest.mark.parametrize("order", [("n3", "n2", "n1"), ("n2", "n3", "n1")], ids="-".join)
def test_weights_follow_capacity_alone_whichever_node_starts_first(
    order: tuple[str, ...], tmp_path: Path, s3: S3Server, etcd: EtcdServer
) -> None:
    directory = tmp_path / f"starts-with-{order[0]}"
    in_order = [spec for name in order for spec in NODES if spec.name == name]
    # Launched in this order, each at once after the one before.
    with Site(directory, s3, etcd, nodes=in_order) as site, site.cluster.connect() as cache:
        assert weights(cache) == {"n1": 100, "n2": 200, "n3": 300}
        assert site.epochs() == {1}


def test_a_weight_that_is_set_reaches_every_node_and_every_client_that_reads(
    site: Site, tmp_path: Path
) -> None:
    stored = site.put("read-all-the-time.bin", size=2 * MIB)
    with (
        Readers(tmp_path / "r", site.address, stored.url, processes=2) as readers,
        operator.connect(site.address) as connected,
    ):
        readers.release().wait_reads(1)

        begun = time.monotonic()
        epoch = connected.set_weights({"n1": 250}).epoch
        wait_until(lambda: site.epochs() == {epoch}, deadline_s=DEADLINE_S, what="nodes know it")
        nodes_s = time.monotonic() - begun
        wait_until(
            lambda: {report.epoch for report in readers.reports} == {epoch},
            deadline_s=DEADLINE_S,
            what="readers know it",
        )
        print(f"nodes after {nodes_s:.2f} s, readers after {time.monotonic() - begun:.2f} s")
        reports = readers.finish()
        assert {node.id: node.weight for node in connected.placement().nodes}["n1"] == 250

    assert [report.errors for report in reports] == [[], []]
    assert [report.digests for report in reports] == [[stored.sha256]] * 2


def test_a_dry_run_says_what_then_moves_and_the_origin_is_not_asked_again(site: Site) -> None:
    stored = site.put("moved.bin", size=OBJECT_BYTES)
    change = {"n2": 350, "n3": 120}
    with operator.connect(site.address) as connected, site.cluster.connect() as cache:
        connected.evict(["penstock://models/"])
        cache.read(stored.url)
        before, shares_before = cache.locate(stored.url), shares(connected)

        preview = connected.preview_weights(change)
        unchanged = connected.status().epoch
        epoch = connected.set_weights(change).epoch

        wait_until(lambda: site.epochs() == {epoch}, deadline_s=DEADLINE_S, what="nodes know it")
        cache.read(stored.url, 0, 1)  # Whose answer tells the client of the epoch.
        after, asked = cache.locate(stored.url), site.origin_requests("get")
        data = cache.read(stored.url)
        site.cluster.wait_settled(deadline_s=DEADLINE_S)
        settled = cache.locate(stored.url)
        shares_after = shares(connected)

    moved_chunks, moved_bytes = moved_between(before, after)
    told = {(move.source, move.target): move for move in preview.moves}
    assert unchanged == epoch - 1
    assert preview.unknown == ()
    assert len(moved_chunks) >= 2
    assert {pair: m.cached_chunks for pair, m in told.items() if m.cached_chunks} == moved_chunks
    assert {pair: m.cached_bytes for pair, m in told.items() if m.cached_bytes} == moved_bytes
    for node, share in shares_before.items():
        comes = sum(move.share for move in preview.moves if move.target == node)
        goes = sum(move.share for move in preview.moves if move.source == node)
        assert shares_after[node] == pytest.approx(share + comes - goes, abs=1e-9)
    assert data == stored.data
    assert site.origin_requests("get") == asked
    assert all(set(chunk.owners) <= set(chunk.held_by) for chunk in settled.chunks)


def shares(connected: operator.Operator) -> dict[str, float]:
    return {node.id: node.share for node in connected.status().nodes}


def moved_between(
    before: ObjectLocation, after: ObjectLocation
) -> tuple[Counter[tuple[str, str]], Counter[tuple[str, str]]]:
    """Return chunks and stored bytes by former and new owner, of the chunks that changed hands."""
    chunks: Counter[tuple[str, str]] = Counter()
    stored_bytes: Counter[tuple[str, str]] = Counter()
    for old, new in zip(before.chunks, after.chunks, strict=True):
        assert old.held_by == old.owners
        pair = (old.owners[0], new.owners[0])
        if pair[0] != pair[1]:
            chunks[pair] += 1
            stored_bytes[pair] += ChunkFile(before.object, old.index).allocated_bytes
    return chunks, stored_bytes

"""Nodes are killed, paused and stopped while readers read: nobody notices."""

from pathlib import Path

import pytest

from penstock_node.testbed.cluster import NodeProcess
from penstock_node.testbed.processes import wait_until
from penstock_node.testbed.readers import Readers, Report
from penstock_node.testbed.site import Site, StoredObject

DEADLINE_S = 20.0
PROCESSES = 2


@pytest.fixture
def stored(site: Site, request: pytest.FixtureRequest) -> StoredObject:
    """An object of this test's own, that no node has cached."""
    return site.put(f"{request.node.name}.bin")


def check_all_was_right(reports: list[Report], stored: StoredObject) -> None:
    assert [report.errors for report in reports] == [[]] * PROCESSES
    assert [report.digests for report in reports] == [[stored.sha256]] * PROCESSES


def serves_from_disk(node: NodeProcess) -> bool:
    return node.metrics().get('penstock_chunk_reads_total{source="disk"}', 0) > 0


def test_a_node_killed_under_readers_costs_them_nothing_and_keeps_its_place(
    site: Site, stored: StoredObject, tmp_path: Path
) -> None:
    victim, epoch = site.cluster["n2"], site.epoch
    with Readers(tmp_path / "r", site.address, stored.url, processes=PROCESSES) as readers:
        readers.release().wait_reads(2)

        victim.kill()
        readers.wait_reads(2)
        victim.start()
        site.cluster.wait_placed(3, deadline_s=DEADLINE_S)
        readers.wait_reads(2)

        check_all_was_right(readers.finish(), stored)
    assert site.epochs() == {epoch}


def test_a_node_that_was_killed_serves_what_it_had_when_it_is_back(
    site: Site, stored: StoredObject
) -> None:
    victim = site.cluster["n1"]
    with site.cluster.connect() as cache:
        cache.read(stored.url)
        has = sum("n1" in chunk.held_by for chunk in cache.locate(stored.url).chunks)
    assert 0 < has < stored.chunk_count

    victim.kill()
    victim.start()
    site.cluster.wait_placed(3, deadline_s=DEADLINE_S)
    with site.cluster.connect() as cache:
        data = cache.read(stored.url)
        by_source = cache.stats()["source"]

    assert data == stored.data
    assert set(by_source) == {"disk"}
    told = victim.metrics()
    assert told['penstock_chunk_reads_total{source="disk"}'] == has
    assert told.get('penstock_origin_requests_total{operation="get",volume="models"}', 0) == 0


def test_a_paused_node_delays_readers_and_fails_none(
    site: Site, stored: StoredObject, tmp_path: Path
) -> None:
    victim, epoch = site.cluster["n3"], site.epoch
    with Readers(tmp_path / "r", site.address, stored.url, processes=PROCESSES) as readers:
        readers.release().wait_reads(1)

        victim.process.pause()
        readers.wait_reads(1)
        victim.process.resume()
        readers.wait_reads(1)

        check_all_was_right(readers.finish(), stored)
    assert site.epoch == epoch


def test_a_node_told_to_stop_exits_in_order_moves_nothing_and_fails_no_reader(
    site: Site, stored: StoredObject, tmp_path: Path
) -> None:
    leaver, epoch = site.cluster["n2"], site.epoch
    with Readers(tmp_path / "r", site.address, stored.url, processes=PROCESSES) as readers:
        readers.release().wait_reads(2)

        status = leaver.stop()
        readers.wait_reads(2)
        epochs = site.epochs()
        leaver.start()
        wait_until(lambda: site.epochs() == {epoch}, deadline_s=DEADLINE_S, what="all agree")
        wait_until(
            lambda: serves_from_disk(leaver), deadline_s=DEADLINE_S, what="its cache is used"
        )

        check_all_was_right(readers.finish(), stored)
    assert status == 0
    assert epochs == {epoch}


def test_readers_survive_every_node_being_restarted_in_turn(
    site: Site, stored: StoredObject, tmp_path: Path
) -> None:
    epoch = site.epoch
    with Readers(tmp_path / "r", site.address, stored.url, processes=1) as readers:
        readers.release().wait_reads(1)

        for node in site.cluster.nodes.values():
            assert node.stop() == 0
            node.start()
            site.cluster.wait_placed(3, deadline_s=DEADLINE_S)
        readers.wait_reads(1)

        (report,) = readers.finish()
    assert report.errors == []
    assert report.digests == [stored.sha256]
    assert site.epoch == epoch

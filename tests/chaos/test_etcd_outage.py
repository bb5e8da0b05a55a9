"""etcd goes away under readers, for long, and comes back as it was, empty, or compacted."""

import json
import subprocess
import time
from pathlib import Path

import pytest

from penstock.errors import ClusterUnavailable
from penstock.rpc import SET_WEIGHTS, Channels
from penstock.v1 import operator_pb2
from penstock_node.testbed.etcd import EtcdServer, etcd_binary
from penstock_node.testbed.processes import wait_until
from penstock_node.testbed.readers import Readers, Report
from penstock_node.testbed.site import SHORT_LEASE_TTL_S, Site, StoredObject

DEADLINE_S = 30.0
OUTAGE_S = 4 * SHORT_LEASE_TTL_S
"""Long enough that every lease would have ended."""
PROCESSES = 2


@pytest.fixture(scope="module")
def lease_ttl_s() -> float:
    """Leases that end while etcd is away."""
    return SHORT_LEASE_TTL_S


@pytest.fixture
def stored(site: Site, request: pytest.FixtureRequest) -> StoredObject:
    """An object of this test's own, that no node has cached."""
    return site.put(f"{request.node.name}.bin")


def check_all_was_right(reports: list[Report], stored: StoredObject) -> None:
    assert [report.errors for report in reports] == [[]] * PROCESSES
    assert [report.digests for report in reports] == [[stored.sha256]] * PROCESSES


def all_are_connected(site: Site) -> bool:
    return all(node.metrics()["penstock_etcd_connected"] == 1 for node in site.cluster.running)


def test_readers_notice_no_outage_and_a_node_restarted_in_it_serves(
    site: Site, stored: StoredObject, tmp_path: Path
) -> None:
    restarted, epoch = site.cluster["n3"], site.epoch
    with Readers(tmp_path / "r", site.address, stored.url, processes=PROCESSES) as readers:
        readers.release().wait_reads(1)

        site.etcd.kill()
        ends_at = time.monotonic() + OUTAGE_S
        restarted.stop()
        restarted.start()
        with site.cluster.connect(restarted) as cache:
            alone = cache.read(stored.url)
        while time.monotonic() < ends_at:
            readers.wait_reads(1)
        during = site.epochs()
        site.etcd.start()
        wait_until(lambda: all_are_connected(site), deadline_s=DEADLINE_S, what="etcd is back")
        site.cluster.wait_placed(3, deadline_s=DEADLINE_S)
        readers.wait_reads(1)

        check_all_was_right(readers.finish(), stored)
    assert alone == stored.data
    assert during == {epoch}
    assert site.epochs() == {epoch}
    assert restarted.metrics()['penstock_chunk_reads_total{source="disk"}'] > 0


def compact(etcd: EtcdServer) -> None:
    """Throw away all of etcd's history: watches that are behind are cancelled."""
    ctl: list[str | Path] = [etcd_binary("etcdctl"), f"--endpoints={etcd.endpoint}"]
    status = subprocess.run(
        [*ctl, "endpoint", "status", "-w", "json"], check=True, capture_output=True
    )
    revision = json.loads(status.stdout)[0]["Status"]["header"]["revision"]
    subprocess.run([*ctl, "compact", "--physical", str(revision)], check=True, capture_output=True)


def test_etcd_killed_wiped_and_compacted_under_readers_changes_nothing(
    site: Site, stored: StoredObject, tmp_path: Path
) -> None:
    epoch = site.epoch
    with Readers(tmp_path / "r", site.address, stored.url, processes=PROCESSES) as readers:
        readers.release().wait_reads(1)

        site.etcd.kill()
        readers.wait_reads(1)
        site.etcd.start()
        site.cluster.wait_placed(3, deadline_s=DEADLINE_S)
        site.etcd.wipe()
        readers.wait_reads(1)
        wait_until(lambda: all_are_connected(site), deadline_s=DEADLINE_S, what="etcd is back")
        site.cluster.wait_placed(3, deadline_s=DEADLINE_S)
        compact(site.etcd)
        readers.wait_reads(1)

        check_all_was_right(readers.finish(), stored)
    assert site.epochs() == {epoch}


def test_after_etcd_was_wiped_and_compacted_changes_still_reach_every_node(site: Site) -> None:
    epoch = site.epoch
    site.etcd.wipe()
    wait_until(lambda: all_are_connected(site), deadline_s=DEADLINE_S, what="etcd is back")
    site.cluster.wait_placed(3, deadline_s=DEADLINE_S)
    compact(site.etcd)

    channels = Channels()
    change = operator_pb2.WeightChange(node="n1", weight=150)
    request = operator_pb2.SetWeightsRequest(changes=[change])

    def is_set() -> bool:
        try:
            channels.call(site.cluster["n2"].address, SET_WEIGHTS, request)
        except ClusterUnavailable:  # What was lost is being restored: try again, it says.
            return False
        return True

    wait_until(is_set, deadline_s=DEADLINE_S, what="the weight is set")
    wait_until(lambda: site.epochs() == {epoch + 1}, deadline_s=DEADLINE_S, what="all know of it")
    channels.close()

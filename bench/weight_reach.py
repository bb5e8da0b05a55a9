"""Measure how soon a weight that is set is known to every node, and to every client that reads.

    python bench/weight_reach.py [--quick] [--json FILE]

Three nodes over a real etcd and a real S3 server; clients are processes that read a cached
object in a loop. Times run from the operator's call. ``--quick`` sets one weight.
"""

import tempfile
import time
from pathlib import Path

from penstock import operator
from penstock_node.testbed.benchmark import Inputs, Measure, rounds, run_benchmark
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.processes import wait_until
from penstock_node.testbed.readers import Readers
from penstock_node.testbed.s3 import S3Server
from penstock_node.testbed.site import MIB, SHORT_LEASE_TTL_S, Site

DEADLINE_S = 30.0
CLIENTS = 2
OBJECT_BYTES = 2 * MIB
CHANGES, CHANGES_QUICK = 20, 1
TARGET_S = 1.0


def reach(site: Site, readers: Readers, connected: operator.Operator, weight: int) -> list[float]:
    """Return the seconds until nodes know of a change, and until readers do as well."""
    begun = time.monotonic()
    epoch = connected.set_weights({"n1": weight}).epoch
    wait_until(lambda: site.epochs() == {epoch}, deadline_s=DEADLINE_S, what="nodes know it")
    nodes_s = time.monotonic() - begun
    wait_until(
        lambda: {report.epoch for report in readers.reports} == {epoch},
        deadline_s=DEADLINE_S,
        what="readers know it",
    )
    return [nodes_s, time.monotonic() - begun]


def run(directory: Path, *, changes: int) -> list[list[float]]:
    """Return the two times of each change."""
    settings = {"lease_ttl_s": SHORT_LEASE_TTL_S}
    with (
        EtcdServer(directory / "etcd") as etcd,
        S3Server(directory / "s3") as s3,
        Site(directory / "weight-reach", s3, etcd, settings=settings) as site,
    ):
        stored = site.put("read.bin", size=OBJECT_BYTES)
        with (
            Readers(
                directory / "r", site.address, stored.url, processes=CLIENTS, pause_s=0
            ) as readers,
            operator.connect(site.address) as connected,
        ):
            readers.release().wait_reads(1)
            times = [
                reach(site, readers, connected, 100 + (number + 1) % 2)
                for number in rounds(changes, "changes of a weight")
            ]
            reports = readers.finish()
    assert all(r.errors == [] and r.digests == [stored.sha256] for r in reports), reports
    return times


def measure(is_quick: bool) -> tuple[Inputs, list[Measure]]:
    """Set one weight after another."""
    changes = CHANGES_QUICK if is_quick else CHANGES
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as directory:
        times = run(Path(directory), changes=changes)
    nodes, clients = (list(column) for column in zip(*times, strict=True))
    return {"nodes": 3, "readers": CLIENTS, "changes": changes}, [
        Measure.of("known to all nodes", nodes, "s", bound="≤", target=TARGET_S),
        Measure.of("known to all readers", clients, "s", bound="≤", target=TARGET_S),
    ]


if __name__ == "__main__":
    run_benchmark("How soon a weight is known", measure)

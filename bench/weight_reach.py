"""How soon a weight that is set is known to every node and to every client that reads.

Three nodes over a real etcd and a real S3 server; clients are processes that read a cached
object in a loop. Times run from the operator's call. Target: less than 1 s.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from penstock import operator
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.processes import wait_until
from penstock_node.testbed.readers import Readers
from penstock_node.testbed.s3 import S3Server
from penstock_node.testbed.site import MIB, Site

DEADLINE_S = 30.0


def measure(site: Site, readers: Readers, connected: operator.Operator, weight: int) -> list[float]:
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


def run(directory: Path, *, changes: int, clients: int, object_bytes: int) -> list[list[float]]:
    """Return the two times of each change."""
    with (
        EtcdServer(directory / "etcd") as etcd,
        S3Server(directory / "s3") as s3,
        Site(directory / "weight-reach", s3, etcd) as site,
    ):
        stored = site.put("read.bin", size=object_bytes)
        with (
            Readers(directory / "r", site.address, stored.url, processes=clients) as readers,
            operator.connect(site.address) as connected,
        ):
            readers.release().wait_reads(1)
            times = [measure(site, readers, connected, 100 + i % 2) for i in range(1, changes + 1)]
            reports = readers.finish()
    assert all(r.errors == [] and r.digests == [stored.sha256] for r in reports), reports
    return times


def main() -> None:
    """Measure, and print a line for nodes and one for clients."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--changes", type=int, default=20)
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--object-mib", type=int, default=2)
    asked = parser.parse_args()
    print(f"3 nodes, {asked.clients} reading processes, {asked.changes} changes of one weight")
    with tempfile.TemporaryDirectory() as directory:
        times = run(
            Path(directory),
            changes=asked.changes,
            clients=asked.clients,
            object_bytes=asked.object_mib * MIB,
        )
    for who, seconds in zip(("nodes", "clients"), zip(*times, strict=True), strict=True):
        median, longest = statistics.median(seconds), max(seconds)
        print(f"known to all {who} after {median:.2f} s (median), {longest:.2f} s (longest)")


if __name__ == "__main__":
    main()

"""What readers notice of an etcd that is away for long: errors, slow reads, a changed epoch.

Three nodes over a real etcd and a real S3 server; clients are processes that read a cached
object in a loop, before, during and after. A node is restarted in the outage. Targets: no
error, no wrong byte, the epoch as before, all members back.
"""

import argparse
import tempfile
import time
from pathlib import Path

from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.processes import wait_until
from penstock_node.testbed.readers import Readers, Report
from penstock_node.testbed.s3 import S3Server
from penstock_node.testbed.site import LEASE_TTL_S, Site, StoredObject

DEADLINE_S = 30.0


def outage(site: Site, readers: Readers, *, seconds: float) -> float:
    """Take etcd away, restart a node meanwhile; return how long members took to come back."""
    site.etcd.kill()
    ends_at = time.monotonic() + seconds
    site.cluster["n2"].stop()
    site.cluster["n2"].start()
    while time.monotonic() < ends_at:
        readers.wait_reads(1)
    site.etcd.start()
    back_at = time.monotonic()
    wait_until(
        lambda: all(n.metrics()["penstock_etcd_connected"] for n in site.cluster.running),
        deadline_s=DEADLINE_S,
        what="nodes reach etcd",
    )
    site.cluster.wait_placed(3, deadline_s=DEADLINE_S)
    return time.monotonic() - back_at


def run(
    directory: Path, *, outage_s: float, clients: int
) -> tuple[list[Report], StoredObject, tuple[int, int], float]:
    """Return the readers' reports, what they read, the epochs before and after, and the wait."""
    with (
        EtcdServer(directory / "etcd") as etcd,
        S3Server(directory / "s3") as s3,
        Site(directory / "etcd-outage", s3, etcd) as site,
    ):
        stored, before = site.put("read.bin"), site.epoch
        with Readers(directory / "r", site.address, stored.url, processes=clients) as readers:
            readers.release().wait_reads(1)
            back_s = outage(site, readers, seconds=outage_s)
            readers.wait_reads(1)
            reports = readers.finish()
        return reports, stored, (before, site.epoch), back_s


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--outage-s", type=float, default=30.0)
    parser.add_argument("--clients", type=int, default=2)
    asked = parser.parse_args()
    print(
        f"3 nodes, leases of {LEASE_TTL_S:g} s, {asked.clients} reading processes, "
        f"etcd away for {asked.outage_s:g} s"
    )
    with tempfile.TemporaryDirectory() as directory:
        reports, stored, (before, after), back_s = run(
            Path(directory), outage_s=asked.outage_s, clients=asked.clients
        )
    wrong = sum(digest != stored.sha256 for report in reports for digest in report.digests)
    print(f"{sum(report.reads for report in reports)} reads of {len(stored.data)} bytes")
    print(f"{sum(len(report.errors) for report in reports)} errors, {wrong} wrong")
    print(f"longest read {max(report.longest_read_s for report in reports):.2f} s")
    print(f"epoch {before} before, {after} after; members back {back_s:.2f} s after etcd")


if __name__ == "__main__":
    main()

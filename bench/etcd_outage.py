"""Measure what readers notice of an etcd that is away for long.

    python bench/etcd_outage.py [--quick] [--json FILE]

Three nodes over a real etcd and a real S3 server; processes read a cached object in a loop
before, during and after. A node is restarted in the outage. ``--quick`` makes it 1 s long.
"""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from penstock_node.testbed.benchmark import Inputs, Measure, rounds, run_benchmark
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.processes import wait_until
from penstock_node.testbed.readers import Readers, Report
from penstock_node.testbed.s3 import S3Server
from penstock_node.testbed.site import SHORT_LEASE_TTL_S, Site

DEADLINE_S = 30.0
CLIENTS = 2


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one outage."""

    reports: list[Report]
    sha256: str
    """Of what all should have read."""
    moved_epochs: int
    back_s: float
    """From etcd's return until all members were back."""

    @property
    def wrong_reads(self) -> int:
        """Readers that ever read something else."""
        return sum(digest != self.sha256 for report in self.reports for digest in report.digests)


def outage(site: Site, readers: Readers, *, seconds: int) -> float:
    """Take etcd away, restart a node meanwhile; return how long members took to come back."""
    site.etcd.kill()
    begun_at = time.monotonic()
    site.cluster["n2"].stop()
    site.cluster["n2"].start()
    for second in rounds(seconds, "etcd is away"):
        while time.monotonic() < begun_at + second + 1:
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


def run(directory: Path, *, outage_s: int) -> Outcome:
    """Have processes read through an outage."""
    settings = {"lease_ttl_s": SHORT_LEASE_TTL_S}
    with (
        EtcdServer(directory / "etcd") as etcd,
        S3Server(directory / "s3") as s3,
        Site(directory / "etcd-outage", s3, etcd, settings=settings) as site,
    ):
        stored, before = site.put("read.bin"), site.epoch
        with Readers(
            directory / "r", site.address, stored.url, processes=CLIENTS, pause_s=0
        ) as readers:
            readers.release().wait_reads(1)
            back_s = outage(site, readers, seconds=outage_s)
            readers.wait_reads(1)
            reports = readers.finish()
        return Outcome(reports, stored.sha256, site.epoch - before, back_s)


def measure(is_quick: bool) -> tuple[Inputs, list[Measure]]:
    """Take etcd away once."""
    outage_s = 1 if is_quick else 30
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as directory:
        outcome = run(Path(directory), outage_s=outage_s)
    reports = outcome.reports
    errors = sum(len(report.errors) for report in reports)
    inputs = {"nodes": 3, "readers": CLIENTS, "outage_s": outage_s, "lease_s": SHORT_LEASE_TTL_S}
    return inputs, [
        Measure("reads", sum(report.reads for report in reports)),
        Measure("reads that failed", errors, bound="="),
        Measure("readers of wrong bytes", outcome.wrong_reads, bound="="),
        Measure("epochs that passed", outcome.moved_epochs, bound="="),
        Measure("longest read", max(report.longest_read_s for report in reports), "s"),
        Measure("from etcd's return until all members are back", outcome.back_s, "s"),
    ]


if __name__ == "__main__":
    run_benchmark("An etcd that is away", measure)

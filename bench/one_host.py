"""Measure what comes into a host on which many processes read one cold object at once.

    python bench/one_host.py [--quick] [--json FILE]

Three nodes own chunks; a fourth is the host's: it has a local tier, owns nothing, and the
processes connect to its socket. What the other three served has come into the host, whoever
asked for it; what left the origin is told by SeaweedFS. ``--quick`` reads 2 MiB.
"""

import contextlib
import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from penstock import operator
from penstock_node.testbed.benchmark import Inputs, Measure, rounds, run_benchmark
from penstock_node.testbed.cluster import LocalCluster, NodeProcess, NodeSpec, TierSpec
from penstock_node.testbed.destination import random_file
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.processes import PartFailed, wait_until
from penstock_node.testbed.readers import Readers
from penstock_node.testbed.s3 import S3Server
from penstock_node.testbed.warm import MIB, scratch

BUCKET, KEY = "models", "model.bin"
URL = f"penstock://{BUCKET}/{KEY}"
CLUSTER = "one-host"
COPIES = 4
"""The file, the origin's, the owners' and the host's."""
COUNT_DEADLINE_S = 3.0
"""The origin counts a request just after it has answered it."""
LATE_S = 0.1
"""After as much as there should be: more must show."""


@dataclass(frozen=True, slots=True)
class Size:
    """What a run measures."""

    object_bytes: int
    chunk_bytes: int
    processes: int
    rounds: int


FULL = Size(object_bytes=1024 * MIB, chunk_bytes=4 * MIB, processes=8, rounds=3)
QUICK = Size(object_bytes=2 * MIB, chunk_bytes=MIB // 4, processes=2, rounds=1)


@dataclass(slots=True)
class Samples:
    """What the rounds brought."""

    seconds: list[float] = field(default_factory=list)
    network: list[float] = field(default_factory=list)
    """Bytes into the host, by the object's size; ``origin`` likewise."""
    origin: list[float] = field(default_factory=list)


class Bench:
    """A host with its node, in a cluster over an origin that holds the object."""

    def __init__(
        self,
        directory: Path,
        *,
        owners: LocalCluster,
        host: NodeProcess,
        s3: S3Server,
        size: Size,
    ) -> None:
        self._directory, self._owners, self._host = directory, owners, host
        self._s3, self._size = s3, size
        with (directory / KEY).open("rb") as file:
            self._sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        self.samples = Samples()

    def run(self) -> None:
        """Have all processes read the cold object, once a round."""
        with operator.connect(self._host.address) as own:
            for number in rounds(self._size.rounds, f"{self._size.processes} processes, cold"):
                own.evict([URL])
                self._round(number)

    def _round(self, number: int) -> None:
        size, directory = self._size, self._directory / f"readers-{number}"
        socket = f"unix:{self._host.file.socket}"
        with Readers(directory, socket, URL, processes=size.processes, reads_max=1) as readers:
            served, sent = self._served_elsewhere(), self._s3.counters().sent_bytes
            begun = time.perf_counter()
            reports = readers.release().wait_done()
            self.samples.seconds.append(time.perf_counter() - begun)
        for report in reports:
            assert (report.reads, report.digests) == (1, [self._sha256]), report
        self.samples.network.append((self._served_elsewhere() - served) / size.object_bytes)
        self.samples.origin.append((self._sent(since=sent) - sent) / size.object_bytes)

    def _served_elsewhere(self) -> float:
        """Return the bytes that nodes of other hosts have sent so far."""
        return self._owners.total("penstock_served_bytes_total")

    def _sent(self, *, since: int) -> int:
        """Return the bytes that the origin has sent so far, once it has counted the last."""

        def has_counted() -> bool:
            return self._s3.counters().sent_bytes >= since + self._size.object_bytes

        with contextlib.suppress(PartFailed):  # What never comes shows in the figures.
            wait_until(has_counted, deadline_s=COUNT_DEADLINE_S, what="the origin has counted")
        time.sleep(LATE_S)
        return self._s3.counters().sent_bytes


@contextlib.contextmanager
def running(directory: Path, size: Size) -> Iterator[Bench]:
    """Start all parts."""
    random_file(directory / KEY, size_bytes=size.object_bytes, seed=3)
    capacity_bytes = size.object_bytes + 256 * MIB
    owners = [NodeSpec(f"n{i}", (TierSpec("owned", capacity_bytes),)) for i in (1, 2, 3)]
    socket = {"socket": str(directory / "host.sock")}
    local = NodeSpec("host", (TierSpec("local", capacity_bytes),), socket)
    with EtcdServer(directory / "etcd") as etcd, S3Server(directory / "s3") as s3:
        s3.create_bucket(BUCKET)
        s3.put(BUCKET, KEY, directory / KEY)
        cluster = LocalCluster(
            directory / "nodes",
            owners,
            etcd=etcd.endpoint,
            name=CLUSTER,
            settings={"chunk_size": size.chunk_bytes},
            volumes={BUCKET: {"url": f"s3://{BUCKET}/", "options": s3.options}},
        )
        # It owns nothing, so no ring that the others wait for will have it.
        shared = {"cluster": CLUSTER, "etcd": {"endpoints": [etcd.endpoint]}}
        with cluster, NodeProcess(directory, local, shared=shared) as host:
            yield Bench(directory, owners=cluster, host=host, s3=s3, size=size)


def measure(is_quick: bool) -> tuple[Inputs, list[Measure]]:
    """Let all processes read at one moment, and count."""
    size = QUICK if is_quick else FULL
    with scratch(size.object_bytes * COPIES) as directory, running(directory, size) as bench:
        bench.run()
        samples = bench.samples
    inputs = {
        "object_bytes": size.object_bytes,
        "processes": size.processes,
        "rounds": size.rounds,
    }
    return inputs, [
        Measure.of("network bytes into the host ÷ size", samples.network, bound="=", target=1.0),
        Measure.of("origin bytes ÷ size", samples.origin, bound="=", target=1.0),
        Measure.of("to the last SHA-256", samples.seconds, "s"),
    ]


if __name__ == "__main__":
    run_benchmark("Many processes of one host read a cold object", measure)

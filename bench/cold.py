"""Measure cold reads and warm-ups beside `obstore` alone, from an origin held and not held.

    python bench/cold.py [--quick] [--json FILE]

SeaweedFS is the origin. Held, it answers no request before it is 20 ms old and sends 300 MB/s in
all. Both read the same ranges into the same buffer, with as many requests in flight; the node
has evicted the object just before, and stores it meanwhile. A warm-up ends when a tier has all of
it; no payload comes to whoever asked for it. ``--quick`` reads 8 MiB.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import penstock
from penstock import operator
from penstock.reader import WORKERS_MAX
from penstock_node.testbed.benchmark import Inputs, Measure, run_benchmark
from penstock_node.testbed.cluster import LocalCluster, NodeSpec, TierSpec
from penstock_node.testbed.contest import Contest, Sample, timed
from penstock_node.testbed.destination import Destination, random_file
from penstock_node.testbed.held_origin import HeldOrigin
from penstock_node.testbed.parallel import Threads, read_range
from penstock_node.testbed.s3 import S3Server
from penstock_node.testbed.usage import resident_bytes
from penstock_node.testbed.warm import MIB, scratch

BUCKET, KEY = "models", "model.bin"
HELD_DELAY_S = 0.020
HELD_BYTES_PER_S = 300e6
OBSTORE, PENSTOCK, WARMUP = "obstore alone", "Penstock, cold", "Penstock, warm-up"
COPIES = 3
"""The file, the origin's and the node's."""


@dataclass(frozen=True, slots=True)
class Size:
    """What a run measures."""

    object_bytes: int
    chunk_bytes: int
    rounds: int


FULL = Size(object_bytes=1024 * MIB, chunk_bytes=4 * MIB, rounds=5)
QUICK = Size(object_bytes=8 * MIB, chunk_bytes=MIB, rounds=1)


@dataclass(frozen=True, slots=True)
class Origin:
    """One of the ways to the same object."""

    group: str
    volume: str
    endpoint: str
    target: float | None
    """Of the ratio of speeds."""


class Bench:
    """What the contests over both origins share."""

    def __init__(
        self, s3: S3Server, cluster: LocalCluster, destination: Destination, size: Size
    ) -> None:
        self._s3, self._cluster, self._destination = s3, cluster, destination
        self._size = size
        self._address = ",".join(node.address for node in cluster.running)

    def measures(self, origin: Origin) -> Iterator[Measure]:
        """Run the contest over one origin, and yield its figures."""
        contest = Contest(
            {
                OBSTORE: partial(self._direct, origin),
                PENSTOCK: partial(self._cold, origin),
                WARMUP: partial(self._warmed, origin),
            },
            work_bytes=self._size.object_bytes,
            group=origin.group,
        )
        contest.run(self._size.rounds, what=f"cold, {origin.group}")
        yield contest.speed(OBSTORE)
        for name in (PENSTOCK, WARMUP):
            yield contest.speed(name)
            if origin.target is None:
                yield contest.speed_ratio(name, OBSTORE)
            else:
                yield contest.speed_ratio(name, OBSTORE, bound="≥", target=origin.target)
        (node,) = self._cluster.running
        yield Measure(
            "memory of the node, after it",
            resident_bytes(node.process.pid) / MIB,
            "MiB",
            group=origin.group,
        )

    def _direct(self, origin: Origin) -> Sample:
        store = self._s3.bucket(BUCKET, endpoint=origin.endpoint)
        read = partial(read_range, store, KEY)
        with Threads(WORKERS_MAX) as threads:
            return self._destination.timed(
                partial(threads.fill, self._destination.view, self._size.chunk_bytes, read)
            )

    def _cold(self, origin: Origin) -> Sample:
        url = f"penstock://{origin.volume}/{KEY}"
        with self._cluster.connect() as cache, operator.connect(self._address) as own:
            cache.stat(url)
            own.evict([url])
            sample = self._destination.timed(partial(cache.read_into, url, self._destination.view))
        stored = self._cluster.total("penstock_tier_used_bytes")
        assert stored >= self._size.object_bytes, f"only {stored} bytes were stored"
        return sample

    def _warmed(self, origin: Origin) -> Sample:
        url = f"penstock://{origin.volume}/{KEY}"
        with self._cluster.connect() as cache, operator.connect(self._address) as own:
            cache.stat(url)
            own.evict([url])
            reports: list[penstock.WarmupReport] = []
            sample = timed(lambda: reports.append(cache.warmup([url])))
        assert reports[0].cold_bytes == self._size.object_bytes, reports[0]
        return sample


@contextlib.contextmanager
def bench(directory: Path, s3: S3Server, size: Size) -> Iterator[tuple[Bench, list[Origin]]]:
    """Run a node over both ways to one object of the origin."""
    model = directory / KEY
    checksums = random_file(model, size_bytes=size.object_bytes, seed=3)
    s3.create_bucket(BUCKET)
    s3.put(BUCKET, KEY, model)
    held = HeldOrigin(
        directory / "held", s3.endpoint, delay_s=HELD_DELAY_S, bytes_per_s=HELD_BYTES_PER_S
    )
    held_group = f"origin held to {HELD_DELAY_S * 1e3:.0f} ms and {HELD_BYTES_PER_S / 1e6:.0f} MB/s"
    origins = [
        Origin(held_group, "held", held.endpoint, target=0.97),
        Origin("origin not held", "free", s3.endpoint, target=None),
    ]
    capacity_bytes = 2 * size.object_bytes + 256 * MIB
    cluster = LocalCluster(
        directory / "nodes",
        [NodeSpec("n1", (TierSpec("owned", capacity_bytes),))],
        etcd=None,
        settings={"chunk_size": size.chunk_bytes},
        volumes={
            origin.volume: {
                "url": f"s3://{BUCKET}/",
                "options": s3.options | {"endpoint": origin.endpoint},
            }
            for origin in origins
        },
    )
    with held, cluster:
        yield Bench(s3, cluster, Destination(size.object_bytes, checksums), size), origins


def measure(is_quick: bool) -> tuple[Inputs, list[Measure]]:
    """Measure over the held origin, and over the one that is not."""
    size = QUICK if is_quick else FULL
    measures: list[Measure] = []
    with (
        scratch(size.object_bytes * COPIES) as directory,
        S3Server(directory / "s3") as s3,
        bench(directory, s3, size) as (running, origins),
    ):
        for origin in origins:
            measures += running.measures(origin)
    return {
        "object_bytes": size.object_bytes,
        "chunk_bytes": size.chunk_bytes,
        "requests_at_once": WORKERS_MAX,
        "rounds": size.rounds,
    }, measures


if __name__ == "__main__":
    run_benchmark("Cold reads from an origin", measure)

"""Measure imports into the catalog against listing the bucket alone.

    python bench/catalog.py [--quick] [--json FILE]

A real S3 server with a bucket of small objects in directories of a thousand; the catalog as a
process, over SQLite and over a real PostgreSQL. The bucket is listed with obstore alone, imported
for the first time, and again after a thousandth of it has changed. ``--quick`` takes a bucket of
2,000.
"""

import asyncio
import contextlib
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import obstore

from penstock import operator
from penstock.catalog import ImportProgress, ImportWanted
from penstock_node.testbed.benchmark import Inputs, Measure, rounds, run_benchmark
from penstock_node.testbed.catalog import CatalogServer
from penstock_node.testbed.cluster import LocalCluster, NodeSpec, TierSpec
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.postgres import PostgresServer
from penstock_node.testbed.s3 import S3Server

BUCKET = "lake"
IN_DIRECTORY = 1_000
AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class Size:
    """What a run measures."""

    objects: int
    listings: int


FULL = Size(objects=1_000_000, listings=3)
QUICK = Size(objects=2_000, listings=1)


class Bucket:
    """A bucket of small objects."""

    def __init__(self, s3: S3Server, size: Size) -> None:
        s3.create_bucket(BUCKET)
        self.store = s3.bucket(BUCKET)
        self._rng = random.Random(1)
        self.keys = [
            f"part-{n // IN_DIRECTORY:05}/file-{n % IN_DIRECTORY:03}.bin"
            for n in range(size.objects)
        ]

    def fill(self) -> None:
        """Put all of its objects."""
        for step in rounds(len(self.keys) // IN_DIRECTORY, "filling the bucket"):
            first = step * IN_DIRECTORY
            asyncio.run(self._put(self.keys[first : first + IN_DIRECTORY]))

    def change(self) -> int:
        """Overwrite a thousandth of them; returns how many."""
        changed = self._rng.sample(self.keys, max(1, len(self.keys) // 1000))
        asyncio.run(self._put(changed))
        return len(changed)

    async def _put(self, keys: list[str]) -> None:
        slots = asyncio.Semaphore(AT_ONCE)

        async def put(key: str) -> None:
            async with slots:
                await obstore.put_async(self.store, key, self._rng.randbytes(16))

        await asyncio.gather(*map(put, keys))

    def list_alone(self) -> float:
        """List it with obstore, and return the seconds that takes."""
        begun, found = time.perf_counter(), 0
        for page in obstore.list(self.store, chunk_size=1000):
            found += len(page)
        assert found == len(self.keys), f"{found} of {len(self.keys)} objects were listed"
        return time.perf_counter() - begun


@contextlib.contextmanager
def database_of(kind: str) -> Iterator[dict[str, str]]:
    """Yield the configuration of a new database."""
    if kind == "SQLite":
        yield {}
        return
    with contextlib.closing(PostgresServer().start()) as server:
        yield {"database": server.url()}


class Bench:
    """One database behind one catalog."""

    def __init__(self, directory: Path, s3: S3Server, etcd: EtcdServer, kind: str) -> None:
        name = kind.lower()
        origin = {"url": f"s3://{BUCKET}/", "options": s3.options}
        self.kind, self._stack = kind, contextlib.ExitStack()
        keys = self._stack.enter_context(database_of(kind))
        cluster = LocalCluster(
            directory / name,
            [NodeSpec("n1", (TierSpec("owned", 16 << 20),))],
            etcd=etcd.endpoint,
            name=name,
            volumes={"lake": {"catalogued": True, "origins": [origin]}},
        )
        self._stack.enter_context(cluster)
        self._catalog = self._stack.enter_context(
            CatalogServer(directory / name / "c", etcd=etcd.endpoint, cluster=name, **keys)
        )
        self._operator = self._stack.enter_context(operator.connect(cluster["n1"].address))
        self._catalog.wait_found(cluster["n1"].address)

    def close(self) -> None:
        """Stop all of it."""
        self._stack.close()

    def imported(self) -> tuple[ImportProgress, float]:
        """Import the bucket, and return what that did and the seconds."""
        begun = time.perf_counter()
        report = self._operator.catalog.run_import(ImportWanted("lake", f"s3://{BUCKET}/"))
        return report, time.perf_counter() - begun

    def memory_bytes(self) -> int:
        """Return the most memory that the catalog has had."""
        status = Path(f"/proc/{self._catalog.process.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024


def measured(bench: Bench, bucket: Bucket, size: Size) -> list[Measure]:
    """Measure one database."""
    alone_s = statistics.median(bucket.list_alone() for _ in rounds(size.listings, "listing alone"))
    report, first_s = bench.imported()
    assert report.added == size.objects, report
    changed = bucket.change()
    again, again_s = bench.imported()
    count = size.objects
    measures = [
        Measure("obstore lists", count / alone_s, "keys/s"),
        Measure("first import", count / first_s, "keys/s"),
        Measure("first import ÷ obstore lists", alone_s / first_s, bound="≥", target=0.8),
        Measure("a thousandth changed: written", again.changed, bound="=", target=changed),
        Measure("the same: seconds ÷ obstore lists", again_s / alone_s, bound="≤", target=1.1),
        Measure("memory at most", bench.memory_bytes() / 1e6, "MB", bound="≤", target=300.0),
    ]
    return [replace(each, group=bench.kind) for each in measures]


def measure(is_quick: bool) -> tuple[Inputs, list[Measure]]:
    """Measure both databases over one bucket."""
    size, measures = (QUICK if is_quick else FULL), []
    with (
        tempfile.TemporaryDirectory(prefix="penstock-bench-") as name,
        EtcdServer(Path(name) / "etcd") as etcd,
        S3Server(Path(name) / "s3") as s3,
    ):
        bucket = Bucket(s3, size)
        bucket.fill()
        for kind in ("SQLite", "PostgreSQL"):
            with contextlib.closing(Bench(Path(name), s3, etcd, kind)) as bench:
                measures += measured(bench, bucket, size)
    return {"objects": size.objects, "in a directory": IN_DIRECTORY}, measures


if __name__ == "__main__":
    run_benchmark("Imports into the catalog", measure)

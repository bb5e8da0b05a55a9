"""Measure reading a real model through a real cluster: cold, warm, in blocks, by many at once.

    python bench/reading.py [--quick] [--json FILE]

etcd, SeaweedFS and three nodes run as processes on this machine, which they share with the
reader. In each round the origin is read without Penstock, then the model cold (evicted just
before) and warm, so that a busy moment hits all alike; ratios are taken within a round.
``--quick`` reads 8 MiB of random bytes with few processes: it shows that the benchmark runs.
"""

import contextlib
import hashlib
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import obstore

import penstock
from penstock import operator
from penstock.reader import WORKERS_MAX
from penstock_node.testbed.benchmark import Inputs, Measure, percentile, rounds, run_benchmark
from penstock_node.testbed.cluster import LocalCluster, NodeSpec, TierSpec
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.model import model_path
from penstock_node.testbed.parallel import Threads, read_range
from penstock_node.testbed.processes import PartFailed, wait_until
from penstock_node.testbed.readers import Readers
from penstock_node.testbed.s3 import S3Counters, S3Server

KIB, MIB = 1024, 1024 * 1024
BLOCK_BYTES = 64 * KIB
BUCKET = "models"
KEY = "bench/model.safetensors"
URL = f"penstock://models/{KEY}"
COUNT_DEADLINE_S = 3.0
"""The origin counts a request just after it has answered it."""
LATE_S = 0.1
"""After as many as there should be: one too many must show."""


@dataclass(frozen=True, slots=True)
class Size:
    """What a run measures."""

    chunk_sizes: tuple[int, ...]
    rounds: int
    blocks: int
    """Single blocks read a round."""
    crowd: int
    """Processes that read a cold model at once."""
    crowd_rounds: int


FULL = Size(chunk_sizes=(4 * MIB, 256 * KIB), rounds=7, blocks=300, crowd=16, crowd_rounds=3)
QUICK = Size(chunk_sizes=(256 * KIB,), rounds=1, blocks=10, crowd=2, crowd_rounds=1)


def seconds(action: Callable[[], object]) -> float:
    """Return how long ``action`` takes."""
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


@dataclass(frozen=True, slots=True)
class Setting:
    """A cluster that runs, over an origin that holds the object."""

    s3: S3Server
    cluster: LocalCluster
    directory: Path
    data: bytes
    chunk_bytes: int

    @property
    def address(self) -> str:
        """Of all nodes."""
        return ",".join(node.address for node in self.cluster.running)

    @property
    def group(self) -> str:
        """Of the figures."""
        return f"chunks of {self.chunk_bytes // KIB:,} KiB"

    @property
    def chunk_count(self) -> int:
        """Of the object."""
        return -(-len(self.data) // self.chunk_bytes)


@dataclass(slots=True)
class Samples:
    """What the rounds took; seconds, unless named otherwise."""

    direct: list[float] = field(default_factory=list)
    cold: list[float] = field(default_factory=list)
    warm: list[float] = field(default_factory=list)
    direct_blocks: list[float] = field(default_factory=list)
    warm_blocks: list[float] = field(default_factory=list)
    cold_asked: list[S3Counters] = field(default_factory=list)
    crowd: list[float] = field(default_factory=list)
    crowd_asked: list[S3Counters] = field(default_factory=list)


class Bench:
    """Takes the samples of one cluster, into one buffer whose pages have been touched."""

    def __init__(self, setting: Setting, cache: penstock.Cache, own: operator.Operator) -> None:
        self._setting = setting
        self._cache = cache
        self._operator = own
        self._bucket = setting.s3.bucket(BUCKET)
        self._buffer = memoryview(bytearray(len(setting.data)))
        self._rng = random.Random(7)
        self.samples = Samples()

    def run(self, size: Size) -> Samples:
        """Take all samples."""
        self._cache.read_into(URL, self._buffer)  # Connects, opens, fills.
        for _ in rounds(size.rounds, f"reading, {self._setting.group}"):
            self._round(size)
        for number in rounds(size.crowd_rounds, f"{size.crowd} processes, cold"):
            self._crowd_round(size.crowd, number)
        return self.samples

    def _round(self, size: Size) -> None:
        samples = self.samples
        before = self._setting.s3.counters()
        samples.direct.append(self._checked(self._read_direct))
        self._asked(before)  # Waits, so that these are not counted as Penstock's.
        self._operator.evict([URL])
        before = self._setting.s3.counters()
        samples.cold.append(self._checked(self._read_cached))
        samples.cold_asked.append(self._asked(before))
        samples.warm.append(self._checked(self._read_cached))
        offsets = self._block_offsets(size.blocks)
        samples.direct_blocks += [self._direct_block(offset) for offset in offsets]
        samples.warm_blocks += [self._warm_block(offset) for offset in offsets]

    def _checked(self, read: Callable[[], object]) -> float:
        """Return how long ``read`` takes to bring the right bytes; checking is not timed."""
        self._buffer[:] = bytes(len(self._buffer))
        took = seconds(read)
        assert self._buffer == self._setting.data, "the bytes are not the object's"
        return took

    def _read_cached(self) -> None:
        self._cache.read_into(URL, self._buffer)

    def _read_direct(self) -> None:
        """Read the object from its origin as Penstock does: the same ranges, as many at once."""
        with Threads(WORKERS_MAX) as threads:
            read = partial(read_range, self._bucket, KEY)
            threads.fill(self._buffer, self._setting.chunk_bytes, read)

    def _block_offsets(self, count: int) -> list[int]:
        blocks = len(self._buffer) // BLOCK_BYTES
        return [self._rng.randrange(blocks) * BLOCK_BYTES for _ in range(count)]

    def _direct_block(self, offset: int) -> float:
        stop = offset + BLOCK_BYTES
        return seconds(lambda: obstore.get_range(self._bucket, KEY, start=offset, end=stop))

    def _warm_block(self, offset: int) -> float:
        with self._buffer[:BLOCK_BYTES] as block:
            return seconds(lambda: self._cache.read_into(URL, block, offset))

    def _asked(self, before: S3Counters) -> S3Counters:
        """Return what the origin was asked since, by its own account."""
        s3, setting = self._setting.s3, self._setting

        def has_counted() -> bool:
            asked = s3.counters() - before
            return asked.range_requests >= setting.chunk_count and asked.sent_bytes >= len(
                setting.data
            )

        with contextlib.suppress(PartFailed):  # What never comes shows in the figures.
            wait_until(has_counted, deadline_s=COUNT_DEADLINE_S, what="the origin has counted")
        time.sleep(LATE_S)
        return s3.counters() - before

    def _crowd_round(self, processes: int, number: int) -> None:
        setting = self._setting
        directory = setting.directory / f"crowd-{number}"
        with Readers(directory, setting.address, URL, processes=processes, reads_max=1) as crowd:
            self._operator.evict([URL])
            before = setting.s3.counters()
            begun = time.perf_counter()
            reports = crowd.release().wait_done()
            self.samples.crowd.append(time.perf_counter() - begun)
        self.samples.crowd_asked.append(self._asked(before))
        right = hashlib.sha256(setting.data).hexdigest()
        for report in reports:
            assert (report.reads, report.digests) == (1, [right]), report


def measures_of(samples: Samples, setting: Setting, size: Size) -> Iterator[Measure]:
    """Yield the figures of one cluster."""
    megabytes, group = len(setting.data) / 1e6, setting.group

    def speed(name: str, times: Sequence[float]) -> Measure:
        return Measure.of(name, [megabytes / took for took in times], "MB/s", group=group)

    def relative(name: str, times: Sequence[float]) -> Measure:
        ratios = [direct / took for took, direct in zip(times, samples.direct, strict=True)]
        return Measure.of(f"{name}, of the origin's speed", ratios, group=group)

    yield speed("origin without Penstock", samples.direct)
    yield speed("cold", samples.cold)
    yield relative("cold", samples.cold)
    yield from _asked_by("cold", samples.cold_asked, setting, group=group)
    yield speed("warm", samples.warm)
    yield relative("warm", samples.warm)
    for name, blocks in (
        ("64 KiB of the origin", samples.direct_blocks),
        ("64 KiB warm", samples.warm_blocks),
    ):
        for percent in (50, 99):
            value = percentile(blocks, percent) * 1e3
            yield Measure(f"{name}, p{percent}", value, "ms", runs=len(blocks), group=group)
    crowd = f"{size.crowd} processes at once, cold"
    yield Measure.of(f"{crowd}: to the last SHA-256", samples.crowd, "s", group=group)
    yield from _asked_by(crowd, samples.crowd_asked, setting, group=group)


def _asked_by(
    name: str, asked: Sequence[S3Counters], setting: Setting, *, group: str
) -> Iterator[Measure]:
    """Yield what the origin had to do, beside the least that it can be."""
    requests = [counted.range_requests for counted in asked]
    ratios = [counted.sent_bytes / len(setting.data) for counted in asked]
    for of, counts, target in (
        ("origin requests, chunks", requests, setting.chunk_count),
        ("origin bytes / size", ratios, 1),
    ):
        yield Measure.of(f"{name}: {of}", counts, bound="=", target=target, group=group)


@contextlib.contextmanager
def running(
    directory: Path, data: bytes, chunk_bytes: int, *, s3: S3Server, etcd: EtcdServer
) -> Iterator[Setting]:
    """Run three nodes, each with room for the whole object."""
    name = f"chunks-{chunk_bytes}"
    capacity_bytes = 2 * len(data) + 64 * MIB
    cluster = LocalCluster(
        directory / name,
        [NodeSpec(f"n{i}", (TierSpec("owned", capacity_bytes),)) for i in (1, 2, 3)],
        etcd=etcd.endpoint,
        name=name,
        settings={"chunk_size": chunk_bytes},
        volumes={"models": {"url": f"s3://{BUCKET}/", "options": s3.options}},
    )
    with cluster:
        yield Setting(s3, cluster, directory / name, data, chunk_bytes)


def measure(is_quick: bool) -> tuple[Inputs, list[Measure]]:
    """Start the parts, and measure one chunk size after another."""
    size = QUICK if is_quick else FULL
    data = random.Random(3).randbytes(8 * MIB + 12_345) if is_quick else model_path().read_bytes()
    measures: list[Measure] = []
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-bench-")))
        etcd = stack.enter_context(EtcdServer(directory / "etcd"))
        s3 = stack.enter_context(S3Server(directory / "s3"))
        s3.create_bucket(BUCKET)
        s3.put(BUCKET, KEY, data)
        for chunk_bytes in size.chunk_sizes:
            with (
                running(directory, data, chunk_bytes, s3=s3, etcd=etcd) as setting,
                penstock.connect(setting.address, plane="grpc") as cache,
                operator.connect(setting.address) as own,
            ):
                samples = Bench(setting, cache, own).run(size)
                measures += measures_of(samples, setting, size)
    return {
        "object_bytes": len(data),
        "nodes": 3,
        "plane": "grpc",
        "requests_at_once": WORKERS_MAX,
        "rounds": size.rounds,
    }, measures


if __name__ == "__main__":
    run_benchmark("Reading a model through a cluster", measure)

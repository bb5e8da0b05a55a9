"""Measure what readers, and the origin, notice of weights, drains, joins and lost nodes.

    python bench/maintenance.py [--quick] [--json FILE]

Four nodes over a real etcd and a real S3 server hold an object; one reader reads at random
places of it, at a steady rate that leaves the processors free, before and during each change. A
drained node is put back before the next one is drained; hand-over keeps to a rate at which all
processes together use less than a third of the processors, which is told. Then a weight is
raised, a fifth node joins. Of four other nodes, with two copies, one is stopped for a moment, and
another killed.
``--quick`` does each once, on a small object.
"""

import contextlib
import os
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import penstock
from penstock import operator
from penstock_node.testbed.benchmark import Inputs, Measure, percentile, rounds, run_benchmark
from penstock_node.testbed.cluster import NodeSpec, TierSpec
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.processes import wait_until
from penstock_node.testbed.s3 import S3Server
from penstock_node.testbed.site import MIB, SHORT_LEASE_TTL_S, Site, StoredObject
from penstock_node.testbed.usage import cpu_seconds

DEADLINE_S = 120.0
CHUNK_BYTES = 256 * 1024
READ_BYTES = 64 * 1024
READ_EVERY_S = 0.01
NAMES = ("n1", "n2", "n3", "n4")
WARM_UP_READS = 50
HANDOFF_BYTES_PER_S = 3_000_000
"""While nodes are drained: at 10 MB/s readers notice the processor time that it takes here."""
FULL_BYTES_PER_S = 200_000_000
LONG_LEASE_S = 30.0
"""While nobody is lost: on a busy machine a short one may end, and others stand in."""


@dataclass(frozen=True, slots=True)
class Size:
    """What a run measures."""

    object_bytes: int
    drains: int
    watch_s: float
    """How long readers are watched before a change, and after a loss."""


FULL = Size(object_bytes=192 * MIB, drains=5, watch_s=10.0)
QUICK = Size(object_bytes=8 * MIB, drains=1, watch_s=0.5)


@dataclass(slots=True)
class Reader:
    """Reads at random places, one read after another, until it is stopped."""

    cache: penstock.Cache
    stored: StoredObject
    seconds: list[float] = field(default_factory=list)
    errors: int = 0
    _over: threading.Event = field(default_factory=threading.Event)

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Read in the background while the ``with`` lasts."""
        thread = threading.Thread(target=self._read_on, name="reader")
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def _read_on(self) -> None:
        rng, memory = random.Random(5), bytearray(READ_BYTES)
        while not self._over.wait(READ_EVERY_S):
            at = rng.randrange(len(self.stored.data) - READ_BYTES)
            begun = time.perf_counter()
            try:
                self.cache.read_into(self.stored.url, memory, at)
            except penstock.PenstockError:
                self.errors += 1
            self.seconds.append(time.perf_counter() - begun)
            if memory != self.stored.data[at : at + READ_BYTES]:
                self.errors += 1

    def wait_reads(self, count: int) -> None:
        """Wait until so many reads more are done."""
        goal = len(self.seconds) + count
        wait_until(lambda: len(self.seconds) >= goal, deadline_s=DEADLINE_S, what="it reads on")

    def p99_of(self, change: Callable[[], None]) -> float:
        """Return the 99th percentile of the reads that began while ``change`` went on."""
        first = len(self.seconds)
        change()
        self.wait_reads(1)  # The one in hand began while it went on.
        return percentile(self.seconds[first:], 99)


class Bench:
    """A site, one object that is cached, one reader."""

    def __init__(self, site: Site, size: Size, operators: operator.Operator) -> None:
        self._site, self._size, self._operator = site, size, operators
        self.stored = site.put("model.bin", size=size.object_bytes)
        self.measures: list[Measure] = []

    def run(self, measure: Callable[["Bench", Reader], None]) -> None:
        """Measure with the object cached and a reader at work; the origin should notice nothing."""
        with self._site.cluster.connect() as cache:
            assert cache.read(self.stored.url) == self.stored.data
            sent, reader = self._site.s3.counters().sent_bytes, Reader(cache, self.stored)
            with reader.reading():
                reader.wait_reads(WARM_UP_READS)
                measure(self, reader)
                reader.wait_reads(WARM_UP_READS)
        group = measure.__name__.replace("_", " ")
        self.measures += [
            Measure("reads", len(reader.seconds), group=group),
            Measure("reads that failed or were wrong", reader.errors, bound="=", group=group),
            Measure(
                "bytes asked of the origin",
                self._site.s3.counters().sent_bytes - sent,
                bound="=",
                group=group,
            ),
        ]

    def watch(self) -> None:
        """Let the reader read."""
        time.sleep(self._size.watch_s)

    def settle(self) -> None:
        """Wait until all have handed over what is others'."""
        self._site.cluster.wait_settled(deadline_s=DEADLINE_S)

    def moved_bytes(self) -> float:
        """Return what nodes have taken over so far."""
        return self._site.cluster.total("penstock_handoff_bytes_total")

    def owners(self) -> list[str]:
        """Return each chunk's owner."""
        with self._site.cluster.connect() as cache:
            return [chunk.owners[0] for chunk in cache.locate(self.stored.url).chunks]

    def drains(self, reader: Reader) -> None:
        """Drain nodes, and put them back."""
        self._operator.set_settings({"handoff_bytes_per_s": HANDOFF_BYTES_PER_S})
        ratios: list[float] = []
        shares: list[float] = []
        handed: list[float] = []
        back: list[float] = []
        seconds: list[float] = []
        for number in rounds(self._size.drains, "drains"):
            node = NAMES[number % len(NAMES)]
            before = reader.p99_of(self.watch)
            begun, used_s = time.monotonic(), self._processor_s()
            during = reader.p99_of(partial(self._drain, node, handed))
            seconds.append(time.monotonic() - begun)
            shares.append((self._processor_s() - used_s) / seconds[-1] / (os.cpu_count() or 1))
            ratios.append(during / before)
            moved = self.moved_bytes()
            self._operator.uncordon(node)
            self.settle()
            back.append(self.moved_bytes() - moved)
        self._operator.set_settings({"handoff_bytes_per_s": FULL_BYTES_PER_S})
        self._add(
            Measure.of("to drained", seconds, "s"),
            Measure.of("handed over", [value / 1e6 for value in handed], "MB"),
            Measure.of("read p99: during ÷ before", ratios, bound="≤", target=1.5),
            Measure.of("processors in use", [100 * share for share in shares], "%"),
            Measure.of("moved as it is put back", back, "B", bound="="),
            group="drains",
        )

    def _processor_s(self) -> float:
        """Return the processor time that all parts have used so far."""
        parts = [node.process for node in self._site.cluster.running]
        parts += [self._site.s3.process, self._site.etcd.process]
        return time.process_time() + sum(cpu_seconds(part.pid) for part in parts)

    def _drain(self, node: str, handed: list[float]) -> None:
        self._operator.cordon(node, drain=True)
        done = self._operator.wait_drained(node, timeout_s=DEADLINE_S)
        assert (done.state, done.left_bytes) == ("drained", 0), done
        handed.append(done.handed_bytes)

    def a_raised_weight(self, reader: Reader) -> None:
        """Raise one node's weight from 100 to 300."""
        self._change(lambda: self._operator.set_weights({"n1": 300}), "a raised weight")
        self._operator.set_weights({"n1": None})
        self.settle()

    def a_join(self, reader: Reader) -> None:
        """Have a fifth node join."""
        cluster = self._site.cluster
        self._change(lambda: cluster.add(replace(cluster["n1"].spec, name="n5")), "a join")

    def _change(self, change: Callable[[], object], group: str) -> None:
        owners, moved = self.owners(), self.moved_bytes()
        begun = time.monotonic()
        change()
        self.settle()
        seconds, moved = time.monotonic() - begun, self.moved_bytes() - moved
        # Whoever is asked may hear of it later than those who hand over.
        wait_until(
            lambda: self.owners() != owners, deadline_s=DEADLINE_S, what="chunks have other owners"
        )
        changed = sum(new != old for new, old in zip(self.owners(), owners, strict=True))
        least = changed * CHUNK_BYTES
        self._add(
            Measure("to handed over", seconds, "s"),
            Measure("moved", moved / 1e6, "MB"),
            Measure("moved ÷ chunks with another owner", moved / least, bound="≤", target=1.05),
            group=group,
        )

    def a_stopped_process(self, reader: Reader) -> None:
        """Stop a node's process without ending it, with two copies; go on with it after."""
        node, before = self._site.cluster["n2"], reader.p99_of(self.watch)
        first = len(reader.seconds)

        def stopped() -> None:
            node.process.pause()
            try:
                for _ in range(6):
                    self.watch()
            finally:
                node.process.resume()

        during = reader.p99_of(stopped)
        self._add(
            Measure("stopped for", 6 * self._size.watch_s, "s"),
            Measure("slowest read", max(reader.seconds[first:]), "s", bound="≤", target=1.0),
            Measure("read p99: during ÷ before", during / before, bound="≤", target=2.0),
            group="a stopped process",
        )
        self._site.cluster.wait_placed(len(self._site.cluster.nodes))

    def a_killed_node(self, reader: Reader) -> None:
        """Kill a node, with two copies, and wait until there are two copies again."""
        first, begun = len(reader.seconds), time.monotonic()
        self._site.cluster["n3"].kill()
        self.wait_copies()
        seconds = time.monotonic() - begun
        self.watch()
        self._add(
            Measure("slowest read", max(reader.seconds[first:]), "s", bound="≤", target=1.0),
            Measure("until there are two copies again", seconds, "s"),
            group="a killed node",
        )

    def wait_copies(self) -> None:
        """Wait until two nodes that run hold each chunk."""

        def has_copies() -> bool:
            with self._site.cluster.connect() as cache:
                return all(len(c.held_by) >= 2 for c in cache.locate(self.stored.url).chunks)

        wait_until(has_copies, deadline_s=DEADLINE_S, what="there are two copies")

    def keep_two_copies(self) -> None:
        """Have each chunk kept twice, and made again soon after a loss."""
        self._operator.set_settings({"replicas": 2, "repair_after_s": 2})
        with self._site.cluster.connect() as cache:
            cache.read(self.stored.url)
        self._operator.set_weights({"n1": 101})  # A new placement: what there is, is copied.
        self.settle()
        self.wait_copies()

    def _add(self, *measures: Measure, group: str) -> None:
        self.measures += [replace(measure, group=group) for measure in measures]


@contextlib.contextmanager
def benched(
    directory: Path, s3: S3Server, etcd: EtcdServer, *, size: Size, lease_ttl_s: float
) -> Iterator[Bench]:
    """Start a site of four nodes."""
    nodes = [NodeSpec(name, (TierSpec("owned", 2 * size.object_bytes),)) for name in NAMES]
    settings = {"chunk_size": CHUNK_BYTES, "lease_ttl_s": lease_ttl_s}
    with (
        Site(directory, s3, etcd, nodes=nodes, settings=settings) as site,
        operator.connect(site.address) as operators,
    ):
        yield Bench(site, size, operators)


def measure(is_quick: bool) -> tuple[Inputs, list[Measure]]:
    """Make one change after another."""
    size = QUICK if is_quick else FULL
    with (
        tempfile.TemporaryDirectory(prefix="penstock-bench-") as name,
        EtcdServer(Path(name) / "etcd") as etcd,
        S3Server(Path(name) / "s3") as s3,
    ):
        start = partial(benched, s3=s3, etcd=etcd, size=size)
        with start(Path(name) / "changes", lease_ttl_s=LONG_LEASE_S) as changes:
            for change in (Bench.drains, Bench.a_raised_weight, Bench.a_join):
                changes.run(change)
        with start(Path(name) / "losses", lease_ttl_s=SHORT_LEASE_TTL_S) as losses:
            losses.keep_two_copies()
            for loss in (Bench.a_stopped_process, Bench.a_killed_node):
                losses.run(loss)
    inputs = {
        "object_bytes": size.object_bytes,
        "chunk_bytes": CHUNK_BYTES,
        "nodes": len(NAMES),
        "reads_per_s": round(1 / READ_EVERY_S),
        "read_bytes": READ_BYTES,
    }
    return inputs, changes.measures + losses.measures


if __name__ == "__main__":
    run_benchmark("Maintenance and losses under a reader", measure)

"""Measure single reads of 4 KiB from a warm cache, beside an origin that answers in 20 ms.

    python bench/small_reads.py [--quick] [--json FILE]

One reader reads at random places of one object, one read after another: through the bulk port,
through the host's socket, and straight from SeaweedFS, whose answers are held back until the
request is 20 ms old. ``--quick`` reads ten times: it shows that the benchmark runs.
"""

import contextlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from penstock_node.testbed.benchmark import Inputs, Measure, percentile, rounds, run_benchmark
from penstock_node.testbed.contest import timed
from penstock_node.testbed.held_origin import HeldOrigin
from penstock_node.testbed.parallel import read_range
from penstock_node.testbed.peers import PeerAbsent
from penstock_node.testbed.s3 import S3Server
from penstock_node.testbed.warm import MIB, URL, WarmSite, check_plane, warm_site

READ_BYTES = 4096
ORIGIN_DELAY_S = 0.020
ORIGIN_OBJECT_BYTES = 16 * MIB
BUCKET, KEY = "models", "model.bin"
ORIGIN, BULK, HOST = "origin", "Penstock, bulk", "Penstock, host"
TARGETS_MS = {BULK: (0.5, 2.0), HOST: (0.1, 0.5)}
"""p50 and p99."""


@dataclass(frozen=True, slots=True)
class Reader:
    """One way to read."""

    read: Callable[[memoryview, int], object]
    """Called with memory and an offset."""
    size_bytes: int
    """Of what is read."""
    reads: int
    """In a round."""
    check: Callable[[], None] = lambda: None
    """Called after a round; raises `PeerAbsent` if it was not read as it should be."""


@dataclass(frozen=True, slots=True)
class Size:
    """What a run measures."""

    object_bytes: int
    chunk_bytes: int
    rounds: int
    reads: int
    """Of each plane in a round."""
    origin_reads: int


FULL = Size(object_bytes=1024 * MIB, chunk_bytes=4 * MIB, rounds=7, reads=2_000, origin_reads=50)
QUICK = Size(object_bytes=8 * MIB, chunk_bytes=MIB, rounds=1, reads=10, origin_reads=3)


class Bench:
    """Takes the samples: for each reader and round the seconds of every read."""

    def __init__(self, readers: dict[str, Reader]) -> None:
        self._readers = readers
        self._rng = random.Random(7)
        self._absent: dict[str, str] = {}
        self.seconds: dict[str, list[list[float]]] = {name: [] for name in readers}

    def run(self, count: int) -> None:
        """Run the rounds, after one that is not counted."""
        self._round()
        for samples in self.seconds.values():
            samples.clear()
        for _ in rounds(count, "reads of 4 KiB"):
            self._round()

    def _round(self) -> None:
        for name, reader in self._readers.items():
            if name in self._absent:
                continue
            try:
                self.seconds[name].append(self._reads(reader))
                reader.check()
            except PeerAbsent as absent:
                self._absent[name] = str(absent)

    def _reads(self, reader: Reader) -> list[float]:
        target, last = memoryview(bytearray(READ_BYTES)), reader.size_bytes - READ_BYTES
        places = [self._rng.randrange(last) for _ in range(reader.reads)]
        return [timed(partial(reader.read, target, place)).seconds for place in places]

    def measures(self) -> Iterator[Measure]:
        """Yield the figures."""
        for name in self._readers:
            targets = TARGETS_MS.get(name, (None, None))
            for percent, target in zip((50, 99), targets, strict=True):
                yield self._percentile(name, percent, target)
        for name in TARGETS_MS:
            yield self._ratio(name)

    def _percentile(self, name: str, percent: int, target: float | None) -> Measure:
        title = f"{name}, p{percent}"
        if name in self._absent:
            return Measure(title, None, note=self._absent[name])
        values = [percentile(each, percent) * 1e3 for each in self.seconds[name]]
        if target is None:
            return Measure.of(title, values, "ms")
        return Measure.of(title, values, "ms", bound="≤", target=target)

    def _ratio(self, name: str) -> Measure:
        title = f"p50: {ORIGIN} ÷ {name}"
        if name in self._absent:
            return Measure(title, None, bound="≥", target=40.0, note=self._absent[name])
        pairs = zip(self.seconds[ORIGIN], self.seconds[name], strict=True)
        ratios = [percentile(origin, 50) / percentile(mine, 50) for origin, mine in pairs]
        return Measure.of(title, ratios, bound="≥", target=40.0)


def reader_over(site: WarmSite, plane: str, clients: contextlib.ExitStack, *, reads: int) -> Reader:
    """Return how one reads over a plane; ``clients`` ends the connection."""
    cache = clients.enter_context(site.connect(plane=plane))
    return Reader(
        partial(cache.read_into, URL),
        len(site.destination.view),
        reads,
        partial(check_plane, cache, plane),
    )


def measure(is_quick: bool) -> tuple[Inputs, list[Measure]]:
    """Read from the origin and over both planes in turn."""
    size = QUICK if is_quick else FULL
    with contextlib.ExitStack() as stack:
        site = stack.enter_context(
            warm_site(object_bytes=size.object_bytes, chunk_bytes=size.chunk_bytes)
        )
        s3 = stack.enter_context(S3Server(site.directory / "s3"))
        s3.create_bucket(BUCKET)
        s3.put(BUCKET, KEY, bytes(ORIGIN_OBJECT_BYTES))
        held = stack.enter_context(
            HeldOrigin(site.directory / "held", s3.endpoint, delay_s=ORIGIN_DELAY_S)
        )
        origin = partial(read_range, s3.bucket(BUCKET, endpoint=held.endpoint), KEY)
        bench = Bench(
            {
                ORIGIN: Reader(origin, ORIGIN_OBJECT_BYTES, size.origin_reads),
                BULK: reader_over(site, "bulk", stack, reads=size.reads),
                HOST: reader_over(site, "host", stack, reads=size.reads),
            }
        )
        bench.run(size.rounds)
    return {
        "object_bytes": size.object_bytes,
        "reads_a_round": size.reads,
        "rounds": size.rounds,
        "origin_delay_ms": ORIGIN_DELAY_S * 1e3,
    }, list(bench.measures())


if __name__ == "__main__":
    run_benchmark("Single reads of 4 KiB", measure)

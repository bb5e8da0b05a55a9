"""Measure how well sampled reads, replayed in miniature, tell what other capacities would find.

    python bench/capacity.py [--seeds 1-5] [--nodes 10] [--reads 120000] [--quick] [--json FILE]

Traces of `testbed.model_traces`, every second chunk of them, are read by clusters of five sizes:
each of the nodes gets the chunks that their hash says, and has an order of eviction of its own.
That is the truth. The same reads go to the nodes' samplers. What `penstock plan` makes of the
samples, thinned to ``--reads`` together, stands beside the truth at each size. The first quarter
of the reads fills the caches. Then: what a sampler takes of memory when it is full, and of time
for a read.
"""

import argparse
import statistics
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

import xxhash

from penstock.objects import CHUNK_BYTES_DEFAULT, ObjectId
from penstock.reuse import READS_MAX, cluster_sample
from penstock.sampled_reads import SampledReads
from penstock_node.demand import READS_MAX as READS_NOTED_MAX
from penstock_node.demand import Demand
from penstock_node.planning.curve import FILLING_SHARE, LEAST, MOST, curve_of
from penstock_node.store.chunk_file import ChunkFile
from penstock_node.store.eviction import EvictionOrder
from penstock_node.testbed import model_traces
from penstock_node.testbed.benchmark import Inputs, Measure, rounds, run_benchmark

SHARE = 2
"""One chunk in so many is read: that takes half the time."""
SIZES = 5
"""From `LEAST` to `MOST` times the capacity."""
CAPACITY_SHARE = 0.10
"""Of all bytes that a trace reads."""
TRACE_READS = 600_000
"""Of each trace; the longest have three times as many."""
QUICK_READS = 6_000
QUICK_SIZES = 3
READ_S = 0.001
"""From one read to the next."""
OFF_MAX = 2.0
"""In points of the byte hit ratio, at any size: the target."""
MEMORY_MAX_MB = 20.0
TIMED_READS = 50_000
FULL_OBJECTS, QUICK_OBJECTS, FULL_CHUNKS = 2_700, 50, 1_000


@dataclass(frozen=True, slots=True)
class Trace:
    """Reads of whole chunks, by number, and the chunks' files."""

    reads: list[int]
    files: list[ChunkFile]

    @property
    def total_bytes(self) -> int:
        """Of all chunks, once."""
        return sum(file.allocated_bytes for file in self.files)

    def homes(self, nodes: int) -> list[int]:
        """Return which of the nodes each chunk is of."""
        return [xxhash.xxh3_64_intdigest(file.chunk_id) % nodes for file in self.files]


def trace_of(name: str, *, seed: int, reads_max: int) -> Trace:
    """Collect a trace, and give its objects their whole size."""
    numbers: dict[tuple[int, int], int] = {}
    counts: Counter[int] = Counter()
    reads = []
    for number, index in islice(model_traces.trace(name, seed=seed), reads_max):
        if index % SHARE == 0:
            index //= SHARE
            counts[number] = max(counts[number], index + 1)
            reads.append(numbers.setdefault((number, index), len(numbers)))
    objects = {
        number: ObjectId(f"s3://models/{number}", "1", n * CHUNK_BYTES_DEFAULT, CHUNK_BYTES_DEFAULT)
        for number, n in counts.items()
    }
    return Trace(reads, [ChunkFile(objects[number], index) for number, index in numbers])


def truth(trace: Trace, *, nodes: int, capacity_bytes: float) -> float:
    """Return the share that a cluster finds of all reads but the first quarter."""
    room, hits = int(capacity_bytes / nodes), 0
    orders = [EvictionOrder(capacity_bytes=room) for _ in range(nodes)]
    homes = [orders[node] for node in trace.homes(nodes)]
    begin = int(len(trace.reads) * FILLING_SHARE)
    for at, number in enumerate(trace.reads):
        file, order = trace.files[number], homes[number]
        if order.size_of(file.chunk_id) is not None:
            order.touch(file.chunk_id, of=file.object)
            hits += at >= begin
            continue
        order.victims(order.used_bytes + file.allocated_bytes - room, in_use=())
        order.insert(file.chunk_id, file.allocated_bytes, reason="read", of=file.object)
    return hits / (len(trace.reads) - begin)


def sampled(trace: Trace, *, nodes: int, capacity_bytes: float, reads_max: int) -> SampledReads:
    """Return what the samplers of the nodes have noted of the reads, joined."""
    now = 0.0
    demands = [
        Demand(capacity_bytes=lambda: int(capacity_bytes / nodes), clock=lambda: now)
        for _ in range(nodes)
    ]
    homes = [demands[node] for node in trace.homes(nodes)]
    for number in trace.reads:
        now += READ_S
        file = trace.files[number]
        homes[number].read(file.object, file.index, length=file.payload_bytes)
    samples = {
        str(node): demand.sample(reads_max=reads_max // nodes)
        for node, demand in enumerate(demands)
    }
    found = cluster_sample(samples, shares=dict.fromkeys(samples, 1.0 / nodes))
    assert found is not None, "all nodes have answered"
    return found[0]


def differences(
    trace: Trace, *, nodes: int, sizes: int, reads_max: int
) -> tuple[list[float], float]:
    """Return how far the curve is off at each size, in points; and the sample's rate."""
    capacity = trace.total_bytes * CAPACITY_SHARE
    step = (MOST / LEAST) ** (1 / (sizes - 1))
    capacities = [capacity * LEAST * step**k for k in range(sizes)]
    sample = sampled(trace, nodes=nodes, capacity_bytes=capacity, reads_max=reads_max)
    curve = curve_of(sample, sizes=capacities, nodes=nodes)
    true = [truth(trace, nodes=nodes, capacity_bytes=each) for each in capacities]
    off = [100 * (point.hit_ratio - each) for point, each in zip(curve.points, true, strict=True)]
    return off, sample.rate


def full_demand(objects: int) -> Demand:
    """Return a sampler that has had to make room several times."""
    capacity = FULL_CHUNKS * CHUNK_BYTES_DEFAULT * 100
    reads_max = min(READS_NOTED_MAX, 50 * objects)
    demand = Demand(capacity_bytes=lambda: capacity, reads_max=reads_max)
    size = FULL_CHUNKS * CHUNK_BYTES_DEFAULT
    for number in range(objects):
        subject = ObjectId(f"s3://models/{number}", "1", size, CHUNK_BYTES_DEFAULT)
        for index in range(0, FULL_CHUNKS, 5):
            demand.read(subject, index, length=CHUNK_BYTES_DEFAULT)
    return demand


def memory(objects: int) -> Measure:
    """Measure what a full sampler takes, at its highest."""
    tracemalloc.start()
    demand = full_demand(objects)
    _, highest = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(demand.sample()), "nothing was noted"
    return Measure(
        "memory, at its highest", highest / 1e6, "MB", bound="≤", target=MEMORY_MAX_MB, group="cost"
    )


def costs(count: int, objects: int) -> Iterator[Measure]:
    """Measure the processor time of a read whose chunk is not in the sample, and of one that is."""
    demand = full_demand(objects)
    size = FULL_CHUNKS * CHUNK_BYTES_DEFAULT
    subject = ObjectId(
        "s3://models/of/an/usual/name/model-00001-of-00030.safetensors",
        "1",
        size,
        CHUNK_BYTES_DEFAULT,
    )
    indexes = range(FULL_CHUNKS)
    are_sampled = [demand.samples(subject, index) for index in indexes]
    for name, is_sampled in (("a read that is not sampled", False), ("one that is", True)):
        chosen = [index for index in indexes if are_sampled[index] is is_sampled]
        runs = []
        for _ in range(5):
            begun = time.thread_time_ns()
            for at in range(count):
                demand.read(subject, chosen[at % len(chosen)], length=CHUNK_BYTES_DEFAULT)
            runs.append((time.thread_time_ns() - begun) / count)
        yield Measure.of(name, runs, "ns", group="cost")


def measure(
    is_quick: bool, *, seeds: Sequence[int], nodes: int, reads: int
) -> tuple[Inputs, list[Measure]]:
    """Run all traces and seeds."""
    seeds = seeds[:1] if is_quick else seeds
    reads_max, sizes = (QUICK_READS, QUICK_SIZES) if is_quick else (TRACE_READS, SIZES)
    off: dict[str, list[float]] = {}
    rates = []
    runs = [(name, seed) for name in model_traces.NAMES for seed in seeds]
    for at in rounds(len(runs), "traces"):
        name, seed = runs[at]
        trace = trace_of(name, seed=seed, reads_max=reads_max)
        found, rate = differences(trace, nodes=nodes, sizes=sizes, reads_max=reads)
        off[f"{name}, seed {seed}"] = [abs(each) for each in found]
        rates.append(rate)
    points = partial(Measure, unit="points")
    measures = []
    for group, each in off.items():
        measures.append(points("most off, of all sizes", max(each), group=group))
        measures.append(points("off in the middle", statistics.median(each), group=group))
    everything = [each for some in off.values() for each in some]
    group = "all traces, seeds and sizes"
    measures.append(points("most off", max(everything), bound="≤", target=OFF_MAX, group=group))
    measures.append(points("off in the middle", statistics.median(everything), group=group))
    objects = QUICK_OBJECTS if is_quick else FULL_OBJECTS
    measures += [memory(objects), *costs(2_000 if is_quick else TIMED_READS, objects)]
    inputs = {
        "seeds": f"{seeds[0]} to {seeds[-1]}",
        "nodes": nodes,
        "sizes": sizes,
        "reads": reads,
        "chunks_sampled": f"one in {1 / max(rates):.1f} to {1 / min(rates):.1f}",
    }
    return inputs, measures


def seeds_of(text: str) -> range:
    """Return the seeds of ``first-last``."""
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def main() -> None:
    """Read the flags that only this benchmark has."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--seeds", type=seeds_of, default="1-5")
    parser.add_argument("--nodes", type=int, default=10)
    parser.add_argument("--reads", type=int, default=READS_MAX)
    ours, others = parser.parse_known_args()
    run_benchmark(
        "Advice on capacity: sampled reads in miniature beside whole caches",
        partial(measure, seeds=ours.seeds, nodes=ours.nodes, reads=ours.reads),
        others,
    )


if __name__ == "__main__":
    main()

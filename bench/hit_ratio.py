"""Measure which share of the bytes read a tier finds, beside LRU, S3-FIFO and the optimum.

    python bench/hit_ratio.py [--traces FILE] [--seeds 1-5] [--whole] [--quick] [--json FILE]

Traces are read by chunks of one size through the order of eviction itself, with room for 5 to
50 % of all bytes. A node among others sees a part of each object: by default each tenth chunk,
chosen by hash, with ``--whole`` all of them. ``--traces`` names a Python module whose
``trace(name, seed=…)`` yields the object and the chunk of each read; without it, those of
`testbed.model_traces` are read.
"""

import argparse
import importlib.util
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import xxhash

from penstock.objects import CHUNK_BYTES_DEFAULT, ObjectId
from penstock_node.store.eviction import EvictionOrder
from penstock_node.testbed import model_traces
from penstock_node.testbed.benchmark import Inputs, Measure, rounds, run_benchmark
from penstock_node.testbed.cache_models import belady_hits, lru_hits, s3_fifo_hits

ROOMS = (0.05, 0.10, 0.25, 0.50)
"""Of all bytes that the trace reads."""
SHARE = 10
"""One chunk in so many comes to the node."""
STORED_BYTES = CHUNK_BYTES_DEFAULT + 4096
"""What a chunk takes of its tier, with what is kept beside it."""
QUICK_READS = 50_000
ABOVE_S3_FIFO, ABOVE_LRU, ABOVE_LRU_ANYWHERE = 1.0, 6.0, -1.0
"""In points, on average and for each trace and room: the targets."""

Trace = Callable[..., Iterable[tuple[int, int]]]


@dataclass(frozen=True, slots=True)
class Reads:
    """A trace as one node sees it: the number of each chunk that is read, and whose it is."""

    chunks: list[int]
    ids: list[bytes]
    """By number."""
    objects: list[ObjectId]
    """Likewise."""


def reads_of(trace: Iterable[tuple[int, int]], *, share: int) -> Reads:
    """Collect the reads of every ``share``-th chunk, and give its object its whole size."""
    numbers: dict[tuple[int, int], int] = {}
    chunk_counts: Counter[int] = Counter()
    chunks = []
    for number, index in trace:
        chunk_counts[number] = max(chunk_counts[number], index + 1)
        if xxhash.xxh3_64_intdigest(b"%d/%d" % (number, index)) % share == 0:
            chunks.append(numbers.setdefault((number, index), len(numbers)))
    subjects = {number: _object(number, count) for number, count in chunk_counts.items()}
    return Reads(
        chunks,
        [subjects[number].chunk_id(index) for number, index in numbers],
        [subjects[number] for number, _ in numbers],
    )


def _object(number: int, chunks: int) -> ObjectId:
    size = chunks * CHUNK_BYTES_DEFAULT
    return ObjectId(f"s3://models/{number}", "1", size, CHUNK_BYTES_DEFAULT)


def our_hits(reads: Reads, *, room: int) -> int:
    """Return how many reads a tier with room for so many chunks answers."""
    capacity_bytes = room * STORED_BYTES
    order, hits = EvictionOrder(capacity_bytes=capacity_bytes), 0
    for number in reads.chunks:
        chunk_id, of = reads.ids[number], reads.objects[number]
        if order.size_of(chunk_id) is not None:
            order.touch(chunk_id, of=of)
            hits += 1
            continue
        order.victims(order.used_bytes + STORED_BYTES - capacity_bytes, in_use=())
        order.insert(chunk_id, STORED_BYTES, reason="read", of=of)
    return hits


@dataclass(frozen=True, slots=True)
class Ratios:
    """Shares of the bytes that are found, in percent."""

    ours: float
    lru: float
    s3_fifo: float
    belady: float


def compare(reads: Reads, *, room_share: float) -> Ratios:
    """Run all caches over the same reads."""
    room = int(len(reads.ids) * room_share)
    one_percent = len(reads.chunks) / 100
    return Ratios(
        our_hits(reads, room=room) / one_percent,
        lru_hits(reads.chunks, room=room) / one_percent,
        s3_fifo_hits(reads.chunks, room=room) / one_percent,
        belady_hits(reads.chunks, room=room) / one_percent,
    )


def mean(ratios: Sequence[Ratios]) -> Ratios:
    """Average each kind of cache."""
    return Ratios(
        statistics.fmean(each.ours for each in ratios),
        statistics.fmean(each.lru for each in ratios),
        statistics.fmean(each.s3_fifo for each in ratios),
        statistics.fmean(each.belady for each in ratios),
    )


def rows(group: str, found: Ratios) -> Iterator[Measure]:
    """Return the figures of one trace and room, or of all."""
    yield Measure("ours", found.ours, "%", group=group)
    yield Measure("S3-FIFO", found.s3_fifo, "%", group=group)
    yield Measure("LRU", found.lru, "%", group=group)
    yield Measure("Belady's optimum", found.belady, "%", group=group)


def verdicts(cells: Sequence[Ratios]) -> Iterator[Measure]:
    """Compare the averages over all traces and rooms with what they should be."""
    group, found = "all traces and rooms, averaged", mean(cells)
    yield from rows(group, found)
    points = partial(Measure, unit="points", bound="≥", group=group)
    yield points("above S3-FIFO", found.ours - found.s3_fifo, target=ABOVE_S3_FIFO)
    yield points("above LRU", found.ours - found.lru, target=ABOVE_LRU)
    least = min(cell.ours - cell.lru for cell in cells)
    yield points("least above LRU, of any trace and room", least, target=ABOVE_LRU_ANYWHERE)
    yield Measure("below Belady's optimum", found.belady - found.ours, "points", group=group)


def measure(
    is_quick: bool, *, trace: Trace, seeds: Sequence[int], share: int
) -> tuple[Inputs, list[Measure]]:
    """Run all traces, seeds and rooms."""
    if is_quick:
        seeds, reads_max = seeds[:1], QUICK_READS
    else:
        reads_max = sys.maxsize
    cells: dict[str, list[Ratios]] = {}
    runs = [(name, seed) for name in model_traces.NAMES for seed in seeds]
    for at in rounds(len(runs), "traces"):
        name, seed = runs[at]
        reads = reads_of(islice(trace(name, seed=seed), reads_max), share=share)
        for room_share in ROOMS:
            found = compare(reads, room_share=room_share)
            cells.setdefault(f"{name}, room for {room_share:.0%}", []).append(found)
    averages = {group: mean(found) for group, found in cells.items()}
    measures = [row for group, found in averages.items() for row in rows(group, found)]
    inputs = {"seeds": f"{seeds[0]} to {seeds[-1]}", "chunks_seen": f"one in {share}"}
    return inputs, [*measures, *verdicts(list(averages.values()))]


def load_trace(path: Path) -> Trace:
    """Return the traces of a Python module."""
    spec = importlib.util.spec_from_file_location("bench_traces", path)
    assert spec is not None, f"{path} is no Python module"
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Trace = module.trace
    return found


def seeds_of(text: str) -> range:
    """Return the seeds of ``first-last``."""
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def main() -> None:
    """Read the flags that only this benchmark has."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--traces", type=Path)
    parser.add_argument("--seeds", type=seeds_of, default="1-5")
    parser.add_argument("--whole", action="store_true")
    ours, others = parser.parse_known_args()
    trace = load_trace(ours.traces) if ours.traces else model_traces.trace
    share = 1 if ours.whole else SHARE
    run_benchmark(
        "Share of the bytes read that a tier finds",
        partial(measure, trace=trace, seeds=ours.seeds, share=share),
        others,
    )


if __name__ == "__main__":
    main()

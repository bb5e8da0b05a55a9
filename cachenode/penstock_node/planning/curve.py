"""The share of reads that is found, by capacity: the curve that all advice is read from.

Responsible for: the curve of sampled reads, how sure it is, what was found in fact, and whether
there is enough to tell at all.
Not responsible for: one size of it (`miniature`), what a cluster would be (`scenarios`).
"""

import math
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from penstock.sampled_reads import MISSED, WARMED, SampledReads
from penstock_node.planning.miniature import Found, Miniature

READS_ENOUGH = 200
"""Of the sample, that count: of fewer nothing is told."""
FILLING_SHARE = 0.25
"""Of the reads fill the caches and do not count: the cluster's was not empty either."""
LEAST, MOST, SIZES = 0.25, 8.0, 16
"""The curve goes from a part of the present capacity to a multiple of it, in so many steps."""
NEAR = 1.02
"""Sizes that differ by less are one."""
REPLAYS_AT_ONCE = 8
WORTH_PROCESSES = 400_000
"""Reads to be replayed, all sizes together, for which processes are worth their start."""
DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Point:
    """What a cache of some capacity finds."""

    capacity_bytes: float
    """For different bytes, of the whole cluster."""
    hit_ratio: float
    """Of the bytes read, from 0 to 1."""
    origin_ratio: float
    """Bytes that come from the origin for each byte read: more than the rest, where readers want
    less than whole chunks."""
    error: float
    """Within which the true hit ratio of these reads lies, 19 times of 20; as a share."""


@dataclass(frozen=True, slots=True)
class Curve:
    """See the module. Its points stand by capacity, which differs."""

    points: tuple[Point, ...]
    read_bytes_per_day: float
    """What readers ask of the owners. 0 where there is no time to go by."""
    reads: int
    """Lines of the sample that count."""
    rate: float
    """The part of all chunks that was looked at."""
    duration_s: float
    """How long these reads took, those that do not count included."""
    working_set_bytes: float
    """All that was read, each chunk once."""
    measured: float | None
    """The share that was found in fact of the same reads; None if nobody knows."""

    def at(self, capacity_bytes: float) -> Point:
        """Return the point for a capacity: between two by their straight line."""
        xs = [0.0, *(point.capacity_bytes for point in self.points)]
        first, last = self.points[0], self.points[-1]
        hit = [0.0, *(point.hit_ratio for point in self.points)]
        # Without any room every read costs what a miss costs.
        origin = [_cost_of_a_miss(first), *(point.origin_ratio for point in self.points)]
        error = [first.error, *(point.error for point in self.points)]
        x = min(capacity_bytes, last.capacity_bytes)
        return Point(
            capacity_bytes,
            float(np.interp(x, xs, hit)),
            float(np.interp(x, xs, origin)),
            float(np.interp(x, xs, error)),
        )


def sizes_for(capacity_bytes: float, *, also: Sequence[float] = ()) -> list[float]:
    """Return the sizes to replay reads at: those of the curve, and some that are asked for."""
    step = (MOST / LEAST) ** (1 / (SIZES - 1))
    wanted = [capacity_bytes, *also]
    even = [capacity_bytes * LEAST * step**k for k in range(SIZES)]
    wanted += [size for size in even if all(not _are_near(size, each) for each in wanted)]
    return sorted({size for size in wanted if size > 0.0})


def is_enough(sample: SampledReads) -> bool:
    """Tell whether there are reads enough to tell anything."""
    return len(sample) - _counts_from(sample) >= READS_ENOUGH


def curve_of(
    sample: SampledReads,
    *,
    sizes: Sequence[float],
    nodes: int = 1,
    ring_share: float = 1.0,
    is_measured: bool = True,
    on_progress: Callable[[int], None] = lambda _done: None,
) -> Curve:
    """Replay sampled reads at each size, on several processors.

    Args:
        sample: Of a cluster; `is_enough`.
        sizes: Capacities for different bytes, growing.
        nodes: How many there are.
        ring_share: The part of the ring that the sample tells of.
        is_measured: The sample knows which reads were missed in fact.
        on_progress: Called with how many sizes are done.
    """
    assert is_enough(sample), f"{len(sample)} reads tell nothing"
    counts_from = _counts_from(sample)
    counted_s = sample.ends_at - float(sample.read_times[counts_from])
    part = sample.rate * ring_share
    replayed = _replayed(
        Miniature(sample, counts_from=counts_from, nodes=nodes), [s * ring_share for s in sizes]
    )
    points = []
    for size, found in zip(sizes, replayed, strict=True):
        points.append(_point(size, found, rate=sample.rate))
        on_progress(len(points))
    read_bytes = float(sample.read_bytes[counts_from:].sum())
    return Curve(
        points=tuple(points),
        read_bytes_per_day=read_bytes / part / counted_s * DAY_S if counted_s > 0.0 else 0.0,
        reads=len(sample) - counts_from,
        rate=sample.rate,
        duration_s=sample.duration_s,
        working_set_bytes=float(sample.chunk_bytes.sum()) / part,
        measured=_measured(sample, counts_from) if is_measured else None,
    )


def _replayed(miniature: Miniature, sizes: Sequence[float]) -> Iterator[Found]:
    processes = min(os.cpu_count() or 1, len(sizes), REPLAYS_AT_ONCE)
    if processes == 1 or len(miniature) * len(sizes) < WORTH_PROCESSES:
        yield from map(miniature.found, sizes)
        return
    # Spawned: this process has threads of gRPC. An interrupt ends them at once.
    with multiprocessing.get_context("spawn").Pool(processes, _get_ready, (miniature,)) as pool:
        yield from pool.imap(_found, sizes)


_miniature: list[Miniature] = []
"""Of a process that replays."""


def _get_ready(miniature: Miniature) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Who began it is told, and ends it.
    _miniature.append(miniature)


def _found(size: float) -> Found:
    return _miniature[0].found(size)


def _point(size: float, found: Found, *, rate: float) -> Point:
    hit_ratio = found.found_bytes / max(1, found.read_bytes)
    return Point(
        size,
        hit_ratio,
        found.origin_bytes / max(1, found.read_bytes),
        2.0 * found.spread * math.sqrt(1.0 - rate),
    )


def _cost_of_a_miss(point: Point) -> float:
    missed = 1.0 - point.hit_ratio
    return point.origin_ratio / missed if missed > 0.0 else 1.0


def _are_near(one: float, other: float) -> bool:
    return max(one, other) < NEAR * min(one, other)


def _counts_from(sample: SampledReads) -> int:
    reads = np.cumsum(sample.read_counts, dtype=np.int64)
    return int(np.searchsorted(reads, FILLING_SHARE * reads[-1], side="right")) if len(reads) else 0


def _measured(sample: SampledReads, counts_from: int) -> float | None:
    kinds = sample.read_kinds[counts_from:]
    lengths = sample.read_bytes[counts_from:].astype(np.float64)
    firsts = lengths / np.maximum(1, sample.read_counts[counts_from:])
    total = lengths[kinds != WARMED].sum()
    return float(1.0 - firsts[kinds == MISSED].sum() / total) if total > 0.0 else None

"""Caches of other sizes, in miniature: sampled reads through the order of eviction itself.

Responsible for: what a cluster of some capacity would have found of sampled reads.
Not responsible for: collecting them (`penstock_node.demand`), what it means (`curve`).

The order of eviction is not LRU, so that no distance between reads tells what it keeps. It is
run as it is, at the size of the sample: "miniature simulations" (Waldspurger et al., "Cache
Modeling and Optimization using Miniature Simulations", ATC '17). It is made for nodes that get a
part of each object, and a sample is nothing else.

Ten nodes are not one that is ten times as large: each ranks by what it sees itself, and small ones
find less or more than their sum would. A fifth of the chunks of ten nodes are all chunks of two:
so that many whole nodes are run where the sample has them, and one in miniature where it has less
than one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from penstock.objects import ObjectId
from penstock.sampled_reads import WARMED, SampledReads
from penstock_node.store.chunk_file import ChunkFile
from penstock_node.store.eviction import EvictionOrder, Reason

TOUCHES_MAX = 64
"""Reads of one line that count in the order of eviction."""
NODES_MAX = 8
"""Run beside each other, of some 10 MB each; where a sample has more, each stands for several."""
PARTS = 16
"""Of the sample's chunks, by chance: how much they differ tells how sure their sum is."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a cache found of the reads that count, in bytes of the sample."""

    read_bytes: int
    found_bytes: int
    origin_bytes: int
    """What came in for them."""
    spread: float
    """How far the share found may be off by which chunks are in the sample: a standard error."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of reads, ready to be replayed."""

    chunk_id: bytes
    of: ObjectId
    size_bytes: int
    """Of the chunk's file."""
    chunk_bytes: int
    number: int
    """By chance: says which node it is of, and which part of the sample."""


class Miniature:
    """Sampled reads, ready to be replayed at any size. Never changes."""

    def __init__(self, sample: SampledReads, *, counts_from: int, nodes: int = 1) -> None:
        """Prepare.

        Args:
            sample: Of the cluster.
            counts_from: Reads before this one fill the caches and do not count.
            nodes: Of how many nodes the cache is the sum.
        """
        self._rate = sample.rate
        whole = sample.rate * nodes
        self._nodes = min(NODES_MAX, max(1, round(whole)))
        self._seen = whole / self._nodes
        self._chunks = _lines(sample)
        self._reads = [
            (chunk, length, min(count, TOUCHES_MAX), length // max(count, 1))
            for chunk, length, count in zip(
                sample.read_chunks.tolist(),
                sample.read_bytes.tolist(),
                np.where(sample.read_kinds == WARMED, 0, sample.read_counts).tolist(),
                strict=True,
            )
        ]
        self._counts_from = counts_from

    def found(self, capacity_bytes: float) -> Found:
        """Return what a cache would have found that holds so many bytes of different chunks."""
        room = int(capacity_bytes * self._rate / self._nodes)
        orders = [
            EvictionOrder(capacity_bytes=max(1, room), sampled=self._seen, digest=_digest)
            for _ in range(self._nodes)
        ]
        read, found, origin = [0] * PARTS, [0] * PARTS, 0
        for at, (chunk, length, count, first) in enumerate(self._reads):
            line = self._chunks[chunk]
            order = orders[line.number % self._nodes]
            is_here = order.size_of(line.chunk_id) is not None
            if is_here:
                for _ in range(count):
                    order.touch(line.chunk_id, of=line.of)
            else:
                _bring(order, line, room, is_warmed=count == 0)
                for _ in range(count - 1):
                    order.touch(line.chunk_id, of=line.of)
            if at >= self._counts_from:
                part = line.number // NODES_MAX % PARTS
                read[part] += length
                found[part] += length if is_here else length - first
                origin += 0 if is_here else line.chunk_bytes
        return Found(sum(read), sum(found), origin, _standard_error(read, found))

    def __len__(self) -> int:
        return len(self._reads)


def _bring(order: EvictionOrder, line: Line, room: int, *, is_warmed: bool) -> None:
    if line.size_bytes > room:
        return
    order.victims(order.used_bytes + line.size_bytes - room, in_use=())
    reason: Reason = "warmup" if is_warmed else "read"
    order.insert(line.chunk_id, line.size_bytes, reason=reason, of=line.of)


def _lines(sample: SampledReads) -> Sequence[Line]:
    objects = [
        ObjectId(f"{digest:016x}", "-", size, chunk_size)
        for digest, size, chunk_size in zip(
            sample.object_digests.tolist(),
            sample.object_sizes.tolist(),
            sample.object_chunk_sizes.tolist(),
            strict=True,
        )
    ]
    pairs = zip(sample.chunk_objects.tolist(), sample.chunk_indexes.tolist(), strict=True)
    files = [ChunkFile(objects[number], index) for number, index in pairs]
    return [
        Line(
            file.chunk_id,
            file.object,
            file.allocated_bytes,
            file.payload_bytes,
            int.from_bytes(file.chunk_id[:8], "little"),
        )
        for file in files
    ]


def _digest(of: ObjectId) -> int:
    """Return the digest of the object that this one stands for: so they share groups alike."""
    return int(of.key, 16)


def _standard_error(read: Sequence[int], found: Sequence[int]) -> float:
    """Return that of a ratio of two sums, whose parts are given."""
    total = sum(read)
    if total == 0:
        return 0.0
    ratio = sum(found) / total
    parts = len(read)
    off = sum((f - ratio * r) ** 2 for f, r in zip(found, read, strict=True))
    return float(math.sqrt(off * parts / (parts - 1)) / total)

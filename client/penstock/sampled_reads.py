"""Sampled reads of chunks: what is known of a cluster's demand, in columns.

Responsible for: which chunks are in a sample, thinning samples to one rate, joining those of
several nodes to that of their cluster.
Not responsible for: collecting them (`penstock_node.demand`), the wire (`reuse`), what other
caches would have found (`penstock_node.planning`).

A chunk is in a sample with all its reads or with none, as it is in SHARDS (Waldspurger et al.,
FAST '15): then a cache of a tenth of the size, fed with a tenth of the chunks, finds what the
whole one finds of all. SHARDS hashes each block by itself. Models are read whole, so here the
chunks of an object step around a circle, from the object's hash on, by the golden ratio of it:
of 400 chunks a rate of 1 % takes 4, and not 4 give or take 2.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from penstock.errors import InvalidRequest
from penstock.objects import ObjectId

CIRCLE = 1 << 64
WHOLE = CIRCLE - 1
"""The threshold of a sample that has all chunks."""
STEP = 0x9E3779B97F4A7C15
"""Odd, and next to the circle over the golden ratio."""

FOUND, MISSED, WARMED = range(3)
"""Kinds of a read: it was answered from the cache; its chunk came from the origin for it; it was
none, but its chunk came from the origin for reads to come."""

Column = npt.NDArray[Any]


def digest_of(obj: ObjectId) -> int:
    """Return the 64 bits that stand for an object in a sample."""
    return xxhash.xxh3_64_intdigest(obj.identity)


def position_of(digest: int, index: int) -> int:
    """Return where a chunk stands on the circle: in a sample, if that is below its threshold."""
    return (digest + index * STEP) % CIRCLE


@dataclass(frozen=True, slots=True)
class SampledReads:
    """Reads in the order of their time, their chunks, and the objects of those. Never changes.

    Columns of one name's beginning have one length. Each object has a chunk, each chunk a read.
    """

    threshold: int
    """Chunks below it are here; of `CIRCLE`."""
    begins_at: float
    """Since when all their reads are here, in seconds since 1970."""
    ends_at: float
    object_digests: Column
    object_sizes: Column
    """In bytes; of a chunk likewise."""
    object_chunk_sizes: Column
    chunk_objects: Column
    """By their place in the columns of objects."""
    chunk_indexes: Column
    read_chunks: Column
    """By their place in the columns of chunks."""
    read_times: Column
    """In seconds since 1970."""
    read_bytes: Column
    """Of all reads that follow each other closely and stand in one line."""
    read_counts: Column
    """How many they are."""
    read_kinds: Column

    def checked(self) -> "SampledReads":
        """Return it, if its columns fit together.

        Raises:
            InvalidRequest: A column is too short, or names what is not there.
        """
        for prefix in ("object_", "chunk_", "read_"):
            if len({len(getattr(self, name)) for name in _names(prefix)}) > 1:
                raise InvalidRequest(f"a sample of reads has {prefix}… columns of two lengths")
        for places, counted in (
            (self.chunk_objects, self.object_digests),
            (self.read_chunks, self.chunk_indexes),
        ):
            if len(places) and int(places.max()) >= len(counted):
                raise InvalidRequest("a sample of reads names what is not in it")
        if not (math.isfinite(self.begins_at) and math.isfinite(self.ends_at)):
            raise InvalidRequest("a sample of reads has no time")
        return self

    def __len__(self) -> int:
        return len(self.read_chunks)

    @property
    def rate(self) -> float:
        """The part of all chunks that is here."""
        return self.threshold / CIRCLE

    @property
    def duration_s(self) -> float:
        """How long it was read."""
        return self.ends_at - self.begins_at

    @property
    def chunk_bytes(self) -> Column:
        """What each chunk has, in bytes."""
        chunk_sizes = self.object_chunk_sizes[self.chunk_objects].astype(np.int64)
        sizes = self.object_sizes[self.chunk_objects].astype(np.int64)
        rest: Column = sizes - self.chunk_indexes.astype(np.int64) * chunk_sizes
        return np.minimum(chunk_sizes, rest)

    @property
    def positions(self) -> Column:
        """Where each chunk stands on the circle."""
        steps = self.chunk_indexes.astype(np.uint64) * np.uint64(STEP)
        positions: Column = self.object_digests[self.chunk_objects] + steps
        return positions

    def thinned(self, threshold: int) -> "SampledReads":
        """Return the sample of a lower threshold."""
        if threshold >= self.threshold:
            return self
        are_kept = self.positions < np.uint64(threshold)
        return replace(self._with(are_kept[self.read_chunks]), threshold=threshold)

    def thinned_to(self, reads_max: int) -> "SampledReads":
        """Return it with at most ``reads_max`` reads, of as many chunks as that allows."""
        if len(self) <= reads_max:
            return self
        positions = np.sort(self.positions[self.read_chunks])
        return self.thinned(int(positions[reads_max]))

    def since(self, begins_at: float) -> "SampledReads":
        """Return the reads from a time on."""
        if begins_at <= self.begins_at:
            return self
        return replace(self._with(self.read_times >= begins_at), begins_at=begins_at)

    def _with(self, are_kept: Column) -> "SampledReads":
        """Return some of the reads, with their chunks and objects alone."""
        chunks, read_chunks = np.unique(self.read_chunks[are_kept], return_inverse=True)
        objects, chunk_objects = np.unique(self.chunk_objects[chunks], return_inverse=True)
        told = {name: getattr(self, name)[are_kept] for name in _names("read_")}
        told |= {name: getattr(self, name)[chunks] for name in _names("chunk_")}
        told |= {name: getattr(self, name)[objects] for name in _names("object_")}
        told |= {"read_chunks": read_chunks, "chunk_objects": chunk_objects}
        return replace(self, **told)


def joined(samples: Sequence[SampledReads]) -> SampledReads:
    """Return the reads of several nodes as one sample, at the lowest of their rates.

    A chunk that several of them answered for is one chunk. The caller has seen to it that the
    samples begin at the same time.
    """
    assert samples, "no samples, no sample"
    threshold = min(each.threshold for each in samples)
    thin = [each.thinned(threshold) for each in samples]
    whole = {
        name: np.concatenate([getattr(each, name) for each in thin])
        for prefix in ("object_", "chunk_", "read_")
        for name in _names(prefix)
    }
    whole["chunk_objects"] = _shifted(thin, "chunk_objects", "object_digests")
    whole["read_chunks"] = _shifted(thin, "read_chunks", "chunk_indexes")
    order = np.argsort(whole["read_times"], kind="stable")
    for name in _names("read_"):
        whole[name] = whole[name][order]
    return _without_repeats(
        SampledReads(
            threshold=threshold,
            begins_at=min(each.begins_at for each in thin),
            ends_at=max(each.ends_at for each in thin),
            **whole,
        )
    )


def _shifted(samples: Sequence[SampledReads], name: str, counted: str) -> Column:
    """Return a column of places, each sample's behind those of the samples before it."""
    lengths = [len(getattr(each, counted)) for each in samples]
    starts = np.cumsum([0, *lengths[:-1]])
    places = [getattr(each, name) + start for each, start in zip(samples, starts, strict=True)]
    return np.concatenate(places).astype(np.int64)


def _without_repeats(sample: SampledReads) -> SampledReads:
    """Return a sample in which objects and chunks may stand twice, with each of them once."""
    _, objects, place_of = np.unique(sample.object_digests, return_index=True, return_inverse=True)
    chunk_objects = place_of[sample.chunk_objects]
    names = np.stack((chunk_objects.astype(np.int64), sample.chunk_indexes.astype(np.int64)))
    _, chunks, chunk_place_of = np.unique(names, axis=1, return_index=True, return_inverse=True)
    return replace(
        sample,
        object_digests=sample.object_digests[objects],
        object_sizes=sample.object_sizes[objects],
        object_chunk_sizes=sample.object_chunk_sizes[objects],
        chunk_objects=chunk_objects[chunks],
        chunk_indexes=sample.chunk_indexes[chunks],
        read_chunks=chunk_place_of.reshape(-1)[sample.read_chunks],
    )


def _names(prefix: str) -> list[str]:
    return [field.name for field in fields(SampledReads) if field.name.startswith(prefix)]

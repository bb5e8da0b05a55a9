"""What readers ask of the chunks that this node owns: a sample of it, in bounded memory.

Responsible for: noting reads of sampled chunks; taking fewer chunks into the sample, or
forgetting the oldest reads, when there is no more room.
Not responsible for: which reads are a demand on owned chunks (`chunks`), and what would follow from
another capacity (`penstock_node.planning`).

Who serves a read only puts it in line; many that wait are taken into the sample together, which
costs a fraction of one by one: nobody waits for a lock, and owners are found for all at once.

The threshold of the sample falls as in SHARDS (Waldspurger et al., FAST '15, its fixed-size
variant), from all chunks on. It stops where so few of the chunks that fit into the node are in
the sample that a cache of them would be too small to tell of: from there on the oldest reads are
forgotten. So a sample reaches back for about 30 times what the node holds, or `WINDOW_S`. It is
kept in memory alone: what a node that was restarted has not seen yet, others of its cluster have.
"""

import threading
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, TypeAlias

import numpy as np

from penstock.objects import ObjectId
from penstock.sampled_reads import (
    FOUND,
    MISSED,
    WARMED,
    WHOLE,
    SampledReads,
    digest_of,
    position_of,
)

READS_MAX = 1 << 17
"""Lines of reads; about 20 bytes each."""
CHUNKS_MAX = 1 << 16
"""Different chunks; about 150 bytes each, the table of them included."""
SAMPLED_MIN = 4096
"""Of the chunks that fit into the node at once, so many stay in the sample."""
TOGETHER_READS = 8
"""Reads of one chunk with fewer lines between them stand in one line: its parts, in most cases."""
WINDOW_S = 14 * 86_400.0
"""What was read before is told to nobody."""
SETTLED_AT = 512
"""So many that wait are taken into the sample at once: for a millisecond."""
_WAITING_MAX = 16 * SETTLED_AT
_COUNT_MAX = 0xFFFF
_READ, _CAME, _WARMED = range(3)
OWNED_S = 60.0
"""For so long it is believed whether a chunk is owned: copies may change without a placement."""
_OWNED_MAX = 8192
"""Chunks of which that is remembered; about 80 bytes each."""

_Noted: TypeAlias = tuple[int, int, ObjectId, int, int, float, bool]
"""What happened, to the chunk of which position, of what, the how manieth of it; how many bytes,
and when; and whether it counts only if this node owns the chunk."""


class Ownership(Protocol):
    """Tells which chunks this node owns."""

    @property
    def epoch(self) -> int:
        """Of the placement: while it is the same, so are the owners."""

    def owned(self, chunks: Mapping[bytes, str]) -> set[bytes]:
        """Return those that it owns of some chunks, by their id and with their object's key."""


class Demand:
    """See the module. Thread-safe."""

    def __init__(
        self,
        *,
        capacity_bytes: Callable[[], int],
        ownership: Ownership | None = None,
        clock: Callable[[], float] = time.time,
        reads_max: int = READS_MAX,
        chunks_max: int = CHUNKS_MAX,
    ) -> None:
        """Know of no read yet.

        Args:
            capacity_bytes: What the node can own now.
            ownership: Of chunks that are noted only if the node owns them; None: it owns all.
            clock: Seconds since 1970.
            reads_max: See `READS_MAX`.
            chunks_max: See `CHUNKS_MAX`.
        """
        self._capacity_bytes = capacity_bytes
        self._ownership = ownership
        self._is_owned: dict[int, bool] = {}
        self._epoch, self._owned_at = 0, 0.0
        self._clock = clock
        self._reads_max, self._chunks_max = reads_max, chunks_max
        self._lock = threading.Lock()
        self._waiting: deque[_Noted] = deque()
        self._threshold = WHOLE
        self._begins_at = clock()
        self._objects = _Objects()
        self._chunks = _Chunks()
        self._reads = _Reads()

    def samples(self, obj: ObjectId, index: int) -> bool:
        """Tell whether reads of a chunk are noted."""
        return position_of(digest_of(obj), index) < self._threshold

    def read(self, obj: ObjectId, index: int, *, length: int, if_owned: bool = False) -> None:
        """Note that ``length`` bytes of a chunk were asked for, and answered.

        Args:
            obj: The object.
            index: Of the chunk.
            length: In bytes.
            if_owned: Whether it only counts if this node owns the chunk.
        """
        self.read_each(obj, ((index, length),), if_owned=if_owned)

    def read_each(
        self, obj: ObjectId, pieces: Iterable[tuple[int, int]], *, if_owned: bool = False
    ) -> None:
        """As `read`, of several chunks by their index, and how many bytes of each."""
        digest, threshold, at = digest_of(obj), self._threshold, self._clock()
        self._put(
            (_READ, position, obj, index, length, at, if_owned)
            for index, length in pieces
            # Most are not in the sample: they end here.
            if (position := position_of(digest, index)) < threshold
        )

    def came(self, obj: ObjectId, index: int, *, is_asked_for: bool) -> None:
        """Note that a chunk comes from the origin: for a read, or for reads to come."""
        position = position_of(digest_of(obj), index)
        if position < self._threshold:
            what = _CAME if is_asked_for else _WARMED
            self._put([(what, position, obj, index, 0, self._clock(), False)])

    def note(self, digest: int, index: int, *, length: int, size: int, chunk_size: int) -> None:
        """As `read`, of an object that stands as 64 bits; its size may grow as it is known."""
        position = position_of(digest, index)
        if position < self._threshold:
            with self._lock:
                place = self._place_of(position, digest, index, size, chunk_size)
                if place is not None:
                    self._note(place, self._clock(), length, is_read=True)

    def _put(self, noted: Iterable[_Noted]) -> None:
        waiting = self._waiting
        waiting.extend(noted)
        if len(waiting) < SETTLED_AT:
            return
        if self._lock.acquire(blocking=len(waiting) >= _WAITING_MAX):  # Else another is at it.
            try:
                self._settle()
            finally:
                self._lock.release()

    def sample(self, *, reads_max: int = READS_MAX) -> SampledReads:
        """Return what was noted, thinned to so many lines. Takes some milliseconds."""
        with self._lock:
            self._settle()
            now = self._clock()
            told = self._told(now)
        return told.since(now - WINDOW_S).thinned_to(reads_max)

    # Below, the lock is held.

    def _settle(self) -> None:
        """Take into the sample what waits."""
        waiting = self._waiting
        noted = [waiting.popleft() for _ in range(len(waiting))]
        if self._ownership is not None:
            self._find_owned(noted, self._ownership)
        for what, position, obj, index, length, at, if_owned in noted:
            if if_owned and not self._is_owned.get(position, True):
                continue
            place = self._chunks.places.get(position)
            if place is None or len(self._reads) >= self._reads_max:
                digest, size = digest_of(obj), obj.size
                place = self._place_of(position, digest, index, size, obj.chunk_size)
                if place is None:
                    continue
            if what == _CAME:
                self._chunks.came[place] = True
            else:
                self._note(place, at, length, is_read=what == _READ)

    def _find_owned(self, noted: Sequence[_Noted], ownership: Ownership) -> None:
        """Know of all that count only if they are owned whether they are."""
        epoch, known, now = ownership.epoch, self._is_owned, self._clock()
        is_old = abs(now - self._owned_at) > OWNED_S or len(known) > _OWNED_MAX
        if epoch != self._epoch or is_old:
            known.clear()
            self._epoch, self._owned_at = epoch, now
        unknown: dict[bytes, tuple[int, str]] = {}
        for _, position, obj, index, _, _, if_owned in noted:
            if if_owned and position not in known:
                unknown[obj.chunk_id(index)] = position, obj.key
        if unknown:
            owned = ownership.owned({chunk_id: key for chunk_id, (_, key) in unknown.items()})
            known.update((position, each in owned) for each, (position, _) in unknown.items())

    def _note(self, place: int, at: float, length: int, *, is_read: bool) -> None:
        chunks, reads = self._chunks, self._reads
        kind = WARMED if not is_read else MISSED if chunks.came[place] else FOUND
        chunks.came[place] = False
        line = chunks.lines[place]
        is_near = 0 < line <= len(reads) < line + TOGETHER_READS
        if kind == FOUND and is_near and reads.add_to(line - 1, length):
            return
        chunks.lines[place] = reads.append(place, at, length, kind)

    def _place_of(
        self, position: int, digest: int, index: int, size: int, chunk_size: int
    ) -> int | None:
        """Return a chunk's place, with room for a read of it; None if it is sampled no more."""
        if len(self._reads) >= self._reads_max:
            self._make_room()
        known = self._chunks.places.get(position)
        if known is not None:
            self._objects.see(self._chunks.objects[known], size)
            return known
        if len(self._chunks) >= self._chunks_max:
            self._make_room()
        if position >= self._threshold:
            return None
        return self._chunks.append(
            position, self._objects.place_of(digest, size, chunk_size), index
        )

    def _make_room(self) -> None:
        """Forget at least a quarter of the reads, and the chunks that have none."""
        told = self._told(self._clock())
        kept = told
        while 4 * len(kept) > 3 * self._reads_max or 4 * _chunk_count(kept) > 3 * self._chunks_max:
            if self._is_dense(kept):
                kept = kept.thinned(kept.threshold // 2)
            else:
                kept = kept.since(float(kept.read_times[len(kept) // 2]))
                if len(kept) > len(told) // 2:  # Many reads of one moment.
                    kept = kept.thinned(kept.threshold // 2)
        self._take(kept)

    def _is_dense(self, told: SampledReads) -> bool:
        """Tell whether half the chunks would do."""
        mean_bytes = max(1.0, float(told.chunk_bytes.mean())) if len(told) else 1.0
        return told.rate * self._capacity_bytes() / mean_bytes >= 2 * SAMPLED_MIN

    def _told(self, now: float) -> SampledReads:
        return SampledReads(
            threshold=self._threshold,
            begins_at=self._begins_at,
            ends_at=now,
            object_digests=np.array(self._objects.digests, np.uint64),
            object_sizes=np.array(self._objects.sizes, np.uint64),
            object_chunk_sizes=np.array(self._objects.chunk_sizes, np.uint32),
            chunk_objects=np.array(self._chunks.objects, np.uint32),
            chunk_indexes=np.array(self._chunks.indexes, np.uint32),
            read_chunks=np.array(self._reads.chunks, np.uint32),
            read_times=np.array(self._reads.times, np.float64),
            read_bytes=np.array(self._reads.lengths, np.uint64),
            read_counts=np.array(self._reads.counts, np.uint16),
            read_kinds=np.array(self._reads.kinds, np.uint8),
        )

    def _take(self, kept: SampledReads) -> None:
        """Go on with some of what was noted."""
        self._threshold, self._begins_at = kept.threshold, kept.begins_at
        self._objects = _Objects(kept)
        self._chunks = _Chunks(kept)
        self._reads = _Reads(kept)


class _Objects:
    """Objects by their digest, as columns."""

    def __init__(self, kept: SampledReads | None = None) -> None:
        self.digests, self.sizes, self.chunk_sizes = array("Q"), array("Q"), array("I")
        if kept is not None:
            self.digests.frombytes(kept.object_digests.astype(np.uint64).tobytes())
            self.sizes.frombytes(kept.object_sizes.astype(np.uint64).tobytes())
            self.chunk_sizes.frombytes(kept.object_chunk_sizes.astype(np.uint32).tobytes())
        self._places = {digest: place for place, digest in enumerate(self.digests)}

    def place_of(self, digest: int, size: int, chunk_size: int) -> int:
        place = self._places.get(digest)
        if place is None:
            place = self._places[digest] = len(self.digests)
            self.digests.append(digest)
            self.sizes.append(0)
            self.chunk_sizes.append(chunk_size)
        self.see(place, size)
        return place

    def see(self, place: int, size: int) -> None:
        if size > self.sizes[place]:
            self.sizes[place] = size


class _Chunks:
    """Chunks by their position, as columns."""

    def __init__(self, kept: SampledReads | None = None) -> None:
        self.objects, self.indexes, self.lines = array("I"), array("I"), array("I")
        self.came = bytearray()  # From the origin, and was not read since.
        self.places: dict[int, int] = {}
        if kept is not None:
            self.objects.frombytes(kept.chunk_objects.astype(np.uint32).tobytes())
            self.indexes.frombytes(kept.chunk_indexes.astype(np.uint32).tobytes())
            lines = np.zeros(len(self.objects), np.uint32)
            lines[kept.read_chunks] = np.arange(1, len(kept) + 1)  # The last one stays.
            self.lines.frombytes(lines.tobytes())
            self.came = bytearray(len(self.objects))
            self.places = {at: place for place, at in enumerate(kept.positions.tolist())}

    def __len__(self) -> int:
        return len(self.objects)

    def append(self, position: int, place: int, index: int) -> int:
        chunk = self.places[position] = len(self.objects)
        self.objects.append(place)
        self.indexes.append(index)
        self.lines.append(0)  # That of its last read, counted from 1.
        self.came.append(False)
        return chunk


class _Reads:
    """Lines of reads, as columns."""

    def __init__(self, kept: SampledReads | None = None) -> None:
        self.chunks, self.times, self.lengths = array("I"), array("d"), array("Q")
        self.counts, self.kinds = array("H"), array("B")
        if kept is not None:
            self.chunks.frombytes(kept.read_chunks.astype(np.uint32).tobytes())
            self.times.frombytes(kept.read_times.tobytes())
            self.lengths.frombytes(kept.read_bytes.astype(np.uint64).tobytes())
            self.counts.frombytes(kept.read_counts.astype(np.uint16).tobytes())
            self.kinds.frombytes(kept.read_kinds.astype(np.uint8).tobytes())

    def __len__(self) -> int:
        return len(self.chunks)

    def append(self, chunk: int, at: float, length: int, kind: int) -> int:
        """Return the line's number, from 1."""
        self.chunks.append(chunk)
        self.times.append(at)
        self.lengths.append(length)
        self.counts.append(int(kind != WARMED))
        self.kinds.append(kind)
        return len(self.chunks)

    def add_to(self, line: int, length: int) -> bool:
        """Add a read to a line; False if no more go into it."""
        if self.kinds[line] == WARMED or self.counts[line] >= _COUNT_MAX:
            return False
        self.counts[line] += 1
        self.lengths[line] += length
        return True


def _chunk_count(told: SampledReads) -> int:
    return len(told.chunk_indexes)

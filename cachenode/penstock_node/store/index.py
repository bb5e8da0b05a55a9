"""The chunks of a tier by id, in few bytes: flat columns, and a table that finds rows in them.

Responsible for: finding a chunk's row, taking rows in and out, many at once where a scan brings
them; the size and the mark of each row.
Not responsible for: the order of rows (`queues`), what a mark means, locks (its caller holds one).

A chunk is a row: four cells that lie together, so that one look into memory brings them all, and
its id beside them. A row is named by the place of its first cell. The table is open addressing
in `SEGMENTS` parts, chosen by the id's first bits, each at most half full and growing by itself:
one growth costs little, so that no insert waits for long. The chunks of one directory are those
of one segment, so that a listing fills one at a time.

    bytes a chunk: id 16, cells 16, table 8 to 12
"""

import struct
from array import array

import numpy as np
import numpy.typing as npt

from penstock_node.store.chunk_file import PREFIX_DIGITS

_SEGMENT_BITS = 4 * PREFIX_DIGITS
_SEGMENT_SHIFT = 64 - _SEGMENT_BITS  # Of the first half of an id.
SEGMENTS = 1 << _SEGMENT_BITS
SLOTS_MIN = 8
GROWTH = 1.5
"""Of a segment that is half full: a third of it is taken then."""

CELLS = 4
SIZE, AHEAD, BEHIND, QUEUE = range(CELLS)
"""Cells of a row: its size and its mark; and what `queues` keeps there."""
MARK = 1 << 31
SIZE_MASK = MARK - 1
"""What of the cell is the size, in bytes."""

_WORDS = struct.Struct(">QQ")
_NO_CELLS, _NO_WORDS = bytes(4 * CELLS), bytes(_WORDS.size)
_NO_SLOTS = array("I", [0])

Words = npt.NDArray[np.uint64]
Cells = npt.NDArray[np.uint32]
Flags = npt.NDArray[np.bool_]


class Index:
    """Chunks as rows. Row 0 is none; the rows of chunks that left are used again."""

    def __init__(self) -> None:
        self.cells = array("I", _NO_CELLS)
        """`CELLS` of each row, one row after the other."""
        self._words = array("Q", _NO_WORDS)  # Two of each row: ids.
        self._segments = [_NO_SLOTS] * SEGMENTS  # Each gets its own with its first chunk.
        self._taken = array("I", bytes(4 * SEGMENTS))
        self._free_row = 0  # The first of those that left; its `AHEAD` tells the next one.
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def memory_bytes(self) -> int:
        """What it takes, spare room included."""
        parts = (self.cells, self._words, self._taken, *self._segments)
        return sum(part.__sizeof__() for part in parts)

    def find(self, chunk_id: bytes) -> int:
        """Return the row of a chunk; 0 if it is not here."""
        words_of_id: tuple[int, int] = _WORDS.unpack(chunk_id)
        high, low = words_of_id
        slots, words = self._segments[high >> _SEGMENT_SHIFT], self._words
        slot = low % len(slots)
        while row := slots[slot]:
            at = row >> 1
            if words[at + 1] == low and words[at] == high:
                return row
            slot = slot + 1 if slot + 1 < len(slots) else 0
        return 0

    def id_of(self, row: int) -> bytes:
        """Return the chunk id of a row."""
        at = row >> 1
        return _WORDS.pack(self._words[at], self._words[at + 1])

    def size_of(self, row: int) -> int:
        """Return the size of a row's chunk in bytes."""
        return self.cells[row] & SIZE_MASK

    def add(self, chunk_id: bytes, size_bytes: int) -> int:
        """Take in a chunk that is not here; return its row, which has no mark."""
        assert 0 <= size_bytes <= SIZE_MASK, f"a chunk of {size_bytes} bytes"
        high, low = _WORDS.unpack(chunk_id)
        segment = high >> _SEGMENT_SHIFT
        taken = self._taken[segment]
        if 2 * (taken + 1) > len(self._segments[segment]):
            self._rebuild(segment, added=np.empty(0, np.uint32))
        row = self._free_row
        if row:
            self._free_row = self.cells[row + AHEAD]
        else:
            row = len(self.cells)
            self.cells.frombytes(_NO_CELLS)
            self._words.frombytes(_NO_WORDS)
        words, slots = self._words, self._segments[segment]
        slot = low % len(slots)
        while other := slots[slot]:
            at = other >> 1
            assert words[at + 1] != low or words[at] != high, f"{chunk_id.hex()} is inserted twice"
            slot = slot + 1 if slot + 1 < len(slots) else 0
        slots[slot] = row
        at = row >> 1
        self.cells[row], words[at], words[at + 1] = size_bytes, high, low
        self._taken[segment] = taken + 1
        self._count += 1
        return row

    def remove(self, row: int) -> None:
        """Take a row out."""
        words = self._words
        segment = words[row >> 1] >> _SEGMENT_SHIFT
        slots = self._segments[segment]
        slot_count = len(slots)
        hole = words[(row >> 1) + 1] % slot_count
        while slots[hole] != row:
            hole = hole + 1 if hole + 1 < slot_count else 0
        slot = hole + 1 if hole + 1 < slot_count else 0
        while other := slots[slot]:
            # Those that had to go past the hole move up: none is left between a row and its home.
            if (slot - words[(other >> 1) + 1]) % slot_count >= (slot - hole) % slot_count:
                slots[hole], hole = other, slot
            slot = slot + 1 if slot + 1 < slot_count else 0
        slots[hole] = 0
        self._taken[segment] -= 1
        self._count -= 1
        self.cells[row + AHEAD], self._free_row = self._free_row, row

    # A mark.

    def is_marked(self, row: int) -> bool:
        """Tell whether a row is marked."""
        return self.cells[row] >= MARK

    def mark(self, row: int) -> None:
        """Mark a row."""
        self.cells[row] |= MARK

    def unmark(self, row: int) -> None:
        """Take a row's mark away."""
        self.cells[row] &= SIZE_MASK

    # Many at once.

    def add_many(self, high: Words, low: Words, sizes: Cells, *, is_marked: bool) -> Cells:
        """Take in chunks that are not here, none of them twice; return their rows, all new.

        The ids are given as two big-endian words each.
        """
        first = len(self.cells)
        rows = np.arange(first, first + CELLS * len(sizes), CELLS, dtype=np.uint32)
        cells = np.zeros((len(sizes), CELLS), np.uint32)
        cells[:, SIZE] = sizes | np.uint32(MARK * is_marked)
        self.cells.frombytes(cells.tobytes())
        self._words.frombytes(np.stack((high, low), axis=1).tobytes())
        segments = high >> np.uint64(_SEGMENT_SHIFT)
        for segment in _distinct(segments):
            added = rows[segments == segment]
            self._rebuild(segment, added=added)
            self._taken[segment] += len(added)
        self._count += len(sizes)
        return rows

    def lows_beside(self, high: Words) -> Words:
        """Return the low words of all chunks in the segments of some, to tell new ones."""
        segments = (
            each for each in _distinct(high >> np.uint64(_SEGMENT_SHIFT)) if self._taken[each]
        )
        lows = [self._lows_of(self._rows_of(segment)) for segment in segments]
        return np.concatenate([np.empty(0, np.uint64), *lows])

    def rows(self) -> list[int]:
        """Return the rows of all chunks, in no order."""
        return [row for segment in self._used for row in self._segments[segment] if row]

    def columns(self) -> tuple[Words, Words, Cells, Cells]:
        """Return of all chunks, in no order: ids as two words each, sizes, queues."""
        parts = [self._rows_of(segment) for segment in self._used]
        rows = np.concatenate([np.empty(0, np.uint32), *parts])
        at = rows // CELLS
        words = np.frombuffer(self._words, np.uint64).reshape(-1, 2)[at]
        cells = np.frombuffer(self.cells, np.uint32).reshape(-1, CELLS)[at]
        return words[:, 0], words[:, 1], cells[:, SIZE] & np.uint32(SIZE_MASK), cells[:, QUEUE]

    @property
    def _used(self) -> list[int]:
        """The segments that have rows."""
        return np.flatnonzero(np.frombuffer(self._taken, np.uint32)).tolist()

    def _rows_of(self, segment: int) -> Cells:
        slots = np.frombuffer(self._segments[segment], np.uint32)
        return slots[slots > 0]

    def _lows_of(self, rows: Cells) -> Words:
        words = np.frombuffer(self._words, np.uint64).reshape(-1, 2)
        lows: Words = words[rows // CELLS, 1]
        return lows

    def _rebuild(self, segment: int, *, added: Cells) -> None:
        """Place the rows of a segment anew, with room for one more, and ``added`` with them."""
        rows = np.concatenate([self._rows_of(segment), added])
        slot_count = max(SLOTS_MIN, len(self._segments[segment]))
        while 2 * (len(rows) + 1) > slot_count:
            slot_count = int(slot_count * GROWTH)
        slots = array("I", bytes(4 * slot_count))
        homes = (self._lows_of(rows) % np.uint64(slot_count)).astype(np.int64)
        order = np.argsort(homes)
        # Each lies at its home, or right behind the one before it.
        ahead = np.arange(len(rows))
        places = np.maximum.accumulate(homes[order] - ahead) + ahead
        fits = places < slot_count
        np.frombuffer(slots, np.uint32)[places[fits]] = rows[order[fits]]
        for row in rows[order[~fits]].tolist():  # They go on from the start, the few there are.
            slots[slots.index(0)] = row
        self._segments[segment] = slots


def _distinct(segments: Words) -> list[int]:
    return np.flatnonzero(np.bincount(segments.astype(np.int64))).tolist()

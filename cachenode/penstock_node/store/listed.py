"""Chunks of a directory listing, many at once.

Responsible for: reading ids and sizes from file names, thousands in the time of a few.
Not responsible for: what a name means (`chunk_file`), listing (`tier_directory`), whether a
chunk is still there.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from penstock.objects import CHUNK_ID_BYTES
from penstock_node.store.chunk_file import PAGE_BYTES, PAGES_MAX, parse_name
from penstock_node.store.index import Cells, Flags, Words

_ID_DIGITS = 2 * CHUNK_ID_BYTES
_NAME_BYTES_MIN, _NAME_BYTES_MAX = _ID_DIGITS + 2, _ID_DIGITS + 1 + len(f"{PAGES_MAX:x}")
_FEW = 8
"""Names of one length that are quicker read one by one."""
_NO_DIGIT = 0xFF

_DIGITS = np.full(256, _NO_DIGIT, np.uint8)
_DIGITS[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)


@dataclass(frozen=True, slots=True)
class Listed:
    """Ids of chunks as two big-endian words each, and what their files take in bytes."""

    high: Words
    low: Words
    sizes: Cells

    @classmethod
    def of(cls, chunks: Iterable[tuple[bytes, int]]) -> "Listed":
        """Return the same of ids and sizes."""
        pairs = list(chunks)
        words = np.frombuffer(b"".join(chunk_id for chunk_id, _ in pairs), ">u8")
        sizes = np.array([size for _, size in pairs], np.uint32)
        return cls(words[::2].astype(np.uint64), words[1::2].astype(np.uint64), sizes)

    def __len__(self) -> int:
        return len(self.sizes)

    def __iter__(self) -> Iterator[tuple[bytes, int]]:
        words = np.stack((self.high, self.low), axis=1).astype(">u8").tobytes()
        ids = (words[at : at + CHUNK_ID_BYTES] for at in range(0, len(words), CHUNK_ID_BYTES))
        return zip(ids, self.sizes.tolist(), strict=True)

    @property
    def total_bytes(self) -> int:
        """What their files take together."""
        return int(self.sizes.sum(dtype=np.uint64))

    def repeats(self) -> Flags:
        """Tell of each whether others may have its id: seldom of one whose id is its own."""
        if len(np.unique(self.low)) == len(self.low):
            return np.zeros(len(self.low), np.bool_)
        _, kinds, counts = np.unique(self.low, return_inverse=True, return_counts=True)
        return np.asarray(counts[kinds] > 1)

    def where(self, is_wanted: Flags) -> "Listed":
        """Return some of them."""
        return Listed(self.high[is_wanted], self.low[is_wanted], self.sizes[is_wanted])

    def plus(self, other: "Listed") -> "Listed":
        """Return both together."""
        return Listed(
            np.concatenate((self.high, other.high)),
            np.concatenate((self.low, other.low)),
            np.concatenate((self.sizes, other.sizes)),
        )


def read_names(names: Iterable[bytes]) -> Listed:
    """Return the chunks that files' names tell; other names are passed over."""
    listed = Listed.of(())
    for length, alike in groupby(sorted(names, key=len), key=len):
        if _NAME_BYTES_MIN <= length <= _NAME_BYTES_MAX:
            listed = listed.plus(_read_alike(list(alike)))
    return listed


def _read_alike(names: Sequence[bytes]) -> Listed:
    """Return the chunks of names of one length."""
    if len(names) < _FEW:
        parsed = filter(None, (parse_name(name.decode("latin-1")) for name in names))
        return Listed.of((chunk_id, pages * PAGE_BYTES) for chunk_id, pages in parsed)
    letters = np.frombuffer(b"".join(names), np.uint8).reshape(len(names), -1)
    digits = _DIGITS[letters]
    pages = np.zeros(len(names), np.int64)
    for digit in digits[:, _ID_DIGITS + 1 :].T:
        pages = pages * 16 + digit
    halves = np.delete(digits, _ID_DIGITS, axis=1)
    is_chunk = (
        (letters[:, _ID_DIGITS] == ord("."))
        & (halves.max(axis=1) < _NO_DIGIT)
        & (digits[:, _ID_DIGITS + 1] > 0)  # No leading zero, and so no size of zero.
        & (pages <= PAGES_MAX)
    )
    words = np.ascontiguousarray(digits[:, :_ID_DIGITS:2] << 4 | digits[:, 1:_ID_DIGITS:2])
    high, low = words.view(">u8").astype(np.uint64).T
    return Listed(high, low, (pages * PAGE_BYTES).astype(np.uint32)).where(is_chunk)

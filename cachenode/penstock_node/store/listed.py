"""Chunks of a directory listing, many at once.

Responsible for: reading ids and sizes from file names, thousands in the time of a few.
Not responsible for: what a name means (`chunk_file`), listing (`tier_directory`), whether a
chunk is still there.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from penstock.objects import CHUNK_ID_BYTES
from penstock_node.store.chunk_file import PAGE_BYTES, PAGES_MAX, parse_name
from penstock_node.store.index import Cells, Flags, Words

_ID_DIGITS = 2 * CHUNK_ID_BYTES
_NAME_BYTES_MIN, _NAME_BYTES_MAX = _ID_DIGITS + 2, _ID_DIGITS + 1 + len(f"{PAGES_MAX:x}")
_LAST_DIGIT, _DOT, _SLASH, _OTHER = 15, 16, 17, 18
_VALUES = bytes(
    (b"0123456789abcdef./".find(letter) + _OTHER + 1) % (_OTHER + 1) for letter in range(256)
)
"""What each letter stands for."""


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
        ordered = np.sort(self.low)
        repeated = ordered[1:][ordered[1:] == ordered[:-1]]
        return self.may_be_among(repeated)

    def may_be_among(self, lows: Words) -> Flags:
        """Tell of each whether it may be one of some whose low words are given."""
        if len(lows) == 0:
            return np.zeros(len(self.low), np.bool_)
        return np.isin(self.low, lows)

    def where(self, is_wanted: Flags) -> "Listed":
        """Return some of them."""
        return Listed(self.high[is_wanted], self.low[is_wanted], self.sizes[is_wanted])


def read_names(names: Sequence[bytes]) -> Listed:
    """Return the chunks that files' names tell; other names are passed over."""
    listed = _read_alike(names) if names else None
    if listed is not None:
        return listed
    parsed = filter(None, (parse_name(name.decode("latin-1")) for name in names))
    return Listed.of((chunk_id, pages * PAGE_BYTES) for chunk_id, pages in parsed)


def _read_alike(names: Sequence[bytes]) -> Listed | None:
    """Return the chunks of names that are chunks', all of one length; None if they are not.

    Most are: only the last chunk of an object is shorter.
    """
    name_bytes = len(names[0])
    if not _NAME_BYTES_MIN <= name_bytes <= _NAME_BYTES_MAX:
        return None
    text = np.frombuffer(b"/".join([*names, b""]).translate(_VALUES), np.uint8)
    if len(text) != len(names) * (name_bytes + 1):
        return None
    values = text.reshape(len(names), name_bytes + 1)
    ends, dots, sizes = values[:, -1], values[:, _ID_DIGITS], values[:, _ID_DIGITS + 1 : -1]
    # Every name ends where the first one does, as no name has a slash; and all else are digits.
    is_as_written = (ends == _SLASH).all() and (dots == _DOT).all() and sizes[:, 0].all()
    if not is_as_written or np.count_nonzero(text > _LAST_DIGIT) != 2 * len(names):
        return None
    pages = np.zeros(len(names), np.uint32)
    for column in sizes.T:
        pages = pages * 16 + column
    if pages.max() > PAGES_MAX:
        return None
    words = (values[:, :_ID_DIGITS:2] << 4 | values[:, 1:_ID_DIGITS:2]).view(">u8")
    high, low = words.T.astype(np.uint64)
    return Listed(high, low, pages * np.uint32(PAGE_BYTES))

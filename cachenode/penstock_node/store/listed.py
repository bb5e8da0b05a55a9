"""Chunks of a directory listing, many at once.

Responsible for: reading ids and sizes from file names, thousands in the time of a few.
Not responsible for: what a name means (`chunk_file`), listing (`tier_directory`), whether a
chunk is still there.
"""

import binascii
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from penstock.objects import CHUNK_ID_BYTES
from penstock_node.store.chunk_file import PAGE_BYTES, PAGES_MAX, file_name, parse_name
from penstock_node.store.dirents import NAME_AT, Octets, records_in
from penstock_node.store.index import Cells, Flags, Words

_ID_DIGITS = 2 * CHUNK_ID_BYTES
_NAME_BYTES_MAX = _ID_DIGITS + 1 + len(f"{PAGES_MAX:x}")
_SMALL = np.uint64(0x2020202020202020)
"""The bits that small letters have, and digits too, and capitals have not: eight of them."""


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

    @classmethod
    def joined(cls, parts: Sequence["Listed"]) -> "Listed":
        """Return all of some."""
        columns = zip(*((part.high, part.low, part.sizes) for part in parts), strict=True)
        return cls(*map(np.concatenate, columns)) if parts else cls.of(())

    def __len__(self) -> int:
        return len(self.sizes)

    def __iter__(self) -> Iterator[tuple[bytes, int]]:
        return zip(split_ids(self.ids), self.sizes.tolist(), strict=True)

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

    def at(self, places: npt.NDArray[np.int64]) -> "Listed":
        """Return those at some places, in their order."""
        return Listed(self.high[places], self.low[places], self.sizes[places])

    @property
    def ids(self) -> bytes:
        """All ids, one after another."""
        return np.stack((self.high, self.low), axis=1).astype(">u8").tobytes()


def split_ids(joined: bytes) -> list[bytes]:
    """Return ids that stand one after another."""
    return [joined[at : at + CHUNK_ID_BYTES] for at in range(0, len(joined), CHUNK_ID_BYTES)]


def read_directory(entries: Octets, *, prefix: str) -> Listed:
    """Return the chunks that a directory's entries are, by their names; others are passed over.

    Args:
        entries: See `dirents`.
        prefix: What the names of all its chunks begin with.
    """
    names = (records[:, NAME_AT:] for records in records_in(entries))
    listed = Listed.joined([_read_names(some) for some in names])
    is_here = listed.high >> np.uint64(64 - 4 * len(prefix)) == int(prefix, 16)
    return listed if is_here.all() else listed.where(is_here)


def _read_names(names: Octets) -> Listed:
    """Return the chunks that names tell, each of which ends with a zero.

    Most tell one size, and are read at once: only the last chunk of an object is shorter.
    """
    model = parse_name(_text(names[len(names) // 2]))
    if model is None:
        return _read_one_by_one(names)
    _, pages = model
    end = file_name(b"", pages).encode() + b"\0"
    is_alike = np.ones(len(names), np.bool_)
    for column, letter in zip(names.T[_ID_DIGITS:], end, strict=False):
        is_alike &= column == letter
    digits = names[is_alike, :_ID_DIGITS]
    if not (digits.view(np.uint64) & _SMALL == _SMALL).all():
        return _read_one_by_one(names)
    try:
        words = np.frombuffer(binascii.unhexlify(digits.tobytes()), ">u8").reshape(-1, 2)
    except binascii.Error:
        return _read_one_by_one(names)
    high, low = words.T.astype(np.uint64)
    sizes = np.full(len(words), pages * PAGE_BYTES, np.uint32)
    return Listed.joined([Listed(high, low, sizes), _read_one_by_one(names[~is_alike])])


def _read_one_by_one(names: Octets) -> Listed:
    parsed = filter(None, (parse_name(_text(name)) for name in names))
    return Listed.of((chunk_id, pages * PAGE_BYTES) for chunk_id, pages in parsed)


def _text(name: Octets) -> str:
    text, _zero, _filling = name[: _NAME_BYTES_MAX + 1].tobytes().partition(b"\0")
    return text.decode("latin-1")

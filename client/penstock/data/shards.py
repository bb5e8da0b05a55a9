"""`Shards`: samples of shards by their number.

Responsible for: which sample is where, shards that are open, and indexes that are kept.
Not responsible for: the order in which samples are asked for (`sampler`).
"""

import itertools
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from penstock.data.formats import OpenShard, Places, Sample
from penstock.data.shard_list import ShardList, Urls, find_shards
from penstock.tensors.frameworks import require_torch

OPEN_MAX = 32
"""Shards that a process has open; those asked for longest ago are closed."""
AWAKE_MAX = 4
"""Of these, shards that may keep what they have decoded: those asked for last."""
INDEX_BYTES_MAX = 64 * 1024 * 1024
"""Of places that a process keeps, 8 bytes a sample of a tar file; the others' cost nothing."""
COUNTING_THREADS = 8


@dataclass(frozen=True, slots=True)
class _Counts:
    """How many samples there are; it pickles with the dataset."""

    starts: npt.NDArray[np.int64]
    """Number of each shard's first sample, and of all."""
    pieces: tuple[int, ...]
    versions: tuple[str, ...]


class Shards(require_torch().utils.data.Dataset):  # type: ignore[misc]
    """Samples of shards in safetensors, tar or Parquet format, by number, for a `DataLoader`.

    How many there are is found out at the first need: from the header or footer of each shard, or,
    of tar files, from all their headers. Take `ShardSampler` for the order: at random over all
    shards each of them is opened and sought in over and over. Use it from one thread at a time; a
    process that it is pickled or forked to connects by itself.
    """

    def __init__(
        self,
        urls: Urls,
        *,
        fields: Iterable[str] | None = None,
        transform: Callable[[Sample], Any] | None = None,
        kind: str | None = None,
        address: str | None = None,
    ) -> None:
        """Find the shards: what is listed now is the dataset.

        Args:
            urls: Shards, or prefixes below which all are taken, by name; ``penstock://…``, an
                origin's url inside a volume, or paths of this machine.
            fields: Of each sample what is wanted: members' endings, columns, tensors' names.
            transform: Called with each sample, in the worker; it returns what the loader gets.
            kind: ``tar``, ``parquet`` or ``safetensors``, where names do not say which.
            address: Of the cluster, as `penstock.connect` takes it.

        Raises:
            ObjectNotFound: There are no shards.
            InvalidRequest: Shards of two formats.
            ClusterUnavailable: No node answers; only prefixes ask for one here.
        """
        super().__init__()
        self.shards = find_shards(urls, address=address, kind=kind, fields=fields)
        self._transform = transform
        self._counts: _Counts | None = None
        self._opened = _Opened(self.shards)

    def __repr__(self) -> str:
        return f"<Shards: {len(self.shards)} {self.shards.format} shards>"

    def __len__(self) -> int:
        return int(self._counted().starts[-1])

    @property
    def pieces(self) -> Sequence[int]:
        """How many samples follow each other that are best read together: shards, row groups."""
        return self._counted().pieces

    def __getitem__(self, index: int) -> Any:
        """Return the sample of a number; negative ones count from the end.

        Raises:
            IndexError: There are not so many.
            ObjectChanged: Its shard was overwritten since it was counted.
            PenstockError: What reading raises.
        """
        return self.__getitems__([index])[0]

    def __getitems__(self, indexes: Sequence[int]) -> list[Any]:
        """Return the samples of some numbers, those of a shard read together."""
        counts = self._counted()
        numbers = np.array([self._checked(index) for index in indexes], np.int64)
        owners = np.searchsorted(counts.starts, numbers, side="right") - 1
        found: list[Any] = [None] * len(numbers)
        for shard in dict.fromkeys(owners.tolist()):
            where = np.flatnonzero(owners == shard)
            rows = (numbers[where] - counts.starts[shard]).tolist()
            samples = self._take(shard, rows, counts.versions[shard])
            for at, sample in zip(where.tolist(), samples, strict=True):
                found[at] = sample
        return found if self._transform is None else [self._transform(each) for each in found]

    def _checked(self, index: int) -> int:
        size = len(self)
        if not -size <= index < size:
            raise IndexError(f"sample {index}: there are {size}")
        return index + size if index < 0 else index

    def _take(self, shard: int, rows: Sequence[int], version: str) -> list[Sample]:
        opened = self._opened.of_this_process()
        with opened.lock:
            places = opened.places(shard, version)
            spans = [(int(places[row]), int(places[row + 1])) for row in rows]
            return [each.sample for each in opened.shard(shard, version).take(spans)]

    def _counted(self) -> _Counts:
        if self._counts is None:
            with ThreadPoolExecutor(COUNTING_THREADS, thread_name_prefix="penstock-data") as pool:
                told = list(pool.map(self._count, range(len(self.shards))))
            sizes = [0, *(size for size, _, _ in told)]
            self._counts = _Counts(
                np.cumsum(sizes, dtype=np.int64),
                tuple(itertools.chain.from_iterable(pieces for _, pieces, _ in told)),
                tuple(version for _, _, version in told),
            )
        return self._counts

    def _count(self, shard: int) -> tuple[int, Sequence[int], str]:
        opened, version = self.shards.open(shard)
        try:
            places = opened.places()
            pieces = opened.pieces(len(places) - 1)
        finally:
            opened.close()
        self._opened.of_this_process().keep(shard, places)
        return len(places) - 1, pieces, version


class _Opened:
    """What a process has open and keeps of shards. A forked child begins with the indexes."""

    def __init__(self, shards: ShardList) -> None:
        self._shards = shards
        self._places: OrderedDict[int, Places] = OrderedDict()
        self._of_parents: list[Any] = []
        self._begin()

    def __reduce__(self) -> tuple[Any, ...]:
        return _Opened, (self._shards,)

    def _begin(self) -> None:
        self._pid = os.getpid()
        self.lock = threading.Lock()
        self._keeping = threading.Lock()
        self._open: OrderedDict[int, OpenShard] = OrderedDict()

    def of_this_process(self) -> "_Opened":
        """Return itself; in a forked child without what is the parent's."""
        if self._pid != os.getpid():
            # The parent's files hold locks and threads that this process does not have: they are
            # neither used nor closed, and its locks may be held by nobody here.
            self._of_parents.append(self._open)
            self._begin()
        return self

    def shard(self, number: int, version: str) -> OpenShard:
        """Return an open shard, which may be closed by the next call."""
        if number not in self._open:
            self._open[number], _ = self._shards.open(number, version=version)
        self._open.move_to_end(number)
        for other in itertools.islice(reversed(self._open), AWAKE_MAX, AWAKE_MAX + 1):
            self._open[other].rest()
        while len(self._open) > OPEN_MAX:
            self._open.popitem(last=False)[1].close()
        return self._open[number]

    def places(self, number: int, version: str) -> Places:
        """Return where a shard's samples are."""
        with self._keeping:
            known = self._places.get(number)
        if known is None:
            known = self.shard(number, version).places()
            self.keep(number, known)
        return known

    def keep(self, number: int, places: Places) -> None:
        """Keep where a shard's samples are, for as long as there is room; from any thread."""
        with self._keeping:
            self._places[number] = places
            self._places.move_to_end(number)
            while len(self._places) > 1 and self._kept_bytes() > INDEX_BYTES_MAX:
                self._places.popitem(last=False)

    def _kept_bytes(self) -> int:
        return sum(getattr(each, "nbytes", 0) for each in self._places.values())

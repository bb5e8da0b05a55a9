"""Reading many ranges of many objects in one go.

Responsible for: opening the objects together, and each object's ranges as one read.
Not responsible for: moving bytes (`reader`).
"""

import threading
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Protocol, TypeAlias

from penstock.core import Core
from penstock.counters import Counters
from penstock.errors import Cancelled, ObjectChanged, PenstockError
from penstock.load_lines import LOAD_BYTES_MIN, begin_load
from penstock.memory import new_bytes
from penstock.opens import URLS_MAX, Handle
from penstock.reader import Reader
from penstock.together import taken, work_together

ByteRange: TypeAlias = tuple[str, int | None, int | None]
"""An object's url, and the bounds of a slice of its bytes."""
Result: TypeAlias = bytes | PenstockError

OBJECTS_AT_ONCE = 8
"""Read at the same time; each of them by as many threads as any read."""


class _Cache(Protocol):
    """What is needed of a `Cache`."""

    def _open_core(self) -> Core: ...

    def try_ranges(
        self, ranges: Sequence[ByteRange], *, stop: threading.Event | None = None
    ) -> list[Result]: ...


class RangeCalls:
    """The part of a `Cache` that reads ranges."""

    def read_ranges(
        self: _Cache, ranges: Sequence[ByteRange], *, stop: threading.Event | None = None
    ) -> list[bytes]:
        """Return many ranges of many objects, all read in one go.

        Args:
            ranges: Each a url and the bounds of a slice: what is returned for it is what
                ``data[start:stop]`` is of the object's bytes. None: from the start, to the end.
            stop: Set from another thread to give up early.

        Raises:
            PenstockError: The first that kept a range from being read.
        """
        read: list[bytes] = []
        for result in self.try_ranges(ranges, stop=stop):
            if isinstance(result, PenstockError):
                raise result
            read.append(result)
        return read

    def try_ranges(
        self: _Cache, ranges: Sequence[ByteRange], *, stop: threading.Event | None = None
    ) -> list[Result]:
        """As `read_ranges`; what cannot be read has the error in its place.

        Raises:
            ClusterUnavailable: No node answers, so that nothing can be read.
        """
        return read_each(self._open_core(), ranges, stop=stop)


def read_each(
    core: Core, ranges: Sequence[ByteRange], *, stop: threading.Event | None = None
) -> list[Result]:
    """Return each range's bytes, or why there are none, in order.

    Args:
        core: Reads.
        ranges: Of any objects, in any order.
        stop: Set from another thread to give up early.

    Raises:
        Cancelled: ``stop`` was set.
        ClusterUnavailable: No node answers.
    """
    positions: dict[str, list[int]] = defaultdict(list)
    for at, (url, _, _) in enumerate(ranges):
        positions[url].append(at)
    stop = stop or threading.Event()
    results: list[Result] = [b""] * len(ranges)
    loading = begin_load("ranges of", next(iter(positions), ""))
    urls = iter(positions)
    while some := list(islice(urls, URLS_MAX)):
        _Batch(core, ranges, positions, results, stop, loading.counters).read(some)
    read = sum(len(result) for result in results if isinstance(result, bytes))
    loading.end(
        read,
        object_bytes=max(read, LOAD_BYTES_MIN),  # Many small objects are no load.
        detail=f"{len(ranges):,} ranges of {len(positions):,} objects",
    )
    return results


class _Batch:
    """Objects that are opened together, and read by a few threads."""

    def __init__(
        self,
        core: Core,
        ranges: Sequence[ByteRange],
        positions: Mapping[str, Sequence[int]],
        results: list[Result],
        stop: threading.Event,
        tally: Counters | None,
    ) -> None:
        self._core, self._ranges, self._positions = core, ranges, positions
        self._results, self._stop, self._tally = results, stop, tally

    def read(self, urls: Sequence[str]) -> None:
        opened = self._core.opens.open_many(urls)
        left = deque(zip(urls, opened, strict=True))
        work_together(
            self._core.pool,
            lambda: self._work(left),
            threads=min(OBJECTS_AT_ONCE, len(urls)),
            give_up=lambda _: left.clear(),
        )

    def _work(self, left: "deque[tuple[str, Handle | PenstockError]]") -> None:
        for url, opened in taken(left):
            if isinstance(opened, PenstockError):
                self._settle(url, [opened] * len(self._positions[url]))
                continue
            try:
                self._settle(url, self._read_object(opened, self._positions[url]))
            except Cancelled:
                raise
            except PenstockError as error:
                if isinstance(error, ObjectChanged):
                    self._core.opens.forget(url)
                self._settle(url, [error] * len(self._positions[url]))

    def _settle(self, url: str, results: Sequence[Result]) -> None:
        for at, result in zip(self._positions[url], results, strict=True):
            self._results[at] = result

    def _read_object(self, handle: Handle, positions: Sequence[int]) -> list[bytes]:
        size = handle.opened.id.size
        bounds = [slice(*self._ranges[at][1:]).indices(size)[:2] for at in positions]
        return read_slices(self._core.reader, handle, bounds, stop=self._stop, tally=self._tally)


def read_slices(
    reader: Reader,
    handle: Handle,
    bounds: Sequence[tuple[int, int]],
    *,
    stop: threading.Event | None = None,
    tally: Counters | None = None,
) -> list[bytes]:
    """Return an object's bytes between each ``(start, stop)``, all read at once."""
    memories = new_bytes(max(0, end - start) for start, end in bounds)
    spans = [(each.view, start) for each, (start, _) in zip(memories, bounds, strict=True)]
    if wanted := [span for span in spans if len(span[0])]:
        reader.read_spans(handle, wanted, stop=stop, tally=tally)
    return [each.take() for each in memories]

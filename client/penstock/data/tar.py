"""Shards that are tar files, after WebDataset's convention: members of one key are one sample.

Responsible for: grouping members into samples, reading their bytes in large pieces, and an index
of where samples begin.
Not responsible for: headers (`tar_headers`).

The key of ``a/b.c.jpg`` is ``a/b``, and its field ``c.jpg``: the base name is cut at its first
dot. Members without a key, and those whose first folder is named like ``__this__``, are left out.
"""

import io
from collections.abc import Iterator, Sequence

import numpy as np

from penstock.checksums import BLOCK_BYTES
from penstock.data.formats import Found, Places, Sample, Span
from penstock.data.sources import ShardFile
from penstock.data.tar_headers import Member, members
from penstock.errors import InvalidRequest
from penstock.memory import new_memory

WINDOW_BYTES = 4 * 1024 * 1024
"""Read at once from the front to the back: a chunk, as clusters have them."""
HEADERS_BYTES = 256 * 1024
"""The same where only headers are wanted."""
FAR_BYTES = 256 * 1024
"""Of a jump, from which on it costs less to read single blocks than all on the way."""


class TarShard:
    """An open tar file. A sample's place is the offset of its first header."""

    def __init__(self, file: ShardFile, fields: Sequence[str] | None) -> None:
        """Read nothing yet; ``fields`` are endings of names, as ``jpg``."""
        self._file = file
        self._fields = None if fields is None else frozenset(fields)

    def places(self) -> Places:
        """Return where every sample begins, and the end: reads all headers."""
        found, end = list[int](), 0
        window = _Window(self._file, step=HEADERS_BYTES)
        for sample in self._samples(window, 0, reads_bodies=False):
            found.append(sample.place)
            end = sample.following
        return np.array([*found, end], np.int64)

    def pieces(self, count: int) -> Sequence[int]:
        """Return one piece: the whole file."""
        return [count]

    def stream(self, place: int) -> Iterator[Found]:
        """See `OpenShard`."""
        return self._samples(_Window(self._file), place)

    def take(self, spans: Sequence[Span]) -> list[Found]:
        """See `OpenShard`."""
        window, found = _Window(self._file), dict[int, Found]()
        for group in _near(sorted(set(spans))):
            if group[-1][1] - group[0][0] <= WINDOW_BYTES:
                window.load(group[0][0], group[-1][1])
            for place, _ in group:
                found[place] = next(self._samples(window, place))
        return [found[place] for place, _ in spans]

    def rest(self) -> None:
        """See `OpenShard`: nothing is kept."""

    def close(self) -> None:
        """See `OpenShard`."""
        self._file.close()

    def _samples(
        self, window: "_Window", place: int, *, reads_bodies: bool = True
    ) -> Iterator[Found]:
        """Tell samples; their bytes are read as they pass by, or not at all."""
        key, sample, begin, size = "", self._begun(""), place, 0
        for member in members(window.read, place, self._file.size, self._file.url):
            found, field = split_name(member.name)
            if found is None and member.name:
                continue
            if found != key:
                if key:
                    yield Found(sample, begin, member.start, size)
                key, begin, size = found or "", member.start, 0
                sample = self._begun(key)
            if field in sample:
                raise InvalidRequest(
                    f"shard {self._file.url} has two members {member.name!r}, or alike but for "
                    f"case, one after another, at byte {member.start}: give each sample a key"
                )
            if key and reads_bodies:
                size += self._put(sample, field, member, window)

    def _begun(self, key: str) -> Sample:
        return {"__key__": key, "__url__": self._file.url}

    def _put(self, sample: Sample, field: str, member: Member, window: "_Window") -> int:
        if self._fields is not None and field not in self._fields:
            return 0
        sample[field] = window.read(member.at, member.size)
        return member.size


def split_name(name: str) -> tuple[str | None, str]:
    """Return key and field of a member's name; None: it belongs to no sample."""
    folder, slash, base = name.rpartition("/")
    stem, dot, field = base.partition(".")
    if not stem or not dot:
        return None, ""
    first = name.partition("/")[0]
    if first.startswith("__") and first.endswith("__") and len(first) >= 4:
        return None, ""
    return folder + slash + stem, field.lower()


def _near(spans: Sequence[Span]) -> Iterator[Sequence[Span]]:
    """Put together what is so near that it is read as one."""
    group = list[Span]()
    for span in spans:
        is_near = group and span[0] - group[-1][1] <= BLOCK_BYTES
        if group and not (is_near and span[1] - group[0][0] <= WINDOW_BYTES):
            yield group
            group = []
        group.append(span)
    if group:
        yield group


class _Window:
    """A part of a file in memory, that moves with what is read."""

    def __init__(self, file: ShardFile, *, step: int = WINDOW_BYTES) -> None:
        self._file, self._step = file, step
        self._memory = memoryview(b"")
        self._start = self._stop = 0

    def read(self, at: int, size: int) -> bytes:
        """Return bytes that are there."""
        start = at - self._start
        if start >= 0 and at + size <= self._stop:
            return bytes(self._memory[start : start + size])
        return self._assemble(at, size)

    def _assemble(self, at: int, size: int) -> bytes:
        # BytesIO lends its own bytes for writing and gives them away uncopied.
        memory = io.BytesIO(bytes(size))
        with memory.getbuffer() as target:
            done = 0
            while done < size:
                done += self._fill(target[done:], at + done)
        return memory.getvalue()

    def _fill(self, target: memoryview, at: int) -> int:
        """Put the next bytes into place; return how many."""
        if not self._start <= at < self._stop:
            if len(target) >= self._step:
                self._file.read_on(target, at)
                self._start = self._stop = at + len(target)
                return len(target)
            self._move(at, len(target))
        count = min(len(target), self._stop - at)
        target[:count] = self._memory[at - self._start : at - self._start + count]
        return count

    def _move(self, at: int, size: int) -> None:
        """Have what follows in the window; after a jump no more than is asked for."""
        if not 0 <= at - self._stop <= FAR_BYTES:
            self.load(at, at + size)
            return
        start = at - at % BLOCK_BYTES
        stop = min(start - start % self._step + self._step, self._file.size)
        if len(self._memory) < self._step:
            self._memory = new_memory(self._step)
        self._file.read_on(self._memory[: stop - start], start)
        self._start, self._stop = start, stop

    def load(self, start: int, stop: int) -> None:
        """Have a range in the window, in whole blocks."""
        start -= start % BLOCK_BYTES
        stop = min(-(-stop // BLOCK_BYTES) * BLOCK_BYTES, self._file.size)
        if len(self._memory) < stop - start:
            self._memory = new_memory(stop - start)
        self._file.read_at(self._memory[: stop - start], start)
        self._start, self._stop = start, stop

"""Bringing the files of one snapshot, each by one process, from whoever has its chunks.

Responsible for: what need not be brought; which process does a file; pieces from open files of
this machine's node, and the rest through the library's reader; a newer version when there is one.
Not responsible for: what is wanted (`plan`), layouts (`places`), room on the disk (`room`).
"""

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial as bound
from itertools import pairwise
from typing import NamedTuple

from penstock.checksums import block_checksums
from penstock.chunk_files import ChunkFile
from penstock.errors import Cancelled, CorruptData, ObjectChanged
from penstock.opens import Handle
from penstock.planes.host_file import source_of
from penstock.snapshots.digests import piece_digest
from penstock.snapshots.host_copy import SPAN_BYTES, Verify, copy_chunk, write_all
from penstock.snapshots.host_files import HostFiles
from penstock.snapshots.kernel_copy import KernelCopy
from penstock.snapshots.locks import POLL_S
from penstock.snapshots.manifest import Manifest, Record, matches_disk
from penstock.snapshots.parallel import Buffers, for_each
from penstock.snapshots.partial import Identity, Partial, landed_bytes
from penstock.snapshots.places import (
    MANIFEST,
    PARTIALS,
    FileVersion,
    Place,
    prepare,
    state_of,
)
from penstock.snapshots.plan import PlannedFile
from penstock.snapshots.room import disk_error
from penstock.snapshots.source import Source
from penstock.snapshots.tally import FileProgress, Tally

FILES_AT_ONCE = 4
WINDOW_PIECES = 4
"""Read at a time where no node of this machine has files: with four of them at once, as many
chunks as the library's threads read."""
WINDOW_BYTES_MAX = 16 * 1024 * 1024
"""But a piece at least."""
WINDOWS_AT_ONCE = 4
COPIES_AT_ONCE = 4
CHANGES_MAX = 3
"""How often an object may be overwritten while it is brought."""


class Window(NamedTuple):
    """Pieces that lie one behind another, read together."""

    at: int
    length: int
    pieces: range


class Bringing:
    """Brings files into one base; see the module. Used once."""

    def __init__(
        self,
        source: Source,
        place: Place,
        *,
        verify: Verify,
        checked: bool,
        over: threading.Event,
        tally: Tally,
        rng: random.Random | None = None,
    ) -> None:
        """Describe it.

        Args:
            source: The cache.
            place: Where files go; its state directory is there.
            verify: What is read again of bytes that the kernel copies.
            checked: Whether files that are here are read and compared with their checksums.
            over: Set to give up.
            tally: Counts.
            rng: Spreads load over the nodes.
        """
        self._source, self._place = source, place
        self._verify: Verify = verify
        self._checked = checked
        self._over = over
        self._tally = tally
        self._rng = rng or random.Random()  # noqa: S311 - spreads load, guards nothing
        self._partials = state_of(place.base) / PARTIALS
        self._manifest = Manifest(state_of(place.base) / MANIFEST)
        self._lock = threading.Lock()
        self._windows: dict[int, Buffers] = {}
        self._spans = Buffers(SPAN_BYTES, count=FILES_AT_ONCE * COPIES_AT_ONCE)
        self._done: dict[str, FileVersion] = {}
        self._busy: list[PlannedFile] = []

    def missing_bytes(self, files: Sequence[PlannedFile]) -> int:
        """Return how much of ``files`` is still to come."""
        return sum(map(self._missing_bytes, files))

    def _missing_bytes(self, file: PlannedFile) -> int:
        version = FileVersion(file.path, file.url, file.version, file.size)
        name = self._place.name_of(version)
        if file.version and self._is_here(name, version, checked=False):
            return 0
        told = (self._partials, name, file.url, file.version, file.size)
        return file.size - landed_bytes(*told)

    def bring(
        self, files: Sequence[PlannedFile], *, stop: Callable[[], bool] = lambda: False
    ) -> dict[str, FileVersion]:
        """Have all ``files`` here; return what version of each it is, by path.

        Args:
            files: Large ones are begun first.
            stop: Asked now and then, in the caller's thread, whether to give up.

        Raises:
            NoSpace: The disk is full.
            InvalidRequest: A file cannot be written where it is to be.
            Cancelled: It was given up; what landed is continued the next time.
            PenstockError: As `Cache.read`.
        """
        in_order = sorted(files, key=lambda file: -file.size)
        self._tally.move(0, total=sum(file.size for file in files))
        self._each(in_order, bound(self._bring, waits=False), stop)
        # Others do these at the moment: waiting for one would leave the rest undone.
        self._each(self._busy, bound(self._bring, waits=True), stop)
        return self._done

    def _each(
        self,
        files: Sequence[PlannedFile],
        work: Callable[[PlannedFile], None],
        stop: Callable[[], bool],
    ) -> None:
        threads = min(FILES_AT_ONCE, len(files))
        for_each(tuple(files), work, threads=threads, over=self._over, stop=stop)

    # One file.

    def _bring(self, file: PlannedFile, *, waits: bool) -> None:
        progress = FileProgress(self._tally, file.size)
        handle = None if file.version else self._source.open(file.url)
        version = FileVersion(file.path, file.url, file.version, file.size)
        for _ in range(CHANGES_MAX):
            if handle is not None:
                version = _version_of(handle, file)
                progress.begin(version.size)
            try:
                handle = self._bring_version(version, handle, progress, waits=waits)
            except ObjectChanged:
                handle = self._source.open(file.url, refresh=True)
            except OSError as error:
                raise disk_error(error, self._place.base / version.path) from error
            if handle is None:
                return
        raise ObjectChanged(f"{file.url} is overwritten faster than it can be brought")

    def _bring_version(
        self, file: FileVersion, handle: Handle | None, progress: FileProgress, *, waits: bool
    ) -> Handle | None:
        """Have this version here; return another that is there by now, if it is so."""
        name = self._place.name_of(file)
        before = self._record(name)
        if self._is_here(name, file, checked=self._checked):
            self._settle("kept", file, progress)
            return None
        partial = self._open_partial(name, file, progress, waits=waits)
        if partial is None:
            self._busy.append(PlannedFile(file.path, file.url, file.version, file.size))
            return None
        with partial:
            is_told = self._record(name) != before
            if is_told and self._is_here(name, file, checked=False):
                partial.discard()
                self._settle("shared", file, progress)
                return None
            handle = handle or self._open(file)
            if _version_of(handle, file) != file:
                return handle
            target = prepare(self._place.base, name)
            self._fill(partial, handle, file, progress)
            partial.publish(target, self._tell)
        self._settle("fetched", file, progress)
        return None

    def _open(self, file: FileVersion) -> Handle:
        """Return the object; which version is the newer one where a listing told another."""
        handle = self._source.open(file.url)
        if _version_of(handle, file) == file:
            return handle
        return self._source.open(file.url, refresh=True)

    def _settle(self, what: str, file: FileVersion, progress: FileProgress) -> None:
        progress.finish()
        self._tally.settle(what, file.size)
        with self._lock:
            self._done[file.path] = file

    def _is_here(self, name: str, file: FileVersion, *, checked: bool) -> bool:
        record = self._record(name)
        if record is None or not record.is_of(file.url, file.version, file.size):
            return False
        path = self._place.base / name
        if not matches_disk(record, path, checked=checked):
            return False
        touched_ns = path.stat().st_mtime_ns
        if touched_ns != record.modified_ns:
            self._tell(replace(record, modified_ns=touched_ns))
        return True

    def _record(self, name: str) -> Record | None:
        with self._lock:
            self._manifest.refresh()
            return self._manifest.get(name)

    def _tell(self, record: Record) -> None:
        with self._lock:
            self._manifest.add(record)

    def _open_partial(
        self, name: str, file: FileVersion, progress: FileProgress, *, waits: bool
    ) -> Partial | None:
        told = (self._partials, name, file.url, file.version, file.size)
        while (partial := Partial.try_open(self._partials, name)) is None and waits:
            progress.reach(landed_bytes(*told))
            if self._over.wait(POLL_S):
                raise Cancelled
        return partial

    # Its pieces.

    def _fill(
        self, partial: Partial, handle: Handle, file: FileVersion, progress: FileProgress
    ) -> None:
        identity = Identity(file.url, file.version, file.size, handle.opened.id.chunk_size)
        missing = partial.begin(identity, is_over=self._over.is_set)
        progress.reach(partial.landed_bytes)
        self._tally.add("continued", partial.landed_bytes)
        if missing:
            # Where to begin is chance: a thousand hosts spread over all owners.
            first = self._rng.randrange(len(missing))
            filling = _Filling(partial, handle, identity, progress)
            left = self._from_host(filling, missing[first:] + missing[:first])
            self._by_reading(filling, left)

    def _from_host(self, filling: "_Filling", missing: list[int]) -> list[int]:
        """Copy what this machine's node has in files; return the pieces that are left."""
        host = self._source.host()
        if host is None:
            return missing
        left = set(missing)
        kernel = KernelCopy(filling.partial.descriptor)

        def copy(file: ChunkFile) -> None:
            if self._copy(filling, kernel, file):
                left.discard(file.index)

        files = HostFiles(host, filling.handle, self._over)
        with closing(files.batches(missing)) as batches:
            for batch in batches:
                self._each_part(batch, copy, threads=COPIES_AT_ONCE, over=threading.Event())
        return [index for index in missing if index in left]

    def _copy(self, filling: "_Filling", kernel: KernelCopy, file: ChunkFile) -> bool:
        at, length = filling.identity.span(file.index)
        target = filling.partial.descriptor
        try:
            way = copy_chunk(
                file,
                kernel,
                target,
                at=at,
                length=length,
                buffers=self._spans,
                verify=self._verify,
            )
        except CorruptData:
            return False  # The reader tells the node, and reads it from elsewhere.
        filling.landed(file.index, piece_digest(file.checksums))
        self._tally.copied(way, length)
        self._source.count(source_of(file.source), length)
        return True

    def _by_reading(self, filling: "_Filling", missing: list[int]) -> None:
        piece_bytes = filling.identity.piece_bytes
        count = max(1, min(WINDOW_PIECES, WINDOW_BYTES_MAX // piece_bytes))
        size_bytes = count * piece_bytes
        with self._lock:
            buffers = self._windows.setdefault(
                size_bytes, Buffers(size_bytes, count=WINDOWS_AT_ONCE)
            )
        over = threading.Event()

        def read(window: Window) -> None:
            with buffers.borrow() as memory:
                self._read(filling, window, memory[: window.length], over)

        windows = list(cut_windows(missing, filling.identity, count))
        self._each_part(windows, read, threads=WINDOWS_AT_ONCE, over=over)

    def _read(
        self, filling: "_Filling", window: Window, memory: memoryview, over: threading.Event
    ) -> None:
        self._source.read(filling.handle, memory, window.at, stop=over)
        digests = {}
        for index in window.pieces:
            at, length = filling.identity.span(index)
            piece = memory[at - window.at :][:length]
            digests[index] = piece_digest(block_checksums(piece))
        write_all(filling.partial.descriptor, memory, window.at)
        for index, digest in digests.items():
            filling.landed(index, digest)
        self._tally.copied("read", window.length)

    def _each_part(
        self,
        parts: Sequence[ChunkFile] | Sequence[Window],
        work: Callable[..., None],
        *,
        threads: int,
        over: threading.Event,
    ) -> None:
        """Work on the parts of one file, whose failure is not yet everything's."""
        if self._over.is_set():
            raise Cancelled
        count = min(threads, len(parts))
        for_each(parts, work, threads=count, over=over, stop=self._over.is_set)


class _Filling(NamedTuple):
    """One file whose pieces come."""

    partial: Partial
    handle: Handle
    identity: Identity
    progress: FileProgress

    def landed(self, index: int, digest: int) -> None:
        """Tell that a piece is written."""
        self.partial.landed(index, digest)
        self.progress.advance(self.identity.span(index)[1])


def _version_of(handle: Handle, file: PlannedFile | FileVersion) -> FileVersion:
    opened = handle.opened.id
    return FileVersion(file.path, file.url, opened.version, opened.size)


def cut_windows(pieces: Sequence[int], identity: Identity, count_max: int) -> Iterator[Window]:
    """Put pieces together that follow each other, up to ``count_max``, in their order."""
    breaks = [at for at, (one, next_one) in enumerate(pairwise(pieces), 1) if next_one != one + 1]
    for start, stop in pairwise([0, *breaks, len(pieces)]):
        for first in range(start, stop, count_max):
            run = pieces[first : min(stop, first + count_max)]
            if run:
                at = identity.span(run[0])[0]
                end = sum(identity.span(run[-1]))
                yield Window(at, end - at, range(run[0], run[-1] + 1))

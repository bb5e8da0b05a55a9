"""Putting a directory: its files, some at a time, and an account of what was not put.

Responsible for: which entries of a tree become objects, and which are left out and why.
Not responsible for: how one object is put (`penstock.put`).

Links to files are followed, as a hub's cache is made of them. Links to directories are not: they
may lead in a circle. Object stores know no directories, so empty ones are nothing there.
"""

import os
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from penstock.errors import ClusterUnavailable, InvalidRequest, NotPermitted, PenstockError

if TYPE_CHECKING:
    from penstock.cache import Cache
    from penstock.cli.progress import Unwatched

FILES_AT_ONCE = 8
BYTES_AT_ONCE = 128 * 1024 * 1024
"""Of small files eight, of large ones two: each of those is sent in parts, and nodes have memory
for three or four."""
LARGE_BYTES = BYTES_AT_ONCE // 2
TOLD_MAX = 1000
"""Failures that are told one by one; more are only counted."""
TICK_S = 0.1
GIVE_UP_S = 4.0
"""How long an interrupt waits until nothing is left at the origin."""

_KINDS = (
    (stat.S_ISDIR, "a link to a directory, which is not followed; put that directory itself"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISCHR, "a device"),
)


@dataclass(frozen=True, slots=True)
class Found:
    """A file to put."""

    path: Path
    name: str
    """Below the root, with slashes."""
    size: int


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An entry that cannot become an object."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Failure:
    """A file that was not put."""

    path: str
    error: str
    message: str


@dataclass(slots=True)
class TreeReport:
    """What became of a directory."""

    objects: int = 0
    bytes: int = 0
    failed_count: int = 0
    failed: list[Failure] = field(default_factory=list)
    """The first `TOLD_MAX`."""
    left_out_count: int = 0
    left_out: list[LeftOut] = field(default_factory=list)
    """Likewise."""
    empty_directories: int = 0
    is_cut_short: bool = False
    """It ended with a failure that all further files would have met."""

    @property
    def is_complete(self) -> bool:
        """Whether every file became an object."""
        return not (self.failed_count or self.left_out_count or self.is_cut_short)


class EmptyDirectory:
    """One that no object stands for."""


Entry: TypeAlias = Found | LeftOut | EmptyDirectory
UnderWay: TypeAlias = dict[Future[None], int]
"""Files that are being put, and how many bytes of each count."""


def walk(root: Path) -> Iterator[Entry]:
    """Tell what lies below ``root``, in the order of names.

    Raises:
        InvalidRequest: ``root`` is no directory that can be read.
    """
    try:
        entries = _entries(root)
    except OSError as error:
        raise InvalidRequest(f"cannot read the directory {root}: {error.strerror}") from error
    yield from _walk(entries, "")


def _entries(directory: Path) -> list[os.DirEntry[str]]:
    with os.scandir(directory) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _walk(entries: list[os.DirEntry[str]], below: str) -> Iterator[Entry]:
    if not entries:
        yield EmptyDirectory()
    for entry in entries:
        name = below + entry.name
        try:
            if entry.is_dir(follow_symlinks=False):
                inner = _entries(Path(entry.path))
            else:
                yield _entry(entry, name)
                continue
        except OSError as error:
            yield LeftOut(entry.path, f"cannot be read: {error.strerror}")
            continue
        yield from _walk(inner, f"{name}/")


def _entry(entry: os.DirEntry[str], name: str) -> Entry:
    try:
        status = entry.stat()
    except FileNotFoundError:
        return LeftOut(entry.path, "a link to nothing")
    if not stat.S_ISREG(status.st_mode):
        reason = next((kind for test, kind in _KINDS if test(status.st_mode)), "no file")
        return LeftOut(entry.path, reason)
    try:
        name.encode()
    except UnicodeEncodeError:
        return LeftOut(os.fsencode(entry.path).decode(errors="replace"), "its name is not UTF-8")
    return Found(Path(entry.path), name, status.st_size)


def _has_room(under_way: UnderWay, size: int) -> bool:
    return len(under_way) < FILES_AT_ONCE and sum(under_way.values()) + size <= BYTES_AT_ONCE


class TreePut:
    """One directory on its way below one url."""

    def __init__(
        self, cache: "Cache", root: Path, url: str, *, if_absent: bool, watcher: "Unwatched"
    ) -> None:
        self._cache, self._root = cache, root
        self._url = url.rstrip("/")
        self._if_absent = if_absent
        self._watcher = watcher
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._done = 0
        self._wanted = 0
        self._report = TreeReport()
        self.urls: list[str] = []
        """Of what was put so far."""

    def run(self) -> TreeReport:
        """Put every file, and tell what became of all entries."""
        self._wanted = sum(entry.size for entry in walk(self._root) if isinstance(entry, Found))
        self._watcher.begin(self._wanted)
        threads = ThreadPoolExecutor(FILES_AT_ONCE, thread_name_prefix="penstock-tree")
        under_way: UnderWay = {}
        try:
            for entry in walk(self._root):
                if self._report.is_cut_short:
                    break
                if isinstance(entry, Found):
                    size = min(entry.size, LARGE_BYTES)
                    self._wait(under_way, until=partial(_has_room, under_way, size))
                    under_way[threads.submit(self._put, entry)] = size
                else:
                    self._note(entry)
            self._wait(under_way, until=lambda: not under_way)
        except BaseException:
            self._stop.set()
            threads.shutdown(wait=False, cancel_futures=True)
            wait(under_way, timeout=GIVE_UP_S)
            raise
        threads.shutdown()
        self._show()
        return self._report

    def _wait(self, under_way: "UnderWay", *, until: Callable[[], bool]) -> None:
        while not until():
            ended, _ = wait(under_way, timeout=TICK_S, return_when=FIRST_COMPLETED)
            for file in ended:
                del under_way[file]
                file.result()
            self._show()

    def _show(self) -> None:
        self._watcher.grow(self._wanted)
        self._watcher.advance(self._done)

    def _put(self, found: Found) -> None:
        sent = 0

        def advance(done: int) -> None:
            nonlocal sent
            with self._lock:
                self._done += done - sent
            sent = done

        try:
            info = self._cache.put(
                f"{self._url}/{found.name}",
                found.path,
                if_absent=self._if_absent,
                on_progress=advance,
                stop=self._stop,
            )
        except PenstockError as error:
            with self._lock:
                self._done -= sent
                self._wanted -= found.size
                self._fail(found, error)
            return
        with self._lock:
            self._wanted += info.size - found.size
            self._report.objects += 1
            self._report.bytes += info.size
            self.urls.append(info.url)

    def _fail(self, found: Found, error: PenstockError) -> None:
        report = self._report
        report.failed_count += 1
        if len(report.failed) < TOLD_MAX:
            report.failed.append(Failure(str(found.path), error.name, str(error)))
        if isinstance(error, NotPermitted | ClusterUnavailable):
            report.is_cut_short = True

    def _note(self, entry: LeftOut | EmptyDirectory) -> None:
        report = self._report
        if isinstance(entry, EmptyDirectory):
            report.empty_directories += 1
            return
        report.left_out_count += 1
        if len(report.left_out) < TOLD_MAX:
            report.left_out.append(entry)

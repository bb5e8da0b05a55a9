"""Files of chunks, kept open for the next reads: of those that were read a moment ago, and of those
that follow.

A read costs less than asking for its file. Kept files count as in use at the node, so they are
few, and all are given back together: when there are too many, or nobody reads any more.

Responsible for: which files are open, for how long, and closing none while it is read.
Not responsible for: asking for files and reading them (`planes.host`).
"""

import contextlib
import os
import resource
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from penstock.objects import ObjectId

FILES_MAX = 512
DESCRIPTORS_SHARE = 4
"""Of the descriptors that this process may have, at most one in so many is a kept file."""
SHARES = 2
"""Of all kept files one object may ask for half, of two one a quarter each."""
IDLE_S = 2.0
"""How long files are kept that nobody reads."""
AGE_S = 30.0
"""How long files are kept at all: the ticket they were given for has to be shown again."""


@dataclass(slots=True, eq=False)
class KeptFile:
    """One open file of a chunk."""

    descriptor: int
    offset: int
    """Of the chunk's first byte in the file."""
    checksums: bytes
    source: str
    readers: int = 0
    is_dropped: bool = False

    def close_if_unused(self) -> None:
        """Close it if it was dropped and nobody reads it; the caller holds the lock."""
        if self.is_dropped and self.readers == 0 and self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class KeptFiles:
    """Open files by chunk. Thread-safe; a forked child begins with none."""

    def __init__(self, *, files_max: int | None = None) -> None:
        """Keep none yet; by default as many as this process can well afford."""
        allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // DESCRIPTORS_SHARE
        self._files_max = min(FILES_MAX, allowed) if files_max is None else files_max
        self._lock = threading.Lock()
        self._files: dict[ObjectId, dict[int, KeptFile]] = {}
        self._count = 0
        self._give_back: Callable[[], None] | None = None
        self._began_at = self._used_at = 0.0
        self._timer: threading.Timer | None = None

    def __len__(self) -> int:
        return self._count

    @property
    def share(self) -> int:
        """How many files one object may have asked for at once, so that others have some too."""
        return max(1, self._files_max // (SHARES * (len(self._files) + 1)))

    def missing(self, obj: ObjectId, indexes: range) -> list[int]:
        """Return those of an object's chunks whose files are not kept."""
        with self._lock:
            self._used_at = time.monotonic()
            known = self._files.get(obj, {})
            return [index for index in indexes if index not in known]

    @contextlib.contextmanager
    def borrow(self, obj: ObjectId, index: int) -> Iterator[KeptFile | None]:
        """Lend the file of a chunk; None if it is not kept."""
        with self._lock:
            file = self._files.get(obj, {}).get(index)
            if file is not None:
                file.readers += 1
                self._used_at = time.monotonic()
        try:
            yield file
        finally:
            if file is not None:
                with self._lock:
                    file.readers -= 1
                    file.close_if_unused()

    def make_room(self, count: int) -> None:
        """Give all files back if ``count`` more would be too many."""
        if self._count + count > self._files_max:
            self.drop_all()

    def keep(
        self, obj: ObjectId, files: Mapping[int, KeptFile], *, give_back: Callable[[], None]
    ) -> None:
        """Keep files, which are this object's from now on; there is room for them.

        Args:
            obj: The object.
            files: By their chunks' indexes; not kept yet.
            give_back: Called when all files that are kept now are closed.
        """
        with self._lock:
            self._used_at = time.monotonic()
            if not self._count:
                self._began_at, self._give_back = self._used_at, give_back
                self._start_timer()
            for index, file in files.items():
                self._forget(obj, index)  # Two threads asked for it.
                self._files.setdefault(obj, {})[index] = file
                self._count += 1

    def forget(self, obj: ObjectId, index: int) -> None:
        """Close one file: its bytes were wrong."""
        with self._lock:
            self._forget(obj, index)

    def _forget(self, obj: ObjectId, index: int) -> None:
        file = self._files.get(obj, {}).pop(index, None)
        if file is not None:
            self._count -= 1
            self._drop(file)

    def drop_all(self) -> None:
        """Close all files and tell the node."""
        with self._lock:
            files = self._taken()
            give_back, self._give_back = self._give_back, None
            timer, self._timer = self._timer, None
            for file in files:
                self._drop(file)
        if timer is not None:
            timer.cancel()
        if give_back is not None:
            give_back()

    def abandon(self) -> None:
        """In a forked child: close its copies of the files, and tell nobody."""
        self._lock = threading.Lock()
        for file in self._taken():
            self._drop(file)

    def _taken(self) -> list[KeptFile]:
        files, self._files, self._count = self._files, {}, 0
        return [file for each in files.values() for file in each.values()]

    def _drop(self, file: KeptFile) -> None:
        file.is_dropped = True
        file.close_if_unused()

    def _start_timer(self) -> None:
        self._timer = threading.Timer(IDLE_S, self._look)
        self._timer.daemon = True
        self._timer.start()

    def _look(self) -> None:
        now = time.monotonic()
        with self._lock:
            is_wanted = now - self._used_at < IDLE_S and now - self._began_at < AGE_S
            if is_wanted and self._count:
                self._start_timer()
                return
        self.drop_all()

"""Files of chunks that were read a moment ago, kept open for the next small read.

A small read costs less than asking for its file. Kept files count as in use at the node, so they
are few, and all are given back together: when there are too many, or nobody reads any more.

Responsible for: which files are open, for how long, and closing none while it is read.
Not responsible for: asking for files and reading them (`planes.host`).
"""

import contextlib
import os
import resource
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from penstock.objects import ObjectId

FILES_MAX = 512
DESCRIPTORS_SHARE = 4
"""Of the descriptors that this process may have, at most one in so many is a kept file."""
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
        self._files: dict[tuple[ObjectId, int], KeptFile] = {}
        self._give_back: Callable[[], None] | None = None
        self._began_at = self._used_at = 0.0
        self._timer: threading.Timer | None = None

    def __len__(self) -> int:
        return len(self._files)

    @contextlib.contextmanager
    def borrow(self, obj: ObjectId, index: int) -> Iterator[KeptFile | None]:
        """Lend the file of a chunk; None if it is not kept."""
        with self._lock:
            file = self._files.get((obj, index))
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

    def keep(
        self, obj: ObjectId, index: int, file: KeptFile, *, give_back: Callable[[], None]
    ) -> None:
        """Keep a file, which is this object's from now on.

        Args:
            obj: The object.
            index: Of the chunk.
            file: Not kept yet.
            give_back: Called when all files that are kept now are closed.
        """
        with self._lock:
            self._used_at = time.monotonic()
            known = self._files.get((obj, index))
            if known is not None:  # Two threads asked for it.
                self._drop(known)
            if not self._files:
                self._began_at, self._give_back = self._used_at, give_back
                self._start_timer()
            self._files[obj, index] = file
            is_full = len(self._files) > self._files_max
        if is_full:
            self.drop_all()

    def forget(self, obj: ObjectId, index: int) -> None:
        """Close one file: its bytes were wrong."""
        with self._lock:
            file = self._files.pop((obj, index), None)
            if file is not None:
                self._drop(file)

    def drop_all(self) -> None:
        """Close all files and tell the node."""
        with self._lock:
            files, self._files = self._files, {}
            give_back, self._give_back = self._give_back, None
            timer, self._timer = self._timer, None
            for file in files.values():
                self._drop(file)
        if timer is not None:
            timer.cancel()
        if give_back is not None:
            give_back()

    def abandon(self) -> None:
        """In a forked child: close its copies of the files, and tell nobody."""
        files, self._files, self._lock = self._files, {}, threading.Lock()
        for file in files.values():
            self._drop(file)

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
            if is_wanted and self._files:
                self._start_timer()
                return
        self.drop_all()

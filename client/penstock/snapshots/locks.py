"""Locks between processes: `flock` on files that may be renamed or removed meanwhile.

The kernel gives a lock back when its last holder ends, however it ends: none is ever stale. Each
open of a file has a lock of its own, so threads exclude each other as processes do, and a forked
child goes on holding what it inherited.
"""

import fcntl
import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from penstock.errors import Cancelled

POLL_S = 0.05
"""Between two looks whether a lock is free: a wait can be given up."""


class Lock:
    """A lock that is held, until it is closed. Use it in a ``with``, or keep it."""

    def __init__(self, descriptor: int, path: Path) -> None:
        self.descriptor = descriptor
        self.path = path

    @property
    def is_there(self) -> bool:
        """Whether its file is still the one at its path."""
        try:
            return os.path.samestat(os.fstat(self.descriptor), self.path.stat())
        except FileNotFoundError:
            return False

    def share(self) -> None:
        """Let others share it from now on. For a moment nobody may have it."""
        fcntl.flock(self.descriptor, fcntl.LOCK_SH)

    def try_alone(self) -> bool:
        """Have what is shared alone; False if others share it. For a moment nobody may have it."""
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.share()
            return False
        return True

    def close(self) -> None:
        """Give it back; again does nothing."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def try_lock(path: Path, *, shared: bool = False) -> Lock | None:
    """Lock the file at ``path``, which is made if it is not there; None: another has it.

    Raises:
        OSError: It can neither be opened nor made.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    while True:
        lock = Lock(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666), path)
        try:
            fcntl.flock(lock.descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            return None
        except BaseException:
            lock.close()
            raise
        if lock.is_there:
            return lock
        lock.close()  # Whoever had it has renamed or removed the file: it is another one now.


def lock(
    path: Path,
    *,
    over: threading.Event,
    shared: bool = False,
    on_wait: Callable[[], None] = lambda: None,
) -> Lock:
    """As `try_lock`, and wait for it.

    Args:
        path: Of the file.
        over: Set from another thread to give up.
        shared: Whether others may hold it too.
        on_wait: Called now and then while another has it.

    Raises:
        Cancelled: ``over`` was set.
    """
    while (held := try_lock(path, shared=shared)) is None:
        on_wait()
        if over.wait(POLL_S):
            raise Cancelled
    return held

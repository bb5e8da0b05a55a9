"""Reading ahead of whoever reads a file from front to back.

Responsible for: noticing that, having the next bytes in memory before they are asked for, and how
much memory that takes: of one file, and of all files of a cache together.
Not responsible for: moving bytes (`reader`).

What is asked for elsewhere is read as it is asked for: exactly, and at once. Of who goes on, small
reads are served from a window that is read at once; from the second read on more windows follow,
read by other threads. They double from `WINDOW_MIN` to `WINDOW_MAX`. Larger reads have no windows
as long as all comes from files of this machine's node: it would only be copied once more.
"""

import mmap
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from concurrent.futures import wait as wait_for
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from penstock import tracing
from penstock.errors import Cancelled, PenstockError
from penstock.memory import copy, new_memory

ReadInto: TypeAlias = Callable[[memoryview, int, threading.Event | None], None]
"""Fills memory from an offset; the event, once set, makes it give up."""
ReadHere: TypeAlias = Callable[[memoryview, int, int, threading.Event | None], bool]
"""The same, from what this machine's node has at hand; told how many bytes are likely to be read
next. False: not all of it is."""

WINDOW_MIN = 128 * 1024
"""Two blocks."""
WINDOW_MAX = 4 * 1024 * 1024
WINDOWS_MAX = 4
"""Of one file, the one that is being read included."""
KEPT_MAX = WINDOWS_MAX
"""Windows whose memory is kept for the next ones."""
SMALL_MAX = WINDOW_MIN // 2
"""Reads up to here are worth a window of their own."""
DIRECT_MIN = 2 * WINDOW_MAX
"""Who asks for so much gets it without a window: several threads read it anyway."""
HERE_MIN = 2 * WINDOW_MIN
HERE_MAX = 64 * 1024 * 1024
"""Who asks for more had better have it read as a whole."""
HERE_AHEAD_GROWTH = 4
HERE_AHEAD_MAX = 256 * 1024 * 1024
HERE_SKIP_MIN = WINDOW_MAX
"""How far it is to what is asked for again, where something was not at hand; twice as far each
time."""
HERE_SKIP_MAX = 16 * WINDOW_MAX
BUDGET_BYTES = 256 * 1024 * 1024
"""Of all files of a cache."""
LOOK_S = 0.1
"""How soon a wait notices that nobody wants its end any more."""
LINE_STEP = 256
"""Of a line is looked at first: most are shorter."""


class AheadBudget:
    """The memory that all files of a cache may have ahead. Thread-safe.

    Some of it is kept for the next window: memory that nobody has touched is slow.
    """

    def __init__(self, limit_bytes: int = BUDGET_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._kept: deque[memoryview] = deque(maxlen=KEPT_MAX)
        self.used_bytes = 0

    def take(self, size_bytes: int, *, is_first: bool) -> memoryview | None:
        """Return a page more than that of memory, from a page's start on, if there is so much.

        The second half of it is for files that have none yet.
        """
        with self._lock:
            limit_bytes = self._limit_bytes if is_first else self._limit_bytes // 2
            if self.used_bytes + size_bytes > limit_bytes:
                return None
            self.used_bytes += size_bytes
            if size_bytes == WINDOW_MAX and self._kept:
                return self._kept.pop()
        return new_memory(size_bytes + mmap.PAGESIZE)

    def give_back(self, memory: memoryview) -> None:
        """Give back what was taken; nobody looks at it any more."""
        size_bytes = len(memory) - mmap.PAGESIZE
        with self._lock:
            self.used_bytes -= size_bytes
            if size_bytes == WINDOW_MAX:
                self._kept.append(memory)


class Threads(Protocol):
    """A pool of threads."""

    def submit(self, call: Callable[[], None], /) -> "Future[None]":
        """Have a thread make the call."""


@dataclass(frozen=True, slots=True)
class Ahead:
    """What all files of a cache share."""

    threads: Threads
    budget: AheadBudget = field(default_factory=AheadBudget)


class _Window:
    """A part of the file in memory, or on its way there."""

    def __init__(
        self, start: int, taken: memoryview, read_into: ReadInto, budget: AheadBudget
    ) -> None:
        self.start, self.stop = start, start + len(taken) - mmap.PAGESIZE
        # Within its page as in the file: kernels copy that fastest.
        self.memory = taken[start % mmap.PAGESIZE :][: self.stop - start]
        self._taken, self._read_into, self._budget = taken, read_into, budget
        self._future: Future[None] | None = None
        self._is_read = False
        self._gives_up = threading.Event()

    def begin(self, threads: Threads) -> None:
        """Have another thread read it."""
        self._future = threads.submit(tracing.carried(lambda: self._read(self._gives_up)))

    def _read(self, stop: threading.Event | None) -> None:
        self._read_into(self.memory, self.start, stop)
        self._is_read = True

    def wait(self, stop: threading.Event | None) -> None:
        """Return when it is there, whoever reads it.

        Raises:
            Cancelled: ``stop`` is set.
            PenstockError: It cannot be read.
            CancelledError: The cache was closed.
        """
        if self._is_read:
            return
        if self._future is None or self._future.cancel():  # No thread has had time for it.
            self._read(stop)
            return
        while not wait_for([self._future], timeout=LOOK_S).done:
            if stop is not None and stop.is_set():
                raise Cancelled
        self._future.result()

    def drop(self) -> None:
        """Read it no longer; its memory counts until nothing writes into it any more."""
        self._gives_up.set()
        if self._future is None:
            self._give_back(None)
        else:
            self._future.cancel()
            self._future.add_done_callback(self._give_back)

    def _give_back(self, _future: "Future[None] | None") -> None:
        self._budget.give_back(self._taken)


class _Here:
    """What this machine's node has at hand of a file, and whether asking for it is worth it."""

    def __init__(self, read_here: ReadHere) -> None:
        self._read_here = read_here
        self._ahead_bytes = 0
        self.begin()

    def begin(self) -> None:
        """Expect nothing: the reader is somewhere else."""
        self._ahead_bytes, self._asks_from, self._skip = 0, 0, HERE_SKIP_MIN

    def read(self, target: memoryview, offset: int, stop: threading.Event | None) -> bool:
        """Fill ``target`` from ``offset``, if it is there, for who reads on."""
        if offset < self._asks_from or not HERE_MIN <= len(target) <= HERE_MAX:
            return False
        is_read = self._read_here(target, offset, self._ahead_bytes, stop)
        if is_read:
            self._ahead_bytes = max(len(target), self._ahead_bytes * HERE_AHEAD_GROWTH)
            self._ahead_bytes = min(HERE_AHEAD_MAX, self._ahead_bytes)
            self._skip = HERE_SKIP_MIN
        else:
            self._asks_from, self._ahead_bytes = offset + self._skip, 0
            self._skip = min(HERE_SKIP_MAX, 2 * self._skip)
        return is_read


class ReadAhead:
    """What one file has ahead. Thread-safe, and usable in a forked child."""

    def __init__(
        self, size: int, read_into: ReadInto, read_here: ReadHere, shared: Callable[[], Ahead]
    ) -> None:
        """Read nothing yet.

        Args:
            size: Of the file, in bytes.
            read_into: Reads it.
            read_here: Reads what is at hand.
            shared: Returns what this file shares with others: another after a fork.
        """
        self._size, self._read_into, self._shared = size, read_into, shared
        self._here = _Here(read_here)
        self._next = 0
        """Where a reader who goes on reads next."""
        self._reads = 0
        """How often one has gone on."""
        self._windows: deque[_Window] = deque()
        self._window_bytes = WINDOW_MIN
        self._lock = threading.Lock()
        self._process = os.getpid()

    def read(self, target: memoryview, offset: int, stop: threading.Event | None = None) -> None:
        """Fill ``target`` from ``offset``; both lie within the file."""
        with self._locked():
            self._come_to(offset)
            done = self._from_windows(target, offset, stop)
            if done < len(target):
                # What is there is copied; the rest need not be, if it is worth a read of its own.
                self._read(target[done:], offset + done, stop)
            self._next = offset + len(target)

    def _read(self, target: memoryview, offset: int, stop: threading.Event | None) -> None:
        """Read what no window has."""
        if self._reads and self._here.read(target, offset, stop):
            return
        if len(target) < DIRECT_MIN:
            self._look_ahead(offset + len(target))
        else:
            self._drop()
        self._read_into(target, offset, stop)

    def line(self, offset: int, length_max: int, stop: threading.Event | None = None) -> bytes:
        """Return bytes from ``offset`` up to a line's end, or fewer; none at the file's end."""
        length_max = min(length_max, self._size - offset)
        if length_max <= 0:
            return b""
        with self._locked():
            self._come_to(offset)
            window = self._window_at(offset, stop, may_read=True)
            if window is not None:
                part = window.memory[offset - window.start :][:length_max]
            else:
                part = memoryview(bytearray(min(length_max, SMALL_MAX)))
                self._read_into(part, offset, stop)
            line = _first_line(part)
            self._next = offset + len(line)
            return line

    def close(self) -> None:
        """Let go of all memory, and have nothing more read."""
        with self._locked():
            self._drop()

    def _locked(self) -> threading.Lock:
        if self._process != os.getpid():
            # The parent's threads, one of which may have the lock, are not here.
            self._process, self._lock = os.getpid(), threading.Lock()
            self._windows = deque()
        return self._lock

    def _come_to(self, offset: int) -> None:
        if offset == self._next:
            self._reads += 1
        else:
            self._drop()
            self._here.begin()
            self._window_bytes, self._reads = WINDOW_MIN, 0

    def _drop(self) -> None:
        while self._windows:
            self._windows.popleft().drop()

    def _from_windows(self, target: memoryview, offset: int, stop: threading.Event | None) -> int:
        """Copy what windows have; return how much that is."""
        done = 0
        while done < len(target):
            is_small = len(target) - done <= SMALL_MAX
            window = self._window_at(offset + done, stop, may_read=is_small)
            if window is None:
                break
            at = offset + done - window.start
            part = window.memory[at : at + len(target) - done]
            copy(target[done : done + len(part)], part)
            done += len(part)
        return done

    def _window_at(
        self, offset: int, stop: threading.Event | None, *, may_read: bool
    ) -> _Window | None:
        """Return what holds the byte at ``offset``; None if nothing does.

        Args:
            offset: Where the reader has come to.
            stop: Makes it give up.
            may_read: Whether a window may be read for it now.
        """
        # The first may also begin behind it: what lies between could not be read.
        while self._windows and not self._windows[0].start <= offset < self._windows[0].stop:
            self._windows.popleft().drop()
        if not self._windows and may_read and self._reads:
            self._add_window(offset)
        if not self._windows:
            return None
        self._look_ahead(self._windows[-1].stop)
        window = self._windows[0]
        try:
            window.wait(stop)
        except Cancelled:
            self._drop()
            raise
        except (PenstockError, CancelledError):
            self._drop()  # It is asked for again, and who asks is told then.
            return None
        return window

    def _look_ahead(self, begins: int) -> None:
        """Have other threads read what follows ``begins``, the end of what is there."""
        while self._reads > 1 and len(self._windows) < min(self._reads, WINDOWS_MAX):
            window = self._add_window(begins)
            if window is None:
                return
            window.begin(self._shared().threads)
            begins = window.stop

    def _add_window(self, begins: int) -> _Window | None:
        size = min(self._window_bytes, self._size - begins)
        budget = self._shared().budget
        taken = budget.take(size, is_first=not self._windows) if size > 0 else None
        if taken is None:
            return None
        self._window_bytes = min(WINDOW_MAX, 2 * self._window_bytes)
        window = _Window(begins, taken, self._read_into, budget)
        self._windows.append(window)
        return window


def _first_line(part: memoryview) -> bytes:
    """Return a copy of the first line of ``part``, or of all of it."""
    step, done = LINE_STEP, 0
    while done < len(part):
        end = bytes(part[done : done + step]).find(b"\n")
        if end >= 0:
            return bytes(part[: done + end + 1])
        done, step = done + step, step * 8
    return bytes(part)

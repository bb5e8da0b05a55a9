"""Memory with the next bytes of files that are read from front to back, for all files of a mount.

The kernel reads ahead too, but by 128 KiB at first and for one file in order: too little for an
origin that answers in 20 ms, or a node on another machine. So whoever goes on reading gets windows
of 4 MiB, read by threads of their own, and answers are sent to the kernel straight from those.

Responsible for: noticing who goes on, also many within one file and reads that overtake each other,
when a window is read and when its memory is used again, and a bound on that memory.
Not responsible for: moving bytes, answering the kernel.
"""

import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeAlias

from penstock.errors import Cancelled
from penstock.memory import new_memory

ReadAt: TypeAlias = Callable[[memoryview, int, threading.Event], None]
"""Fills memory from an offset of a file; the event, once set, makes it give up."""

WINDOW_BYTES = 4 * 1024 * 1024
AHEAD_MAX = 3
"""Windows in front of one reader, beside the one that it reads."""
GOES_ON_BYTES = 512 * 1024
"""So much read in a row: then it goes on."""
OVERTAKES_BYTES = 2 * 1024 * 1024
"""So far may reads of one who goes on be out of order: the kernel has several under way."""
STREAMS_MAX = 32
"""Readers that are told apart within one file."""
BUDGET_BYTES = 256 * 1024 * 1024
KEPT_BYTES = 64 * 1024 * 1024
"""Memory without a use that is kept: fresh memory is slow."""
IDLE_S = 2.0
"""Windows that nobody has touched for so long give way to others."""
FILLERS_MAX = 8
"""Threads that read windows."""
LOOK_S = 0.1
"""How soon a wait notices that nobody wants its end any more."""


class _Window:
    """A part of a file in memory, or on its way there."""

    def __init__(self, start: int, memory: memoryview, length: int) -> None:
        self.start, self.stop = start, start + length
        self.memory = memory
        self.is_there = threading.Event()
        self.gives_up = threading.Event()
        self.failure: BaseException | None = None
        self.is_dropped = False
        self.users = 1
        """Whoever reads it, and who fills it."""
        self.served_bytes = 0
        self.touched_at = 0.0
        self._is_begun = threading.Lock()
        """Taken by who fills it, for good."""

    def begins(self) -> bool:
        """Whether the caller is to fill it: one is told so, whoever asks."""
        return self._is_begun.acquire(blocking=False)

    def wait(self, stop: threading.Event) -> None:
        """Return when it is there.

        Raises:
            Cancelled: ``stop`` is set.
            PenstockError: It cannot be read.
        """
        while not self.is_there.wait(LOOK_S):
            if stop.is_set():
                raise Cancelled
        if self.failure is not None:
            raise self.failure.with_traceback(None)

    def part(self, start: int, stop: int) -> memoryview:
        return self.memory[max(start, self.start) - self.start : min(stop, self.stop) - self.start]


@dataclass(slots=True, eq=False)
class _Stream:
    """One who reads on."""

    front: int
    """Where the furthest read so far has ended."""
    run_bytes: int = 0
    """How much was read in a row."""
    ahead: int = 1
    """How many windows it has in front of it, next time."""
    windows: list[int] = field(default_factory=list)
    """The starts of those that were begun for it."""

    def goes_on_at(self, offset: int) -> bool:
        return self.front - OVERTAKES_BYTES <= offset <= self.front + OVERTAKES_BYTES


class Windows:
    """The windows of all files. Thread-safe."""

    def __init__(
        self,
        *,
        budget_bytes: int = BUDGET_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Have no memory yet.

        Args:
            budget_bytes: Of all windows.
            clock: Tells the time, in seconds.
        """
        self._budget_bytes, self._clock = budget_bytes, clock
        self._fillers = ThreadPoolExecutor(FILLERS_MAX, thread_name_prefix="penstock-ahead")
        self._lock = threading.Lock()
        self._free: list[memoryview] = []
        self._taken = 0
        self._by_touch: OrderedDict[_Window, FileWindows] = OrderedDict()

    @property
    def used_bytes(self) -> int:
        """The memory of windows that are there or on their way."""
        return self._taken * WINDOW_BYTES

    def of(self, size: int, read_at: ReadAt) -> "FileWindows":
        """Return what reads a file of ``size`` bytes, that has no windows yet."""
        return FileWindows(self, size, read_at)

    def close(self) -> None:
        """Have nothing more read, and stop threads."""
        with self._lock:
            for window, owner in list(self._by_touch.items()):
                owner.drop(window)
        self._fillers.shutdown()

    def begin(self, window: _Window, read_at: ReadAt) -> None:
        """Have a window read by another thread."""
        self._fillers.submit(self.fill, window, read_at)

    def fill(self, window: _Window, read_at: ReadAt) -> None:
        """Read a window, if nobody has begun to."""
        if not window.begins():
            return
        try:
            if window.gives_up.is_set():
                raise Cancelled
            read_at(window.memory[: window.stop - window.start], window.start, window.gives_up)
        except BaseException as error:  # noqa: BLE001 - raised again by `wait`
            window.failure = error
        with self._lock:
            owner = self._by_touch.get(window)
            if window.failure is not None and owner is not None:
                owner.drop(window)  # Whoever comes next tries again.
            self.leave(window)
        window.is_there.set()

    # What follows is called with the lock held, by the windows of a file.

    @property
    def lock(self) -> threading.Lock:
        """Guards all windows and streams."""
        return self._lock

    def take(self, *, is_first: bool) -> memoryview | None:
        """Return memory, if there is: half of it is for windows that somebody waits for."""
        limit = self._budget_bytes if is_first else self._budget_bytes // 2
        if self.used_bytes + WINDOW_BYTES > limit and not self._reclaim():
            return None
        self._taken += 1
        return self._free.pop() if self._free else new_memory(WINDOW_BYTES)

    def _reclaim(self) -> bool:
        """Drop the window that was touched longest ago, if that is long ago."""
        for window, owner in self._by_touch.items():
            if window.touched_at + IDLE_S > self._clock():
                return False
            if window.users == 0:
                owner.drop(window)
                return True
        return False

    def touch(self, window: _Window, owner: "FileWindows") -> None:
        """Take note that somebody reads it."""
        window.touched_at = self._clock()
        self._by_touch[window] = owner
        self._by_touch.move_to_end(window)

    def forget(self, window: _Window) -> None:
        """Take note that its file does not have it any more."""
        window.is_dropped = True
        window.gives_up.set()
        self._by_touch.pop(window, None)
        self._recycle(window)

    def leave(self, window: _Window) -> None:
        """Take note that somebody is done with it."""
        window.users -= 1
        self._recycle(window)

    def _recycle(self, window: _Window) -> None:
        if window.is_dropped and window.users == 0:
            self._taken -= 1
            if len(self._free) * WINDOW_BYTES < KEPT_BYTES:
                self._free.append(window.memory)


class FileWindows:
    """What one open file has in memory. Thread-safe."""

    def __init__(self, all_windows: Windows, size: int, read_at: ReadAt) -> None:
        self._all = all_windows
        self._size, self._read_at = size, read_at
        self._windows: dict[int, _Window] = {}
        self._streams: list[_Stream] = []
        """The one that was used last stands last."""

    @contextlib.contextmanager
    def lent(
        self, offset: int, length: int, own: memoryview, stop: threading.Event
    ) -> Iterator[list[memoryview]]:
        """Lend the bytes of a range within the file, in parts; they are not to be written.

        Args:
            offset: Of the first byte.
            length: How many.
            own: Memory for ``length`` bytes of who does not go on; the caller's.
            stop: Set from another thread to give up early.

        Raises:
            PenstockError: They cannot be read.
        """
        with self._all.lock:
            windows = self._windows_for(offset, length)
        if not windows:
            self._read_at(own[:length], offset, stop)
            yield [own[:length]]
            return
        try:
            for window in windows:
                self._all.fill(window, self._read_at)  # If no thread had time for it so far.
                window.wait(stop)
            yield [window.part(offset, offset + length) for window in windows]
        finally:
            with self._all.lock:
                self._served(windows, offset, length)

    def close(self) -> None:
        """Let go of all windows."""
        with self._all.lock:
            for window in list(self._windows.values()):
                self.drop(window)

    def drop(self, window: _Window) -> None:
        """Have it no more; the lock is held."""
        if self._windows.get(window.start) is window:
            del self._windows[window.start]
            self._all.forget(window)

    def _windows_for(self, offset: int, length: int) -> list[_Window]:
        """Return the windows of a range; none: it is read without."""
        stream = self._stream_at(offset)
        goes_on = stream.run_bytes >= GOES_ON_BYTES
        stream.front = max(stream.front, offset + length)
        stream.run_bytes += length
        if not goes_on:
            return []
        first = offset - offset % WINDOW_BYTES
        windows = []
        for start in range(first, offset + length, WINDOW_BYTES):
            window = self._window_at(start, stream, is_first=True)
            if window is None:
                return []
            windows.append(window)
        for window in windows:
            window.users += 1
        self._look_ahead(stream, windows[-1].stop)
        self._drop_behind(stream)
        return windows

    def _stream_at(self, offset: int) -> _Stream:
        found = next((each for each in self._streams if each.goes_on_at(offset)), None)
        if found is None:
            found = _Stream(front=offset)
            if len(self._streams) == STREAMS_MAX:
                self._drop_all_of(self._streams.pop(0))
        else:
            self._streams.remove(found)
        self._streams.append(found)
        return found

    def _window_at(self, start: int, stream: _Stream, *, is_first: bool) -> _Window | None:
        window = self._windows.get(start)
        if window is None:
            memory = self._all.take(is_first=is_first)
            if memory is None:
                return None
            window = _Window(start, memory, min(WINDOW_BYTES, self._size - start))
            self._windows[start] = window
            stream.windows.append(start)
            self._all.begin(window, self._read_at)
        self._all.touch(window, self)
        return window

    def _look_ahead(self, stream: _Stream, begins: int) -> None:
        ends = min(self._size, begins + stream.ahead * WINDOW_BYTES)
        for start in range(begins, ends, WINDOW_BYTES):
            if start in self._windows:
                continue
            if self._window_at(start, stream, is_first=False) is None:
                return
            stream.ahead = min(AHEAD_MAX, stream.ahead + 1)

    def _drop_behind(self, stream: _Stream) -> None:
        """Drop what the stream has passed, so far that nothing is overtaken there any more."""
        passed = stream.front - OVERTAKES_BYTES
        left = []
        for start in stream.windows:
            window = self._windows.get(start)
            if window is None:
                continue
            if window.stop <= passed and window.users == 0:
                self.drop(window)
            else:
                left.append(start)
        stream.windows = left

    def _drop_all_of(self, stream: _Stream) -> None:
        for start in stream.windows:
            window = self._windows.get(start)
            if window is not None:
                self.drop(window)

    def _served(self, windows: list[_Window], offset: int, length: int) -> None:
        for window in windows:
            window.served_bytes += len(window.part(offset, offset + length))
            is_used_up = window.served_bytes >= window.stop - window.start
            self._all.leave(window)
            if is_used_up and window.users == 0:
                self.drop(window)  # The kernel keeps what it was given.

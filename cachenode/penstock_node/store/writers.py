"""Threads that write to one disk, and the line before them.

Responsible for: so many writes at once, the rest in line without a thread each, and telling all
who wait when the disk is given up.
Not responsible for: what a write does, and whether the disk is well (`disk`).
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeAlias

from penstock.thread_names import name_this_thread

WRITERS_MAX = 4
"""Writes to one disk at once: more of them do not make it faster, and readers want it too."""
IDLE_S = 1.0
"""How long a thread waits for more to write before it ends."""

Write: TypeAlias = Callable[[], bool]


@dataclass(slots=True, eq=False)
class _Job:
    write: Write
    written: Future[bool] = field(default_factory=Future)

    def run(self) -> None:
        """Write, and tell; nobody may be waiting any more."""
        if not self.written.set_running_or_notify_cancel():
            return
        with suppress(InvalidStateError):  # It was given up, and went on by itself.
            try:
                self.written.set_result(self.write())
            except BaseException as error:  # noqa: BLE001 - raised again for whoever waits
                self.written.set_exception(error)


class Writers:
    """Writes to one disk, in the order of asking. Thread-safe.

    Threads end when there is nothing to write, and one that a disk holds for ever is not waited
    for when the process ends.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._line: deque[_Job] = deque()
        self._in_hand: set[_Job] = set()
        self._threads = self._idle = 0
        self._is_stopped = False

    @property
    def waiting_count(self) -> int:
        """How many writes are in line, those in hand aside."""
        return len(self._line)

    def submit(self, write: Write) -> Future[bool]:
        """Have ``write`` called by a thread; return what it will return, False if it is not."""
        job = _Job(write)
        with self._lock:
            if self._is_stopped:
                job.written.set_result(False)
                return job.written
            self._line.append(job)
            self._changed.notify()
            is_enough = self._idle >= len(self._line) or self._threads == WRITERS_MAX
            self._threads += not is_enough
        if not is_enough:
            threading.Thread(target=self._work, name="penstock-write", daemon=True).start()
        return job.written

    def _work(self) -> None:
        name_this_thread("penstock-write")
        while (job := self._next()) is not None:
            job.run()
            with self._lock:
                self._in_hand.discard(job)

    def _next(self) -> _Job | None:
        with self._lock:
            self._idle += 1
            self._changed.wait_for(lambda: self._line or self._is_stopped, IDLE_S)
            self._idle -= 1
            if not self._line:
                self._threads -= 1
                self._changed.notify_all()
                return None
            job = self._line.popleft()
            self._in_hand.add(job)
            return job

    def give_up(self) -> None:
        """Tell all who wait that it was not written. What hangs goes on."""
        with self._lock:
            jobs = [*self._in_hand, *self._line]
            self._line.clear()
        _give_up(jobs)

    def stop(self, timeout_s: float) -> None:
        """Write no more, and wait for what is in hand, unless it hangs."""
        with self._lock:
            self._is_stopped = True
            line = list(self._line)
            self._line.clear()
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._threads == 0, timeout_s)
        _give_up(line)


def _give_up(jobs: Iterable[_Job]) -> None:
    for job in jobs:
        with suppress(InvalidStateError):  # It is done at this very moment.
            job.written.set_result(False)

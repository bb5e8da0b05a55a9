"""One disk: whether it may be used, and who is inside it.

Responsible for: the verdict, from what operations on the disk meet and from how long they take;
keeping threads from piling up behind a disk that hangs. All of it in memory, and quick.
Not responsible for: touching the disk. Operations do that (`tier`), and probes (`disk_watch`).

A thread inside a hung disk stays there until the kernel lets it go; nothing can call it back. So
each marks when it went in: the mark tells a stall, and bounds how many threads one disk can take
from the others.
"""

import errno
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import structlog

from penstock.errors import Overloaded
from penstock_node.store.writers import WRITERS_MAX, Writers

INSIDE_MAX = 8 + WRITERS_MAX
"""Threads inside one disk at once, its writers among them. Whoever has threads for a store has
more than this."""
PATIENCE_S = 0.1
"""How long one waits to get inside: a disk that works lets somebody out within milliseconds."""
STALLED_S = 5.0
"""An operation that takes longer than this means that the disk hangs. Drives that correct
errors, and kernels that write back a full cache, take a second or two."""
ERRORS_MAX = 3
ERRORS_WINDOW_S = 60.0
"""So many errors in so long take a disk out: a single bad sector does not."""
REST_FIRST_S = 3.0
REST_MAX_S = 600.0
"""A disk stays out for so long at least, twice as long each time: each time moves chunks."""
FORGIVEN_AFTER_S = 3600.0
"""A disk that has been well for so long begins with the first rest again."""
NOT_OPENED = "it has not been opened"

_OF_THE_DISK = frozenset(
    {
        errno.EIO,
        errno.ENXIO,
        errno.ENODEV,
        errno.EREMOTEIO,
        errno.ETIMEDOUT,
        errno.ESTALE,
        errno.ENOTCONN,  # A file system in user space whose process has died.
        errno.EUCLEAN,  # A file system that found itself damaged.
    }
)
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
OF_THE_PROCESS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""Errors that say nothing of a disk nor of a file: this process or its machine lacks something."""

_log = structlog.get_logger("penstock.store")


class Spent:
    """Operations on a disk, and the seconds that threads were inside it for them. Thread-safe.

    Each thread counts for itself, so that none waits for another.
    """

    __slots__ = ("_of_threads",)

    def __init__(self) -> None:
        self._of_threads: dict[int, list[float]] = {}

    def add(self, thread: int, seconds: float) -> None:
        """Count an operation of this thread's."""
        mine = self._of_threads.get(thread)
        if mine is None:
            mine = self._of_threads[thread] = [0.0, 0.0]
        mine[0] += 1
        mine[1] += seconds

    def now(self) -> tuple[int, float]:
        """Return how many there were, and their seconds."""
        of_threads = list(self._of_threads.values())
        return round(sum(each[0] for each in of_threads)), sum(each[1] for each in of_threads)


class _Mark:
    """A ``with`` that marks its thread as inside. One serves all threads; it does not nest."""

    __slots__ = ("_disk", "_is_bounded", "_spent")

    def __init__(self, disk: "Disk", *, is_bounded: bool, spent: "Spent") -> None:
        self._disk = disk
        self._is_bounded = is_bounded
        self._spent = spent

    def __enter__(self) -> None:
        self._disk._enter(is_bounded=self._is_bounded)  # noqa: SLF001 - its other half

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._disk._leave(self._spent)  # noqa: SLF001 - its other half


class Disk:
    """The verdict on one disk. Thread-safe."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with a disk that is out, until `take_back` says that its tier is open."""
        self.path = path
        self.reason = NOT_OPENED
        """Why the disk is out, for people; empty while it is well."""
        self.look_wanted = threading.Event()
        """Set when somebody should look at the disk now rather than in its turn."""
        self.writers = Writers()
        """Who waits for them is told as soon as the disk is out."""
        self._clock = clock
        self._lock = threading.Condition(threading.Lock())
        self._inside: dict[int, float] = {}  # Thread to when its operation began, by `_awake_s`.
        self._paused_s = 0.0
        self._waiting = 0
        self._errors: deque[float] = deque(maxlen=ERRORS_MAX)
        self._rest_s = 0.0
        self._changed_at = clock()
        self.reads, self.writes, self._others = Spent(), Spent(), Spent()
        self._read = _Mark(self, is_bounded=False, spent=self.reads)
        self._write = _Mark(self, is_bounded=False, spent=self.writes)
        self._busy = _Mark(self, is_bounded=False, spent=self._others)
        self._use = _Mark(self, is_bounded=True, spent=self.reads)

    def __repr__(self) -> str:
        return f"<Disk {self.path}: {self.reason or 'well'}, {len(self._inside)} threads inside>"

    @property
    def is_healthy(self) -> bool:
        """Whether it may be used."""
        return not self.reason

    @property
    def is_crowded(self) -> bool:
        """Whether as many threads are inside as may be: do something else first."""
        return len(self._inside) >= INSIDE_MAX

    @property
    def is_in_use(self) -> bool:
        """Whether any thread is inside."""
        return bool(self._inside)

    @property
    def inside_count(self) -> int:
        """How many threads are inside."""
        return len(self._inside)

    def busy(self) -> _Mark:
        """Return a ``with`` around one operation, so that a stall is seen."""
        return self._busy

    def reading(self) -> _Mark:
        """Return the same around one that reads an open file."""
        return self._read

    def writing(self) -> _Mark:
        """Return the same around one that writes a chunk."""
        return self._write

    def use(self) -> _Mark:
        """Return a ``with`` around work on the disk. It says nothing of whether the disk is well.

        Entering it raises Overloaded when too many threads are inside and none comes out.
        """
        return self._use

    def progress(self, *, is_reading: bool = False) -> None:
        """Say that this thread, which is inside, has come back from one operation to the next."""
        now, thread = self._awake_s(), threading.get_ident()
        if is_reading:
            self.reads.add(thread, now - self._inside[thread])
        self._inside[thread] = now

    def _awake_s(self) -> float:
        """Return the time, what this process was paused taken off."""
        return self._clock() - self._paused_s

    def paused(self, seconds: float) -> None:
        """Say that this process was paused: its disks have nothing to do with that."""
        self._paused_s += seconds

    def _enter(self, *, is_bounded: bool) -> None:
        inside, thread = self._inside, threading.get_ident()
        assert thread not in inside, f"thread {thread} is inside {self.path} already"
        inside[thread] = self._awake_s()
        if is_bounded and len(inside) > INSIDE_MAX:
            del inside[thread]
            self._wait_for_room(thread)

    def _wait_for_room(self, thread: int) -> None:
        def may_enter() -> bool:
            # Into a disk that is out one may look: nobody does anything there.
            return len(self._inside) < INSIDE_MAX or not self.is_healthy

        with self._lock:
            self._waiting += 1
            try:
                if not self._lock.wait_for(may_enter, PATIENCE_S):
                    raise Overloaded(
                        f"{INSIDE_MAX} operations on {self.path} do not come back; try again later"
                    )
                self._inside[thread] = self._awake_s()
            finally:
                self._waiting -= 1

    def _leave(self, spent: Spent) -> None:
        thread = threading.get_ident()
        begun = self._inside.pop(thread)
        spent.add(thread, self._clock() - self._paused_s - begun)
        if self._waiting:
            with self._lock:
                self._lock.notify()

    # The verdict.

    def note(self, error: OSError) -> None:
        """Judge an error that an operation has met: it may take the disk out."""
        if error.errno == errno.EROFS:
            self.take_out(f"it is read-only: {error}")
        elif error.errno in _OF_THE_DISK:
            self._count(error)
        elif error.errno not in FULL | OF_THE_PROCESS:
            # A missing file, for one, may mean a missing disk.
            self.look_wanted.set()

    def _count(self, error: OSError) -> None:
        now = self._clock()
        self._errors.append(now)
        if len(self._errors) == ERRORS_MAX and now - self._errors[0] <= ERRORS_WINDOW_S:
            self.take_out(f"{ERRORS_MAX} errors within {ERRORS_WINDOW_S:g} s, at last: {error}")
        self.look_wanted.set()

    def note_stall(self) -> None:
        """Take the disk out if an operation has been inside it for too long."""
        now = self._awake_s()
        waited_s = now - min(self._inside.copy().values(), default=now)
        if waited_s > STALLED_S:
            self.take_out(f"it hangs: an operation has not come back for {waited_s:.1f} s")

    def take_out(self, reason: str) -> None:
        """Use the disk no more until `take_back`; the first reason stands."""
        with self._lock:
            if self.reason not in ("", NOT_OPENED):
                return
            now = self._clock()
            last_s = self._rest_s if now - self._changed_at < FORGIVEN_AFTER_S else 0.0
            self._rest_s = min(REST_MAX_S, 2 * last_s or REST_FIRST_S)
            self.reason, self._changed_at = reason, now
            self._lock.notify_all()
        self.writers.give_up()
        self.look_wanted.set()
        _log.error(
            "a disk is out of use",
            disk=str(self.path),
            reason=reason,
            advice="its chunks are read from elsewhere; look at the kernel's log, repair the disk "
            "and mount it again at this path: it comes back by itself",
        )

    @property
    def has_rested(self) -> bool:
        """Whether a disk that is out has been out for long enough, and nobody else is inside."""
        others = self._inside.keys() - {threading.get_ident()}
        return not others and self._clock() - self._changed_at >= self._rest_s

    def take_back(self) -> None:
        """Use the disk again. Its keeper alone says so, when it `has_rested` and probes well."""
        with self._lock:
            self._errors.clear()
            self.reason, self._changed_at = "", self._clock()
        _log.info("a disk is in use", disk=str(self.path))

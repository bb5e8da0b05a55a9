"""Requests whose program has got a signal meanwhile.

Any signal makes the kernel say so, also one that only means that a timer went off: a request that
is answered soon is answered as if nothing had been said. One that takes long is given up, so that a
program which waits for a cluster that is away can be stopped.

Responsible for: which requests run, and giving up those that are to be given up.
Not responsible for: what a request does once it is told to stop.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

PATIENCE_S = 1.0
"""How long a request goes on whatever signals come."""


@dataclass(slots=True, eq=False)
class Running:
    """A request that is worked on."""

    unique: int
    begun_at: float
    stop: threading.Event = field(default_factory=threading.Event)
    is_interrupted: bool = False


class Interrupts:
    """The requests that run now. Thread-safe; close it."""

    def __init__(self, give_up: Callable[[int], None]) -> None:
        """Know of none.

        Args:
            give_up: Answers a request: it was interrupted.
        """
        self._give_up = give_up
        self._running: dict[int, Running] = {}
        self._changed = threading.Condition()
        self._interrupted: list[Running] = []
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def begin(self, unique: int) -> Running:
        """Take note of a request."""
        running = Running(unique, time.monotonic())
        self._running[unique] = running
        return running

    def end(self, running: Running) -> bool:
        """Tell whether the request is still to be answered; it is over now."""
        return self._running.pop(running.unique, None) is not None

    def interrupt(self, unique: int) -> bool:
        """Have a request given up once it has taken long; False: it is not running."""
        running = self._running.get(unique)
        if running is None:
            return False
        with self._changed:
            if not running.is_interrupted and not self._is_closed:
                running.is_interrupted = True
                self._interrupted.append(running)
                self._start()
                self._changed.notify()
        return True

    def close(self) -> None:
        """Give up no more, and end the thread; whatever runs is told to stop."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        for running in list(self._running.values()):
            running.stop.set()
        if self._thread is not None:
            self._thread.join()

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._look, name="penstock-interrupts", daemon=True
            )
            self._thread.start()

    def _look(self) -> None:
        while True:
            with self._changed:
                while not self._interrupted and not self._is_closed:
                    self._changed.wait()
                if self._is_closed:
                    return
                left_s = self._interrupted[0].begun_at + PATIENCE_S - time.monotonic()
                if left_s > 0:
                    self._changed.wait(left_s)
                    continue
                running = self._interrupted.pop(0)
            if self.end(running):
                running.stop.set()
                self._give_up(running.unique)

"""Readers that know what is right: threads that read all the time and compare every byte.

Responsible for: random ranges and whole objects, by connections that are made anew now and then,
and what came of each read.
Not responsible for: which errors are to be expected; whoever breaks things knows that.
"""

import random
import sys
import threading
import time
from collections.abc import Sequence
from traceback import extract_stack
from types import TracebackType
from typing import Self

import penstock
from penstock_node.testbed.processes import PartFailed, wait_until
from penstock_node.testbed.site import StoredObject

READ_DEADLINE_S = 50.0
"""Longest that anyone waits for readers to get on."""
PAUSE_S = 0.05
"""Between two reads of one reader: leaves the processors to whoever is watched."""
READS_A_CONNECTION = 40
RANGE_CHUNKS_MAX = 3
WHOLE_ONE_IN = 5
FAILURES_KEPT_MAX = 20


class CheckedReaders:
    """Threads that read from when the ``with`` begins until it ends."""

    def __init__(
        self,
        address: str,
        objects: Sequence[StoredObject],
        *,
        seed: int,
        count: int = 3,
    ) -> None:
        """Describe readers; nothing is read yet.

        Args:
            address: As for `penstock.connect`.
            objects: What they read; each must stay as it is.
            seed: Of what they read, in which order.
            count: How many.
        """
        self._address = address
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.failures: list[str] = []
        """The first `FAILURES_KEPT_MAX` reads that gave an error or wrong bytes."""
        self.slowest_s = 0.0
        self._readers = [
            _Reader(self, objects, random.Random(f"{seed}/{n}"))  # noqa: S311 - replays
            for n in range(count)
        ]

    @property
    def reads(self) -> int:
        """All that are over, well or not."""
        return sum(reader.done for reader in self._readers)

    def wait_reads(self, more: int = 1, *, deadline_s: float = READ_DEADLINE_S) -> None:
        """Wait until each has begun and finished ``more`` reads from now on.

        Raises:
            PartFailed: They do not get on.
        """
        goals = [reader.done + more + 1 for reader in self._readers]  # One has begun before.
        try:
            wait_until(
                lambda: all(r.done >= goal for r, goal in zip(self._readers, goals, strict=True)),
                deadline_s=deadline_s,
                what=f"{len(self._readers)} readers read {more} more times",
            )
        except PartFailed as failed:
            raise PartFailed(f"{failed}; wrong so far: {self.failures}\n{_stacks()}") from None

    def check(self) -> None:
        """Raise an `AssertionError` that tells of the reads that went wrong, if any did."""
        assert not self.failures, "\n".join(self.failures)

    def __enter__(self) -> Self:
        for reader in self._readers:
            reader.thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        for reader in self._readers:
            reader.thread.join()

    # In the threads ------------------------------------------------------------------------

    def connect(self) -> penstock.Cache:
        """Return a new connection."""
        return penstock.connect(self._address)

    def is_over(self) -> bool:
        """Wait for a moment; tell whether to end."""
        return self._stop.wait(PAUSE_S)

    def fail(self, text: str) -> None:
        """Take note of a read that went wrong."""
        with self._lock:
            if len(self.failures) < FAILURES_KEPT_MAX:
                self.failures.append(text)

    def took(self, seconds: float) -> None:
        """Take note of how long a read took."""
        with self._lock:
            self.slowest_s = max(self.slowest_s, seconds)


def _stacks() -> str:
    """Return where this process's threads are, for people: what do readers wait for?"""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    told = (
        f"{names.get(ident)}: "
        + " < ".join(f"{each.name}:{each.lineno}" for each in reversed(extract_stack(frame)[-6:]))
        for ident, frame in sys._current_frames().items()  # noqa: SLF001 - documented
    )
    return "\n".join(told)


class _Reader:
    """One thread."""

    def __init__(
        self, all_: CheckedReaders, objects: Sequence[StoredObject], rng: random.Random
    ) -> None:
        self._all, self._objects, self._rng = all_, objects, rng
        self.done = 0
        self.thread = threading.Thread(target=self._run, name="checked reader")

    def _run(self) -> None:
        while not self._all.is_over():
            with self._all.connect() as cache:
                for _ in range(READS_A_CONNECTION):
                    self._read(cache, self._rng.choice(self._objects))
                    self.done += 1
                    if self._all.is_over():
                        return

    def _read(self, cache: penstock.Cache, stored: StoredObject) -> None:
        start, length = self._range(stored)
        what = f"{stored.path}[{start}:{start + length}]"
        begun = time.monotonic()
        try:
            data = cache.read(stored.url, start, length)
        except Exception as error:  # noqa: BLE001 - told, whatever it is
            self._all.fail(f"{what}: {error!r} after {time.monotonic() - begun:.1f} s")
            return
        if data != stored.data[start : start + length]:
            self._all.fail(f"{what}: wrong bytes")
        self._all.took(time.monotonic() - begun)

    def _range(self, stored: StoredObject) -> tuple[int, int]:
        size = len(stored.data)
        if self._rng.randrange(WHOLE_ONE_IN) == 0:
            return 0, size
        start = self._rng.randrange(size)
        return start, min(size - start, self._rng.randint(1, RANGE_CHUNKS_MAX * stored.chunk_bytes))

"""Real processes that read one url at once and check nothing themselves: they report digests.

Responsible for: starting them ready to read, releasing them together, letting them read once or
in a loop, and telling what each has read and met so far.
Not responsible for: what the right bytes are; the nodes.
"""

import hashlib
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import penstock
from penstock_node.testbed.processes import POLL_S, Process, wait_until

READY_DEADLINE_S = 30.0
READ_DEADLINE_S = 50.0
"""Longest that a test waits for readers to finish, or to make progress."""
PAUSE_S = 0.05
"""Between two reads of a reader in a loop: leaves the processors to whoever is watched."""
ERRORS_KEPT_MAX = 20


@dataclass(slots=True)
class Report:
    """What one process has read so far."""

    reads: int = 0
    """Whole objects, read to their end."""
    digests: list[str] = field(default_factory=list)
    """The different SHA-256 of what it read, in the order in which they first came."""
    errors: list[str] = field(default_factory=list)
    """The first `ERRORS_KEPT_MAX`."""
    epoch: int = 0
    """Of the newest placement that it knows."""
    longest_read_s: float = 0.0
    is_done: bool = False

    def add(self, digest: str, *, seconds: float) -> None:
        """Count one read."""
        self.reads += 1
        self.longest_read_s = max(self.longest_read_s, seconds)
        if digest not in self.digests:
            self.digests.append(digest)

    def fail(self, error: penstock.PenstockError) -> None:
        """Count one error."""
        if len(self.errors) < ERRORS_KEPT_MAX:
            self.errors.append(repr(error))


class Readers:
    """Processes that read ``url``. As a context manager they are ready to, and end at the end."""

    def __init__(
        self,
        directory: Path,
        address: str,
        url: str,
        *,
        processes: int,
        reads_max: int | None = None,
        pause_s: float = PAUSE_S,
    ) -> None:
        """Describe readers; nothing starts yet.

        Args:
            directory: Made for them; they talk with this process through its files.
            address: As for `penstock.connect`; each process connects by itself.
            url: What all of them read, whole.
            processes: How many.
            reads_max: How often each reads; None goes on until `finish`.
            pause_s: Between two reads of each that goes on.
        """
        directory.mkdir(parents=True)
        self._directory = directory
        self._count = processes
        spec = {
            "directory": str(directory),
            "address": address,
            "url": url,
            "processes": processes,
            "reads_max": reads_max,
            "pause_s": pause_s,
        }
        self._process = Process(
            [sys.executable, "-m", "penstock_node.testbed.readers", json.dumps(spec)],
            log=directory / "readers.log",
        )

    def __enter__(self) -> Self:
        self._process.start()
        try:
            self._wait(
                lambda: len(self._reports()) == self._count,
                deadline_s=READY_DEADLINE_S,
                what="readers are ready",
            )
        except BaseException:
            self._process.kill()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()

    def _wait(self, predicate: Callable[[], bool], *, deadline_s: float, what: str) -> None:
        self._process.wait_until(predicate, deadline_s=deadline_s, what=what)

    def _reports(self) -> list[Report]:
        files = sorted(self._directory.glob("*.json"))
        return [Report(**json.loads(file.read_text())) for file in files]

    @property
    def reports(self) -> list[Report]:
        """What each process has read so far."""
        return self._reports()

    def release(self) -> Self:
        """Let all of them read, at one moment."""
        (self._directory / "go").touch()
        return self

    def wait_reads(self, more: int = 1) -> None:
        """Wait until each process has begun and finished ``more`` reads from now on.

        Raises:
            PartFailed: They do not get on.
        """
        # The one in hand has begun before now.
        goals = [report.reads + more + 1 for report in self._reports()]
        self._wait(
            lambda: all(
                report.reads >= goal for report, goal in zip(self._reports(), goals, strict=True)
            ),
            deadline_s=READ_DEADLINE_S,
            what=f"each of {self._count} readers reads {more} more times",
        )

    def finish(self) -> list[Report]:
        """Have each finish the read in hand, and return what all have read.

        Raises:
            PartFailed: They do not finish.
        """
        (self._directory / "stop").touch()
        return self.wait_done()

    def wait_done(self) -> list[Report]:
        """Return what all have read, once all of them are done.

        Raises:
            PartFailed: They are not in time, or one has failed.
        """
        wait_until(
            lambda: all(report.is_done for report in self._reports()),
            deadline_s=READ_DEADLINE_S,
            what=f"{self._count} readers are done: {self._process.log_tail()}",
        )
        return self._reports()


# In the processes --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Spec:
    directory: str
    address: str
    url: str
    processes: int
    reads_max: int | None
    pause_s: float


class _Reader:
    """One reading process."""

    def __init__(self, spec: _Spec, number: int) -> None:
        self._spec = spec
        self._directory = Path(spec.directory)
        self._report_file = self._directory / f"{number:03}.json"
        self._report = Report()
        self._parent = os.getppid()

    def run(self) -> None:
        """Connect, tell so, and read as told."""
        with penstock.connect(self._spec.address) as cache:
            self._report.epoch = cache.cluster_view.placement.epoch
            self._tell()
            while not (self._directory / "go").exists():
                self._check_parent()
                time.sleep(POLL_S)
            while not self._is_over():
                self._check_parent()
                self._read(cache)
                self._tell()
                if self._spec.reads_max is None:
                    time.sleep(self._spec.pause_s)
        self._report.is_done = True
        self._tell()

    def _is_over(self) -> bool:
        wanted = self._spec.reads_max
        if wanted is not None:
            return self._report.reads + len(self._report.errors) >= wanted
        return (self._directory / "stop").exists()

    def _read(self, cache: penstock.Cache) -> None:
        begun = time.monotonic()
        try:
            data = cache.read(self._spec.url)
        except penstock.PenstockError as error:
            self._report.fail(error)
            return
        digest = hashlib.sha256(data).hexdigest()
        self._report.add(digest, seconds=time.monotonic() - begun)
        self._report.epoch = cache.cluster_view.placement.epoch

    def _tell(self) -> None:
        whole = self._report_file.with_suffix(".tmp")
        whole.write_text(json.dumps(asdict(self._report)))
        whole.replace(self._report_file)

    def _check_parent(self) -> None:
        if os.getppid() != self._parent:
            sys.exit("whoever started this reader is gone")


def _main(spec: _Spec) -> None:
    # Forked before anything is connected: each is a process of its own, and loads fast.
    fork = multiprocessing.get_context("fork")
    readers = [
        fork.Process(target=lambda n=number: _Reader(spec, n).run())
        for number in range(spec.processes)
    ]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    sys.exit(max(abs(reader.exitcode or 0) for reader in readers))


if __name__ == "__main__":
    _main(_Spec(**json.loads(sys.argv[1])))

"""The demo's own processes, told from all others: by their start and by what they were told.

Responsible for: recognising a process again after its number may have been given away, and
ending it. Nothing is ended whose command line does not name the demo's own directory.
Not responsible for: starting processes (`testbed.processes`).
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from penstock_node.testbed.processes import wait_until

KILL_TIMEOUT_S = 10.0
_START_TOLERANCE_S = 2.0
"""The kernel counts from boot, and the hour of the boot moves a little with the clock."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A process as it is written down."""

    pid: int
    started_at: float
    """Seconds since 1970."""

    @classmethod
    def of(cls, pid: int) -> "Recorded":
        """Return the record of a process that runs."""
        return cls(pid, psutil.Process(pid).create_time())

    def find(self, directory: Path) -> psutil.Process | None:
        """Return the process if it still runs, and is the one recorded, for ``directory``."""
        try:
            process = psutil.Process(self.pid)
            is_same = abs(process.create_time() - self.started_at) < _START_TOLERANCE_S
        except psutil.NoSuchProcess:
            return None
        return process if is_same and _names(process, directory) else None


def end_children(directory: Path) -> None:
    """Kill this process's descendants that were started for ``directory``."""
    children = psutil.Process().children(recursive=True)
    end([child for child in children if _names(child, directory)])


def end(processes: Sequence[psutil.Process]) -> None:
    """Kill processes and wait until they are gone: what they kept is worthless by now.

    Raises:
        PartFailed: One runs on.
    """
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    wait_until(
        lambda: all(map(_is_over, processes)),
        deadline_s=KILL_TIMEOUT_S,
        what=f"processes {[process.pid for process in processes]} end",
    )


def _is_over(process: psutil.Process) -> bool:
    try:
        # One whose parent has not collected it yet is over all the same.
        return not process.is_running() or bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def _names(process: psutil.Process, directory: Path) -> bool:
    try:
        return any(str(directory) in word for word in process.cmdline())
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False

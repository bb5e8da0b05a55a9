"""What a process has used: processor time to the nanosecond, and memory.

Responsible for: reading both of any process of this machine, as the kernel counts them.
Not responsible for: which processes belong together. Linux only.
"""

import re
import time
from pathlib import Path

_CPU_CLOCK = 2
"""Linux' number of "processor time of all threads, ended ones too" (CPUCLOCK_SCHED)."""
_PID_SHIFT = 3
_MEMORY = re.compile(r"^(\w+):\s+(\d+) kB$", re.MULTILINE)


def cpu_seconds(pid: int) -> float:
    """Return the processor time that process ``pid`` has used so far.

    ``/proc`` tells it in steps of 10 ms; the process's own clock, which is read here by the
    number that clock_getcpuclockid(3) gives it, has no steps.
    """
    return time.clock_gettime((~pid << _PID_SHIFT) | _CPU_CLOCK)


def resident_bytes(pid: int) -> int:
    """Return how much memory process ``pid`` has, files that it has mapped included."""
    return _memory(pid, "VmRSS")


def private_bytes(pid: int) -> int:
    """Return how much memory process ``pid`` has of its own, mapped files left out."""
    return _memory(pid, "RssAnon")


def _memory(pid: int, name: str) -> int:
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    found = dict(_MEMORY.findall(text))
    assert name in found, f"process {pid} has no memory: it has ended"
    return int(found[name]) * 1024


def children(pid: int) -> list[int]:
    """Return the processes that process ``pid`` has started and that have not ended."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")  # Each thread has its own.
    return [int(word) for each in lists for word in each.read_text(encoding="ascii").split()]

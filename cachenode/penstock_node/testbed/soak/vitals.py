"""What a process holds at one moment, and what directories take on their disk.

Responsible for: reading both, of processes and directories that may go at any moment.
Not responsible for: judging. Linux only.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_FIELD = re.compile(r"^(VmRSS|RssAnon):\s+(\d+)", re.MULTILINE)
_KIB = 1024
POOLS = "penstock-"
"""How the names of threads of pools begin, as `penstock.thread_names` tells the kernel."""
_BLOCK_BYTES = 512


@dataclass(frozen=True, slots=True)
class Vitals:
    """Of one process. Pages of files count as resident where they are mapped; what the kernel
    keeps of files that were read or sent does not."""

    resident: int
    """Bytes, files that are mapped included: its program, and views of chunks."""
    private: int
    """Bytes of its own."""
    descriptors: int
    sockets: int
    threads: int
    """Of which no pool is known by its name: those of pools come as work comes, up to a bound."""
    pooled: int
    """Threads of pools."""


def vitals_of(pid: int) -> Vitals | None:
    """Return what a process holds; None if it has ended."""
    try:
        found = dict(_FIELD.findall(Path(f"/proc/{pid}/status").read_text(encoding="ascii")))
        names = [_name(task) for task in Path(f"/proc/{pid}/task").iterdir()]
        kinds = [_kind(each.path) for each in os.scandir(f"/proc/{pid}/fd")]
    except OSError:
        return None
    if "VmRSS" not in found:  # It has ended, and nobody has waited for it.
        return None
    return Vitals(
        int(found["VmRSS"]) * _KIB,
        int(found["RssAnon"]) * _KIB,
        len(kinds),
        sum(kind == "socket" for kind in kinds),
        sum(not name.startswith(POOLS) for name in names),
        sum(name.startswith(POOLS) for name in names),
    )


def _name(task: Path) -> str:
    try:
        return (task / "comm").read_text().strip()
    except OSError:  # It has ended.
        return ""


def _kind(descriptor: str) -> str:
    try:
        return os.readlink(descriptor).partition(":")[0]  # noqa: PTH115 - some thousand a second
    except OSError:  # Closed meanwhile.
        return ""


def allocated_bytes(directories: Iterable[Path]) -> int:
    """Return what all files below some directories take, as the file system counts it."""
    return sum(_allocated(str(directory)) for directory in directories)


def _allocated(directory: str) -> int:
    total = 0
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                total += _allocated_entry(entry)
    except OSError:  # Gone since it was listed.
        pass
    return total


def _allocated_entry(entry: os.DirEntry[str]) -> int:
    try:
        if entry.is_dir(follow_symlinks=False):
            return _allocated(entry.path)
        return entry.stat(follow_symlinks=False).st_blocks * _BLOCK_BYTES
    except OSError:
        return 0

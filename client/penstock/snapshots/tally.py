"""What a snapshot took: counted while it is made, told when it is done."""

import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock.snapshots.kernel_copy import Way
from penstock.units import format_size


@dataclass(frozen=True, slots=True)
class SnapshotReport:
    """What was brought, and how; sizes in bytes."""

    url: str
    path: Path
    """The directory, or the file if it was one."""
    layout: str
    files: int
    """That were wanted; each is counted in one of the next three."""
    bytes: int
    kept_files: int
    """Were here with the same version, and were not read again."""
    kept_bytes: int
    shared_files: int
    """Came meanwhile by another process."""
    shared_bytes: int
    fetched_files: int
    fetched_bytes: int
    """Of files that were brought now, continued parts among them."""
    continued_bytes: int
    """Were here of files that were begun before."""
    copied: dict[str, int]
    """Bytes by the way they came into the files: ``reflink``, ``copy_file_range``, ``read``."""
    sources: dict[str, int]
    """Bytes by where nodes had them: ``memory``, ``disk``, ``peer``, ``origin``."""
    removed: list[str]
    """Other snapshots that made room for this one."""
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        told = {name: getattr(self, name) for name in self.__slots__}
        return {**told, "path": str(self.path)}

    def summary(self) -> str:
        """Return what a line in a log says of it beside sizes and seconds."""
        came = ", ".join(f"{format_size(size)} by {way}" for way, size in self.copied.items())
        return (
            f"{self.files:,} files of {format_size(self.bytes)}: {self.kept_files:,} were there, "
            f"{self.shared_files:,} came by other processes; {came or 'nothing was copied'}"
        )


@dataclass(slots=True)
class Tally:
    """Counts while a snapshot is made. Thread-safe."""

    total_bytes: int = 0
    done_bytes: int = 0
    files: Counter[str] = field(default_factory=Counter)
    """By what happened to them: ``kept``, ``shared``, ``fetched``."""
    bytes: Counter[str] = field(default_factory=Counter)
    """Of those; and ``continued``."""
    ways: Counter[Way] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def move(self, done: int, *, total: int = 0) -> None:
        """Change how much is done, and how much is to be done."""
        with self._lock:
            self.done_bytes += done
            self.total_bytes += total

    def settle(self, what: str, size: int) -> None:
        """Count a file."""
        with self._lock:
            self.files[what] += 1
            self.bytes[what] += size

    def add(self, what: str, size: int) -> None:
        """Count bytes apart from files."""
        with self._lock:
            self.bytes[what] += size

    def copied(self, way: Way, size: int) -> None:
        """Count bytes by the way they came."""
        with self._lock:
            self.ways[way] += size


class FileProgress:
    """One file's part in what is done. Thread-safe."""

    def __init__(self, tally: Tally, size: int) -> None:
        self._tally, self._size, self._done = tally, size, 0
        self._lock = threading.Lock()

    def begin(self, size: int) -> None:
        """It has another size than was thought, and nothing of it is done."""
        with self._lock:
            self._tally.move(-self._done, total=size - self._size)
            self._size, self._done = size, 0

    def advance(self, size: int) -> None:
        """So much more is done."""
        with self._lock:
            self._tally.move(size)
            self._done += size

    def reach(self, done: int) -> None:
        """So much of it is done by now."""
        with self._lock:
            self._tally.move(done - self._done)
            self._done = done

    def finish(self) -> None:
        """All of it is here."""
        self.reach(self._size)

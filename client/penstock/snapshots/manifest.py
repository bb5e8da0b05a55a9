"""What a snapshot's directory holds: each file's version, size and checksum.

A file of lines, of which the last about a file counts. Several processes add to it at once: a
line is one write at the end. It is written before its file appears, and believed only where the
file is as the line says: so a process may be killed at any moment.
"""

import dataclasses
import errno
import json
import os
from dataclasses import dataclass
from pathlib import Path

from penstock.errors import InvalidRequest
from penstock.json_text import count_in, read_json_object, text_in
from penstock.snapshots.digests import checksum_on_disk

COMPACT_MIN_LINES = 1000
COMPACT_RATIO = 2
"""Lines for each file that is told of, before it is written anew."""


@dataclass(frozen=True, slots=True)
class Record:
    """One file that was brought."""

    name: str
    """Where it lies below the directory."""
    url: str
    version: str
    size: int
    piece_bytes: int
    checksum: str
    """See `penstock.snapshots.digests`."""
    modified_ns: int
    """Of the local file: one that was changed here has another."""

    def is_of(self, url: str, version: str, size: int) -> bool:
        """Whether it tells of this version of the object."""
        return (self.url, self.version, self.size) == (url, version, size)


class Manifest:
    """The records of one directory. Not thread-safe: `Bringing` has a lock around it."""

    def __init__(self, path: Path) -> None:
        """Read what is there."""
        self._path = path
        self._records: dict[str, Record] = {}
        self._inode, self._read_to, self._lines = -1, 0, 0
        self.refresh()

    def get(self, name: str) -> Record | None:
        """Return what is known of a file."""
        return self._records.get(name)

    def refresh(self) -> None:
        """Read what other processes have added."""
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            return
        with file:
            inode = os.fstat(file.fileno()).st_ino
            if inode != self._inode:
                self._inode, self._read_to, self._lines = inode, 0, 0
            file.seek(self._read_to)
            for line in file:
                if not line.endswith(b"\n"):
                    break  # Another process writes it at this moment, or was killed at it.
                self._read_to += len(line)
                self._take(line)

    def _take(self, line: bytes) -> None:
        self._lines += 1
        # What a crash of the machine has left of a line is no record: its file is brought again.
        record = _record(line)
        if record is not None:
            self._records[record.name] = record

    def add(self, record: Record) -> None:
        """Tell of a file. Raises `OSError` where the disk does not take it."""
        line = _line(record)
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)
        try:
            if os.write(descriptor, line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(descriptor)
        self._records[record.name] = record

    def compact(self) -> None:
        """Write it anew where most lines are of the past. Nobody else may use it meanwhile."""
        if self._lines < max(COMPACT_MIN_LINES, COMPACT_RATIO * len(self._records)):
            return
        new = self._path.with_suffix(".new")
        with new.open("wb") as file:
            file.writelines(map(_line, self._records.values()))
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)


def _record(line: bytes) -> Record | None:
    """Return the record in a line; None: there is none."""
    try:
        told = read_json_object(line)
        modified_ns = told.get("modified_ns")
        record = Record(
            name=text_in(told, "name"),
            url=text_in(told, "url"),
            version=text_in(told, "version"),
            size=count_in(told, "size"),
            piece_bytes=count_in(told, "piece_bytes"),
            checksum=text_in(told, "checksum"),
            modified_ns=modified_ns if type(modified_ns) is int else -1,
        )
    except InvalidRequest:
        return None
    return record if record.piece_bytes else None


def _line(record: Record) -> bytes:
    # A new line in front too: what a killed process has left of one is then a line of its own.
    return b"\n" + json.dumps(dataclasses.asdict(record)).encode() + b"\n"


def matches_disk(record: Record, path: Path, *, checked: bool) -> bool:
    """Tell whether the file at ``path`` is the one that was brought.

    Args:
        record: What is known of it.
        path: Where it should be.
        checked: Read it and compare its checksum, even if it looks untouched.
    """
    try:
        status = path.stat()
        if not path.is_file() or status.st_size != record.size:
            return False
        if status.st_mtime_ns == record.modified_ns and not checked:
            return True
        with path.open("rb") as file:
            found = checksum_on_disk(
                file.fileno(), size=record.size, piece_bytes=record.piece_bytes
            )
    except OSError:
        return False
    return found == record.checksum

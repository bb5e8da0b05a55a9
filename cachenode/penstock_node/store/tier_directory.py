"""The directory of a tier, and what is done in it.

Responsible for: making the directory ours alone, and single operations on its files.
Not responsible for: which files, and how many bytes (`ledger`, `tier`).

    .penstock-lock    held by the one process that uses the tier
    chunks/abc/…      chunk files, each published whole by a rename
    tmp/…             files being written; swept at start
    quarantine/…      a few bad files, for whoever looks into a disk; named by when they came
"""

import contextlib
import errno
import fcntl
import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path

from penstock.errors import InvalidConfiguration
from penstock_node.store.chunk_file import (
    PAGE_BYTES,
    ChunkFile,
    parse_name,
    relative_path,
    write_chunk,
)

FILE_MODE = 0o400
DIRECTORY_MODE = 0o700


class TierDirectory:
    """A locked, writable directory. Operations raise OSError when the disk refuses them."""

    def __init__(self, path: Path) -> None:
        """Lock and prepare ``path``.

        Raises:
            InvalidConfiguration: It cannot be written, or another process uses it.
        """
        self.path = path
        self._chunks, self._tmp = path / "chunks", path / "tmp"
        self._quarantine = path / "quarantine"
        self._numbers = itertools.count()
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock_descriptor = _lock(path / ".penstock-lock")
            try:
                self._prepare()
            except OSError:
                self.close()
                raise
        except OSError as error:
            raise InvalidConfiguration(
                f"tier {path} cannot be used: {error.strerror}; make it a directory that uid "
                f"{os.geteuid()} can write, on a file system mounted read-write, or set "
                f"another path for the tier"
            ) from error

    def _prepare(self) -> None:
        for folder in (self._chunks, self._tmp, self._quarantine):
            folder.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
        for leftover in self._tmp.iterdir():
            leftover.unlink()
        with os.scandir(self._chunks) as entries:
            self.is_new = next(entries, None) is None
            """No chunk was ever written here."""
        self.quarantined = [
            (path, path.stat().st_blocks * 512) for path in sorted(self._quarantine.iterdir())
        ]
        """What an earlier process left in quarantine, oldest first, and its bytes."""

    def close(self) -> None:
        """Let another process use the directory; again does nothing."""
        if self._lock_descriptor >= 0:
            os.close(self._lock_descriptor)
            self._lock_descriptor = -1

    def path_of(self, chunk_id: bytes, size_bytes: int) -> Path:
        """Return the path of a chunk whose file takes ``size_bytes``."""
        return self._chunks / relative_path(chunk_id, size_bytes // PAGE_BYTES)

    def holds(self, chunk: ChunkFile) -> bool:
        """Tell whether the chunk's file is there; a disk that cannot tell says no."""
        return os.path.exists(self._chunks / chunk.relative_path)  # noqa: PTH110 (never raises)

    def open(self, chunk: ChunkFile) -> int:
        """Return a read-only descriptor of the chunk's file."""
        return os.open(
            self._chunks / chunk.relative_path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
        )

    def write(
        self, chunk: ChunkFile, payload: bytes | bytearray | memoryview, footer: bytes
    ) -> Path:
        """Write the chunk's file where no reader looks; return its path.

        After an error nothing of it is left.
        """
        temporary = self._tmp / f"{chunk.chunk_id.hex()}.{next(self._numbers)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, FILE_MODE)
        try:
            try:
                write_chunk(descriptor, payload, footer)
            finally:
                os.close(descriptor)  # May tell of a write that failed only now.
        except OSError:
            self.discard(temporary)
            raise
        return temporary

    def discard(self, temporary: Path) -> None:
        """Remove a written file that is not published."""
        # A disk that cannot unlink takes no more writes either, and the next start sweeps.
        with contextlib.suppress(OSError):
            temporary.unlink()

    def publish(self, temporary: Path, chunk: ChunkFile) -> None:
        """Make a written file the chunk's, in one step."""
        target = self._chunks / chunk.relative_path
        try:
            temporary.rename(target)
        except FileNotFoundError:  # The first chunk with these three digits.
            target.parent.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
            temporary.rename(target)

    def unlink(self, chunk_id: bytes, size_bytes: int) -> None:
        """Remove a chunk's file; it need not be there."""
        self.path_of(chunk_id, size_bytes).unlink(missing_ok=True)

    def quarantine(self, chunk_id: bytes, size_bytes: int) -> Path:
        """Move a chunk's file to the quarantine; return its path there."""
        source = self.path_of(chunk_id, size_bytes)
        return source.rename(self._quarantine / f"{time.time_ns():016x}.{source.name}")

    def listings(self) -> Iterator[Path]:
        """Return the directories that chunks lie in."""
        with os.scandir(self._chunks) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
        return (self._chunks / name for name in names)


def list_chunks(directory: Path, *, batch: int) -> Iterator[list[tuple[bytes, int]]]:
    """List one directory by names alone: ids and bytes of its chunks, ``batch`` names at a time."""
    with os.scandir(directory) as entries:
        while names := [entry.name for entry in itertools.islice(entries, batch)]:
            yield [
                (chunk_id, pages * PAGE_BYTES)
                for chunk_id, pages in filter(None, map(parse_name, names))
                if relative_path(chunk_id, pages).parent.name == directory.name
            ]


def _lock(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno == errno.EWOULDBLOCK:
            raise InvalidConfiguration(
                f"tier {path.parent} is in use by another process; stop that one, or give each "
                f"node a directory of its own"
            ) from error
        raise
    return descriptor

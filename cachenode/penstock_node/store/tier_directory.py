"""The directory of a tier, and what is done in it.

Responsible for: making the directory ours alone, knowing it again, and single operations on its
files.
Not responsible for: which files, and how many bytes (`ledger`, `open_tier`); what errors mean.

    .penstock-lock    held by the one process that uses the tier; holds the tier's own name
    .penstock-probe   written and read to see whether the disk works
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
import uuid
from pathlib import Path
from typing import NamedTuple

from penstock.errors import CorruptData, InvalidConfiguration
from penstock_node.store.chunk_file import (
    PAGE_BYTES,
    PREFIX_DIGITS,
    ChunkFile,
    Footer,
    file_name,
    read_footer,
    relative_path,
    write_chunk,
)
from penstock_node.store.disk import FULL

FILE_MODE = 0o400
DIRECTORY_MODE = 0o700
LOCK_FILE = ".penstock-lock"
PROBE_FILE = ".penstock-probe"
_NAME_BYTES = 32
_DIGITS = frozenset("0123456789abcdef")


class Identity(NamedTuple):
    """What tells a tier's directory from any other that may come to lie at its path."""

    device: int
    inode: int
    """Both of the directory, as long as its file system stays mounted."""
    name: bytes
    """Drawn when the tier was first used; lies in it."""


class TierDirectory:
    """A locked, writable directory. Operations raise OSError when the disk refuses them."""

    def __init__(self, path: Path, *, read_only_path: Path | None = None) -> None:
        """Lock and prepare ``path``.

        Args:
            path: Made if it is not there.
            read_only_path: The same directory, mounted read-only: chunks are opened there.

        Raises:
            InvalidConfiguration: Another process uses it, or ``read_only_path`` is not that.
            OSError: It cannot be used.
        """
        self.path = path
        self._chunks, self._tmp = path / "chunks", path / "tmp"
        self._quarantine = path / "quarantine"
        self._open_below = (read_only_path or path) / "chunks"
        self._numbers = itertools.count()
        path.mkdir(parents=True, exist_ok=True)
        self._lock_descriptor = _lock(path / LOCK_FILE)
        try:
            if read_only_path is not None:
                self._check_read_only(read_only_path)
            self.identity = self._identified()
            self._prepare()
        except BaseException:
            self.close()
            raise

    def _check_read_only(self, path: Path) -> None:
        is_same = _is_file_of(path / LOCK_FILE, self._lock_descriptor)
        if not is_same or not os.statvfs(path).f_flag & os.ST_RDONLY:
            raise InvalidConfiguration(
                f"read_only_path {path} is not a read-only mount of the tier {self.path}; make it "
                f"one (mount --bind {self.path} {path} && mount -o remount,bind,ro {path}), or "
                f"leave it out"
            )

    def _identified(self) -> Identity:
        name = os.pread(self._lock_descriptor, _NAME_BYTES, 0)
        if not name:
            name = uuid.uuid4().hex.encode()
            os.pwrite(self._lock_descriptor, name, 0)
        found = self.path.stat()
        return Identity(found.st_dev, found.st_ino, name)

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

    def trouble(self) -> str:
        """Return why nothing can be kept here any more, as far as memory tells; empty if well.

        Raises:
            OSError: The disk cannot tell.
        """
        if not _is_file_of(self.path / LOCK_FILE, self._lock_descriptor):
            return "it was unmounted, removed or replaced"
        is_read_only = os.statvfs(self.path).f_flag & os.ST_RDONLY
        return "it is mounted read-only" if is_read_only else ""

    def path_of(self, chunk_id: bytes, size_bytes: int) -> Path:
        """Return the path of a chunk whose file takes ``size_bytes``."""
        return self._chunks / relative_path(chunk_id, size_bytes // PAGE_BYTES)

    def holds(self, chunk: ChunkFile) -> bool:
        """Tell whether the chunk's file is there; a disk that cannot tell says no."""
        return os.path.exists(self._chunks / chunk.relative_path)  # noqa: PTH110 (never raises)

    def open(self, chunk: ChunkFile) -> int:
        """Return a read-only descriptor of the chunk's file."""
        # As text: putting path objects together takes longer than opening the file.
        name = file_name(chunk.chunk_id, chunk.pages)
        path = f"{self._open_below}/{name[:PREFIX_DIGITS]}/{name}"
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)

    def read_footer(self, chunk_id: bytes, size_bytes: int) -> Footer:
        """Return the footer of a chunk's file that takes ``size_bytes``.

        Raises:
            CorruptData: It is damaged or cut, or another chunk's.
            OSError: It is not there, or the disk cannot read it.
        """
        descriptor = os.open(self.path_of(chunk_id, size_bytes), os.O_RDONLY | os.O_CLOEXEC)
        try:
            footer = read_footer(descriptor)
        finally:
            os.close(descriptor)
        if footer.object.chunk_id(footer.index) != chunk_id:
            raise CorruptData(f"it holds chunk {footer.index} of {footer.object.key!r}")
        return footer

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
                # A tmpfs gives huge pages only within a file's length: what is mapped by those is
                # mapped, and read, much faster.
                os.ftruncate(descriptor, chunk.file_bytes)
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

    def leave_quarantine(self, kept: Path) -> None:
        """Remove a file from the quarantine; it need not be there."""
        kept.unlink(missing_ok=True)

    def chunk_directories(self) -> list[Path]:
        """Return the directories that chunks lie in, in the order of their names."""
        with os.scandir(self._chunks) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        return [self._chunks / name for name in sorted(names) if _is_prefix(name)]


def _is_prefix(name: str) -> bool:
    """Tell whether it names a directory of chunks: people put others beside them."""
    return len(name) == PREFIX_DIGITS and set(name) <= _DIGITS


def probe(path: Path) -> None:
    """Write a few bytes below ``path`` down to the disk, and read them back.

    A full disk is a disk that works.

    Raises:
        OSError: The disk refuses, or returns other bytes.
    """
    try:
        _write_and_read(path / PROBE_FILE, uuid.uuid4().bytes)
    except OSError as error:
        if error.errno not in FULL:
            raise


def _write_and_read(path: Path, told: bytes) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.pwrite(descriptor, told, 0)
        os.fsync(descriptor)
        if os.pread(descriptor, len(told), 0) != told:
            raise OSError(errno.EIO, "it returns other bytes than were written", str(path))
    finally:
        os.close(descriptor)


def is_at(path: Path, identity: Identity) -> bool:
    """Tell whether the directory at ``path`` is the tier's, mounted anew perhaps.

    Another directory is most likely the one on which the tier is usually mounted.
    """
    try:
        found = path.stat()
        is_same = (found.st_dev, found.st_ino) == (identity.device, identity.inode)
        return is_same or (path / LOCK_FILE).read_bytes() == identity.name
    except FileNotFoundError:
        return False


def _is_file_of(path: Path, descriptor: int) -> bool:
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(found, os.fstat(descriptor))


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

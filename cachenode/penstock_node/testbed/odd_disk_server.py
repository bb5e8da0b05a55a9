"""A file system that passes everything to a directory, unless its mood is bad: see `odd_disk`.

Responsible for: serving one mount from this process until it is unmounted.
Run as ``python -m penstock_node.testbed.odd_disk_server BACKING MOUNT_POINT MOOD_FILE``.
"""

import errno
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import mfusepy

POLL_S = 0.01
SLOW_S = 0.25
STAT_FIELDS = (
    "st_atime_ns",
    "st_blocks",
    "st_ctime_ns",
    "st_gid",
    "st_ino",
    "st_mode",
    "st_mtime_ns",
    "st_nlink",
    "st_size",
    "st_uid",
)
STATFS_FIELDS = ("f_bavail", "f_bfree", "f_blocks", "f_bsize", "f_files", "f_frsize", "f_namemax")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class _OddFileSystem:
    """The operations, by the kernel's names for them. Handles are descriptors."""

    use_ns = True

    def __init__(self, backing: Path, mood_file: Path) -> None:
        self._backing, self._mood_file = backing, mood_file

    def _below(self, path: str, *, writes: bool = False, moves: bool = False) -> Path:
        """Return where ``path`` really lies, once the mood allows it; ``moves`` bytes if so."""
        while (mood := self._mood_file.read_text()) == "hanging":
            time.sleep(POLL_S)
        if mood == "slow" and moves:
            time.sleep(SLOW_S)
        if mood == "failing":
            raise mfusepy.FuseOSError(errno.EIO)
        if mood == "read-only" and writes:
            raise mfusepy.FuseOSError(errno.EROFS)
        return self._backing / path.lstrip("/")

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        found = self._below(path).lstat()
        return {field.removesuffix("_ns"): getattr(found, field) for field in STAT_FIELDS}

    def statfs(self, path: str) -> dict[str, int]:
        found = os.statvfs(self._below(path))
        return {field: getattr(found, field) for field in STATFS_FIELDS}

    def readdir(self, path: str, fh: int) -> Iterable[str]:
        return [".", "..", *(entry.name for entry in self._below(path).iterdir())]

    def mkdir(self, path: str, mode: int) -> int:
        self._below(path, writes=True).mkdir(mode)
        return 0

    def rmdir(self, path: str) -> int:
        self._below(path, writes=True).rmdir()
        return 0

    def unlink(self, path: str) -> int:
        self._below(path, writes=True).unlink()
        return 0

    def rename(self, old: str, new: str) -> int:
        self._below(old, writes=True).rename(self._below(new, writes=True))
        return 0

    def chmod(self, path: str, mode: int) -> int:
        self._below(path, writes=True).chmod(mode)
        return 0

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        os.truncate(self._below(path, writes=True), length)
        return 0

    def open(self, path: str, flags: int) -> int:
        return os.open(self._below(path, writes=bool(flags & _WRITING)), flags)

    def create(self, path: str, mode: int, fi: Any = None) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
        return os.open(self._below(path, writes=True), flags, mode)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        self._below(path, moves=True)
        return os.pread(fh, size, offset)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        self._below(path, writes=True, moves=True)
        return os.pwrite(fh, data, offset)

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        self._below(path, writes=True)
        return 0  # The test's own disk need not work for it.

    def release(self, path: str, fh: int) -> int:
        os.close(fh)
        return 0


if __name__ == "__main__":
    _backing, _mount_point, _mood_file = sys.argv[1:]
    mfusepy.FUSE(
        _OddFileSystem(Path(_backing), Path(_mood_file)),
        _mount_point,
        foreground=True,
        fsname="penstock-test",
        auto_unmount=True,  # Also when this process, and the test with it, is killed.
        # The kernel asks each time, so that it never answers from before a change of mood.
        attr_timeout=0,
        entry_timeout=0,
        negative_timeout=0,
    )

"""Copies from file to file that never pass through this program.

Responsible for: the cheapest way that the file systems have: sharing the blocks
(``FICLONERANGE``: XFS, btrfs, bcachefs), else a copy by the kernel (``copy_file_range``: within
one file system); and remembering what did not work. Linux; elsewhere neither works.
Not responsible for: whether the bytes are right (`bringing`), what to do when neither works.
"""

import errno
import fcntl
import os
import struct
from typing import Literal, TypeAlias

from penstock.errors import CorruptData

Way: TypeAlias = Literal["reflink", "copy_file_range", "read"]
"""How bytes came into a file; ``read``: through this program's memory."""

_FICLONERANGE = 0x4020940D
_ARGUMENTS = struct.Struct("@qQQQ")
_UNABLE = frozenset(
    {
        errno.EOPNOTSUPP,
        errno.ENOTTY,
        errno.ENOSYS,
        errno.EXDEV,
        errno.EINVAL,
        errno.EPERM,
        errno.EACCES,
        errno.EBADF,
        errno.ETXTBSY,
    }
)
"""The file systems do not offer it, for these files."""


class KernelCopy:
    """Copies ranges from files to one file. Thread-safe."""

    def __init__(self, target: int) -> None:
        """Describe it; ``target`` is the descriptor of a file that is written."""
        self._target = target
        self._block_bytes = os.fstatvfs(target).f_bsize
        self._unable: set[tuple[Way, int]] = set()

    def copy(self, source: int, offset: int, *, at: int, length: int) -> Way | None:
        """Have ``length`` bytes from ``offset`` of ``source`` at ``at`` of the target.

        Returns:
            The way that worked; None if none did, and nothing was changed.

        Raises:
            CorruptData: The source is shorter than that, or cannot be read.
            OSError: The target cannot be written, for example as its disk is full.
        """
        device = os.fstat(source).st_dev
        if self._tries("reflink", device) and self._reflink(source, offset, at, length):
            return "reflink"
        if self._tries("copy_file_range", device) and self._copy(source, offset, at, length):
            return "copy_file_range"
        return None

    def _tries(self, way: Way, device: int) -> bool:
        return (way, device) not in self._unable

    def _reflink(self, source: int, offset: int, at: int, length: int) -> bool:
        """Share whole blocks, and copy what follows the last of them."""
        if offset % self._block_bytes or at % self._block_bytes:
            return False
        shared = length - length % self._block_bytes
        if shared == 0:
            return False
        arguments = _ARGUMENTS.pack(source, offset, shared, at)
        try:
            fcntl.ioctl(self._target, _FICLONERANGE, arguments)
        except OSError as error:
            return self._take_note("reflink", source, error)
        rest = length - shared
        return rest == 0 or self._copy(source, offset + shared, at + shared, rest)

    def _copy(self, source: int, offset: int, at: int, length: int) -> bool:
        if not hasattr(os, "copy_file_range"):
            return False
        done = 0
        while done < length:
            try:
                size = os.copy_file_range(
                    source, self._target, length - done, offset + done, at + done
                )
            except OSError as error:
                return self._take_note("copy_file_range", source, error)
            if size == 0:
                raise CorruptData(f"a chunk's file ends {length - done} bytes early")
            done += size
        return True

    def _take_note(self, way: Way, source: int, error: OSError) -> bool:
        """Remember what does not work here; raise what is no question of the way."""
        if error.errno == errno.EIO:
            raise CorruptData(f"a chunk's file cannot be read: {error}") from error
        if error.errno not in _UNABLE:
            raise error
        self._unable.add((way, os.fstat(source).st_dev))
        return False

"""A file that appears under its name whole, in one step, or not at all.

Responsible for: writing beside the name under another one that is no object, and that nothing
stays of a file that is given up. Blocking; `files` calls it from threads.
Not responsible for: which directory (`file_tree`).
"""

import contextlib
import os
import secrets
import stat
import threading
import time

from penstock.errors import InvalidRequest
from penstock.volumes import Volume
from penstock_node.origin.file_tree import UNFINISHED_PREFIX, FileTree
from penstock_node.origin.interface import describe, exists_already

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class NewFile:
    """One file on its way. Whoever makes it closes it, published or not."""

    def __init__(self, volume: Volume, tree: FileTree, path: str, *, if_absent: bool) -> None:
        """Make the directories that are missing, and an empty file without its name.

        Raises:
            Conflict: There is such a file, and ``if_absent``.
            InvalidRequest: A part of the path is a file, or the path names something else.
        """
        self._volume, self._path, self._if_absent = volume, path, if_absent
        self._unfinished = f"{UNFINISHED_PREFIX}{secrets.token_hex(8)}"
        self._lock = threading.Lock()  # It may be closed while a disk that hangs still writes.
        self._name = path.rpartition("/")[2]
        with tree.made_directory(path) as directory, contextlib.ExitStack() as undone:
            self._directory = os.dup(directory)
            undone.callback(os.close, self._directory)
            self._check_name()
            self._file = os.open(self._unfinished, _NEW, 0o666, dir_fd=self._directory)
            undone.pop_all()
        self._is_open = True

    def _check_name(self) -> None:
        try:
            found = os.stat(self._name, dir_fd=self._directory, follow_symlinks=False)
        except FileNotFoundError:
            return
        if not stat.S_ISREG(found.st_mode):
            raise InvalidRequest(
                f"{describe(self._volume, self._path)} is a directory, or no file; name another"
            )
        if self._if_absent:
            raise exists_already(self._volume, self._path)

    def write(self, data: bytes) -> None:
        """Add ``data``."""
        with self._lock, memoryview(data) as view:
            done = 0
            while done < len(view):
                done += os.write(self._file, view[done:])

    def publish(self) -> os.stat_result:
        """Let the file appear under its name, on the disk, and return what it is.

        Raises:
            Conflict: There is one by now, and ``if_absent``.
        """
        with self._lock:
            # By the nanosecond: else two within a tick of the kernel's clock would be one version.
            now_ns = time.time_ns()
            os.utime(self._file, ns=(now_ns, now_ns))
            os.fsync(self._file)
            self._take_name()
            self._sync_directory()
            return os.fstat(self._file)

    def _take_name(self) -> None:
        between = {"src_dir_fd": self._directory, "dst_dir_fd": self._directory}
        if not self._if_absent:
            os.replace(self._unfinished, self._name, **between)  # noqa: PTH105 - by descriptors
            return
        try:
            os.link(self._unfinished, self._name, follow_symlinks=False, **between)
        except FileExistsError:
            raise exists_already(self._volume, self._path) from None

    def _sync_directory(self) -> None:
        # The one that is held is for walking alone.
        directory = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=self._directory)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def close(self) -> None:
        """Take away what was not published. Again does nothing."""
        with self._lock:
            if not self._is_open:
                return
            self._is_open = False
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._unfinished, dir_fd=self._directory)
            os.close(self._file)
            os.close(self._directory)

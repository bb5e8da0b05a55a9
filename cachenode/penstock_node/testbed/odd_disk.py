"""Disks that misbehave as real ones do, for tests of what stores on them.

Responsible for: a real file system that refuses, hangs or turns read-only on command, or is
unmounted; a small one that is soon full; and leaving no mount behind. Needs root and FUSE.
Not responsible for: the file system itself (`testbed.odd_disk_server`).
"""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, TypeAlias

from penstock_node.testbed.processes import Process

DEADLINE_S = 10.0

Mood: TypeAlias = Literal["well", "failing", "hanging", "read-only", "slow"]


class OddDisk:
    """A mounted file system over a directory: a context manager. It begins well.

    ``failing``: every operation gives EIO. ``hanging``: every operation waits for another mood.
    ``read-only``: what would write gives EROFS. ``slow``: each read and each write takes
    a quarter of a second more.
    """

    def __init__(self, path: Path, *, below: Path) -> None:
        """Describe a disk.

        Args:
            path: Where it is mounted; made if it is not there.
            below: Holds what lies on it, its log, and how it behaves.
        """
        self.path = path
        self.backing = below / "disk"
        """What lies on it, whatever its mood."""
        self._mood_file = below / "mood"
        for directory in (path, self.backing):
            directory.mkdir(parents=True, exist_ok=True)
        server = "penstock_node.testbed.odd_disk_server"
        command = [sys.executable, "-m", server, self.backing, path, self._mood_file]
        self._process = Process(list(map(str, command)), log=below / "disk.log")

    @property
    def is_mounted(self) -> bool:
        """Whether it is there."""
        return is_mounted(self.path)

    def become(self, mood: Mood) -> None:
        """Behave so from now on; operations that hang go on so as well."""
        new = self._mood_file.with_suffix(".new")
        new.write_text(mood)
        new.replace(self._mood_file)

    def mount(self) -> None:
        """Mount it, again perhaps."""
        self.become("well")
        self._process.start()
        self._process.wait_until(
            lambda: is_mounted(self.path), deadline_s=DEADLINE_S, what="it is mounted"
        )

    def unmount(self) -> None:
        """Take it away under whoever uses it; again does nothing."""
        self.become("well")  # Else what hangs would keep its process for ever.
        unmount(self.path)
        self._process.stop()

    def __enter__(self) -> Self:
        try:
            self.mount()
        except BaseException:
            self.unmount()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.unmount()


@contextlib.contextmanager
def small_disk(path: Path, *, size_bytes: int, options: str = "") -> Iterator[Path]:
    """Mount an empty disk of ``size_bytes`` at ``path``; it is gone, with all on it, at the end.

    Args:
        path: Made if it is not there.
        size_bytes: Of the disk, a tmpfs.
        options: More of them, for ``mount``.
    """
    path.mkdir(parents=True, exist_ok=True)
    options = ",".join(filter(None, (f"size={size_bytes}", options)))
    command = ["mount", "-t", "tmpfs", "-o", options, "penstock-test", str(path)]
    subprocess.run(command, check=True)
    try:
        yield path
    finally:
        unmount(path)


def is_mounted(path: Path) -> bool:
    """Tell whether something is mounted at ``path``, without asking that: it may hang."""
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    return str(path.absolute()) in (mount.split()[4] for mount in mounts)


def unmount(path: Path) -> None:
    """Take away what is mounted at ``path``, whoever uses it; nothing mounted there is fine."""
    while is_mounted(path):
        subprocess.run(["umount", "--lazy", str(path)], check=True)

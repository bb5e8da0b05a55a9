"""A file system of its own, in a file: one that shares blocks between files (XFS, btrfs).

Needs root, loop devices and ``mkfs.xfs`` or ``mkfs.btrfs`` (Debian: ``xfsprogs``,
``btrfs-progs``). For tests only.
"""

import contextlib
import os
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from penstock_node.testbed.processes import PartFailed

SIZE_BYTES = 320 * 1024 * 1024
"""A little more than ``mkfs.xfs`` asks for at least; holes, until something is written."""
_MAKERS = ("mkfs.xfs", "mkfs.btrfs")
_PATHS = ("/usr/local/sbin", "/usr/sbin", "/sbin")
_TIMEOUT_S = 30.0


def maker() -> str | None:
    """Return the program that makes such a file system here; None: there is none."""
    if os.geteuid() != 0 or not Path("/dev/loop-control").exists():
        return None
    places = os.pathsep.join((os.environ.get("PATH", ""), *_PATHS))
    found = (shutil.which(name, path=places) for name in _MAKERS)
    return next((path for path in found if path), None)


class LoopDisk:
    """One such file system, mounted below a directory while a ``with`` lasts."""

    def __init__(self, directory: Path) -> None:
        """Describe it; nothing is made yet."""
        self._image = directory / "disk.img"
        self.path = directory / "disk"
        """Where it is mounted."""

    def __enter__(self) -> Self:
        made_by = maker()
        if made_by is None:
            raise PartFailed("no mkfs.xfs or mkfs.btrfs, no loop devices, or not root")
        self.path.mkdir()
        with self._image.open("wb") as image:
            image.truncate(SIZE_BYTES)
        _run(made_by, "-q", str(self._image))
        _run("mount", "-o", "loop", str(self._image), str(self.path))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Lazily: a process that is just ending may have a file open yet.
        with contextlib.suppress(PartFailed):
            _run("umount", "--lazy", str(self.path))
        self._image.unlink(missing_ok=True)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    if done.returncode:
        raise PartFailed(f"{command[0]}: {done.stderr.strip()}")

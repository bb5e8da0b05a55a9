"""`penstock mount` as a process of its own, whatever happens unmounted at the end.

Responsible for: starting it, waiting until it is mounted, and leaving no mount behind.
Not responsible for: what is read through it.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from penstock_node.testbed.peers import PeerAbsent
from penstock_node.testbed.processes import PartFailed, Process

MOUNT_DEADLINE_S = 30.0
STOP_TIMEOUT_S = 20.0


class MountProcess:
    """One mount. As a context manager it mounts, and unmounts at the end."""

    def __init__(
        self,
        point: Path,
        *words: str,
        address: str,
        log: Path,
        env: Mapping[str, str] | None = None,
        python: Sequence[str | Path] = (sys.executable,),
    ) -> None:
        """Describe it; nothing starts yet.

        Args:
            point: Where to mount; made if it is not there.
            words: Further arguments of the verb.
            address: Of the cluster.
            log: Of the process, outside ``point``.
            env: Variables on top of this process's own.
            python: What runs it, for example as another user.
        """
        self.point = point
        command = [*python, "-m", "penstock", "mount", point, *words]
        self.process = Process([*command, "--address", address], log=log, env=env)

    def start(self) -> Self:
        """Mount, and wait until that is done.

        Raises:
            PartFailed: It does not mount.
            PeerAbsent: There is no FUSE here.
        """
        if not Path("/dev/fuse").exists():
            raise PeerAbsent("absent: a mount needs /dev/fuse")
        self.point.mkdir(exist_ok=True)
        self.process.start()
        try:
            self.process.wait_until(
                self.is_mounted, deadline_s=MOUNT_DEADLINE_S, what=f"{self.point} is mounted"
            )
        except PartFailed:
            self.stop()
            raise
        return self

    def is_mounted(self) -> bool:
        """Tell whether something is mounted there, served or not."""
        return os.path.ismount(self.point)  # Unlike `Path.is_mount`, it knows dead mounts.

    def stop(self) -> int | None:
        """End it in order, and leave no mount; return its exit status."""
        status = self.process.stop(timeout_s=STOP_TIMEOUT_S)
        self.remove()
        return status

    def remove(self) -> None:
        """Leave no mount, whatever became of the process."""
        while self.is_mounted():
            with contextlib.suppress(subprocess.CalledProcessError):
                subprocess.run(["umount", "--lazy", self.point], check=True, capture_output=True)

    def drop_pages(self, path: Path) -> None:
        """Forget what the kernel keeps of a file of the mount."""
        opened = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(opened, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(opened)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

"""What Penstock is measured against: other people's programs as real processes, one module each.

A peer that cannot run here says so when it is used, and what to install: `PeerAbsent`.
"""

import shutil
import sysconfig
from pathlib import Path


class PeerAbsent(RuntimeError):
    """A peer cannot run on this machine. The message says what would change that."""


def program(name: str, *, fix: str) -> Path:
    """Return the path of a peer's program.

    Raises:
        PeerAbsent: It is not installed; ``fix`` is the command that installs it.
    """
    beside_python = Path(sysconfig.get_path("scripts")) / name
    found = beside_python if beside_python.exists() else shutil.which(name)
    if found is None:
        raise PeerAbsent(f"absent: {fix}")
    return Path(found)

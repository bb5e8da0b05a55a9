"""Snapshots that this process uses: none of them is removed to make room for another.

A snapshot is in use from when it was taken until it is released, or the process ends, however it
ends. A forked child uses what its parent did.
"""

import os
import threading
from pathlib import Path

from penstock.snapshots.locks import Lock, lock

_held: dict[Path, Lock] = {}
_guard = threading.Lock()


def hold(use: Path, path: Path, *, over: threading.Event) -> None:
    """Have the snapshot at ``path``, whose lock is ``use``, in use from now on."""
    taken = lock(use, over=over, shared=True)
    os.utime(taken.descriptor)  # Who was used last is removed last.
    with _guard:
        before = _held.pop(path, None)
        _held[path] = taken
    if before is not None:
        before.close()


def release_snapshot(path: Path) -> None:
    """Say that this process uses a snapshot no more; one that it never took is no matter.

    Args:
        path: What `penstock.snapshot` returned.
    """
    with _guard:
        held = _held.pop(Path(path), None)
    if held is not None:
        held.close()


def _after_fork_in_child() -> None:
    global _guard
    _guard = threading.Lock()


os.register_at_fork(after_in_child=_after_fork_in_child)

"""Whether a disk has room for what is to come, told before anything is written."""

import contextlib
import errno
import os
from pathlib import Path

from penstock.errors import InvalidRequest, NoSpace, PenstockError
from penstock.units import format_size


def free_bytes(directory: Path) -> int:
    """Return what this program may still write to the file system of ``directory``."""
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize


def check_space(directory: Path, needed_bytes: int) -> None:
    """Refuse what does not fit.

    Raises:
        NoSpace: With the numbers.
    """
    free = free_bytes(directory)
    if needed_bytes > free:
        raise NoSpace(
            f"{format_size(needed_bytes)} are to come ({needed_bytes:,} bytes), and {directory} "
            f"has {format_size(free)} free ({free:,} bytes): free "
            f"{format_size(needed_bytes - free)}, choose another directory, or bring less with "
            "allow_patterns"
        )


def disk_error(error: OSError, path: Path) -> PenstockError:
    """Return what to raise when ``path`` could not be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        with contextlib.suppress(OSError):
            free = format_size(free_bytes(path.parent))
            return NoSpace(
                f"no space to write {path}: {free} are free there; free some and try again: what "
                "has come is kept"
            )
    where = f" ({error.filename})" if error.filename not in (None, str(path)) else ""
    return InvalidRequest(f"cannot write {path}: {error.strerror or error}{where}")


def allocated_bytes(directory: Path) -> int:
    """Return what the files below a directory take on the disk; links are not followed."""
    total, waiting = 0, [directory]
    while waiting:
        try:
            entries = list(os.scandir(waiting.pop()))
        except FileNotFoundError:
            continue  # Removed meanwhile.
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                waiting.append(Path(entry.path))
            else:
                total += file_bytes(Path(entry.path))
    return total


def file_bytes(path: Path) -> int:
    """Return what a file takes on the disk; none where it is gone."""
    try:
        return path.lstat().st_blocks * 512
    except FileNotFoundError:
        return 0

"""Where something may be mounted, and what stands in the way.

Responsible for: saying what is wrong with a directory before the kernel says it in one word.
Not responsible for: mounting (`device`).
"""

import errno
import os
from pathlib import Path

from penstock.errors import InvalidRequest


def checked_mount_point(directory: Path, *, may_hide_files: bool = False) -> Path:
    """Return the directory's absolute path, without links.

    Args:
        directory: Where to mount.
        may_hide_files: Whether something may lie in it, which the mount then hides.

    Raises:
        InvalidRequest: It is not there, no directory, a mount already, or not empty.
    """
    try:
        point = directory.resolve(strict=True)
        is_directory = point.is_dir()
    except OSError as error:
        raise InvalidRequest(_refusal(directory, error)) from error
    if not is_directory:
        raise InvalidRequest(f"{directory} is not a directory: nothing can be mounted there")
    if os.path.ismount(point):  # Unlike `Path.is_mount`, it knows dead mounts.
        raise InvalidRequest(
            f"{directory} is a mount already: end that one (fusermount3 -u {directory}), or name "
            "another directory"
        )
    if not may_hide_files:
        _check_empty(directory, point)
    return point


def _check_empty(directory: Path, point: Path) -> None:
    try:
        with os.scandir(point) as entries:
            is_empty = next(entries, None) is None
    except OSError as error:
        raise InvalidRequest(_refusal(directory, error)) from error
    if not is_empty:
        raise InvalidRequest(
            f"{directory} is not empty, and a mount would hide what lies in it: name an empty "
            "directory, or add --nonempty"
        )


def _refusal(directory: Path, error: OSError) -> str:
    match error.errno:
        case errno.ENOENT:
            return f"{directory} is not there: mkdir -p {directory}"
        case errno.ENOTCONN:
            return (
                f"{directory} is a mount whose program has ended: fusermount3 -u -z {directory}, "
                "then try again"
            )
        case errno.EACCES | errno.EPERM:
            return f"this user may not look into {directory}: name a directory of its own"
    return f"cannot mount at {directory}: {error.strerror}"

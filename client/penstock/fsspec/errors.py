"""Errors that are both: what Penstock says, and what programs that know files expect.

Only what is said of a path: whether the cluster answers is no matter of files.
"""

import contextlib
import errno
from collections.abc import Iterator

from penstock import errors
from penstock.errors import PenstockError


class ObjectNotFound(errors.ObjectNotFound, FileNotFoundError):
    """There is nothing at this path."""


class NotPermitted(errors.NotPermitted, PermissionError):
    """A path outside every volume, or one that this program may not read."""


def translated(error: PenstockError) -> PenstockError:
    """Return the error as programs that know files expect it."""
    if isinstance(error, errors.ObjectNotFound):
        return ObjectNotFound(*error.args)
    if isinstance(error, errors.NotPermitted):
        return NotPermitted(*error.args)
    return error


@contextlib.contextmanager
def translating() -> Iterator[None]:
    """Raise errors as programs that know files expect them."""
    try:
        yield
    except PenstockError as error:
        expected = translated(error)
        if expected is error:
            raise
        raise expected from error


def read_only(path: str) -> OSError:
    """Return why nothing is written."""
    return OSError(
        errno.EROFS,
        "penstock:// is read through fsspec; to write, call penstock's Cache.put, or the "
        "bucket's own file system",
        path,
    )

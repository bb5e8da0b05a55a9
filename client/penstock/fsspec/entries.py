"""What fsspec is told of an object or a directory."""

from typing import Any, TypeAlias

from penstock.fsspec.paths import to_path
from penstock.object_info import DirectoryInfo, ObjectInfo

Entry: TypeAlias = dict[str, Any]
"""``name``, ``size`` in bytes and ``type``; of a file ``mtime`` (UTC, or None) and ``version``,
which is empty where a listing does not tell it."""


def entry_of(info: ObjectInfo | DirectoryInfo) -> Entry:
    """Return what is told of an object or a directory."""
    if isinstance(info, DirectoryInfo):
        return directory_entry(to_path(info.url))
    return {
        "name": to_path(info.url),
        "size": info.size,
        "type": "file",
        "mtime": info.modified,
        "version": info.version,
    }


def directory_entry(path: str) -> Entry:
    """Return what is told of the directory at ``path``."""
    return {"name": path, "size": 0, "type": "directory"}

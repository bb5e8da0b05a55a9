"""The file in which a cluster of one keeps what has to outlive its process.

Responsible for: a file that is there whole or not at all, readable by its owner alone (it
holds ticket keys), and never overwritten when it cannot be understood.
Not responsible for: two processes at once; a node locks its state directory.
"""

import base64
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.errors import ClusterUnavailable, InvalidConfiguration, InvalidRequest
from penstock.json_text import count_in, read_json_object, text_in
from penstock.membership.coordinator import Entry

_FORMAT = 1
_MODE = 0o600


@dataclass(frozen=True, slots=True)
class Saved:
    """What the file holds."""

    store_id: int
    revision: int
    entries: Mapping[str, Entry]


def load(path: Path) -> Saved | None:
    """Return what ``path`` holds, or None when there is no such file.

    Raises:
        InvalidConfiguration: The file cannot be read or understood; it stays as it is.
    """
    try:
        return parse(path.read_bytes(), path=path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InvalidConfiguration(f"cannot read {path}: {error.strerror}") from error


def parse(content: bytes, *, path: Path) -> Saved:
    """Return what the file at ``path`` holds; raises as `load`."""
    try:
        return _decode(content)
    except (InvalidRequest, ValueError) as error:
        raise InvalidConfiguration(
            f"{path} is damaged ({error}): put a good copy in its place, or move it away to "
            "start without its weights, volumes, settings and ticket keys"
        ) from error


def save(path: Path, saved: Saved) -> None:
    """Replace ``path``: whoever looks, also after a crash, finds the old or the new content.

    Raises:
        ClusterUnavailable: It cannot be written; the old content stays.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _MODE)
        with os.fdopen(descriptor, "wb") as file:
            file.write(_encode(saved))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_directory(path.parent)
    except OSError as error:
        raise ClusterUnavailable(f"cannot write {path}: {error.strerror}") from error


def _sync_directory(directory: Path) -> None:
    """Make the rename itself outlive a power loss."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _encode(saved: Saved) -> bytes:
    entries = {
        name: {"mod_revision": entry.mod_revision, "value": base64.b64encode(entry.value).decode()}
        for name, entry in sorted(saved.entries.items())
    }
    content = {
        "format": _FORMAT,
        "store_id": saved.store_id,
        "revision": saved.revision,
        "entries": entries,
    }
    return json.dumps(content, indent=1).encode()


def _decode(content: bytes) -> Saved:
    read = read_json_object(content)
    if read.get("format") != _FORMAT:
        raise ValueError(f"its format is {read.get('format')!r:.40}, not {_FORMAT}")
    entries = read.get("entries")
    if not isinstance(entries, dict) or not all(isinstance(e, dict) for e in entries.values()):
        raise ValueError("its entries are no objects")
    return Saved(
        count_in(read, "store_id"),
        count_in(read, "revision"),
        {name: _entry(entry) for name, entry in entries.items()},
    )


def _entry(data: Mapping[str, Any]) -> Entry:
    value = base64.b64decode(text_in(data, "value"), validate=True)
    return Entry(value, count_in(data, "mod_revision"))

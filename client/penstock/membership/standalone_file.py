"""The file in which a cluster of one keeps what has to outlive its process.

Responsible for: a file that is there whole or not at all, readable by its owner alone (it
holds ticket keys), and never overwritten when it cannot be understood.
Not responsible for: two processes at once; a node locks its state directory.
"""

import base64
import binascii
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from penstock.errors import ClusterUnavailable, InvalidConfiguration
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
        return _decode(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InvalidConfiguration(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, AttributeError, binascii.Error) as error:
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
    read = json.loads(content)
    if read["format"] != _FORMAT:
        raise ValueError(f"its format is {read['format']!r}, not {_FORMAT}")
    entries = {
        name: Entry(base64.b64decode(entry["value"], validate=True), int(entry["mod_revision"]))
        for name, entry in read["entries"].items()
    }
    return Saved(int(read["store_id"]), int(read["revision"]), entries)

"""`view.json`: the last view on disk, so that a node restarted while etcd is away serves.

Responsible for: writing the state whole or not at all, readable by its owner only (ticket keys
are in it), off the event loop and not more often than needed; and reading it at start.
"""

import asyncio
import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from penstock.errors import InvalidConfiguration, InvalidRequest
from penstock.json_text import count_in, read_json_object, text_in
from penstock.membership.coordinator import Entry, Listing
from penstock_node.atomic_file import write_atomically
from penstock_node.coordination.state import ClusterState
from penstock_node.coordination.waiting import is_set_within

FORMAT = 1
FILE_MODE = 0o600
WRITE_INTERVAL_S = 0.2

_log = structlog.get_logger(__name__)


def _write(path: Path, content: bytes) -> None:
    write_atomically(path, content, mode=FILE_MODE)


@dataclass(frozen=True, slots=True)
class FileAccess:
    """How the file is read, and written: so that a test can keep it elsewhere."""

    read: Callable[[Path], bytes] = Path.read_bytes
    write: Callable[[Path, bytes], None] = _write


REAL = FileAccess()


class UnreadableView(Exception):
    """The file is damaged, or one of a later format: as good as none."""


def encode(state: ClusterState, *, cluster: str) -> bytes:
    """Return the file's bytes: entries as they stand in etcd, for people to read too."""
    entries = {}
    for key, entry in state.entries.items():
        with contextlib.suppress(UnicodeDecodeError):  # Nothing that we or a newer one wrote.
            entries[key] = entry.value.decode()
    return json.dumps(
        {
            "format": FORMAT,
            "cluster": cluster,
            "store_id": state.store_id,
            "revision": state.revision,
            "entries": entries,
        }
    ).encode()


def decode(data: bytes) -> tuple[str, ClusterState]:
    """Return the cluster's name and the state in a file's bytes.

    Raises:
        UnreadableView: It is not such a file, or one of a later format.
    """
    try:
        file = read_json_object(data)
        if count_in(file, "format") != FORMAT:
            raise UnreadableView(f"format {file['format']}, this program knows {FORMAT}")
        revision, store_id = count_in(file, "revision"), count_in(file, "store_id")
        texts = file.get("entries")
        if not isinstance(texts, dict):
            raise UnreadableView("not a view: it has no entries")
        entries = {key: Entry(text_in(texts, key).encode(), revision) for key in texts}
        cluster = text_in(file, "cluster")
    except InvalidRequest as error:
        raise UnreadableView(f"not a view: {error}") from error
    return cluster, ClusterState.from_listing(Listing(entries, revision, store_id))


def load(path: Path, *, cluster: str, access: FileAccess = REAL) -> ClusterState | None:
    """Return the state in ``path``; None when there is none, or none that can be read.

    Raises:
        InvalidConfiguration: It is the view of another cluster.
    """
    try:
        found, state = decode(access.read(path))
    except FileNotFoundError:
        return None
    except (UnreadableView, OSError) as error:
        _log.warning("the last view is ignored", path=str(path), error=str(error))
        return None
    if found != cluster:
        raise InvalidConfiguration(
            f"{path} belongs to cluster {found!r} and this node is configured for {cluster!r}: "
            f"correct `cluster`, or give the node a state_dir of its own"
        )
    return state


class ViewWriter:
    """Writes the newest of the states it is given; one write at a time, those between left out."""

    def __init__(self, path: Path, *, cluster: str, access: FileAccess = REAL) -> None:
        self._path, self._cluster, self._access = path, cluster, access
        self._waiting: ClusterState | None = None
        self._given, self._stopping = asyncio.Event(), asyncio.Event()

    def give(self, state: ClusterState) -> None:
        """Have ``state`` written soon."""
        self._waiting = state
        self._given.set()

    def stop(self) -> None:
        """Let `run` end once it has written what it was given."""
        self._stopping.set()
        self._given.set()

    async def run(self) -> None:
        """Write until stopped."""
        while not (self._stopping.is_set() and self._waiting is None):
            await self._given.wait()
            self._given.clear()
            state, self._waiting = self._waiting, None
            if state is not None:
                await asyncio.to_thread(self._write, state)
            await is_set_within(self._stopping, seconds=WRITE_INTERVAL_S)

    def _write(self, state: ClusterState) -> None:
        try:
            self._access.write(self._path, encode(state, cluster=self._cluster))
        except OSError as error:
            # Serving goes on; the next change tries again.
            _log.warning("the view cannot be written", path=str(self._path), error=str(error))

"""Where in its own region a mirror has the bytes of a file.

Responsible for: copies that were made here, and those that somebody else has put at their place.
Not responsible for: making copies (`copying`), reading them (nodes do).

An origin that stands before a file's own in the volume's record is nearer. What lies there under
the file's path is a copy if this mirror has noted that it made it, or if its version is the
source's: object stores that replicate a bucket keep it. The store is asked for that once for each
file, however many chunks and readers that has.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeAlias

from penstock.catalog_file import CatalogFile, FileCopy
from penstock.deadline import Deadline
from penstock.errors import PenstockError
from penstock_node.catalog.copies import Copies
from penstock_node.catalog_server.places import Places
from penstock_node.origin import Origin, is_strong
from penstock_node.tasks import cancel, in_thread

LOOK_TIMEOUT_S = 1.0
"""The store is near."""
BELIEVED_S = 30.0
"""How long an answer holds."""
REMEMBERED_MAX = 100_000

_Key: TypeAlias = tuple[str, str, str]
"""A volume, a path, a version."""


class Nearby:
    """Copies of files. On one event loop."""

    def __init__(
        self,
        places: Places,
        copies: Copies,
        *,
        threads: Executor,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Ask nothing yet.

        Args:
            places: Where files lie.
            copies: Those that were made here.
            threads: For the database.
            clock: Monotonic, in seconds.
        """
        self._places, self._copies, self._threads = places, copies, threads
        self._clock = clock
        self._found: OrderedDict[_Key, tuple[float, tuple[FileCopy, ...]]] = OrderedDict()
        self._looking: dict[_Key, asyncio.Task[tuple[FileCopy, ...]]] = {}

    async def of(self, volume: str, file: CatalogFile) -> tuple[FileCopy, ...]:
        """Return the copies of a file, the nearest first; none is no failure."""
        key = (volume, file.path, file.version)
        until, found = self._found.get(key, (0.0, ()))
        if self._clock() < until:
            return found
        if key not in self._looking:  # However many ask, the store is asked once.
            self._looking[key] = asyncio.create_task(self._look(key, file))
        return await asyncio.shield(self._looking[key])

    async def _look(self, key: _Key, file: CatalogFile) -> tuple[FileCopy, ...]:
        try:
            found = await self._find(key[0], file)
        finally:
            del self._looking[key]
        self._found[key] = self._clock() + BELIEVED_S, found
        self._found.move_to_end(key)
        if len(self._found) > REMEMBERED_MAX:
            self._found.popitem(last=False)
        return found

    def forget(self, volume: str, file: CatalogFile) -> None:
        """Look anew: a copy was made."""
        self._found.pop((volume, file.path, file.version), None)

    async def close(self) -> None:
        """End all looks."""
        for looking in list(self._looking.values()):
            await cancel(looking)

    async def _find(self, volume: str, file: CatalogFile) -> tuple[FileCopy, ...]:
        origin = await self._places.recall(volume)
        if origin is None:
            return ()
        try:
            nearer = origin.nearer_than(file.source_url)
        except PenstockError:
            return ()  # Whoever reads the file is told that its source is in none of the origins.
        if not nearer:
            return ()
        made = await in_thread(self._threads, lambda: self._copies.find(volume, file.path))
        found: list[FileCopy] = []
        for place, store in nearer:
            if made and made.version == file.version and made.url.startswith(place.url):
                found.append(FileCopy(made.url, made.copy_version))
            elif await is_same(file, store):
                found.append(FileCopy(place.url + file.path, file.source_version))
        return tuple(found)


async def is_same(file: CatalogFile, store: Origin) -> bool:
    """Whether a store has this version of a file at its path, under the source's own version."""
    if not is_strong(file.source_version):
        return False
    try:
        meta = await store.head(file.path, deadline=Deadline.after(LOOK_TIMEOUT_S))
    except PenstockError:
        return False
    return (meta.version, meta.size) == (file.source_version, file.size)

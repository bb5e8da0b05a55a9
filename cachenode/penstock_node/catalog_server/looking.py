"""Looking at files where their bytes are, and noting what is there.

Responsible for: one look at a time for each path, so that the catalog ends with what was seen last;
who asks for a look that has not begun yet shares it.
Not responsible for: why one looks (readers: `service`, stores that tell of changes: `events`).
"""

import asyncio
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from penstock.catalog_file import CatalogFile
from penstock.deadline import Deadline
from penstock.errors import ObjectNotFound, Overloaded
from penstock_node.catalog.files import Files
from penstock_node.catalog.records import Difference, Known, difference
from penstock_node.catalog_server.places import Places
from penstock_node.origin import Origin
from penstock_node.tasks import cancel, in_thread

T = TypeVar("T")

LOOKS_MAX = 32
"""At once."""
WAITING_MAX = 4_096
"""Looks that run or wait."""
TRIES_MAX = 3
"""Of one look, while others write the same file."""
HEAD_TIMEOUT_S = 8.0
"""Stores that tell of changes wait ten seconds for an answer."""


@dataclass(frozen=True, slots=True)
class Looked:
    """What a look has found."""

    file: CatalogFile | None
    """None: nothing is there."""
    is_noted: bool
    """Whether the catalog has a new entry for it."""


class Looking:
    """All looks of a process. On one event loop."""

    def __init__(self, files: Files, *, places: Places, threads: Executor) -> None:
        """Look at nothing yet.

        Args:
            files: Of all volumes.
            places: Where they lie.
            threads: For the database, whose calls block.
        """
        self._files, self._places, self._threads = files, places, threads
        self._slots = asyncio.Semaphore(LOOKS_MAX)
        # One writes at a time anyway; who waits in SQLite sleeps longer than it would have to.
        self._noting = asyncio.Lock()
        self._waiting: dict[tuple[str, str, str], asyncio.Task[Looked]] = {}
        self._last: dict[tuple[str, str], asyncio.Task[Looked]] = {}
        self._tasks: set[asyncio.Task[Looked]] = set()

    async def look(self, volume: str, path: str, url: str) -> Looked:
        """Look at ``url``, and note what is there as the volume's file at ``path``.

        Where nothing is, the file is removed, unless its bytes are elsewhere. What is answered was
        there at some moment after the call.

        Raises:
            InvalidRequest: There is no such catalogued volume.
            NotPermitted: The url lies in none of its origins.
            OriginUnavailable: The store does not answer.
            CatalogUnavailable: The database does not.
            Overloaded: So many looks are under way already.
        """
        which = (volume, path, url)
        return await asyncio.shield(self._waiting.get(which) or self._begin(which))

    def _begin(self, which: tuple[str, str, str]) -> asyncio.Task[Looked]:
        if len(self._tasks) >= WAITING_MAX:
            raise Overloaded(f"{WAITING_MAX} looks are under way", retry_after_s=1.0)
        at = which[:2]
        looking = self._look_after(self._last.get(at), which)
        task = asyncio.create_task(looking, name=f"look at {which[2]}")
        self._waiting[which] = self._last[at] = task
        self._tasks.add(task)
        task.add_done_callback(partial(self._over, at))
        return task

    def _over(self, at: tuple[str, str], task: asyncio.Task[Looked]) -> None:
        self._tasks.remove(task)
        if self._last[at] is task:
            del self._last[at]
        if not task.cancelled():
            task.exception()  # Whoever asked may be gone.

    async def _look_after(
        self, before: asyncio.Task[Looked] | None, which: tuple[str, str, str]
    ) -> Looked:
        if before is not None:
            await asyncio.wait({before})
        async with self._slots:
            del self._waiting[which]  # Who asks from now on wants to know of what comes now.
            return await self._look(*which)

    async def _look(self, volume: str, path: str, url: str) -> Looked:
        _, origin, within = await self._places.locate(volume, url)
        files = await in_thread(self._threads, lambda: self._files.volume(volume))
        for _ in range(TRIES_MAX):
            known = await in_thread(self._threads, lambda: files.known([path]))
            now = await self._found(origin, within, path, url)
            found = _news(known, now, url)
            if not found:
                return Looked(now, is_noted=False)
            async with self._noting:
                written = await in_thread(self._threads, partial(files.write, found))
            if written:
                return Looked(now, is_noted=True)
        # Others have written each time: what they saw is as new.
        return Looked(now, is_noted=False)

    async def _found(self, origin: Origin, within: str, path: str, url: str) -> CatalogFile | None:
        try:
            found = await origin.head(within, deadline=Deadline.after(HEAD_TIMEOUT_S))
        except ObjectNotFound:
            return None
        version = found.version
        return CatalogFile(path, version, found.size, found.modified_us, url, version)

    async def close(self) -> None:
        """End all looks."""
        for task in list(self._tasks):
            await cancel(task)


def _news(known: Mapping[str, Known], now: CatalogFile | None, url: str) -> Difference:
    """Return what a look has to write over what was known before it."""
    if now is not None:
        return difference(known, [now], prunes=False)
    here = {path: each for path, each in known.items() if each.source_url == url}
    return difference(here, [], prunes=True)

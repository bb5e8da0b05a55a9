"""Bringing the new data of one volume into a mirror's region: into its store, and into its cache.

Responsible for: going through the feed page by page, and what of a page is settled.
Not responsible for: copying a file (`copying`), warming (`warming`), failures (`bringing`).

What a rule covers, and is still as its entry says, is copied, then warmed; then the page is noted
as settled. A process may be killed at any moment: the next one begins with the page that was not,
and finds in the catalog which of its files have a copy. Other rules begin with the first entry.

A file that fails by itself, as one that may not be read, is passed by: what is behind it comes, and
it is tried again. Meanwhile no page is noted, so that it is not forgotten with the process.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import structlog

from penstock.catalog_file import CatalogFile
from penstock.errors import ObjectChanged, ObjectNotFound, PenstockError
from penstock.mirror_rules import MirrorRules
from penstock_node.catalog.copies import CopiedFile, Copies
from penstock_node.catalog.files import Files, VolumeFiles
from penstock_node.catalog.selection import Selection
from penstock_node.catalog_server.copying import FileCopier
from penstock_node.catalog_server.nearby import Nearby
from penstock_node.catalog_server.passed_by import PassedBy, is_of_one_file
from penstock_node.catalog_server.places import Places
from penstock_node.catalog_server.warming import Warmer
from penstock_node.origin import CataloguedOrigin
from penstock_node.pace import Pace
from penstock_node.tasks import in_thread

T = TypeVar("T")

PAGE_MAX = 1_000
FILES_AT_ONCE = 4
"""Copied: each has some parts in memory."""

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class BroughtCounters:
    """What this process has brought so far; only ever grows."""

    copied_files: int = 0
    copied_bytes: int = 0
    warmed_files: int = 0


@dataclass(frozen=True)
class Region:
    """Where data is brought to, and what knows of it."""

    files: Files
    copies: Copies
    places: Places
    nearby: Nearby
    """Is told of new copies."""
    warmer: Warmer
    threads: Executor
    """For the database, whose calls block."""
    counters: BroughtCounters = field(default_factory=BroughtCounters)

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Return what ``work`` does in a thread."""
        return await in_thread(self.threads, work)


class VolumeBringing:
    """Brings the data of one volume, under rules that do not change, in one's turn."""

    def __init__(
        self,
        volume: str,
        rules: MirrorRules,
        token: int,
        *,
        region: Region,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Bring nothing yet; raises `InvalidRequest` for rules that are none."""
        self._volume, self._token, self._region = volume, token, region
        self._rules = rules.selection_key
        self._copied = Selection(rules.copied) if rules.copied else None
        self._warmed = Selection(rules.warmed) if rules.warmed else None
        self._pace = Pace(lambda: rules.bytes_per_s) if rules.bytes_per_s else None
        self._slots = asyncio.Semaphore(FILES_AT_ONCE)
        self._after: int | None = None
        self._passed_by = PassedBy(volume, clock=clock)

    @property
    def trouble(self) -> str:
        """Which files do not come, and why; empty: all do."""
        return self._passed_by.trouble

    async def settle_page(self) -> bool:
        """Settle some entries, and return whether there were any.

        Raises:
            Conflict: It is another process's turn.
            PenstockError: What an origin, the cache or the database raised. What was done stays.
        """
        region = self._region
        if self._after is None:
            wanted = partial(region.copies.brought, self._volume, rules=self._rules)
            self._after = await region.in_thread(wanted)
        await self._try_again(self._after)
        page = partial(region.files.changes, self._after, limit=PAGE_MAX)
        changes = await region.in_thread(page)
        own = [change for change in changes if change.volume == self._volume]
        if own:
            latest = {change.file.path: change.file for change in own if not change.is_removed}
            await self._forget([change.file.path for change in own if change.is_removed])
            failed = await self._bring(list(latest.values()))
            self._passed_by.take([change.file.path for change in own], failed)
            await self._note(changes[-1].seq)
        if changes:
            self._after = changes[-1].seq
        return bool(changes)

    async def _forget(self, gone: Sequence[str]) -> None:
        copies, token = self._region.copies, self._token
        for path in gone if self._copied else ():
            await self._region.in_thread(partial(copies.forget, self._volume, path, token=token))

    async def _try_again(self, seq: int) -> None:
        """Try what was passed by; all up to ``seq`` is settled if it comes."""
        region, paths = self._region, self._passed_by.due()
        if not paths:
            return
        existing = await region.in_thread(partial(region.files.existing, self._volume))
        found = await region.in_thread(lambda: [existing.stat(path) for path in paths])
        failed = await self._bring([file for file in found if file is not None])
        self._passed_by.take(paths, failed)
        await self._note(seq)

    async def _note(self, seq: int) -> None:
        if self._passed_by:
            return
        settle = partial(self._region.copies.settle, self._volume, rules=self._rules, seq=seq)
        await self._region.in_thread(partial(settle, token=self._token))

    async def _bring(self, files: Sequence[CatalogFile]) -> dict[str, PenstockError]:
        """Copy and warm what the rules cover; return what failed by itself, by path."""
        failed = await self._copy(files)
        return failed | await self._warm([file for file in files if file.path not in failed])

    async def _warm(self, files: Sequence[CatalogFile]) -> dict[str, PenstockError]:
        wanted = [file for file in files if self._warmed and self._warmed.covers(file.path)]
        if not wanted:
            return {}
        failed = await self._region.warmer.warm(self._volume, wanted)
        self._region.counters.warmed_files += len(wanted) - len(failed)
        return failed

    async def _copy(self, files: Sequence[CatalogFile]) -> dict[str, PenstockError]:
        wanted = [file for file in files if self._copied and self._copied.covers(file.path)]
        if not wanted:
            return {}
        existing = await self._region.in_thread(partial(self._region.files.existing, self._volume))
        # All of them, whatever becomes of some: what was copied need not be copied again.
        ends = await asyncio.gather(
            *(self._copy_file(file, existing) for file in wanted), return_exceptions=True
        )
        failed: dict[str, PenstockError] = {}
        for file, end in zip(wanted, ends, strict=True):
            if isinstance(end, BaseException):
                raise end
            if end is not None:
                failed[file.path] = end.error
        return failed

    async def _copy_file(self, file: CatalogFile, existing: VolumeFiles) -> "_Failed | None":
        async with self._slots:
            region = self._region
            now = await region.in_thread(partial(existing.stat, file.path))
            if now is None or now.version != file.version:
                return None  # A later entry tells of it.
            origin = await region.places.origin(self._volume)
            try:
                await self._copy_within(origin, file)
            except (ObjectChanged, ObjectNotFound) as error:
                _log.info("a file has moved on, and is not copied", error=str(error))
            except PenstockError as error:
                if not is_of_one_file(error):
                    raise
                return _Failed(error)
            return None

    async def _copy_within(self, origin: CataloguedOrigin, file: CatalogFile) -> None:
        region = self._region
        nearer = origin.nearer_than(file.source_url)
        if not nearer:
            return  # Its source is the region's own store.
        place, target = nearer[0]
        made = await region.in_thread(partial(region.copies.find, self._volume, file.path))
        if made and made.version == file.version and made.url.startswith(place.url):
            return
        _, source, within = origin.place_of(file.source_url)
        copier = FileCopier(file, source=source, within=within, target=target, pace=self._pace)
        version = await copier.run()
        url = place.url + file.path
        copy = CopiedFile(file.path, file.version, file.size, url, version)
        note = partial(region.copies.note, self._volume, copy, token=self._token)
        await region.in_thread(note)
        region.nearby.forget(self._volume, file)
        region.counters.copied_files += 1
        region.counters.copied_bytes += file.size


@dataclass(frozen=True, slots=True)
class _Failed:
    """How a file failed by itself: no error of the gathering."""

    error: PenstockError

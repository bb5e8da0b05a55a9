"""Importing: having the catalog agree with what an origin lists.

Responsible for: listing in parallel, what of a page is meant and may be catalogued, versions that
the listing does not tell, and that nothing is removed that the origin has.
Not responsible for: what has to be written (`files`), orders of listings (`key_order`), how a
listing is shared (`listing_parts`).

A file is removed where a page does not show it, and the origin, asked for that very file, has
none; where the origin has nothing at all, no file is. A page alone would not do: the file may have
been written since it was listed, and a store may list in another order than was thought. That
order is found out on the way: it is taken for that of bytes until a page, or a file that is there
though it was not shown, says otherwise; then all is listed once more, as a tree. What was written
meanwhile was right.

It can be killed at any moment and run again, and two may run at once: pages are settled by
comparing, and remember nothing.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from penstock.catalog_file import CatalogFile
from penstock.errors import InvalidRequest, NotPermitted, ObjectNotFound, PenstockError, Uncacheable
from penstock.origin_options import KIND_OF_SCHEME
from penstock.origin_urls import check_path
from penstock_node.catalog.files import VolumeFiles
from penstock_node.catalog.import_report import ImportReport
from penstock_node.catalog.key_order import BYTES, TREE, Order, behind, disputed
from penstock_node.catalog.listing_parts import Part, found_by_probe, rests
from penstock_node.catalog.records import Difference, Span
from penstock_node.catalog.refusals import are_plain, refusal
from penstock_node.catalog.selection import Selection
from penstock_node.origin import ListedObject, ListPage, Origin, OriginMeta
from penstock_node.tasks import in_thread_to_its_end, leaves_of

T = TypeVar("T")
U = TypeVar("U")

WORKERS = 8
"""Pages at once: so many are in memory."""
PARTS_MAX = 64
"""Of a listing, that wait to be listed."""
HEADS_MAX = 32
"""Questions for single files at once."""
WRITES_MAX = 3
"""How often a page is written in which others write meanwhile; what they wrote last stays."""
FEW = 8
"""Files of one directory that are asked for one by one, before the directory is."""


class _OtherOrder(Exception):
    """The origin lists in another order than was thought."""


@dataclass
class Import:
    """One import; see the module. It runs once, on an event loop."""

    files: VolumeFiles
    """Of the catalogued volume."""
    origin: Origin
    url: str
    """The origin's, with a slash at its end."""
    prefix: str
    """What is imported of the origin: whole segments, or empty for all."""
    to: str
    """Where that comes to lie in the catalogued volume: whole segments, or empty."""
    threads: Executor
    """For the database, whose calls block."""
    selection: Selection = field(default_factory=Selection)
    """What else there is, is left alone, at the origin and in the catalog."""
    prunes: bool = False
    """Whether what the origin has no more is removed."""
    is_dry: bool = False
    """Whether it only counts what it would do."""
    workers: int = WORKERS
    progress: ImportReport = field(default_factory=ImportReport, init=False)
    """Live."""

    def __post_init__(self) -> None:
        """Check what is to be imported.

        Raises:
            InvalidRequest: ``prefix`` or ``to`` is no path.
        """
        assert self.url.endswith("/"), f"{self.url} is no volume's url"
        for path in filter(None, (self.prefix, self.to)):
            check_path(path)
        self._top = f"{self.prefix}/" if self.prefix else ""
        self._base = f"{self.to}/" if self.to else ""
        self._kind = KIND_OF_SCHEME.get(self.url.partition("://")[0], "http")
        self._order: Order = BYTES
        self._slots = asyncio.Semaphore(self.workers)
        self._heads = asyncio.Semaphore(HEADS_MAX)
        self._waiting = 0
        self._since = 0

    async def run(self) -> ImportReport:
        """Import, and return what was done; `progress` tells it meanwhile.

        What was done stays when it fails or is cancelled.

        Raises:
            InvalidRequest: The origin cannot be listed, or not in an order that can be compared.
            PenstockError: What the origin or the database raised.
        """
        self._since = await self._in_thread(self.files.newest)
        try:
            await self._list_all()
        except _OtherOrder:
            self._order = TREE
            self.progress.list_again(has_written=not self.is_dry)
            await self._list_all()
        return self.progress

    async def _list_all(self) -> None:
        self._waiting = 0
        try:
            async with asyncio.TaskGroup() as group:
                self._begin(group, Part(self.prefix, None, None))
        except BaseExceptionGroup as errors:
            raise _first_of(errors) from None

    def _begin(self, group: asyncio.TaskGroup, part: Part) -> None:
        self._waiting += 1
        group.create_task(self._take(group, part), name=f"import {part.directory!r}")

    async def _take(self, group: asyncio.TaskGroup, part: Part) -> None:
        """List a page, leave the rest of the part to others, and settle the page."""
        async with self._slots:
            self._waiting -= 1
            page = await self.origin.list(part.directory, after=part.after, limit=part.limit)
            if part.probes and (page.objects or page.next_after):
                for rest in found_by_probe(part, page):
                    self._begin(group, rest)
                return
            self._refuse_no_paths(part, page)
            if not page.objects and not page.next_after and part.begins is None:
                return  # Nothing at all: rather a disk that is not mounted than files to remove.
            if page.next_after:
                self._check_goes_on(part, page)
                for rest in rests(part, page, splits=self._waiting < PARTS_MAX):
                    self._begin(group, rest)
                await asyncio.sleep(0)  # They ask the origin before this page is looked at.
            objects = [found for found in page.objects if found.path not in part.listed]
            await self._settle(part.begins, page.next_after or part.ends, objects)

    def _check_goes_on(self, part: Part, page: ListPage) -> None:
        if page.next_after in (part.begins, part.after):
            raise InvalidRequest(
                f"{self.url}{part.directory}: its listing does not go on behind "
                f"{page.next_after!r}; import other directories than this one"
            )

    def _refuse_no_paths(self, part: Part, page: ListPage) -> None:
        for key in page.no_paths:
            if key not in part.listed:
                self.progress.listed += 1
                self.progress.refuse(key, refusal(key))

    # A page.

    async def _settle(
        self, begins: str | None, ends: str | None, objects: Sequence[ListedObject]
    ) -> None:
        self._check_order(begins, ends, objects)
        seen = await self._described(self._meant(objects))
        left: Sequence[CatalogFile] = seen
        for span in self._spans(begins, ends, objects):
            inside, left = span.parted(left)
            await self._settle_span(span, inside, begins, ends)
        if left:
            await self._write(await self._in_thread(partial(self.files.compare_each, left)))
        self.progress.settled += len(seen)
        self.progress.bytes += sum(file.size for file in seen)

    def _spans(
        self, begins: str | None, ends: str | None, objects: Sequence[ListedObject]
    ) -> list[Span]:
        """Return which of the catalog's paths a page is compared with."""
        if not self.prunes:
            # Only those that it shows matter: mostly they follow each other in the catalog too.
            paths = [found.path for found in objects]
            if not paths or not BYTES.is_kept(paths, begins, ends):
                return []
            ends = paths[-1]
        top, base = len(self._top), self._base
        begins, ends = begins and _bound(begins[top:]), ends and _bound(ends[top:])
        spans = self._order.spans(begins, ends)
        return [
            Span(span.after and base + span.after, span.last and base + span.last) for span in spans
        ]

    def _check_order(
        self, begins: str | None, ends: str | None, objects: Sequence[ListedObject]
    ) -> None:
        """Notice an order that says less of what is between two paths than was thought."""
        # Only what is not shown, and so removed, depends on it. Markers of directories lie
        # elsewhere than their names say; they have no bytes.
        paths = [found.path for found in objects if found.size] if self.prunes else []
        if self._order.is_kept(paths, begins, ends):
            return
        if self._order is BYTES and TREE.is_kept(paths, begins, ends):
            raise _OtherOrder
        raise InvalidRequest(
            f"{self.url} lists its files in no known order, so that what it has no more cannot be "
            f"told (about {paths[0]!r}); import without pruning"
        )

    def _meant(self, objects: Sequence[ListedObject]) -> Sequence[ListedObject]:
        """Return what is meant, and can be catalogued."""
        self.progress.listed += len(objects)
        base, top = self._base, self._top
        if not are_plain([listed.path for listed in objects], within=base):
            objects = [listed for listed in objects if not self._refuses(listed.path)]
        if self.selection.covers_all:
            return objects
        return [each for each in objects if self.selection.covers(each.path.removeprefix(top))]

    def _refuses(self, path: str) -> bool:
        base = self._base
        reason = refusal(path) or (base and refusal(base + path.removeprefix(self._top)))
        if reason:
            self.progress.refuse(path, reason)
        return bool(reason)

    async def _described(self, objects: Sequence[ListedObject]) -> list[CatalogFile]:
        """Return what the catalog is to have, each path once."""
        tells, as_file = self._tells_version, self._as_file
        told = [as_file(each.path, each) for each in objects if tells(each)]
        if len(told) < len(objects):
            asks = [each for each in objects if not tells(each)]
            told += [each for each in await self._each(self._ask, asks) if each is not None]
        by_path = {file.path: file for file in told}
        return told if len(by_path) == len(told) else list(by_path.values())

    async def _ask(self, listed: ListedObject) -> CatalogFile | None:
        """Return a file of which the listing says too little; None: it is gone, or refused."""
        try:
            return self._as_file(listed.path, await self.origin.head(listed.path))
        except ObjectNotFound:
            return None
        except (Uncacheable, NotPermitted) as error:
            self.progress.refuse(listed.path, str(error))
            return None

    def _as_file(self, path: str, told: OriginMeta | ListedObject) -> CatalogFile:
        catalogued, version = self._base + path.removeprefix(self._top), told.version
        return CatalogFile(
            catalogued, version, told.size, told.modified_us, self.url + path, version
        )

    def _tells_version(self, listed: ListedObject) -> bool:
        """Whether the listing tells what asking for the object would."""
        if self._kind == "s3":
            # One without bytes may be a marker "a/" that is told as "a", where "a" is there too.
            return listed.version.startswith('"') and listed.size > 0
        return self._kind in ("file", "hf") and listed.version != ""

    # A span of the catalog.

    async def _settle_span(
        self, span: Span, seen: Sequence[CatalogFile], begins: str | None, ends: str | None
    ) -> None:
        left: Span | None = span
        while left is not None:
            compare = partial(self.files.compare, self._base, left, seen)
            source = self.url + self._top
            found, left = await self._in_thread(partial(compare, prunes=self.prunes, source=source))
            doomed = [path for _, path in found.removed if self._covers(path)]
            gone = await self._gone(doomed, begins, ends) if doomed else set()
            found.removed = [(seq, path) for seq, path in found.removed if path in gone]
            await self._write(found)

    def _covers(self, path: str) -> bool:
        return self.selection.covers(path.removeprefix(self._base))

    async def _write(self, found: Difference) -> None:
        for _ in range(WRITES_MAX):
            await self._ask_of_late(found)
            if found and not self.is_dry:
                found = await self._in_thread(partial(self.files.write, found))
            self.progress.count(found)
            if not found.late:
                return
            found = Difference(late=found.late)

    async def _ask_of_late(self, found: Difference) -> None:
        """Have a look at what somebody else has noted since this began: it may be newer."""
        if not (found or found.late):
            return
        new = [file.path for file in found.new]
        look_back = partial(self.files.removed_since, self._since, new)
        removed, found.since = await self._in_thread(look_back)
        late = found.late + [file for seq, file in found.changed if seq > self._since]
        late += [file for file in found.new if file.path in removed]
        if not late:
            return
        found.late = []
        found.changed = [(seq, file) for seq, file in found.changed if seq <= self._since]
        found.new = [file for file in found.new if file.path not in removed]
        asked = [ListedObject(self._at_origin(file.path), 0, 0, "") for file in late]
        told = await self._each(self._ask, asked)
        files = [file for file in told if file is not None]
        again = await self._in_thread(partial(self.files.compare_each, files))
        found.new += again.new
        found.changed += again.changed
        found.unchanged += again.unchanged

    # What is gone.

    async def _gone(self, paths: Sequence[str], begins: str | None, ends: str | None) -> set[str]:
        """Return those of the catalog's paths that the origin does not have."""
        by_directory: dict[str, list[str]] = defaultdict(list)
        for path in paths:
            by_directory[path.rpartition("/")[0]].append(path)
        gone: set[str] = set()
        for some in by_directory.values():
            if len(some) > FEW and await self._is_empty(self._at_origin(some[0])):
                gone.update(some)
                continue
            for at in range(0, len(some), HEADS_MAX):
                few = some[at : at + HEADS_MAX]
                answers = await self._each(self._is_there, [self._at_origin(path) for path in few])
                there = {path for path, is_there in zip(few, answers, strict=True) if is_there}
                await self._check_was_to_be_shown(there, begins, ends)
                gone |= {*few} - there
        return gone

    def _at_origin(self, path: str) -> str:
        return self._top + path.removeprefix(self._base)

    async def _is_empty(self, path: str) -> bool:
        """Whether nothing lies in the directory of ``path``, so that nothing in it is asked for."""
        page = await self.origin.list(path.rpartition("/")[0], limit=1)
        return not page.objects and not page.next_after

    async def _is_there(self, path: str) -> bool:
        try:
            await self.origin.head(path)
        except ObjectNotFound:
            return False
        except NotPermitted as error:
            self.progress.refuse(path, str(error))
        except Uncacheable:
            pass
        return True

    async def _check_was_to_be_shown(
        self, there: Iterable[str], begins: str | None, ends: str | None
    ) -> None:
        """Notice from a file that a page did not show that the origin lists a tree.

        It may as well have been written since: what the origin lists behind the directory about
        which both orders disagree tells which it is.
        """
        if self._order is TREE:
            return
        paths = [self._at_origin(path) for path in there]
        for bound in filter(None, (begins, ends)):
            for directory in {disputed(path, bound) for path in paths} - {""}:
                parent = directory.rpartition("/")[0]
                page = await self.origin.list(parent, after=behind(directory), limit=1)
                if page.objects and page.objects[0].path < behind(directory):
                    raise _OtherOrder

    # Work elsewhere.

    async def _each(self, ask: Callable[[T], Awaitable[U]], items: Iterable[T]) -> list[U]:
        async def one(item: T) -> U:
            async with self._heads:
                return await ask(item)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(item)) for item in items]
        return [task.result() for task in tasks]

    async def _in_thread(self, work: Callable[[], T]) -> T:
        # What a thread still wrote when this is over might be older than what the next one writes.
        return await in_thread_to_its_end(self.threads, work)


def _bound(key: str) -> str:
    """Return a text that parts the paths as ``key`` does, and that every database takes."""
    return key.partition("\0")[0]  # No path has this character, and PostgreSQL none at all.


def _first_of(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the error that says most: others ended because of it, or say less."""
    leaves = list(leaves_of(errors))
    named = [error for error in leaves if isinstance(error, PenstockError)]
    others = [error for error in leaves if not isinstance(error, _OtherOrder)]
    return (named or others or leaves)[0]

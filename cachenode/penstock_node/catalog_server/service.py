"""The catalog's answers: `penstock.v1.Catalog`."""

import asyncio
from collections.abc import Iterable
from concurrent.futures import Executor
from typing import TypeVar

from penstock.catalog_file import CatalogChange, CatalogFile
from penstock.catalog_rpc import (
    brought_to_proto,
    change_to_proto,
    file_to_proto,
    rules_from_proto,
)
from penstock.deadline import Deadline
from penstock.errors import InvalidRequest, NotPermitted, ObjectNotFound
from penstock.origin_urls import check_path
from penstock.v1 import catalog_pb2, catalog_pb2_grpc
from penstock_node.access.grants import limited_caller
from penstock_node.catalog.files import PAGE_MAX, Files, VolumeFiles
from penstock_node.catalog.import_report import ImportReport
from penstock_node.catalog.importing import Import
from penstock_node.catalog.selection import Selection
from penstock_node.catalog_server.looking import Looking
from penstock_node.catalog_server.mirrored import Mirrored
from penstock_node.catalog_server.places import Places
from penstock_node.catalog_server.running import Imports
from penstock_node.catalog_server.watching import Watching
from penstock_node.serve.rpc import Context, answers
from penstock_node.tasks import in_thread

T = TypeVar("T")

CHANGES_MAX = 5_000
WAIT_S_MAX = 20.0
LOOK_S = 0.1
"""Between looks whether there is a new entry: another process may have written it."""
REFUSED_TOLD_MAX = 100
"""Keys that an answer names."""


class CatalogService(catalog_pb2_grpc.CatalogServicer):
    """Translates requests of nodes and operators and their answers."""

    def __init__(
        self,
        files: Files,
        *,
        places: Places,
        imports: Imports,
        looking: Looking,
        watching: Watching,
        threads: Executor,
        mirror: Mirrored | None = None,
    ) -> None:
        """Put the parts together.

        Args:
            files: Of all volumes.
            places: Where they lie.
            imports: Those that run.
            looking: Looks at files where they lie.
            watching: Has places watched.
            threads: For the database, whose calls block.
            mirror: What there is beyond that, if this catalog is another's mirror.
        """
        self._files, self._places = files, places
        self._imports, self._threads = imports, threads
        self._looking, self._watching = looking, watching
        self._mirror = mirror
        self._volumes: dict[str, VolumeFiles] = {}

    # Looking.

    @answers
    async def Stat(  # noqa: N802 - gRPC's name
        self, request: catalog_pb2.StatFileRequest, context: Context
    ) -> catalog_pb2.StatFileResponse:
        """Answer with a file as it is, or in a version that it had."""

        def look() -> CatalogFile | None:
            files = self._existing(request.volume)
            if files is None:
                return None
            found = files.stat(request.path)
            if not request.version or (found and found.version == request.version):
                return found
            return _version(files.versions(request.path), request.version)

        found = await in_thread(self._threads, look)
        if found is None:
            return catalog_pb2.StatFileResponse()
        if self._mirror is None:
            return catalog_pb2.StatFileResponse(file=file_to_proto(found))
        copies = await self._mirror.nearby.of(request.volume, found)
        return catalog_pb2.StatFileResponse(
            file=file_to_proto(found),
            copies=[catalog_pb2.FileCopy(url=copy.url, version=copy.version) for copy in copies],
            is_mirrored=True,
        )

    @answers
    async def List(  # noqa: N802 - gRPC's name
        self, request: catalog_pb2.ListFilesRequest, context: Context
    ) -> catalog_pb2.ListFilesResponse:
        """Answer with a page of files, or of what lies in a directory."""
        limit = _checked_limit(request.limit)
        prefix = _directory(request.prefix)

        files = await self._files_of(request.volume)

        def look() -> list[CatalogFile | str]:
            if files is None:
                return []
            find = files.directory if request.directory else files.page
            # One more tells whether there is another page.
            return [*find(prefix, after=request.after or None, limit=limit + 1)]

        found = await in_thread(self._threads, look)
        shown = found[:limit]
        return catalog_pb2.ListFilesResponse(
            files=[file_to_proto(each) for each in shown if isinstance(each, CatalogFile)],
            directories=[each for each in shown if isinstance(each, str)],
            next_after=_path_of(shown[-1]) if len(found) > limit else "",
        )

    @answers
    async def Versions(  # noqa: N802 - gRPC's name
        self, request: catalog_pb2.ListVersionsRequest, context: Context
    ) -> catalog_pb2.ListVersionsResponse:
        """Answer with what became of a path."""
        limit = _checked_limit(request.limit)
        files = await self._files_of(request.volume)
        if files is None:
            return catalog_pb2.ListVersionsResponse()
        changes = await in_thread(self._threads, lambda: files.versions(request.path, limit=limit))
        return catalog_pb2.ListVersionsResponse(changes=map(change_to_proto, changes))

    @answers
    async def Usage(  # noqa: N802 - gRPC's name
        self, request: catalog_pb2.UsageRequest, context: Context
    ) -> catalog_pb2.UsageResponse:
        """Answer with how much lies below a prefix."""
        prefix = _directory(request.prefix)
        files = await self._files_of(request.volume)
        if files is None:
            return catalog_pb2.UsageResponse()
        usage = await in_thread(self._threads, lambda: files.usage(prefix))
        return catalog_pb2.UsageResponse(files=usage.files, bytes=usage.bytes)

    @answers
    async def Look(  # noqa: N802 - gRPC's name
        self, request: catalog_pb2.LookRequest, context: Context
    ) -> catalog_pb2.LookResponse:
        """Ask a file's source what it has now, note that, and answer with it."""
        url = request.source_url
        if self._mirror is not None:
            if url:
                self._refuse_writing()
            return await self._mirror.following.look(request.volume, request.path)
        if url:
            check_path(request.path)
        else:
            known = await in_thread(self._threads, lambda: self._known(request))
            if known is None:
                return catalog_pb2.LookResponse()
            url = known.source_url
        now = (await self._looking.look(request.volume, request.path, url)).file
        return catalog_pb2.LookResponse(file=file_to_proto(now) if now else None)

    # Mirrors.

    @answers
    async def Changes(  # noqa: N802 - gRPC's name
        self, request: catalog_pb2.ListChangesRequest, context: Context
    ) -> catalog_pb2.ListChangesResponse:
        """Answer with entries of the feed, as soon as there are any."""
        limit, wait_s = request.limit, request.wait_ms / 1000
        if not 1 <= limit <= CHANGES_MAX or wait_s > WAIT_S_MAX:
            raise InvalidRequest(
                f"limit={limit}, wait_ms={request.wait_ms}: want 1 to {CHANGES_MAX}, and at most "
                f"{WAIT_S_MAX * 1000:.0f}"
            )
        deadline = Deadline.after(wait_s)
        while True:
            newest = await in_thread(self._threads, self._files.newest)
            if newest > request.after or deadline.remaining_s <= 0:
                break
            await asyncio.sleep(min(LOOK_S, deadline.remaining_s))
        changes = await in_thread(
            self._threads, lambda: self._files.changes(request.after, limit=limit)
        )
        newest = max(newest, changes[-1].seq if changes else 0)
        return catalog_pb2.ListChangesResponse(changes=map(change_to_proto, changes), newest=newest)

    @answers
    async def Describe(  # noqa: N802 - gRPC's name
        self, request: catalog_pb2.DescribeCatalogRequest, context: Context
    ) -> catalog_pb2.DescribeCatalogResponse:
        """Answer with how far this catalog is, and whose mirror it is."""
        seq = await in_thread(self._threads, self._files.newest)
        names = await in_thread(self._threads, self._files.volume_names)
        caller = limited_caller()
        names = [name for name in names if caller is None or caller.sees(name)]
        if self._mirror is None:
            return catalog_pb2.DescribeCatalogResponse(seq=seq, source_seq=seq, volumes=names)
        following = self._mirror.following
        return catalog_pb2.DescribeCatalogResponse(
            mirror_of=following.source,
            seq=seq,
            source_seq=following.source_seq,
            lag_s=following.lag_s,
            trouble=following.trouble,
            volumes=names,
            brought=[
                brought_to_proto(each)
                for each in await self._mirror.brought()
                if caller is None or caller.sees(each.name)
            ],
        )

    @answers
    async def SetMirrorRules(  # noqa: N802 - gRPC's name
        self, request: catalog_pb2.SetMirrorRulesRequest, context: Context
    ) -> catalog_pb2.SetMirrorRulesResponse:
        """Have some data of a volume brought into this mirror's region."""
        if self._mirror is None:
            raise InvalidRequest(
                "this catalog is no mirror: its files' bytes are in its own region already"
            )
        await self._mirror.set_rules(request.volume, rules_from_proto(request.rules))
        return catalog_pb2.SetMirrorRulesResponse()

    def _refuse_writing(self) -> None:
        if self._mirror is not None:
            source = self._mirror.following.source
            raise NotPermitted(
                f"this catalog mirrors the one at {source}: import and put there, and it comes "
                "here by itself"
            )

    # Importing.

    @answers
    async def StartImport(  # noqa: N802 - gRPC's name
        self, request: catalog_pb2.StartImportRequest, context: Context
    ) -> catalog_pb2.StartImportResponse:
        """Begin to import a place."""
        self._refuse_writing()
        url = request.url.rstrip("/") + "/"
        place, origin, path = await self._places.locate(request.volume, url)
        if place.kind == "http":
            raise NotPermitted(f"{place.url}: http servers cannot be listed, and so not imported")
        work = Import(
            files=await in_thread(self._threads, lambda: self._files.volume(request.volume)),
            origin=origin,
            url=place.url,
            prefix=path.strip("/"),
            to=request.to.strip("/"),
            threads=self._threads,
            selection=Selection(tuple(request.include), tuple(request.exclude)),
            prunes=request.prune,
            is_dry=request.dry_run,
        )
        return catalog_pb2.StartImportResponse(name=self._imports.start(work))

    @answers
    async def FollowImport(  # noqa: N802 - gRPC's name
        self, request: catalog_pb2.FollowImportRequest, context: Context
    ) -> catalog_pb2.FollowImportResponse:
        """Answer with how far an import is."""
        report, is_done = await self._imports.follow(request.name)
        answer = _report(report)
        if is_done:
            answer.is_done = True
            answer.seq = await in_thread(self._threads, self._files.newest)
        return answer

    @answers
    async def StopImport(  # noqa: N802 - gRPC's name
        self, request: catalog_pb2.StopImportRequest, context: Context
    ) -> catalog_pb2.StopImportResponse:
        """End an import."""
        await self._imports.stop(request.name)
        return catalog_pb2.StopImportResponse()

    @answers
    async def Watch(  # noqa: N802 - gRPC's name
        self, request: catalog_pb2.WatchRequest, context: Context
    ) -> catalog_pb2.WatchResponse:
        """Have a place watched, or watched no more."""
        self._refuse_writing()
        if request.end:
            await self._watching.end(request.volume, request.url, to=request.to)
        else:
            selection = Selection(tuple(request.include), tuple(request.exclude))
            await self._watching.begin(
                request.volume, request.url, to=request.to, selection=selection
            )
        return catalog_pb2.WatchResponse(events_url=self._watching.events_url)

    # Helpers.

    def _known(self, request: catalog_pb2.LookRequest) -> CatalogFile | None:
        files = self._existing(request.volume)
        return files.stat(request.path) if files else None

    async def _files_of(self, volume: str) -> VolumeFiles | None:
        """Return a volume's files; None while nothing was ever imported into it.

        Raises:
            InvalidRequest: There is no such volume.
        """
        files = await in_thread(self._threads, lambda: self._existing(volume))
        if files is None:
            await self._places.check(volume)
        return files

    def _existing(self, volume: str) -> VolumeFiles | None:
        """Return a volume's files; None while nothing was ever imported into it."""
        if volume not in self._volumes:
            try:
                self._volumes[volume] = self._files.existing(volume)
            except ObjectNotFound:
                return None
        return self._volumes[volume]


def _checked_limit(limit: int) -> int:
    if not 1 <= limit <= PAGE_MAX:
        raise InvalidRequest(f"limit={limit}: want 1 to {PAGE_MAX}")
    return limit


def _directory(prefix: str) -> str:
    """Return what all paths below a prefix of whole segments begin with."""
    path = prefix.strip("/")
    if path:
        check_path(path)
    return f"{path}/" if path else ""


def _path_of(shown: CatalogFile | str) -> str:
    return shown.path if isinstance(shown, CatalogFile) else shown


def _version(changes: Iterable[CatalogChange], version: str) -> CatalogFile | None:
    found = (each.file for each in changes if not each.is_removed)
    return next((file for file in found if file.version == version), None)


def _report(report: ImportReport) -> catalog_pb2.FollowImportResponse:
    return catalog_pb2.FollowImportResponse(
        listed=report.listed,
        added=report.added,
        changed=report.changed,
        removed=report.removed,
        unchanged=report.unchanged,
        refused=report.refused_count,
        refused_keys=[
            catalog_pb2.RefusedKey(key=key, reason=reason)
            for key, reason in report.refused[:REFUSED_TOLD_MAX]
        ],
    )

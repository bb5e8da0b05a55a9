"""What a node asks the catalog, wherever that answers at the moment.

Responsible for: finding the catalog, deadlines, one error whatever keeps it from answering.
Not responsible for: remembering answers: those who ask know for how long they hold.
"""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from functools import partial
from typing import TypeAlias

from penstock.catalog_file import CatalogFile, FileCopy, LocatedFile
from penstock.catalog_rpc import (
    DESCRIBE,
    LIST_FILES,
    LOOK,
    STAT_FILE,
    call_catalog,
    file_from_proto,
    located_from_proto,
)
from penstock.errors import CatalogUnavailable, NotPermitted, PenstockError
from penstock.object_info import OpenedObject
from penstock.rpc import Channels, Method, Request, Response
from penstock.v1 import catalog_pb2
from penstock.volumes import penstock_url
from penstock.wire import microseconds
from penstock_node.durations import Durations, Tally

Opened: TypeAlias = Callable[[str], Awaitable[OpenedObject | None]]

TIMEOUT_S = 10.0
CALL_BUCKETS_S = (0.002, 0.01, 0.05, 0.2, 1, 5, 15)
LOOK_TIMEOUT_S = 15.0
"""The catalog asks the origin meanwhile."""


class CatalogLookups:
    """Asks the catalog of this node's cluster. On the event loop.

    All calls raise `CatalogUnavailable` when there is no answer.
    """

    def __init__(
        self, channels: Channels, *, address: Callable[[], str], threads: Executor
    ) -> None:
        """Ask nothing yet.

        Args:
            channels: To wherever the catalog is.
            address: Tells that: ``host:port``, or nothing while none is registered.
            threads: For calls, which wait far more than they work.
        """
        self._channels, self._address, self._threads = channels, address, threads
        self._opened: Opened | None = None
        self.durations: dict[str, Durations] = {}
        """Of calls, by method, however they end."""
        self.failures = Tally(CatalogUnavailable.__name__)
        """By the name of the error."""

    def ask_also(self, opened: Opened) -> None:
        """Have ``opened`` say, while the catalog is away, what the cluster has open of a url."""
        self._opened = opened

    async def stat(self, volume: str, path: str, *, version: str = "") -> LocatedFile | None:
        """Return a file as it is, or in a version that it had; None: there is none."""
        request = catalog_pb2.StatFileRequest(volume=volume, path=path, version=version)
        try:
            answer = await self._call(STAT_FILE, request, timeout_s=TIMEOUT_S)
        except CatalogUnavailable:
            # Who opened it, at another node perhaps, knows where it lies.
            known = await self._known(volume, path) if version else None
            if known is None or known.file.version != version:
                raise
            return known
        return located_from_proto(answer)

    async def _known(self, volume: str, path: str) -> LocatedFile | None:
        opened = await self._opened(penstock_url(volume, path)) if self._opened else None
        if opened is None or not opened.sources:
            return None
        identity, (*copies, source) = opened.id, opened.sources
        modified_us = microseconds(opened.modified)
        file = CatalogFile(
            path, identity.version, identity.size, modified_us, source.url, source.version
        )
        return LocatedFile(file, tuple(FileCopy(copy.url, copy.version) for copy in copies))

    async def page(
        self, volume: str, prefix: str, *, after: str, limit: int
    ) -> tuple[list[CatalogFile], str]:
        """Return files below a prefix behind ``after``, and behind which the next ones are.

        That is empty on the last page.
        """
        request = catalog_pb2.ListFilesRequest(
            volume=volume, prefix=prefix, after=after, limit=limit
        )
        answer = await self._call(LIST_FILES, request, timeout_s=TIMEOUT_S)
        return [file_from_proto(file) for file in answer.files], answer.next_after

    async def check_writable(self) -> None:
        """Refuse a mirror: what is written there its source would not know.

        Raises:
            NotPermitted: The catalog is one.
        """
        told = await self._call(DESCRIBE, catalog_pb2.DescribeCatalogRequest(), timeout_s=TIMEOUT_S)
        if told.mirror_of:
            raise NotPermitted(
                f"this region's catalog mirrors the one at {told.mirror_of}: put it there, and it "
                "comes here by itself"
            )

    async def look(self, volume: str, path: str, *, source_url: str = "") -> CatalogFile | None:
        """Have the catalog ask a file's source, and return what it notes; None: there is nothing.

        Args:
            volume: Its name.
            path: Of the file.
            source_url: Where its bytes are now; empty: where they were.
        """
        request = catalog_pb2.LookRequest(volume=volume, path=path, source_url=source_url)
        answer = await self._call(LOOK, request, timeout_s=LOOK_TIMEOUT_S)
        return file_from_proto(answer.file) if answer.HasField("file") else None

    async def _call(
        self, method: Method[Request, Response], request: Request, *, timeout_s: float
    ) -> Response:
        name = method.path.rpartition("/")[2]
        durations = self.durations.setdefault(name, Durations(CALL_BUCKETS_S))
        call = partial(call_catalog, self._channels, self._address(), method, request)
        try:
            with durations.timing():
                return await asyncio.get_running_loop().run_in_executor(
                    self._threads, partial(call, timeout_s=timeout_s)
                )
        except PenstockError as error:
            self.failures.add(error.name)
            raise

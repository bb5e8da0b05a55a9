"""Opening, listing and portable reading: `penstock.v1.Cache`."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from typing import TypeVar

from penstock import wire
from penstock.cache import Cache
from penstock.errors import InvalidRequest, ObjectChanged, PenstockError
from penstock.object_file import ObjectFile
from penstock.objects import check_range, pieces
from penstock.v1 import cache_pb2, cache_pb2_grpc
from penstock_node.cluster import Cluster
from penstock_node.listing import Listings
from penstock_node.opening import Opener
from penstock_node.serve.rpc import Context, answers, answers_stream

T = TypeVar("T")

URLS_MAX = 1_000
FRAME_BYTES = 1024 * 1024
"""Fastest for gRPC from Python, of the sizes that were measured."""


class CacheService(cache_pb2_grpc.CacheServicer):
    """Translates requests of clients and their answers."""

    def __init__(
        self,
        *,
        cluster: Cluster,
        opener: Opener,
        listings: Listings,
        reader: Cache,
        threads: Executor,
    ) -> None:
        """Put the parts together.

        Args:
            cluster: The epoch, and tickets.
            opener: Opens objects.
            listings: Lists them.
            reader: The library, connected to this node: `Read` is one more client.
            threads: Where the library's blocking calls run.
        """
        self._cluster = cluster
        self._opener = opener
        self._listings = listings
        self._reader = reader
        self._threads = threads

    @answers
    async def Open(  # noqa: N802 - gRPC's name
        self, request: cache_pb2.OpenRequest, context: Context
    ) -> cache_pb2.OpenResponse:
        """Answer with an object or an error for each url."""
        if len(request.urls) > URLS_MAX:
            raise InvalidRequest(f"{len(request.urls)} urls in one request: at most {URLS_MAX}")
        results = await self._opener.open(
            request.urls, refresh=request.refresh, forwarded=request.forwarded
        )
        return cache_pb2.OpenResponse(
            results=[
                cache_pb2.OpenResult(error=wire.error_to_proto(result))
                if isinstance(result, PenstockError)
                else cache_pb2.OpenResult(object=wire.object_to_proto(result))
                for result in results
            ],
            epoch=self._cluster.epoch,
        )

    @answers
    async def Renew(  # noqa: N802 - gRPC's name
        self, request: cache_pb2.RenewRequest, context: Context
    ) -> cache_pb2.RenewResponse:
        """Answer with a new ticket for the same version."""
        signed = self._cluster.renew(request.ticket)
        return cache_pb2.RenewResponse(ticket=signed.text, ticket_expires_at=signed.expires_at)

    @answers
    async def List(  # noqa: N802 - gRPC's name
        self, request: cache_pb2.ListRequest, context: Context
    ) -> cache_pb2.ListResponse:
        """Answer with one page of a listing."""
        page = await self._listings.page(
            request.url, after=request.page_token, limit=request.page_size
        )
        return cache_pb2.ListResponse(
            objects=[wire.listed_to_proto(info) for info in page.objects],
            next_page_token=page.next_token,
        )

    @answers_stream
    async def Read(  # noqa: N802 - gRPC's name
        self, request: cache_pb2.ReadRequest, context: Context
    ) -> AsyncIterator[cache_pb2.ReadResponse]:
        """Answer with the object, then its bytes; a slow reader holds one chunk in memory."""
        (opened,) = await self._opener.open([request.url], refresh=False, forwarded=False)
        if isinstance(opened, PenstockError):
            raise opened
        length = request.length if request.HasField("length") else None
        wanted = check_range(opened.id.size, request.offset, length)
        yield cache_pb2.ReadResponse(object=wire.object_to_proto(opened))
        file = await self._call(lambda: self._reader.open(request.url))
        if file.info.version != opened.id.version:
            raise ObjectChanged(f"{request.url} was overwritten; read it again")
        file.seek(request.offset)
        buffer = memoryview(bytearray(min(opened.id.chunk_size, wanted)))
        for piece in pieces(opened.id.chunk_size, request.offset, wanted):
            part = buffer[: piece.length]
            await self._fill(file, part)
            for at in range(0, piece.length, FRAME_BYTES):
                yield cache_pb2.ReadResponse(data=bytes(part[at : at + FRAME_BYTES]))

    async def _fill(self, file: ObjectFile, part: memoryview) -> None:
        stop = threading.Event()
        try:
            await self._call(lambda: file.readinto(part, stop=stop))
        finally:
            stop.set()  # A reader that went away must not keep a thread.

    async def _call(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

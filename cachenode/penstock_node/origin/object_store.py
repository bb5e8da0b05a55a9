"""Objects in S3, GCS, Azure and behind HTTP servers, read with `obstore`.

Responsible for: requests, their attempts, and comparing every answer with what was asked.
Not responsible for: making the store (`stores`), naming failures (`errors`), whether and when a
request may be sent (`gate`), writing (`object_writer`).
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

import obstore
from obstore.exceptions import BaseError, InvalidPathError

from penstock.deadline import Deadline
from penstock.errors import InvalidRequest, ObjectChanged, PenstockError
from penstock.origin_urls import is_path
from penstock.volumes import Volume
from penstock_node.origin.attempts import attempts
from penstock_node.origin.errors import (
    ShortBody,
    first_line,
    is_answer,
    is_transient,
    kind_of,
    panics_as_errors,
    reason_of,
    translate,
)
from penstock_node.origin.gate import Gate
from penstock_node.origin.interface import (
    LIST_PAGE_MAX,
    Buffer,
    ListedObject,
    ListPage,
    Operation,
    OriginCounters,
    OriginLimits,
    OriginMeta,
    describe,
    is_strong,
    microseconds,
    version_of,
)
from penstock_node.origin.markers import without_markers
from penstock_node.origin.object_writer import ObjectWriter
from penstock_node.origin.outages import Unanswered
from penstock_node.origin.stores import Store, origin_host, store_path

if TYPE_CHECKING:  # It needs botocore, and few volumes need it.
    from penstock_node.origin.s3_keys import S3Keys

T = TypeVar("T")

_BEHIND_SLASHED = "0"
"""Behind all keys that begin with a slash."""
_FAILURES = (BaseError, OSError, ShortBody)
"""What a request raises: `obstore`'s own, ``FileNotFoundError`` and ``TimeoutError``."""


class ObjectStoreOrigin:
    """An `Origin` over one `obstore` store, on one event loop."""

    def __init__(
        self,
        volume: Volume,
        store: Store,
        *,
        open_writing_store: Callable[[], Store],
        open_keys: "Callable[[], S3Keys]",
        looks_for_slashed: bool,
        gate: Gate,
        limits: OriginLimits,
        counters: OriginCounters,
    ) -> None:
        self._volume = volume
        self._store = cast("Any", store)
        self._writer = ObjectWriter(
            volume, open_store=open_writing_store, head=self.head, gate=gate, counters=counters
        )
        self._open_keys, self._looks_for_slashed = open_keys, looks_for_slashed
        self._keys: S3Keys | None = None
        self._limits = limits
        self._counters = counters
        self._host = origin_host(volume)
        self._gate = gate

    def __repr__(self) -> str:
        return f"<ObjectStoreOrigin {self._volume.name} at {self._host}>"

    @property
    def counters(self) -> OriginCounters:
        """See `Origin`."""
        return self._counters

    async def head(self, path: str, *, deadline: Deadline | None = None) -> OriginMeta:
        """See `Origin`."""

        async def request() -> OriginMeta:
            self._counters.head_requests += 1
            return self._meta(
                path, await obstore.head_async(self._store, store_path(self._volume, path))
            )

        return await self._attempts(request, "head", path, deadline)

    async def read(
        self,
        path: str,
        version: str,
        size: int,
        start: int,
        stop: int,
        *,
        deadline: Deadline | None = None,
    ) -> Buffer:
        """See `Origin`."""
        assert 0 <= start < stop <= size, f"bytes {start} to {stop} of {size}"
        options: dict[str, Any] = {"range": (start, stop)}
        if is_strong(version):
            options["if_match"] = version

        async def request() -> Buffer:
            self._counters.get_requests += 1
            answer = await obstore.get_async(
                self._store, store_path(self._volume, path), options=cast("Any", options)
            )
            self._compare(path, answer, version=version, size=size, start=start, stop=stop)
            return await self._body(answer, stop - start)

        return await self._attempts(request, "get", path, deadline, size_bytes=stop - start)

    async def put(
        self, path: str, parts: AsyncIterator[bytes], *, size: int | None, if_absent: bool
    ) -> str:
        """See `Origin`."""
        return await self._writer.put(path, parts, size=size, if_absent=if_absent)

    async def list(
        self, prefix: str, *, after: str = "", limit: int, deadline: Deadline | None = None
    ) -> ListPage:
        """See `Origin`."""
        assert 0 < limit <= LIST_PAGE_MAX, f"a page of {limit}"
        if self._volume.kind == "http":
            raise InvalidRequest(
                f"volume {self._volume.name!r}: http servers cannot be listed; name the objects"
            )

        async def request() -> ListPage:
            self._counters.list_requests += 1
            return await self._list_page(prefix.rstrip("/"), after, limit)

        page = await self._attempts(request, "list", prefix, deadline)
        return await without_markers(page, partial(self.head, deadline=deadline))

    async def _list_page(self, prefix: str, after: str, limit: int) -> ListPage:
        if self._volume.kind != "s3":
            return await self._page_of_paths(prefix, after, limit)
        try:
            if not after or is_path(after):
                if self._looks_for_slashed and await self._has_slashed(prefix, after):
                    keys = await self._opened_keys()
                    return await keys.page(prefix, after=after, limit=limit)
                return await self._page_of_paths(prefix, after, limit)
            reason = f"{after!r} is no path"  # Behind it obstore would go on elsewhere.
        except InvalidPathError as error:
            reason = first_line(error)
        try:
            keys = await self._opened_keys()
        except InvalidRequest as error:
            what = describe(self._volume, prefix)
            raise InvalidRequest(f"{what}: {reason}: {error}") from None
        return await keys.page(prefix, after=after, limit=limit)

    async def _opened_keys(self) -> "S3Keys":
        """Return what lists keys that are no paths.

        Raises:
            InvalidRequest: It cannot be had.
        """
        if self._keys is None:
            # What it needs may have to be loaded, for a third of a second.
            opened = await asyncio.to_thread(self._open_keys)
            self._keys = self._keys or opened
        return self._keys

    async def _has_slashed(self, prefix: str, after: str) -> bool:
        """Whether keys with a slash at their beginning follow, which obstore tells without it."""
        if prefix or self._volume.prefix or after >= _BEHIND_SLASHED:
            return False
        try:
            keys = await self._opened_keys()
        except InvalidRequest:  # The volume is listed as well as it can be.
            return False
        return await keys.has_slashed()

    async def _page_of_paths(self, prefix: str, after: str, limit: int) -> ListPage:
        # One more than asked tells whether there is another page.
        stream = obstore.list(
            self._store, prefix or None, offset=after or None, chunk_size=limit + 1
        )
        found: list[ListedObject] = []
        async for chunk in stream:
            found += [self._listed(meta) for meta in chunk[: limit + 1 - len(found)]]
            if len(found) > limit:
                break
        objects = tuple(found[:limit])
        return ListPage(objects, next_after=objects[-1].path if len(found) > limit else "")

    def _listed(self, meta: Any) -> ListedObject:
        etag = meta["e_tag"] or ""
        # Listings tell times to the millisecond, answers to the second: no ``lm:`` from here.
        version = etag if is_strong(etag) else ""
        modified_us = microseconds(meta["last_modified"])
        return ListedObject(meta["path"], meta["size"], modified_us, version)

    def _meta(self, path: str, meta: Any) -> OriginMeta:
        modified_us, size = microseconds(meta["last_modified"]), meta["size"]
        version = version_of(
            etag=meta["e_tag"],
            modified_us=modified_us,
            size=size,
            url=describe(self._volume, path),
        )
        return OriginMeta(version, size, modified_us)

    def _compare(
        self, path: str, answer: Any, *, version: str, size: int, start: int, stop: int
    ) -> None:
        found = self._meta(path, answer.meta)
        if (found.version, found.size) != (version, size):
            raise ObjectChanged(
                f"{describe(self._volume, path)}: wanted version {version} of {size} bytes, the "
                f"origin has {found.version} of {found.size}; open it again"
            )
        if answer.range != (start, stop):
            raise ShortBody(f"asked for bytes {start} to {stop}, got {answer.range}")

    async def _body(self, answer: Any, length: int) -> Buffer:
        body = memoryview(await answer.buffer_async())
        if len(body) != length:
            raise ShortBody(f"the body has {len(body)} of {length} bytes")
        self._counters.bytes_read += length
        return body

    async def _attempts(
        self,
        request: Callable[[], Awaitable[T]],
        operation: Operation,
        path: str,
        deadline: Deadline | None,
        *,
        size_bytes: int = 0,
    ) -> T:
        return await attempts(
            lambda: self._attempt(request, path),
            path,
            operation=operation,
            gate=self._gate,
            limits=self._limits,
            deadline=deadline,
            size_bytes=size_bytes,
        )

    async def _attempt(self, request: Callable[[], Awaitable[T]], path: str) -> T:
        try:
            with panics_as_errors(self._volume):
                return await request()
        except _FAILURES as error:
            # Not chained: obstore's texts quote urls, whose queries may be signatures.
            translated = self._translate(error, path)
            if is_transient(error):
                reason, of_object = reason_of(error), is_answer(error)
                kind = kind_of(error)
                raise Unanswered(translated, reason, of_object=of_object, kind=kind) from None
            raise translated from None

    def _translate(self, error: Exception, path: str) -> PenstockError:
        return translate(error, volume=self._volume, path=path, host=self._host)

    def close(self) -> None:
        """See `Origin`. Connections of `obstore` close by themselves when idle."""
        if self._keys is not None:
            self._keys.close()

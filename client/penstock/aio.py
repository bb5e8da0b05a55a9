"""The cache for asyncio programs: the same calls, awaited.

A thin shell: every call runs the blocking one in a thread of this cache's own pool. A call
that is cancelled stops its read, and returns only when nothing writes into the caller's
buffer any more.
"""

import asyncio
import io
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from penstock.cache import Cache, Tls
from penstock.cache import connect as connect_blocking
from penstock.host_view import Verify
from penstock.object_file import ObjectFile
from penstock.object_info import ObjectInfo, ObjectLocation

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

CALLS_MAX = 64
"""Calls of one cache that run at once; more wait their turn."""

T = TypeVar("T")


async def _in_pool(
    pool: ThreadPoolExecutor, call: Callable[[], T], stop: threading.Event | None = None
) -> T:
    future = asyncio.get_running_loop().run_in_executor(pool, call)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        if stop is not None:
            stop.set()
            # The buffer is the caller's again only when the thread has let go of it.
            await asyncio.wait([future])
            future.exception()
        raise


class AsyncObjectFile:
    """One opened version of an object; the asyncio twin of `ObjectFile`."""

    def __init__(self, file: ObjectFile, pool: ThreadPoolExecutor) -> None:
        self._file = file
        self._pool = pool

    async def readinto(self, buffer: "WriteableBuffer") -> int:
        """Fill ``buffer`` from the position; less only at the end. Returns the bytes read."""
        stop = threading.Event()
        return await _in_pool(self._pool, lambda: self._file.readinto(buffer, stop=stop), stop)

    async def read(self, size: int = -1) -> bytes:
        """Return up to ``size`` bytes from the position; all that is left by default."""
        stop = threading.Event()
        return await _in_pool(self._pool, lambda: self._file.read_bytes(size, stop=stop), stop)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move the position; see `ObjectFile.seek`."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the position, in bytes from the start."""
        return self._file.tell()

    async def close(self) -> None:
        """Close the file; reading it afterwards is an error."""
        self._file.close()


class AsyncCache:
    """The asyncio twin of `penstock.Cache`; see there for what each call promises."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._pool = ThreadPoolExecutor(CALLS_MAX, thread_name_prefix="penstock-aio")

    def __repr__(self) -> str:
        return f"<Async{repr(self._cache)[1:]}"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close connections and stop threads."""
        await self._run(self._cache.close)
        self._pool.shutdown(wait=False)

    async def _run(self, call: Callable[[], T], *, stop: threading.Event | None = None) -> T:
        return await _in_pool(self._pool, call, stop)

    async def stat(self, url: str, *, refresh: bool = False) -> ObjectInfo:
        """See `Cache.stat`."""
        return await self._run(lambda: self._cache.stat(url, refresh=refresh))

    async def read(
        self, url: str, offset: int = 0, length: int | None = None, *, refresh: bool = False
    ) -> bytes:
        """See `Cache.read`."""
        stop = threading.Event()
        return await self._run(
            lambda: self._cache.read(url, offset, length, refresh=refresh, stop=stop), stop=stop
        )

    async def read_into(self, url: str, buffer: "WriteableBuffer", offset: int = 0) -> int:
        """See `Cache.read_into`."""
        stop = threading.Event()
        return await self._run(
            lambda: self._cache.read_into(url, buffer, offset, stop=stop), stop=stop
        )

    async def view(
        self, url: str, verify: Verify = "node", *, copy_on_write: bool = False
    ) -> memoryview:
        """See `Cache.view`."""
        stop = threading.Event()
        return await self._run(
            lambda: self._cache.view(url, verify, copy_on_write=copy_on_write, stop=stop), stop=stop
        )

    async def open(self, url: str, *, refresh: bool = False) -> AsyncObjectFile:
        """See `Cache.open`."""
        file = await self._run(lambda: self._cache.open(url, refresh=refresh))
        return AsyncObjectFile(file, self._pool)

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """See `Cache.list`."""
        pages = self._cache.list_pages(prefix)
        while (page := await self._run(lambda: next(pages, None))) is not None:
            for info in page:
                yield info

    async def locate(self, url: str, *, refresh: bool = False) -> ObjectLocation:
        """See `Cache.locate`."""
        return await self._run(lambda: self._cache.locate(url, refresh=refresh))

    def stats(self) -> dict[str, dict[str, int]]:
        """See `Cache.stats`."""
        return self._cache.stats()


async def connect(
    address: str | None = None,
    *,
    plane: str = "auto",
    fallback: str = "error",
    token: str | None = None,
    tls: Tls | None = None,
) -> AsyncCache:
    """Connect to a cluster; the arguments are those of `penstock.connect`.

    Use it as ``async with await penstock.aio.connect() as cache``.
    """
    cache = await asyncio.to_thread(
        connect_blocking, address, plane=plane, fallback=fallback, token=token, tls=tls
    )
    return AsyncCache(cache)

"""The cache for asyncio programs: the same calls, awaited.

A thin shell: every call runs the blocking one in a thread of this cache's own pool, some
of them at once. A call that is cancelled stops its read, and returns only when nothing writes into
the caller's buffer any more; one that has not begun never does. Cancelled questions without a
payload return at once, and their threads when the answer comes or its deadline has passed.
"""

import asyncio
import contextlib
import io
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar, Unpack

from penstock.cache import Cache
from penstock.cache import connect as connect_blocking
from penstock.call_threads import CallThreads, in_thread
from penstock.counters import Stats
from penstock.errors import PenstockError
from penstock.host_view import Verify
from penstock.listing import DirectoryEntry
from penstock.membership.view import View
from penstock.object_file import ObjectFile
from penstock.object_info import ObjectInfo, ObjectLocation
from penstock.put import PART_BYTES
from penstock.ranges import ByteRange
from penstock.tls import Tls
from penstock.trace_calls import ReadTrace, SlowReads
from penstock.warmup import Target, WarmupProgress, WarmupReport

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    from penstock.put_source import Source
    from penstock.snapshot_calls import SnapshotOptions
    from penstock.snapshots.tally import SnapshotReport

T = TypeVar("T")


class AsyncObjectFile:
    """One opened version of an object; the asyncio twin of `ObjectFile`.

    It is asked for one thing at a time, as any file with a position is.
    """

    def __init__(self, file: ObjectFile, threads: CallThreads) -> None:
        self._file = file
        self._threads = threads

    def __repr__(self) -> str:
        return f"<AsyncObjectFile {self.name!r}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """Return the next line."""
        line = await self.readline()
        if not line:
            raise StopAsyncIteration
        return line

    @property
    def info(self) -> ObjectInfo:
        """What was opened."""
        return self._file.info

    @property
    def name(self) -> str:
        """The object's url."""
        return self._file.name

    @property
    def size(self) -> int:
        """In bytes."""
        return self._file.size

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._file.closed

    async def readinto(self, buffer: "WriteableBuffer") -> int:
        """Fill ``buffer`` from the position; less only at the end. Returns the bytes read."""
        stop = threading.Event()
        return await in_thread(self._threads, lambda: self._file.readinto(buffer, stop=stop), stop)

    async def read_into_at(self, buffer: memoryview, offset: int) -> None:
        """See `ObjectFile.read_into_at`: several may be awaited at once."""
        stop = threading.Event()
        await in_thread(
            self._threads, lambda: self._file.read_into_at(buffer, offset, stop=stop), stop
        )

    async def read(self, size: int | None = -1) -> bytes:
        """Return up to ``size`` bytes from the position; all that is left by default."""
        stop = threading.Event()
        return await in_thread(self._threads, lambda: self._file.read(size, stop=stop), stop)

    async def read_buffer(self, size: int | None = -1) -> bytes | memoryview:
        """As `read`, without a copy where there need be none: see `ObjectFile.read_buffer`."""
        stop = threading.Event()
        return await in_thread(self._threads, lambda: self._file.read_buffer(size, stop=stop), stop)

    async def readline(self, size: int | None = -1) -> bytes:
        """Return the line at the position, with its end; at most ``size`` bytes of it."""
        stop = threading.Event()
        return await in_thread(self._threads, lambda: self._file.readline(size, stop=stop), stop)

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
        self._threads = CallThreads()

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
        self._threads.close()

    async def _run(self, call: Callable[[], T], *, stop: threading.Event | None = None) -> T:
        return await in_thread(self._threads, call, stop)

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
        return AsyncObjectFile(file, self._threads)

    async def read_ranges(self, ranges: Sequence[ByteRange]) -> "list[bytes]":
        """See `Cache.read_ranges`."""
        stop = threading.Event()
        return await self._run(lambda: self._cache.read_ranges(ranges, stop=stop), stop=stop)

    async def try_ranges(self, ranges: Sequence[ByteRange]) -> "list[bytes | PenstockError]":
        """See `Cache.try_ranges`."""
        stop = threading.Event()
        return await self._run(lambda: self._cache.try_ranges(ranges, stop=stop), stop=stop)

    async def cluster_view(self) -> View:
        """See `Cache.cluster_view`."""
        return await self._run(lambda: self._cache.cluster_view)

    async def shares(self) -> dict[str, float]:
        """See `Cache.shares`."""
        return await self._run(self._cache.shares)

    async def list(self, prefix: str, *, refresh: bool = False) -> AsyncIterator[ObjectInfo]:
        """See `Cache.list`. The next page is asked for when this one has been gone through."""
        async for page in self.list_pages(prefix, refresh=refresh):
            for info in page:
                yield info

    async def list_pages(
        self, prefix: str, *, refresh: bool = False
    ) -> AsyncIterator[Sequence[ObjectInfo]]:
        """See `Cache.list_pages`."""
        pages = self._cache.list_pages(prefix, refresh=refresh)
        while (page := await self._run(lambda: next(pages, None))) is not None:
            yield page

    async def list_directory(
        self, url: str, *, refresh: bool = False
    ) -> AsyncIterator[DirectoryEntry]:
        """See `Cache.list_directory`."""
        async for page in self.directory_pages(url, refresh=refresh):
            for entry in page:
                yield entry

    async def directory_pages(
        self, url: str, *, refresh: bool = False
    ) -> AsyncIterator[Sequence[DirectoryEntry]]:
        """See `Cache.directory_pages`."""
        pages = self._cache.directory_pages(url, refresh=refresh)
        while (page := await self._run(lambda: next(pages, None))) is not None:
            yield page

    async def put(
        self,
        url: str,
        source: "Source",
        *,
        if_absent: bool = False,
        on_progress: Callable[[int], None] | None = None,
        part_bytes: int = PART_BYTES,
    ) -> ObjectInfo:
        """See `Cache.put`; ``on_progress`` is called in a thread."""
        stop = threading.Event()
        return await self._run(
            lambda: self._cache.put(
                url,
                source,
                if_absent=if_absent,
                on_progress=on_progress,
                part_bytes=part_bytes,
                stop=stop,
            ),
            stop=stop,
        )

    async def locate(self, url: str, *, refresh: bool = False) -> ObjectLocation:
        """See `Cache.locate`."""
        return await self._run(lambda: self._cache.locate(url, refresh=refresh))

    async def snapshot(
        self,
        url: str,
        directory: str | os.PathLike[str] | None = None,
        **options: Unpack["SnapshotOptions"],
    ) -> Path:
        """See `Cache.snapshot`; ``on_progress`` is called in another thread."""
        return (await self.take_snapshot(url, directory, **options)).path

    async def take_snapshot(
        self,
        url: str,
        directory: str | os.PathLike[str] | None = None,
        **options: Unpack["SnapshotOptions"],
    ) -> "SnapshotReport":
        """See `Cache.take_snapshot`."""
        options["stop"] = stop = options.get("stop") or threading.Event()
        return await self._run(
            lambda: self._cache.take_snapshot(url, directory, **options), stop=stop
        )

    async def warmup(
        self,
        urls: Iterable[str],
        *,
        to: Target = "owners",
        dry_run: bool = False,
        on_progress: Callable[[WarmupProgress], None] = lambda _progress: None,
    ) -> WarmupReport:
        """See `Cache.warmup`; ``on_progress`` is called in another thread."""
        stop = threading.Event()
        return await self._run(
            lambda: self._cache.warmup(
                urls, to=to, dry_run=dry_run, on_progress=on_progress, stop=stop
            ),
            stop=stop,
        )

    async def start_warmup(self, urls: Iterable[str], *, to: Target = "owners") -> str:
        """See `Cache.start_warmup`."""
        return await self._run(lambda: self._cache.start_warmup(urls, to=to))

    @contextlib.asynccontextmanager
    async def tracing(
        self, name: str = "read", *, traceparent: str = ""
    ) -> AsyncIterator[ReadTrace]:
        """See `Cache.tracing`."""
        following = self._cache._follow(traceparent)  # noqa: SLF001 - this is its twin
        try:
            with following.reading(name):
                yield following.result
        except Exception:
            await self._run(following.gather)
            raise
        await self._run(following.gather)

    async def slow_reads(self, count: int = 20) -> SlowReads:
        """See `Cache.slow_reads`."""
        return await self._run(lambda: self._cache.slow_reads(count))

    def stats(self) -> Stats:
        """See `Cache.stats`."""
        return self._cache.stats()


async def connect(
    address: str | None = None,
    *,
    plane: str = "auto",
    fallback: str = "error",
    token: str | None = None,
    tls: Tls | None = None,
    insecure: bool | None = None,
    trace_share: float | None = None,
) -> AsyncCache:
    """Connect to a cluster; the arguments are those of `penstock.connect`.

    Use it as ``async with await penstock.aio.connect() as cache``.
    """
    cache = await asyncio.to_thread(
        connect_blocking,
        address,
        plane=plane,
        fallback=fallback,
        token=token,
        tls=tls,
        insecure=insecure,
        trace_share=trace_share,
    )
    return AsyncCache(cache)


async def snapshot(
    url: str,
    directory: str | os.PathLike[str] | None = None,
    *,
    address: str | None = None,
    **options: Unpack["SnapshotOptions"],
) -> Path:
    """Bring files into a local directory and return its path: see `penstock.snapshot`."""
    async with await connect(address) as cache:
        return await cache.snapshot(url, directory, **options)

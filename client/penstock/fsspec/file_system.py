"""The file system ``penstock://``: connecting, and fsspec's asyncio calls.

Not responsible for: what the calls do (`blocking`).

None of fsspec's caches is used: nodes believe listings for ``list_ttl_s`` and objects for
``open_ttl_s``, and files read ahead.
"""

import threading
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from fsspec.asyn import AsyncFileSystem

from penstock.aio import AsyncObjectFile
from penstock.cache import Cache, connect
from penstock.call_threads import CallThreads, in_thread
from penstock.errors import InvalidRequest
from penstock.fsspec.blocking import BlockingCalls, Bounds, settled
from penstock.fsspec.entries import Entry
from penstock.fsspec.errors import read_only

if TYPE_CHECKING:
    from penstock.tls import Tls

OF_FSSPEC = (
    "batch_size",
    "listings_expiry_time",
    "loop",
    "max_paths",
    "use_listings_cache",
)
"""Options that fsspec gives to every file system, and that change nothing here."""

T = TypeVar("T")


class PenstockFileSystem(BlockingCalls, AsyncFileSystem):
    """Reads volumes of a cluster as ``penstock://volume/path``.

    The arguments are those of `penstock.connect`; by default the environment tells the address.
    One is pickled with its arguments, the token among them, and connects anew where it arrives.
    """

    protocol = "penstock"
    async_impl = True
    mirror_sync_methods = False

    def __init__(
        self,
        address: str | None = None,
        *,
        plane: str = "auto",
        fallback: str = "error",
        token: str | None = None,
        tls: "Tls | None" = None,
        insecure: bool | None = None,
        asynchronous: bool = False,
        **options: Any,
    ) -> None:
        """Ask nothing yet.

        Raises:
            InvalidRequest: An option that there is not.
        """
        unknown = sorted(set(options) - set(OF_FSSPEC))
        if unknown:
            raise InvalidRequest(
                f"{', '.join(unknown)}: no option of penstock://; want address, plane, fallback, "
                "token, tls or insecure"
            )
        # Said to be asynchronous: else fsspec would start a loop, which nothing here needs.
        super().__init__(asynchronous=True, **options)
        self.asynchronous = asynchronous
        self._connect = partial(
            connect,
            address,
            plane=plane,
            fallback=fallback,
            token=token,
            tls=tls,
            insecure=insecure,
        )
        self._made: Cache | None = None
        self._lock = threading.Lock()
        self._threads = CallThreads()

    @property
    def cache(self) -> Cache:
        """The connection, made when it is first needed."""
        if self._made is None:
            with self._lock:
                if self._made is None:
                    made = self._connect()
                    weakref.finalize(self, made.close).atexit = False
                    self._made = made
        return self._made

    async def _run(self, call: Callable[[], T], stop: threading.Event | None = None) -> T:
        return await in_thread(self._threads, call, stop)

    async def _info(self, path: str, **kwargs: Any) -> Entry:
        return await self._run(lambda: self.info(path, **kwargs))

    async def _exists(self, path: str, **kwargs: Any) -> bool:
        return await self._run(lambda: self.exists(path, **kwargs))

    async def _isfile(self, path: str) -> bool:
        return await self._run(lambda: self.isfile(path))

    async def _isdir(self, path: str) -> bool:
        return await self._run(lambda: self.isdir(path))

    async def _ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        return await self._run(lambda: self.ls(path, detail, **kwargs))

    async def _find(
        self, path: str, maxdepth: int | None = None, withdirs: bool = False, **kwargs: Any
    ) -> Any:
        return await self._run(lambda: self.find(path, maxdepth, withdirs, **kwargs))

    async def _cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **_: Any
    ) -> bytes:
        (data,) = await self._cat_ranges([path], start, end, on_error="raise")
        return bytes(data)

    async def _cat_ranges(
        self,
        paths: Sequence[str],
        starts: Bounds,
        ends: Bounds,
        max_gap: int | None = None,
        batch_size: int | None = None,
        on_error: str = "return",
        **_: Any,
    ) -> list[Any]:
        ranges, stop = self.ranges(paths, starts, ends), threading.Event()
        results = await self._run(lambda: self.cache.try_ranges(ranges, stop=stop), stop)
        return settled(results, on_error=on_error)

    async def _get_file(self, rpath: str, lpath: str, **kwargs: Any) -> None:
        await self._run(lambda: self.get_file(rpath, lpath, **kwargs))

    async def open_async(self, path: str, mode: str = "rb", **kwargs: Any) -> AsyncObjectFile:
        """Return an object as a file whose reads are awaited."""
        if mode != "rb":
            raise read_only(path)
        path = self._strip_protocol(path)
        file = await self._run(lambda: self.open_version(path, **kwargs))
        return AsyncObjectFile(file, self._threads)

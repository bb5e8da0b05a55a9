"""Objects that are files: ``file://`` volumes below the allowed roots.

Responsible for: reading exactly one version of a file, pages of a tree, writing files, and doing
it in threads: disks block. Not responsible for: what may be opened at all (`file_tree`), how a
file appears whole (`new_file`).
"""

import asyncio
import contextlib
import errno
import os
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from penstock import tracing
from penstock.deadline import Deadline
from penstock.errors import (
    NotPermitted,
    ObjectChanged,
    ObjectNotFound,
    OriginUnavailable,
)
from penstock.volumes import Volume
from penstock_node.origin.attempts import counted
from penstock_node.origin.file_tree import FileTree
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
)
from penstock_node.origin.new_file import NewFile
from penstock_node.origin.outages import Unanswered

T = TypeVar("T")

_DISK_FAILS = frozenset(
    {
        errno.EIO,
        errno.ESTALE,
        errno.ETIMEDOUT,
        errno.ENOTCONN,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENODEV,
        errno.EREMOTEIO,
    }
)
"""The rest is about one path: too long a name, or too many links."""

THREADS_MAX = 8
"""Of one volume; a disk gains nothing from more readers at once."""


def _meta(status: os.stat_result) -> OriginMeta:
    version = f"mtime:{status.st_mtime_ns}-{status.st_size}"
    return OriginMeta(version, status.st_size, max(0, status.st_mtime_ns // 1000))


def _read_all(descriptor: int, start: int, stop: int) -> bytearray:
    data = bytearray(stop - start)
    view, done = memoryview(data), 0
    while done < len(data):
        count = os.preadv(descriptor, [view[done:]], start + done)
        if count == 0:
            raise ObjectChanged("the file ended early; open it again")
        done += count
    return data


class FileOrigin:
    """An `Origin` over a directory."""

    def __init__(
        self,
        volume: Volume,
        *,
        allowed: Sequence[Path],
        gate: Gate,
        limits: OriginLimits,
        counters: OriginCounters,
    ) -> None:
        """Check that the volume may be read; open nothing yet.

        Raises:
            NotPermitted: The directory is not below one of ``allowed``.
        """
        self._volume = volume
        self._tree = FileTree(volume, allowed=allowed)
        self._limits = limits
        self._counters = counters
        self._gate = gate
        # Of its own: a disk that hangs must not take the event loop's threads with it.
        self._threads = ThreadPoolExecutor(
            limits.requests_max, thread_name_prefix=f"origin-{volume.name}"
        )

    def __repr__(self) -> str:
        return f"<FileOrigin {self._volume.url}>"

    @property
    def counters(self) -> OriginCounters:
        """See `Origin`."""
        return self._counters

    async def head(self, path: str, *, deadline: Deadline | None = None) -> OriginMeta:
        """See `Origin`."""
        self._counters.head_requests += 1
        return await self._run(lambda: self._head(path), "head", path, self._soon(deadline))

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
        self._counters.get_requests += 1
        data = await self._run(
            lambda: self._read(path, version, size, start, stop),
            "get",
            path,
            self._soon(deadline),
            size_bytes=stop - start,
        )
        self._counters.bytes_read += len(data)
        return data

    async def list(
        self, prefix: str, *, after: str = "", limit: int, deadline: Deadline | None = None
    ) -> ListPage:
        """See `Origin`."""
        assert 0 < limit <= LIST_PAGE_MAX, f"a page of {limit}"
        self._counters.list_requests += 1
        return await self._run(
            lambda: self._list(prefix.strip("/"), after, limit), "list", prefix, deadline
        )

    async def put(
        self, path: str, parts: AsyncIterator[bytes], *, size: int | None, if_absent: bool
    ) -> str:
        """See `Origin`."""
        made = partial(NewFile, self._volume, self._tree, path, if_absent=if_absent)
        new = await self._run(made, "put", path, None)
        try:
            async for part in parts:
                self._counters.put_requests += 1
                self._counters.bytes_written += len(part)
                write = partial(new.write, part)
                await self._run(write, "put", path, None, size_bytes=len(part))
            return _meta(await self._run(new.publish, "put", path, None)).version
        finally:
            # The loop's own threads: these may be closed, as the volume has changed meanwhile.
            await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, new.close))

    def _head(self, path: str) -> OriginMeta:
        with self._tree.file(path) as descriptor:
            return _meta(os.fstat(descriptor))

    def _read(self, path: str, version: str, size: int, start: int, stop: int) -> bytearray:
        with self._tree.file(path) as descriptor:
            self._check(descriptor, path, version, size)
            data = _read_all(descriptor, start, stop)
            # Written meanwhile: some of these bytes may be newer.
            self._check(descriptor, path, version, size)
            return data

    def _check(self, descriptor: int, path: str, version: str, size: int) -> None:
        found = _meta(os.fstat(descriptor))
        if (found.version, found.size) != (version, size):
            raise ObjectChanged(
                f"{describe(self._volume, path)}: wanted version {version}, the file is now "
                f"{found.version}; open it again"
            )

    def _list(self, prefix: str, after: str, limit: int) -> ListPage:
        found: list[ListedObject] = []
        with contextlib.closing(self._tree.walk(prefix, after=after)) as files:
            for path, status in files:
                meta = _meta(status)
                found.append(ListedObject(path, meta.size, meta.modified_us, meta.version))
                if len(found) > limit:
                    # One more than asked: there is another page.
                    return ListPage(tuple(found[:limit]), next_after=found[limit - 1].path)
        return ListPage(tuple(found), next_after="")

    def _soon(self, deadline: Deadline | None) -> Deadline:
        # Only lists may take longer: of a large tree they walk a good part.
        timeout_s = self._limits.request_timeout_s
        return Deadline.after(min(timeout_s, deadline.remaining_s) if deadline else timeout_s)

    async def _run(
        self,
        work: Callable[[], T],
        operation: Operation,
        path: str,
        deadline: Deadline | None,
        *,
        size_bytes: int = 0,
    ) -> T:
        async with self._gate.call(path, deadline=deadline) as call:
            await call.turn(size_bytes=size_bytes)
            with counted(self._counters, operation):
                found = await self._in_thread(work, path)
            tracing.here().add_bytes(size_bytes)
            return found

    async def _in_thread(self, work: Callable[[], T], path: str) -> T:
        what = describe(self._volume, path)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except FileNotFoundError:
            raise ObjectNotFound(f"{what}: there is no such file") from None
        except NotADirectoryError:
            raise ObjectNotFound(f"{what}: a part of the path is a file") from None
        except PermissionError as error:
            raise NotPermitted(f"{what}: this node's user may not") from error
        except OSError as error:
            reason = error.strerror or str(error)
            unavailable = OriginUnavailable(f"{what}: {reason}")
            if error.errno in _DISK_FAILS:
                raise Unanswered(unavailable, reason, of_object=True) from error
            raise unavailable from error

    def close(self) -> None:
        """See `Origin`."""
        self._threads.shutdown(wait=False, cancel_futures=True)

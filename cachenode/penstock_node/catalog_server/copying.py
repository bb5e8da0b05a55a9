"""Copying one file from its source to another store: streaming, within a rate, verified.

Responsible for: reading ahead with bounded memory, and proving that what was written is what was
read. Not responsible for: which files, where to, and noting it (`bringing`).
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from itertools import islice

import xxhash

from penstock.catalog_file import CatalogFile
from penstock.errors import OriginUnavailable
from penstock_node.catalog_server.nearby import is_same
from penstock_node.origin import Origin
from penstock_node.pace import Pace
from penstock_node.tasks import cancel

PART_BYTES = 8 * 1024 * 1024
PARTS_AHEAD = 3
"""Asked for at once: the way to the source is long."""
GIVE_UP_S = 10.0
"""How long it may take to have the store forget what was sent of a file that is given up."""


class _GivenUp(Exception):
    """Nobody wants the copy any more."""


class FileCopier:
    """Copies one version of a file. Used once, on an event loop."""

    def __init__(
        self, file: CatalogFile, *, source: Origin, within: str, target: Origin, pace: Pace | None
    ) -> None:
        """Ask nothing yet.

        Args:
            file: Whose bytes are meant.
            source: Has them.
            within: Its path there.
            target: Gets them, at the file's path.
            pace: Of bytes; None: no bound.
        """
        self._file, self._source, self._within = file, source, within
        self._target, self._pace = target, pace
        self._is_given_up = False

    async def run(self) -> str:
        """Copy, and return what the target calls the version.

        One that is there already is left alone. Cancelled, it takes away what it has sent.

        Raises:
            ObjectChanged: The source has another version.
            ObjectNotFound: The source has it no more.
            OriginUnavailable: One of the two does not answer, or the target has other bytes than
                it was given.
        """
        if await is_same(self._file, self._target):
            return self._file.source_version
        sent = xxhash.xxh3_128()
        writing = asyncio.create_task(self._write(sent))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            self._is_given_up = True
            with contextlib.suppress(Exception):
                await asyncio.wait_for(writing, GIVE_UP_S)
            raise
        return await self._verified(sent.digest())

    async def _write(self, sent: "xxhash.xxh3_128") -> None:
        path, size = self._file.path, self._file.size
        await self._target.put(path, self._told(sent), size=size, if_absent=False)

    async def _told(self, sent: "xxhash.xxh3_128") -> AsyncIterator[bytes]:
        version, size = self._file.source_version, self._file.size
        parts = _parts(self._source, self._within, version, size, pace=self._pace)
        async with contextlib.aclosing(parts):
            async for part in parts:
                if self._is_given_up:
                    raise _GivenUp
                sent.update(part)
                yield part

    async def _verified(self, sent: bytes) -> str:
        """Read the copy, and return its version if it is what was sent."""
        target, file = self._target, self._file
        meta = await target.head(file.path)
        there = xxhash.xxh3_128()
        if meta.size == file.size:
            parts = _parts(target, file.path, meta.version, meta.size)
            async with contextlib.aclosing(parts):
                async for part in parts:
                    there.update(part)
        if meta.size != file.size or there.digest() != sent:
            raise OriginUnavailable(
                f"{file.path}: the store has other bytes than it was given; it is copied again"
            )
        return meta.version


async def _parts(
    origin: Origin, path: str, version: str, size: int, *, pace: Pace | None = None
) -> AsyncGenerator[bytes, None]:
    """Yield an object's bytes in order, with some parts under way."""
    starts = iter(range(0, size, PART_BYTES))
    asked: deque[asyncio.Task[bytes]] = deque()

    async def read(start: int) -> bytes:
        stop = min(size, start + PART_BYTES)
        if pace is not None:
            await pace.wait(stop - start)
        return bytes(await origin.read(path, version, size, start, stop))

    def ask(count: int) -> None:
        asked.extend(asyncio.create_task(read(start)) for start in islice(starts, count))

    try:
        ask(PARTS_AHEAD)
        while asked:
            yield await asked.popleft()
            ask(1)
    finally:
        for task in asked:
            await cancel(task)

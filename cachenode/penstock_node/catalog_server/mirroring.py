"""Following another catalog: its feed comes into this one's database, in order and for ever.

Responsible for: asking for what is new, taking it in, and telling how far behind this one is.
Not responsible for: what becomes of an entry (`penstock_node.catalog.following`).

The source only answers reads: a mirror needs no more of it, and while the link is down it serves
what it has.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import TypeVar

import structlog

from penstock.catalog_file import CatalogChange
from penstock.catalog_rpc import DESCRIBE, LIST_CHANGES, LOOK, call_catalog, change_from_proto
from penstock.errors import InvalidConfiguration, PenstockError
from penstock.rpc import Channels, Method, Request, Response
from penstock.v1 import catalog_pb2
from penstock_node.catalog.following import Copy
from penstock_node.tasks import cancel, in_thread

T = TypeVar("T")

PAGE_MAX = 5_000
"""Entries that are asked for at once."""
WAIT_S = 5.0
"""How long the source waits for an entry, where there is none yet."""
CALL_TIMEOUT_S = 20.0
LEVEL_S = 3.0
"""How long an answer waits for what it tells to come here too."""
PAUSE_S = 1.0
"""After a failure."""

_log = structlog.get_logger(__name__)


class Mirror:
    """One mirror of one source. On one event loop."""

    def __init__(
        self,
        copy: Copy,
        *,
        source: str,
        newest: int,
        channels: Channels,
        threads: Executor,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Ask nothing yet.

        Args:
            copy: What was taken in so far.
            source: Where the other catalog answers, ``host:port``.
            newest: The number of the newest entry that is here.
            channels: To it.
            threads: For calls and for the database.
            clock: Monotonic, in seconds.
        """
        self._copy, self.source = copy, source
        self._channels, self._threads, self._clock = channels, threads, clock
        self.seq, self.source_seq = newest, 0
        """Of the newest entry here, and the newest that the source was heard to have."""
        self.trouble = ""
        """Why it does not get on; empty: it does."""
        self._level_at = clock()
        self._has_heard = False
        self._moved = asyncio.Event()

    @property
    def lag_s(self) -> float:
        """How long ago it had all that the source had, in seconds; 0 while it has."""
        is_level = self._has_heard and not self.trouble and self.source_seq <= self.seq
        return 0.0 if is_level else self._clock() - self._level_at

    async def run(self) -> None:
        """Follow, for ever."""
        while True:
            try:
                await self._follow()
            except Exception as error:  # noqa: BLE001 - whatever it is, it is told and tried again
                if not self.trouble:
                    is_known = isinstance(error, PenstockError)
                    log = _log.warning if is_known else _log.exception
                    log("the mirror does not get on", error=str(error))
                self.trouble = str(error)
                await asyncio.sleep(PAUSE_S)

    async def _check_source(self) -> None:
        """Refuse a source that is another catalog than the one that this database is a copy of."""
        newest = await in_thread(self._threads, self._copy.newest)
        if newest is None:
            return
        request = catalog_pb2.ListChangesRequest(after=newest.seq - 1, limit=1)
        answer = await self._call(LIST_CHANGES, request)
        if [change_from_proto(each) for each in answer.changes] != [newest]:
            raise InvalidConfiguration(
                f"entry {newest.seq} of the catalog at {self.source} is not the one that is here: "
                "this database is no copy of that one, or that one was put back to an earlier "
                "state; have the mirror begin with an empty database"
            )

    async def _follow(self) -> None:
        await self._check_source()  # Each time: another may have taken its place meanwhile.
        answer = await self._ask(self.seq)
        while True:
            changes = [change_from_proto(each) for each in answer.changes]
            # The next part comes while this one is written.
            asking = asyncio.create_task(self._ask(changes[-1].seq if changes else self.seq))
            try:
                await self._take(changes, source_seq=answer.newest)
                answer = await asking
            finally:
                await cancel(asking)

    async def _take(self, changes: Sequence[CatalogChange], *, source_seq: int) -> None:
        if changes:
            self.seq = await in_thread(self._threads, partial(self._copy.take, changes))
        if self.trouble:
            _log.info("the mirror gets on again", seq=self.seq)
        self.source_seq, self.trouble, self._has_heard = source_seq, "", True
        if self.seq >= source_seq:
            self._level_at = self._clock()
        self._moved.set()

    async def look(self, volume: str, path: str) -> catalog_pb2.LookResponse:
        """Have the source look at a file's origin, and return its answer once that is here too.

        Raises:
            CatalogUnavailable: It does not answer.
        """
        request = catalog_pb2.LookRequest(volume=volume, path=path)
        answer = await self._call(LOOK, request)
        told = await self._call(DESCRIBE, catalog_pb2.DescribeCatalogRequest())
        with contextlib.suppress(TimeoutError):  # Then whoever asks again waits again.
            async with asyncio.timeout(LEVEL_S):
                while self.seq < told.seq:
                    self._moved.clear()
                    await self._moved.wait()
        return answer

    async def _ask(self, after: int) -> catalog_pb2.ListChangesResponse:
        request = catalog_pb2.ListChangesRequest(
            after=after, limit=PAGE_MAX, wait_ms=round(1000 * WAIT_S)
        )
        return await self._call(LIST_CHANGES, request)

    async def _call(self, method: Method[Request, Response], request: Request) -> Response:
        call = partial(call_catalog, self._channels, self.source, method, request)
        return await in_thread(self._threads, partial(call, timeout_s=CALL_TIMEOUT_S))

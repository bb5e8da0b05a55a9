"""Objects in S3, GCS and Azure, written with `obstore`.

Responsible for: one request for what fits one, several parts at once for what does not, so that
an object appears whole or not at all; taking away what was sent of one that is given up.
Not responsible for: where the bytes come from, how they are cut (`cut`), reading.

Attempts are `obstore`'s here: of a part that fails it has the bytes, and nobody else. So a put
asks nothing of the circuit breaker, and tells it nothing: it lasts for as long as its sender does.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotSupportedError

from penstock.errors import InvalidRequest, ObjectNotFound, PenstockError
from penstock.volumes import Volume
from penstock_node.origin.cut import Cut, cut_of
from penstock_node.origin.errors import panics_as_errors, translate
from penstock_node.origin.gate import Gate
from penstock_node.origin.interface import (
    OriginCounters,
    OriginLimits,
    OriginMeta,
    describe,
    exists_already,
)
from penstock_node.origin.stores import Store, origin_host, store_path

SILENCE_TIMEOUT_S = 60.0
"""Counts from the request's first byte on, and a part may take long to send. Publishing one of
thousands of parts takes long to answer."""
REQUEST_TIMEOUT_S = 120.0


def writing_limits(limits: OriginLimits) -> OriginLimits:
    """Return the bounds of requests that write."""
    return replace(limits, silence_timeout_s=SILENCE_TIMEOUT_S, request_timeout_s=REQUEST_TIMEOUT_S)


def retries(limits: OriginLimits) -> dict[str, Any]:
    """Return how often `obstore` tries a request again: as often as reads are tried."""
    return {
        "max_retries": limits.attempts_max - 1,
        "retry_timeout": timedelta(seconds=limits.attempts_s),
        "backoff": {
            "init_backoff": timedelta(seconds=limits.backoff_s),
            "max_backoff": timedelta(seconds=limits.backoff_max_s),
            "base": 2,
        },
    }


class ObjectWriter:
    """Puts objects into one store, on one event loop."""

    def __init__(
        self,
        volume: Volume,
        *,
        open_store: Callable[[], Store],
        head: Callable[[str], Awaitable[OriginMeta]],
        gate: Gate,
        counters: OriginCounters,
    ) -> None:
        """Keep what is needed; the store is opened for the first put.

        Args:
            volume: Where.
            open_store: Opens it, for requests that write.
            head: Tells of the object at a path.
            gate: Whose rates hold for what is written too.
            counters: Where it is counted.
        """
        self._volume = volume
        self._open_store = open_store
        self._opened: Store | None = None
        self._head = head
        self._gate = gate
        self._counters = counters

    @property
    def _store(self) -> Any:
        if self._opened is None:
            self._opened = self._open_store()
        return cast("Any", self._opened)

    async def put(
        self, path: str, parts: AsyncIterator[bytes], *, size: int | None, if_absent: bool
    ) -> str:
        """See `Origin.put`."""
        cut = cut_of(size)
        if if_absent:
            # Also where the origin could decide: some ignore what they do not know.
            await self._refuse_existing(path)
        first: list[bytes] = []
        async for part in parts:
            first.append(part)
            if sum(map(len, first)) > cut.part_bytes:
                break
        else:
            return await self._put_whole(path, b"".join(first), if_absent=if_absent)
        return await self._put_parts(path, _chained(first, parts), cut, if_absent=if_absent)

    async def _put_whole(self, path: str, data: bytes, *, if_absent: bool) -> str:
        await self._gate.pace(requests=1, size_bytes=len(data))
        self._count(requests=1, size_bytes=len(data))
        try:
            with panics_as_errors(self._volume):
                result = await obstore.put_async(
                    self._store,
                    store_path(self._volume, path),
                    data,
                    mode="create" if if_absent else "overwrite",
                    use_multipart=False,
                )
        except (BaseError, OSError) as error:
            raise self._translate(error, path) from None
        return result["e_tag"] or ""

    async def _put_parts(
        self, path: str, parts: AsyncIterator[bytes], cut: Cut, *, if_absent: bool
    ) -> str:
        """Send parts as they come; whatever fails, `obstore` takes away what was sent."""
        failures: list[Exception] = []
        told = self._told(path, parts, cut, if_absent=if_absent, failures=failures)
        try:
            with panics_as_errors(self._volume):
                result = await obstore.put_async(
                    self._store,
                    store_path(self._volume, path),
                    told,
                    use_multipart=True,
                    chunk_size=cut.part_bytes,
                    max_concurrency=cut.at_once,
                )
        except (BaseError, OSError, PenstockError) as error:
            # Taking away may have failed after that, and then tells of itself alone.
            raise (*failures, self._translate(error, path))[0] from None
        return result["e_tag"] or ""

    async def _told(
        self,
        path: str,
        parts: AsyncIterator[bytes],
        cut: Cut,
        *,
        if_absent: bool,
        failures: list[Exception],
    ) -> AsyncIterator[bytes]:
        """Give the parts at the volume's rates, and at the end look once more who was first."""
        sent = requests = 0
        try:
            async for part in parts:
                sent += len(part)
                cut.check(sent)
                new = -(-sent // cut.part_bytes) - requests
                await self._gate.pace(requests=new, size_bytes=len(part))
                self._count(requests=new, size_bytes=len(part))
                requests += new
                yield part
            if if_absent:
                await self._refuse_existing(path)
        except Exception as error:
            failures.append(error)
            raise

    def _count(self, *, requests: int, size_bytes: int) -> None:
        self._counters.put_requests += requests
        self._counters.bytes_written += size_bytes

    async def _refuse_existing(self, path: str) -> None:
        try:
            await self._head(path)
        except ObjectNotFound:
            return
        raise exists_already(self._volume, path)

    def _translate(self, error: Exception, path: str) -> PenstockError:
        if isinstance(error, PenstockError):
            return error
        if isinstance(error, AlreadyExistsError):
            return exists_already(self._volume, path)
        if isinstance(error, NotSupportedError):
            return InvalidRequest(
                f"{describe(self._volume, path)}: this store cannot refuse what exists already; "
                "put it without if_absent"
            )
        return translate(error, volume=self._volume, path=path, host=origin_host(self._volume))


async def _chained(first: list[bytes], rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    while first:
        yield first.pop(0)
    async for part in rest:
        yield part

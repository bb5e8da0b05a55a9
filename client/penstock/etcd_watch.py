"""A watch over etcd that outlives its connections.

Responsible for: telling every change below a prefix, in order and without a gap, or saying
with a new listing that there may be one.
Not responsible for: endpoints, credentials and errors of calls (`penstock.etcd_rpc`).

A stream is opened at the revision after the last one seen. etcd is silent, for ever, when
that lies in its future because it was wiped or restored. So before each stream we ask for
the store *as it was at the last revision seen*: only if that is exactly what we hold is it
the same history, and the stream may go on.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import grpc.aio

from penstock.errors import (
    ClusterUnavailable,
    InvalidRequest,
    NotPermitted,
    PenstockError,
    Retryable,
)
from penstock.etcd_rpc import EtcdRpc
from penstock.membership.coordinator import Changes, Entry, Listing
from penstock.v1 import etcd_pb2

RANGE = "/etcdserverpb.KV/Range"
WATCH = "/etcdserverpb.Watch/Watch"
IDLE_S = 5.0
"""After this long without a word the stream is asked for one."""
REPLY_S = 5.0
"""And after this long without a reply it is given up."""
BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 2.0

_log = logging.getLogger(__name__)


class KeySpace:
    """The keys of one cluster: relative names here, bytes below a prefix in etcd."""

    def __init__(self, prefix: str) -> None:
        assert prefix.endswith("/"), f"{prefix!r} would match the keys of other clusters"
        self._prefix = prefix.encode()

    def key(self, name: str) -> bytes:
        """Return etcd's key of ``name``."""
        return self._prefix + name.encode()

    def name(self, key: bytes) -> str | None:
        """Return the relative name of etcd's ``key``; None if it is no UTF-8, as all of ours are.

        Such a key somebody has put by hand: it must not end whoever reads those beside it.
        """
        assert key.startswith(self._prefix), f"{key!r} is not ours"
        try:
            return key[len(self._prefix) :].decode()
        except UnicodeDecodeError:
            _log.warning("a key of etcd is left out, as it is no UTF-8: %.200r; delete it", key)
            return None

    def below(self, prefix: str) -> tuple[bytes, bytes]:
        """Return the first key below ``prefix``, and the first one after them all."""
        first = self.key(prefix)
        assert first[-1] < 0xFF, f"{prefix!r} ends in a byte that UTF-8 never has"
        return first, first[:-1] + bytes([first[-1] + 1])

    def listing(self, reply: etcd_pb2.RangeResponse) -> Listing:
        """Return what etcd listed."""
        entries = {name: Entry(kv.value, kv.mod_revision) for name, kv in self.named(reply)}
        return Listing(entries, reply.header.revision, reply.header.cluster_id)

    def named(self, reply: etcd_pb2.RangeResponse) -> Iterator[tuple[str, etcd_pb2.KeyValue]]:
        """Yield what etcd listed, by relative names."""
        for kv in reply.kvs:
            name = self.name(kv.key)
            if name is not None:
                yield name, kv

    def changes(self, events: list[etcd_pb2.Event]) -> Changes:
        """Return what etcd told; it may be nothing but that the revision is another."""
        deleted = etcd_pb2.Event.DELETE
        told = tuple(
            (
                name,
                None if event.type == deleted else Entry(event.kv.value, event.kv.mod_revision),
            )
            for event in events
            if (name := self.name(event.kv.key)) is not None
        )
        return Changes(told, max(event.kv.mod_revision for event in events))


class Backoff:
    """Growing, jittered pauses, so that a thousand nodes do not return in one moment."""

    def __init__(self, *, first_s: float = BACKOFF_FIRST_S, most_s: float = BACKOFF_MAX_S) -> None:
        self._first_s = first_s
        self._most_s = most_s
        self._next_s = first_s
        self._rng = random.SystemRandom()

    def reset(self) -> None:
        """Begin anew: something succeeded."""
        self._next_s = self._first_s

    async def wait(self) -> None:
        """Wait for half to all of the present pause, and double it."""
        pause_s = self._rng.uniform(self._next_s / 2, self._next_s)
        self._next_s = min(self._most_s, self._next_s * 2)
        await asyncio.sleep(pause_s)


class _Stream:
    """The answers of one etcd watch. It is never silent for longer than it may be."""

    def __init__(self, call: "grpc.aio.StreamStreamCall[Any, etcd_pb2.WatchResponse]") -> None:
        self._call = call
        self._reading: asyncio.Task[Any] | None = None

    async def send(self, request: etcd_pb2.WatchRequest) -> None:
        """Send a request.

        Raises:
            ClusterUnavailable: The stream takes none, or has ended.
        """
        try:
            async with asyncio.timeout(REPLY_S):
                await self._call.write(request)
        except (TimeoutError, asyncio.InvalidStateError) as error:
            raise ClusterUnavailable("etcd's watch takes no requests") from error

    async def answer(self, *, within_s: float) -> etcd_pb2.WatchResponse | None:
        """Return the next answer, or None when there is none in time; it may come later."""
        # A read that is cancelled breaks the whole stream: so it goes on behind our back.
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._call.read())
        done, _ = await asyncio.wait({self._reading}, timeout=within_s)
        if not done:
            return None
        reading, self._reading = self._reading, None
        reply = None if reading.cancelled() else reading.result()
        if not isinstance(reply, etcd_pb2.WatchResponse):
            raise ClusterUnavailable("etcd ended the watch")
        return reply

    async def next(self) -> etcd_pb2.WatchResponse:
        """Return the next answer, asking for a sign of life when it is late.

        Raises:
            ClusterUnavailable: There was none.
        """
        reply = await self.answer(within_s=IDLE_S)
        if reply is None:
            progress = etcd_pb2.WatchProgressRequest()
            await self.send(etcd_pb2.WatchRequest(progress_request=progress))
            reply = await self.answer(within_s=REPLY_S)
        if reply is None:
            raise ClusterUnavailable(f"etcd's watch was silent for {IDLE_S + REPLY_S} s")
        return reply

    async def close(self) -> None:
        """Leave no task behind; whoever opened the call cancels it."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait({self._reading})
            if not self._reading.cancelled():
                self._reading.exception()  # Retrieved: the stream has ended, however it did.


class EtcdWatch:
    """One watch of a prefix; `items` is what it tells."""

    def __init__(self, rpc: EtcdRpc, keys: KeySpace, prefix: str) -> None:
        self._rpc = rpc
        self._keys = keys
        self._first, self._end = keys.below(prefix)
        self._known: dict[str, int] | None = None  # Revision of each key; None: list again.
        self._revision = 0
        self._store_id = 0
        self._running = True
        self._backoff = Backoff()

    async def items(self) -> AsyncGenerator[Listing | Changes, None]:
        """Tell everything, over as many connections as it takes.

        Raises:
            NotPermitted: From the beginning the credentials are wrong or do not suffice.
        """
        while True:
            try:
                async with contextlib.aclosing(self._session()) as session:
                    async for item in session:
                        yield item
            except (Retryable, NotPermitted) as error:
                if isinstance(error, NotPermitted) and self._revision == 0:
                    raise
                self._note_interruption(error)
            await self._backoff.wait()

    def _note_interruption(self, error: PenstockError) -> None:
        level = logging.WARNING if self._running else logging.DEBUG
        _log.log(level, "watch of %s interrupted: %s", self._first.decode(), error)
        self._running = self._rpc.connected = False

    async def _session(self) -> AsyncGenerator[Listing | Changes, None]:
        """Tell what one stream tells, after a listing where one is needed."""
        listing = await self._list() if self._known is None else None
        async with self._rpc.stream(WATCH, etcd_pb2.WatchResponse) as call:
            stream = _Stream(call)
            try:
                await self._begin(stream)
                if listing is not None:
                    yield listing
                while changes := await self._next_changes(stream):
                    yield changes
            finally:
                await stream.close()

    async def _list(self) -> Listing:
        request = etcd_pb2.RangeRequest(key=self._first, range_end=self._end)
        reply = await self._rpc.read(RANGE, request, etcd_pb2.RangeResponse)
        listing = self._keys.listing(reply)
        self._known = {name: entry.mod_revision for name, entry in listing.entries.items()}
        self._revision, self._store_id = listing.revision, listing.store_id
        return listing

    async def _begin(self, stream: _Stream) -> None:
        create = etcd_pb2.WatchCreateRequest(
            key=self._first,
            range_end=self._end,
            start_revision=self._revision + 1,
            fragment=True,
        )
        await stream.send(etcd_pb2.WatchRequest(create_request=create))
        created = await stream.answer(within_s=self._rpc.deadline_s)
        if created is None or not created.created or created.canceled:
            reason = created.cancel_reason if created else "no answer"
            raise ClusterUnavailable(f"etcd began no watch: {reason}")
        # After the stream began: had etcd been replaced since, the stream would break.
        if not await self._knows_history():
            self._known = None
            raise ClusterUnavailable("etcd was compacted, wiped or restored: listing again")
        self._rpc.connected = self._running = True

    async def _knows_history(self) -> bool:
        """Return whether etcd's history up to the last revision seen is the one we know."""
        request = etcd_pb2.RangeRequest(
            key=self._first, range_end=self._end, revision=self._revision, keys_only=True
        )
        try:
            reply = await self._rpc.read(RANGE, request, etcd_pb2.RangeResponse)
        except InvalidRequest:
            return False  # That revision is compacted, or in the future of a wiped store.
        known = {name: kv.mod_revision for name, kv in self._keys.named(reply)}
        return reply.header.cluster_id == self._store_id and known == self._known

    async def _next_changes(self, stream: _Stream) -> Changes | None:
        """Return the next changes; None when etcd ended the watch."""
        events: list[etcd_pb2.Event] = []
        while True:
            reply = await stream.next()
            self._backoff.reset()
            if reply.canceled:
                _log.info(
                    "watch of %s begins anew: compacted up to %d %s",
                    self._first.decode(),
                    reply.compact_revision,
                    reply.cancel_reason,
                )
                self._known = None
                return None
            events.extend(reply.events)
            if events and not reply.fragment:
                return self._learn(self._keys.changes(events))

    def _learn(self, changes: Changes) -> Changes:
        assert self._known is not None, "changes came before a listing"
        for name, entry in changes.changes:
            if entry is None:
                self._known.pop(name, None)
            else:
                self._known[name] = entry.mod_revision
        self._revision = changes.revision
        return changes

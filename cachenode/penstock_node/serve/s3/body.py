"""The bytes of one answer: an object's chunks, one after another.

Responsible for: bringing the next chunk when the one before is sent, asking for a few behind it
while chunks are still missing here, and breaking the connection when one does not come: the
reader then has fewer bytes than were told, and knows.
Not responsible for: the head (`objects`), where chunks come from (`host_reads`).

A reader that stops reading holds one chunk and no thread: nothing is asked ahead of what it
takes, and what was asked for goes to the store.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Protocol

import structlog

from penstock.errors import NodeUnavailable, Overloaded, PenstockError, Retryable
from penstock.object_info import OpenedObject
from penstock.objects import ObjectId, pieces
from penstock_node.chunk import Chunk, Payload
from penstock_node.chunks import ChunkAnswer
from penstock_node.metrics import NodeMetrics
from penstock_node.transport.reply import FileSpan, Octets, Outcome, Part, Reply

PLANE = "s3"
CHUNKS_AHEAD = 8
"""Asked for before their turn by a reader of what is not here yet. An origin that gives a stream
80 MB/s and answers in 40 ms then still gives one reader 350 MB/s."""
CHUNK_S = 60.0
"""Longest that a chunk may take to come."""
RETRY_S = 0.5
"""Between attempts at a chunk of a body that has begun: breaking it off costs its reader more."""

_log = structlog.get_logger("penstock.s3")


def _pause_s(error: Retryable) -> float:
    return error.retry_after_s if isinstance(error, Overloaded) else RETRY_S


class ChunkReads(Protocol):
    """Chunks for this machine's readers: `host_reads.HostReads`."""

    def is_kept(self, chunk: Chunk) -> bool:
        """Tell whether the chunk stays here when it has come. On the event loop."""

    def at_hand(self, chunk: Chunk) -> ChunkAnswer | None:
        """Return the chunk if it is here. Blocks; for threads."""

    async def answer(self, chunk: Chunk) -> ChunkAnswer | None:
        """Return the chunk, or None when it is still under way: ask again."""

    def were_read(self, obj: ObjectId, pieces: Sequence[tuple[int, int]]) -> None:
        """Note that a reader was given parts of chunks: their indexes, and how many bytes."""


class Sending:
    """What all bodies share."""

    def __init__(
        self,
        *,
        reads: ChunkReads,
        metrics: NodeMetrics,
        loop: asyncio.AbstractEventLoop,
        plane: str = PLANE,
    ) -> None:
        self.reads = reads
        self.metrics = metrics
        self.plane = plane
        """What bytes are counted under."""
        self._loop = loop
        self._tasks: set[asyncio.Task[None]] = set()

    def on_loop(self, coroutine: Coroutine[Any, Any, Reply]) -> Outcome:
        """Have a reply made on the event loop. From any thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def call_on_loop(self, call: Callable[[], None]) -> None:
        """Have ``call`` called on the event loop. From any thread."""
        self._loop.call_soon_threadsafe(call)

    def ask_for(self, chunk: Chunk) -> None:
        """Begin to bring a chunk in, for later. On the event loop."""
        task = self._loop.create_task(self._ask_for(chunk), name="s3 read ahead")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask_for(self, chunk: Chunk) -> None:
        try:
            answer = await self.reads.answer(chunk)
        except PenstockError as error:  # Its turn comes, and then it is told.
            _log.debug("a chunk was not read ahead", error=error.name)
            return
        if answer is not None:
            answer.close()


class Body:
    """Bytes ``start`` to ``stop`` of an object, at least one. For one reply."""

    def __init__(self, opened: OpenedObject, start: int, stop: int, *, sending: Sending) -> None:
        assert start < stop, "an empty body has no chunks"
        self._opened = opened
        self._sending = sending
        self._pieces = pieces(opened.id.chunk_size, start, stop - start)
        self._piece = next(self._pieces)
        self._last_index = (stop - 1) // opened.id.chunk_size
        self._begun = 0.0
        """When the chunk in hand was asked for."""
        self._asked_index = -1
        """The highest that was asked for ahead."""

    def first_at_hand(self) -> Part | None:
        """Return the first part if its chunk is here. Blocks briefly."""
        self._begun = time.monotonic()
        found = self._sending.reads.at_hand(self._chunk(self._piece.index))
        return None if found is None else self._part(found)

    async def first(self) -> Part:
        """Return the first part when it is here.

        Raises:
            PenstockError: It does not come.
        """
        self._begun = time.monotonic()
        self._ask_ahead(self._piece.index)
        return self._part(await self._come(is_promised=False))

    def then(self) -> Callable[[], Outcome] | None:
        """Return what gives the part behind the one just given; None behind the last."""
        piece = next(self._pieces, None)
        if piece is None:
            return None
        self._piece = piece
        return self._next

    def _next(self) -> Outcome:
        self._begun = time.monotonic()
        found = self._sending.reads.at_hand(self._chunk(self._piece.index))
        if found is None:
            return self._sending.on_loop(self._landed())
        if self._asked_index >= 0:
            self._sending.call_on_loop(partial(self._ask_ahead, self._piece.index))
        return Reply([self._part(found)], then=self.then())

    async def _landed(self) -> Reply:
        self._ask_ahead(self._piece.index)
        try:
            part = self._part(await self._come(is_promised=True))
        except PenstockError as error:
            # The length is told already: an early end says that this is not all of it.
            _log.warning(
                "an answer was broken off", url=self._opened.url, error=error.name, why=str(error)
            )
            return Reply(ends=True)
        return Reply([part], then=self.then())

    async def _come(self, *, is_promised: bool) -> ChunkAnswer:
        try:
            return await self._chunk_of(self._piece.index, is_promised=is_promised)
        except PenstockError as error:
            self._sending.metrics.chunk_read_failures.labels(error=error.name).inc()
            raise

    async def _chunk_of(self, index: int, *, is_promised: bool) -> ChunkAnswer:
        """Wait for a chunk; of a body that has begun, through what another attempt may mend."""
        chunk, answer = self._chunk(index), None
        try:
            async with asyncio.timeout(CHUNK_S):
                while answer is None:
                    try:
                        answer = await self._sending.reads.answer(chunk)
                    except Retryable as error:
                        if not is_promised:
                            raise
                        await asyncio.sleep(_pause_s(error))
        except TimeoutError:
            raise NodeUnavailable(f"a chunk did not come within {CHUNK_S:.0f} s") from None
        return answer

    def _ask_ahead(self, index: int) -> None:
        """Ask for chunks behind the one at ``index``. On the event loop."""
        first = max(index, self._asked_index) + 1
        self._asked_index = min(index + CHUNKS_AHEAD, self._last_index)
        for ahead in range(first, self._asked_index + 1):
            chunk = self._chunk(ahead)
            # What no tier keeps would wait in memory for its turn, and others for the memory.
            if self._sending.reads.is_kept(chunk):
                self._sending.ask_for(chunk)

    def _chunk(self, index: int) -> Chunk:
        return Chunk(self._opened.id, self._opened.volume, index)

    def _part(self, answer: ChunkAnswer) -> Part:
        piece = self._piece
        self._sending.metrics.served(
            plane=self._sending.plane,
            source=answer.source,
            key=self._opened.id.key,
            length=piece.length,
            seconds=time.monotonic() - self._begun,
        )
        self._sending.reads.were_read(answer.chunk.object, [(answer.chunk.index, piece.length)])
        content = answer.content
        if isinstance(content, Payload):
            return Octets(content.data[piece.start : piece.stop], holds=content)
        return FileSpan(content, piece.start, piece.stop)

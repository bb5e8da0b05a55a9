"""Chunks for one request of the host plane: what is here at once, the rest as it comes in.

Responsible for: looking for many chunks, bringing in those that are missing side by side, and
closing whatever came too late for its reader.
Not responsible for: where chunks come from (`host_reads`), who is given files (`serve.host`).
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias, TypeVar

import structlog

from penstock import tracing
from penstock.errors import Overloaded, PenstockError
from penstock.objects import ObjectId
from penstock.planes.plane import Source
from penstock_node.chunk import Chunk
from penstock_node.chunks import ChunkAnswer
from penstock_node.inflight import Lane
from penstock_node.serve.sealed_copy import SealedCopy
from penstock_node.store.stored_chunk import StoredChunk

INTERIM_S = 0.2
"""How long a reader waits before it is told that nothing has come yet."""
WAITING_MAX = 4096
"""Chunks that are waited for at once; beyond it, readers are asked to come back."""
RETRY_AFTER_S = 0.1

T = TypeVar("T")

_log = structlog.get_logger(__name__)


class Reads(Protocol):
    """Where chunks come from: see `penstock_node.host_reads.HostReads`."""

    def at_hand(self, chunk: Chunk, *, recheck: bool = False) -> ChunkAnswer | None:
        """Return the chunk from any tier, None if it is not here. Blocks."""

    async def answer(self, chunk: Chunk, *, only_if_cached: bool = False) -> ChunkAnswer | None:
        """Return the chunk, None when it is still on its way after a moment."""

    def were_read(self, obj: ObjectId, pieces: Sequence[tuple[int, int]]) -> None:
        """Note that a reader was given parts of chunks: their indexes, and how many bytes."""


class Memory(Protocol):
    """The memory tier, if there is one: see `penstock_node.store.store.Store`."""

    def wants_in_memory(self, chunk_id: bytes) -> bool:
        """Tell whether there is a memory tier and the chunk is not in it."""

    def promote(self, obj: ObjectId, index: int) -> None:
        """Copy a chunk into it. Blocks."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What one request asks for."""

    chunks: Sequence[Chunk]
    lengths: Sequence[int] = ()
    """How many bytes of each are wanted, for the node's counters; none: all."""
    only_if_cached: bool = False
    recheck: bool = False
    into_memory: bool = False

    def cut(self, start: int, stop: int) -> "Wanted":
        """Return the same for the chunks from ``start`` to ``stop`` alone."""
        return replace(self, chunks=self.chunks[start:stop], lengths=self.lengths[start:stop])


@dataclass(frozen=True, slots=True)
class Given:
    """A chunk as a file that can be given away."""

    chunk: Chunk
    content: StoredChunk | SealedCopy
    checksums: bytes
    source: Source

    @property
    def is_passable(self) -> bool:
        """Whether any process may have it: nobody can open it for writing."""
        return isinstance(self.content, SealedCopy) or self.content.is_passable


Found: TypeAlias = Given | PenstockError | None
"""None: it is not here yet."""


class HostChunks:
    """Looks for chunks, and waits for them; see the module."""

    def __init__(self, *, reads: Reads, memory: Memory, copies: Lane, threads: Executor) -> None:
        """Put the parts together.

        Args:
            reads: Where chunks come from.
            memory: Where chunks go that are about to be mapped.
            copies: Lends the memory for chunks that no tier keeps.
            threads: For disk work.
        """
        self._reads = reads
        self._memory = memory
        self._copies = copies
        self._threads = threads
        self._waiting = 0

    @property
    def waiting(self) -> int:
        """How many chunks are waited for."""
        return self._waiting

    def at_hand(self, wanted: Wanted) -> list[Found]:
        """Return what is here, in order. Blocks; for threads."""
        found: list[Found] = []
        try:
            for chunk in wanted.chunks:
                found.append(self._look(chunk, wanted))  # noqa: PERF401 - closed on a failure
        except BaseException:
            close_all(found)
            raise
        return found

    def _look(self, chunk: Chunk, wanted: Wanted) -> Found:
        try:
            answer = self._reads.at_hand(chunk, recheck=wanted.recheck)
        except PenstockError as error:
            return error
        if answer is None:
            return None
        if wanted.into_memory and self._belongs_in_memory(answer):
            answer.close()
            return None
        return _given(answer)

    def _belongs_in_memory(self, answer: ChunkAnswer) -> bool:
        return answer.source == "disk" and self._memory.wants_in_memory(answer.chunk.id)

    def were_read(self, obj: ObjectId, pieces: Sequence[tuple[int, int]]) -> None:
        """Note that a reader was given parts of chunks: their indexes, and how many bytes."""
        self._reads.were_read(obj, pieces)

    async def look(self, wanted: Wanted) -> list[Found]:
        """As `at_hand`, on the event loop."""
        looking = self._in_thread(lambda: self.at_hand(wanted))
        try:
            return await asyncio.shield(looking)
        except asyncio.CancelledError:
            looking.add_done_callback(_close_late_list)
            raise

    async def wait(self, wanted: Wanted, found: list[Found]) -> list[Found]:
        """Return ``found`` with what has come of what was missing, soon if anything is there.

        What comes later is brought in all the same, for the next time that it is asked for.
        """
        missing = [at for at, one in enumerate(found) if one is None]
        if self._waiting + len(missing) > WAITING_MAX:
            close_all(found)
            raise Overloaded(f"{self._waiting} chunks are waited for", retry_after_s=RETRY_AFTER_S)
        tasks = {at: asyncio.create_task(self._bring(wanted, at)) for at in missing}
        timeout_s = INTERIM_S if len(missing) == len(found) else 0.0
        try:
            await asyncio.wait(
                tasks.values(), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
        except asyncio.CancelledError:
            close_all(found)
            for task in tasks.values():
                task.add_done_callback(_close_late)
            raise
        for at, task in tasks.items():
            if task.done():
                found[at] = task.result()
            else:
                task.add_done_callback(_close_late)
        return found

    async def _bring(self, wanted: Wanted, at: int) -> Found:
        chunk = wanted.chunks[at]
        self._waiting += 1
        try:
            if wanted.into_memory:
                await self._in_thread(lambda: self._bring_into_memory(chunk))
            answer = await self._reads.answer(chunk, only_if_cached=wanted.only_if_cached)
            return await self._as_file(answer) if answer else None
        except PenstockError as error:
            return error
        except Exception as error:  # noqa: BLE001 - one chunk's trouble, told to its reader
            _log.error("a chunk failed inside the node", exc_info=error)
            return PenstockError("the node failed; its log says more")
        finally:
            self._waiting -= 1

    def _bring_into_memory(self, chunk: Chunk) -> None:
        if self._memory.wants_in_memory(chunk.id):
            self._memory.promote(chunk.object, chunk.index)

    async def _as_file(self, answer: ChunkAnswer) -> Given | None:
        """Return what a reader is given; None: there is no memory for a copy, it asks again."""
        content = answer.content
        if isinstance(content, StoredChunk):
            return _given(answer)
        loan = await self._copies.take_turn(answer.chunk.length)
        if loan is None:
            return None
        copy = await self._in_thread(lambda: SealedCopy(content.data, loan))
        return Given(answer.chunk, copy, content.checksums, answer.source)

    def _in_thread(self, call: Callable[[], T]) -> "asyncio.Future[T]":
        return asyncio.get_running_loop().run_in_executor(self._threads, tracing.carried(call))


def close_all(found: Iterable[Found]) -> None:
    """Close the files among ``found``: nobody is given them."""
    for one in found:
        if isinstance(one, Given):
            one.content.close()


def _given(answer: ChunkAnswer) -> Given:
    content = answer.content
    assert isinstance(content, StoredChunk), "what is at hand is a file"
    return Given(answer.chunk, content, content.checksums, answer.source)


def _close_late(task: "asyncio.Task[Found]") -> None:
    if not task.cancelled():
        close_all([task.result()])


def _close_late_list(looking: "asyncio.Future[list[Found]]") -> None:
    if not looking.cancelled() and looking.exception() is None:
        close_all(looking.result())

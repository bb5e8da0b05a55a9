"""Warming: chunks brought in because somebody said that they will be read.

Responsible for: beginning and joining the fills that one request names, within what this node
has room for, and telling how far each is.
Not responsible for: which chunks, and asking again (`penstock.warming`), filling (`fill`,
`host_reads`). Nobody is sent a byte of what comes in.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Literal, TypeVar

from penstock.errors import InvalidRequest, NodeUnavailable, NotCached, Overloaded, PenstockError
from penstock_node.chunk import Chunk, Filled
from penstock_node.chunks import Chunks
from penstock_node.flights import Flight, wait_for_an_end
from penstock_node.host_reads import HostReads
from penstock_node.store.eviction import READINGS
from penstock_node.store.store import Store

FILLS_MAX = 256
"""Begun by warm-ups and not over: readers have the rest of a node's flights."""
RETRY_AFTER_S = 0.5
ANSWER_S = 1.0
"""How long a request waits for news."""
GATHER_S = 0.02
"""How long it waits for more, once there is some."""

State = Literal["held", "filled", "filling", "failed", "absent"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Warmed:
    """How far a chunk is."""

    state: State
    error: PenstockError | None = None
    """Why it failed."""


@dataclass(frozen=True, slots=True)
class WarmWanted:
    """What one request asks for."""

    chunks: Sequence[Chunk]
    epoch: int
    """The sender's."""
    suspects: Sequence[str] = ()
    for_host: bool = False
    """For this machine's readers, whoever owns the chunks."""
    dry_run: bool = False


class Warming:
    """Brings in what is to be read; see the module. On the event loop."""

    def __init__(
        self,
        *,
        node_id: str,
        chunks: Chunks,
        host_reads: HostReads,
        store: Store,
        threads: Executor,
    ) -> None:
        """Put the parts together.

        Args:
            node_id: This node, for messages.
            chunks: Fills what this node owns.
            host_reads: Fetches what others own.
            store: What is here.
            threads: For disk work.
        """
        self._node_id = node_id
        self._chunks = chunks
        self._host_reads = host_reads
        self._store = store
        self._threads = threads
        self._begun: set[bytes] = set()
        """Ids alone: a flight may have its chunk's bytes, and somebody waits for that memory."""

    @property
    def begun_count(self) -> int:
        """How many chunks are on their way because of warm-ups."""
        return len(self._begun)

    async def warm(self, wanted: WarmWanted) -> list[Warmed]:
        """Have chunks brought in; return how far each is, as soon as there is any news.

        Raises:
            InvalidRequest: They are for this machine's readers, and no tier is for those.
        """
        if wanted.for_host and not self._store.keeps_copies:
            raise InvalidRequest(
                f"{self._node_id} has no memory tier and no local tier for its machine's readers"
            )
        await self._chunks.catch_up(wanted.epoch)
        held = await self._held(wanted.chunks)
        if wanted.dry_run:
            return [Warmed("held" if is_held else "absent") for is_held in held]
        begun = [
            self._noted(chunk) if is_held else await self._begin(chunk, wanted)
            for chunk, is_held in zip(wanted.chunks, held, strict=True)
        ]
        await self._wait_for_news(begun)
        return [each if isinstance(each, Warmed) else self._told(each) for each in begun]

    async def _held(self, chunks: Sequence[Chunk]) -> list[bool]:
        def look() -> list[bool]:
            return [self._store.holds(chunk.object, chunk.index) for chunk in chunks]

        return look() if self._store.knows_all else await self._in_thread(look)

    def _noted(self, chunk: Chunk) -> Warmed:
        """Have a chunk that is here count as asked for."""
        self._store.raise_readings(chunk.id, READINGS["warmup"])
        return Warmed("held")

    async def _begin(self, chunk: Chunk, wanted: WarmWanted) -> Flight[Filled] | Warmed:
        try:
            self._check_room(chunk)
            flight = (
                self._host_reads.warm_flight(chunk)
                if wanted.for_host
                else await self._chunks.warm_flight(chunk, suspects=wanted.suspects)
            )
        except PenstockError as error:
            return Warmed("failed", error)
        if chunk.id not in self._begun:
            self._begun.add(chunk.id)
            flight.when_over(lambda: self._begun.discard(chunk.id))
        return flight

    def _check_room(self, chunk: Chunk) -> None:
        if not self._store.is_scanned:  # Until then nobody knows what there is room for.
            raise Overloaded(f"{self._node_id} scans its disks", retry_after_s=RETRY_AFTER_S)
        if len(self._begun) >= FILLS_MAX and chunk.id not in self._begun:
            raise Overloaded(
                f"{self._node_id} is warming {FILLS_MAX} chunks", retry_after_s=RETRY_AFTER_S
            )

    async def _wait_for_news(self, begun: Sequence[Flight[Filled] | Warmed]) -> None:
        flights = [each for each in begun if isinstance(each, Flight)]
        if len(flights) < len(begun):
            return
        await wait_for_an_end(flights, ANSWER_S)
        if not all(flight.is_over for flight in flights):
            await asyncio.sleep(GATHER_S)

    def _told(self, flight: Flight[Filled]) -> Warmed:
        if not flight.is_over:
            return Warmed("filling")
        try:
            filled = flight.outcome()
        except PenstockError as error:
            return Warmed("failed", error)
        except asyncio.CancelledError:
            return Warmed("failed", NodeUnavailable(f"{self._node_id} is stopping"))
        if filled.payload is not None:
            why = "no tier had room for it, or their disks fail"
            return Warmed("failed", NotCached(f"{self._node_id} could not keep the chunk: {why}"))
        return Warmed("held" if filled.source == "disk" else "filled")

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

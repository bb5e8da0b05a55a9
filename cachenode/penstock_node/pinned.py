"""Pinned objects: this node's part in keeping them.

Responsible for: which chunks of pinned objects this node keeps; having the store evict them last;
bringing back those that are lost, a few at a time, at no higher rate than it takes chunks over.
Not responsible for: what is pinned (`coordination.pins`), evicting (`store`), filling (`fill`).
"""

import asyncio
import contextlib
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import TypeVar

import structlog

from penstock.errors import PenstockError, Retryable
from penstock.objects import ObjectId
from penstock.ring import Ring
from penstock_node.chunk import Chunk
from penstock_node.chunks import Chunks
from penstock_node.cluster import Cluster
from penstock_node.cluster_copies import Copies
from penstock_node.coordination.pin_records import Pin, PinnedObject
from penstock_node.flights import wait_for_an_end
from penstock_node.pace import Pace
from penstock_node.store import Described, Store

LOOK_S = 10.0
"""Between looks whether a chunk was lost. One costs some microseconds a chunk, in a thread."""
SCAN_LOOK_S = 0.5
"""The same while disks are scanned."""
FILLS_AT_ONCE = 4
FILL_TIMEOUT_S = 60.0
IDS_AT_ONCE = 1 << 14
"""Whose owners are looked up together."""
READ_MOST = 1e9
"""A pinned chunk comes before all that is read, however often."""

T = TypeVar("T")

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Part:
    """The chunks of one object that this node keeps."""

    pin_id: str
    of: PinnedObject
    indexes: "array[int]"
    kept_bytes: int
    held_bytes: int = 0
    is_given_up: bool = False
    """Its origin has another version by now, for example: until the pins or owners change."""


@dataclass(frozen=True, slots=True)
class Kept:
    """How much of one pin this node is to keep, and how much of that it holds."""

    kept_bytes: int = 0
    held_bytes: int = 0


@dataclass(frozen=True, slots=True)
class _Basis:
    """What this node's parts follow from."""

    pins: Mapping[str, Pin] = field(default_factory=dict)
    ring: Ring | None = None
    copies: Copies = field(default_factory=Copies)

    def is_as(self, other: "_Basis") -> bool:
        """Tell whether the same parts follow from another."""
        return self.pins is other.pins and self.ring is other.ring and self.copies == other.copies


class Pinned:
    """See the module. On the event loop."""

    def __init__(
        self, *, cluster: Cluster, chunks: Chunks, store: Store, threads: Executor, pace: Pace
    ) -> None:
        """Put the parts together.

        Args:
            cluster: What is pinned, and who owns what.
            chunks: Brings chunks in.
            store: What is here.
            threads: For what takes long.
            pace: The rate at which chunks are brought back.
        """
        self._cluster = cluster
        self._chunks = chunks
        self._store = store
        self._threads = threads
        self._pace = pace
        self._basis = _Basis()
        self._parts: list[_Part] = []

    def kept(self) -> dict[str, Kept]:
        """Return how much of each pin is kept here, at the last look."""
        told: dict[str, Kept] = {}
        for part in self._parts:
            known = told.get(part.pin_id, Kept())
            told[part.pin_id] = Kept(
                known.kept_bytes + part.kept_bytes, known.held_bytes + part.held_bytes
            )
        return told

    async def run(self) -> None:
        """Keep what is pinned, for ever."""
        while True:
            try:
                await self.look()
                await self._wait_for_a_change()
            except PenstockError as error:  # Of this node itself, which is starting.
                _log.info("pinned chunks are left for later", error=str(error))
                await asyncio.sleep(LOOK_S)
            except Exception as error:  # noqa: BLE001 - the next look begins anew
                _log.error("keeping what is pinned failed inside the node", exc_info=error)
                await asyncio.sleep(LOOK_S)

    async def _wait_for_a_change(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S if self._store.is_scanned else SCAN_LOOK_S):
                while self._is_current():
                    await self._cluster.changed.wait()

    async def look(self) -> None:
        """Follow the pins and the placement, and bring back what is lost.

        Raises:
            NodeUnavailable: This node is still starting.
        """
        if not self._is_current():
            basis = self._present()
            self._parts = await self._in_thread(lambda: list(self._parts_of(basis)))
            self._basis = basis
        missing = await self._in_thread(self._missing)
        if self._store.is_scanned:  # What is here would be fetched again.
            await self._bring_back(deque(missing))

    def _present(self) -> _Basis:
        return _Basis(self._cluster.pins, self._cluster.ring, self._cluster.copies)

    def _is_current(self) -> bool:
        return self._basis.is_as(self._present())

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    def _parts_of(self, basis: _Basis) -> Iterator[_Part]:
        for pin_id, pin in basis.pins.items():
            for each in pin.objects:
                indexes = array("Q", self._own_indexes(each.object, basis))
                if indexes:
                    size = sum(map(each.object.chunk_length, indexes))
                    yield _Part(pin_id, each, indexes, size)

    def _own_indexes(self, of: ObjectId, basis: _Basis) -> Iterator[int]:
        assert basis.ring is not None, "a node that is asked has a ring"
        copies, node_id = basis.copies.of(of.key), self._cluster.node_id
        for first in range(0, of.chunk_count, IDS_AT_ONCE):
            indexes = range(first, min(first + IDS_AT_ONCE, of.chunk_count))
            owners = basis.ring.owners_each([of.chunk_id(at) for at in indexes], copies)
            yield from (at for at, some in zip(indexes, owners, strict=True) if node_id in some)

    def _missing(self) -> list[tuple[_Part, int]]:
        """Have the store evict last what is here of pinned objects; return what is not here."""
        owned = self._store.owned
        owned.pin([each.of.object for each in self._parts])
        missing: list[tuple[_Part, int]] = []
        for part in self._parts:
            of, held = part.of.object, 0
            for index in part.indexes:
                if owned.attribute(of.chunk_id(index), of=of) or self._is_elsewhere(of, index):
                    held += of.chunk_length(index)
                elif not part.is_given_up:
                    missing.append((part, index))
            part.held_bytes = held
        return missing

    def _is_elsewhere(self, of: ObjectId, index: int) -> bool:
        """Tell whether another tier has a chunk, so that none brings it in."""
        return self._store.knows_all and self._store.holds(of, index)

    async def _bring_back(self, missing: deque[tuple[_Part, int]]) -> None:
        async def work() -> None:
            while missing and self._is_current():
                part, index = missing.popleft()
                if part.is_given_up or not self._has_room(part, index):
                    continue
                if not await self._fill(part, index):
                    missing.clear()

        await asyncio.gather(*(work() for _ in range(FILLS_AT_ONCE)))

    def _has_room(self, part: _Part, index: int) -> bool:
        """Tell whether it takes the place of nothing that is pinned too."""
        wanted = Described(part.of.object, index, READ_MOST)
        return self._store.owned.has_room_for(wanted)

    async def _fill(self, part: _Part, index: int) -> bool:
        """Bring a chunk in; tell whether to go on with others at once."""
        chunk = Chunk(part.of.object, part.of.volume, index)
        await self._pace.wait(chunk.length)
        try:
            flight = self._chunks.own_flight(chunk, reason="warmup")
            if flight is None:  # Another owner's by now.
                return True
            await wait_for_an_end([flight], FILL_TIMEOUT_S)
            if flight.is_over and flight.outcome().payload is None:
                part.held_bytes += chunk.length
        except Retryable as error:
            _log.info("pinned chunks are left for later", error=str(error))
            return False
        except PenstockError as error:
            part.is_given_up = True
            key = part.of.object.key
            _log.warning("a pinned object cannot be kept", key=key, error=str(error))
        return True

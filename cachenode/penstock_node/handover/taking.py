"""Taking over: going through what others hold of this node's chunks, best first.

Responsible for: asking every member that has not finished handing over; going on where it was
after a failure, and beginning anew at the next placement.
Not responsible for: what others hold (`giving`), bringing one chunk in (`moving`), fills for
readers (`fill`), which ask former owners themselves: nobody waits for this.

What is here already is not moved, so that beginning anew costs ids alone.
"""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import structlog

from penstock import rpc
from penstock.errors import NodeUnavailable, PenstockError
from penstock.membership.view import Member
from penstock.v1 import handover_pb2
from penstock_node.cluster import Cluster
from penstock_node.cluster_copies import Copies
from penstock_node.handover.asking import Asking
from penstock_node.handover.giving import NOTHING, Left
from penstock_node.handover.haste import Leaving, bytes_per_s
from penstock_node.handover.moving import Mover
from penstock_node.store import Store
from penstock_node.store.listed import split_ids

ASKED_AT_ONCE = 16
"""Chunks that are described, and then taken: readers wait while many are, at either node."""
SOURCES_AT_ONCE = 8
START_S = 1.0
"""After a change, until others are asked: those with nothing to hand over have said so by then."""
POLL_S = 0.5
"""Until a node that has no list yet, or whose list may grow, is asked again."""
AGAIN_S = 2.0
"""Until a node that had nothing more is asked again, for as long as it has not handed over all:
meanwhile a chunk of this node's may have come to it."""
AGAIN_PER_S = 20
"""How many of those are asked in a second, or some more by chance: of a thousand each within a
minute, for some hundredths of a processor."""
PAUSE_S = 0.5
PAUSE_MAX_S = 15.0
"""After failures, longer each time."""
LOOK_S = 0.5
"""Between looks whether the start-up scan is over."""

_log = structlog.get_logger(__name__)


class _Source(NamedTuple):
    """Whom to take from, for one epoch. Another incarnation has other lists."""

    id: str
    incarnation: str
    epoch: int
    copies: Copies
    """What was passed over may be one's own when these change: then all begins anew."""


@dataclass(slots=True)
class _Progress:
    """How far this node is in one source's list."""

    number: int = 0
    start: int = 0
    left: Left = NOTHING
    chunks: int = 0
    size_bytes: int = 0

    def follow(self, offer: handover_pb2.OfferResponse) -> None:
        """Go on where the source does: perhaps in another list."""
        if offer.list != self.number:
            self.left = NOTHING
        self.number, self.start = offer.list, offer.start
        self.chunks, self.size_bytes = offer.chunks, offer.bytes

    @property
    def waiting_bytes(self) -> int:
        """What may be still to come, were all chunks of one size."""
        return self.size_bytes * (self.chunks - self.start) // self.chunks if self.chunks else 0


class Taking:
    """This node's part in taking over. On the event loop."""

    def __init__(
        self,
        *,
        cluster: Cluster,
        store: Store,
        mover: Mover,
        asking: Asking,
        rng: random.Random,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Put the parts together.

        Args:
            cluster: Who owns what, and who has not finished handing over.
            store: What is here already.
            mover: Brings chunks in.
            asking: Calls other nodes.
            rng: Spreads the nodes of a cluster over time, so that not all ask at once.
            wall: Seconds since 1970.
        """
        self._wall = wall
        self._cluster = cluster
        self._store = store
        self._mover = mover
        self._asking = asking
        self._rng = rng
        self._sources = asyncio.Semaphore(SOURCES_AT_ONCE)
        self._progress: dict[_Source, _Progress] = {}
        self._tasks: dict[_Source, asyncio.Task[None]] = {}

    @property
    def waiting_bytes(self) -> int:
        """What other nodes offer and this one has not looked at yet."""
        return sum(progress.waiting_bytes for progress in list(self._progress.values()))

    @property
    def bytes_per_s(self) -> float:
        """At which rate chunks should come at this moment: see `haste`."""
        drains, now = self._cluster.drains_in_time, self._wall()
        leaving = [
            Leaving(progress.waiting_bytes, drain.gone_at - now, now - drain.set_at)
            for source, progress in self._progress.items()
            if (drain := drains.get(source.id)) is not None
        ]
        return bytes_per_s(self._cluster.settings.handoff_bytes_per_s, leaving)

    async def run(self) -> None:
        """Take over what there is, for ever."""
        try:
            while True:
                changed = self._cluster.changed
                await self._follow(self._wanted())
                await changed.wait()
        finally:
            await self._follow(set())

    def _wanted(self) -> set[_Source]:
        view, node_id = self._cluster.view, self._cluster.node_id
        if not any(node.id == node_id and node.weight for node in view.placement.nodes):
            return set()
        epoch, copies = view.placement.epoch, self._cluster.copies
        return {
            _Source(member.id, member.incarnation, epoch, copies)
            for member in view.members.values()
            if member.id != node_id and member.settled_epoch < epoch
        }

    async def _follow(self, wanted: set[_Source]) -> None:
        """Begin with new sources, and end with those that are none any more."""
        ended = [self._tasks.pop(source) for source in sorted(self._tasks.keys() - wanted)]
        for task in ended:
            task.cancel()
        await asyncio.gather(*ended, return_exceptions=True)
        for source in self._progress.keys() - wanted:
            del self._progress[source]
        for source in sorted(wanted - self._tasks.keys()):
            name = f"take over from {source.id}"
            self._tasks[source] = asyncio.create_task(self._take_from(source), name=name)

    async def _take_from(self, source: _Source) -> None:
        """Take all that one node has for this one, whatever comes between."""
        await asyncio.sleep(self._jittered(START_S))
        progress, failures = self._progress.setdefault(source, _Progress()), 0
        while True:
            try:
                async with self._sources:
                    pause_s = await self._take_page(source, progress)
                failures = 0
            except PenstockError as error:
                _log.info("hand-over pauses", source=source.id, error=str(error))
                pause_s = self._pause_s(failures)
                failures += 1
            except Exception as error:  # noqa: BLE001 - one node's trouble ends no hand-over
                _log.error("hand-over failed inside the node", source=source.id, exc_info=error)
                pause_s = self._pause_s(failures)
                failures += 1
            await asyncio.sleep(pause_s)

    async def _take_page(self, source: _Source, progress: _Progress) -> float:
        """Take what the next page lists.

        Returns:
            How many seconds later to go on.
        """
        if not self._store.is_scanned:  # What is here would be fetched again.
            return LOOK_S
        request = handover_pb2.OfferRequest(
            node=self._cluster.node_id,
            epoch=source.epoch,
            list=progress.number,
            start=progress.start,
            left_chunks=progress.left.chunks,
            left_bytes=progress.left.size_bytes,
        )
        offer = await self._asking.ask(self._member(source), rpc.OFFER, request)
        progress.follow(offer)
        if not offer.chunk_ids:
            return self._jittered(again_s(len(self._tasks))) if offer.is_over else POLL_S
        ids = split_ids(offer.chunk_ids)
        missing = [each for each in ids if each not in self._store.owned]
        left = await self._take_missing(source, missing)
        progress.start += len(ids)
        progress.left = progress.left.plus(left)
        return 0.0

    async def _take_missing(self, source: _Source, missing: Sequence[bytes]) -> Left:
        """Take chunks that are not here; return what there was no room for."""
        left = NOTHING
        for first in range(0, len(missing), ASKED_AT_ONCE):
            asked = missing[first : first + ASKED_AT_ONCE]
            member = self._member(source)
            request = handover_pb2.DescribeRequest(chunk_ids=b"".join(asked))
            answer = await self._asking.ask(member, rpc.DESCRIBE, request)
            left = left.plus(await self._mover.take_all(member, answer.chunks, epoch=source.epoch))
        return left

    def _member(self, source: _Source) -> Member:
        """Return where a source is.

        Raises:
            NodeUnavailable: It has just left.
        """
        member = self._cluster.view.members.get(source.id)
        if member is None:
            raise NodeUnavailable(f"{source.id} does not answer any more")
        return member

    def _pause_s(self, failures: int) -> float:
        """Return how long to wait after so many failures and one more."""
        return self._jittered(min(PAUSE_MAX_S, PAUSE_S * 2 ** min(failures, 10)))

    def _jittered(self, longest_s: float) -> float:
        return longest_s * self._rng.uniform(0.5, 1.0)


def again_s(sources: int) -> float:
    """Return after how long each of so many nodes is asked again, at the longest."""
    return max(AGAIN_S, sources / AGAIN_PER_S)

"""Handing over: telling new owners what this node holds of theirs, until all have it.

Responsible for: the lists of one epoch, who is done with its own, and when this node has nothing
left to hand over.
Not responsible for: moving bytes, which new owners ask for as any reader (`taking`); announcing
(`node`).

What was handed over stays here until it is evicted: a machine that comes back after maintenance
finds its chunks, and whoever took them meanwhile offers ids alone.
"""

import asyncio
from collections.abc import Callable, Sequence, Set
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace

from penstock.errors import InvalidRequest
from penstock.objects import CHUNK_ID_BYTES
from penstock_node.chunk import Chunk
from penstock_node.cluster import Cluster
from penstock_node.cluster_copies import Copies
from penstock_node.handover.lists import Share, shares_of_others
from penstock_node.store import Described, Store
from penstock_node.store.listed import split_ids

OFFERED_AT_ONCE = 256
"""Ids in an answer. With the next question the new owner tells that it has done with them, which
is what a progress bar shows."""
DESCRIBED_AT_ONCE = 128
"""Chunks in an answer: for each a file is opened."""


@dataclass(frozen=True, slots=True)
class Left:
    """What a new owner had no room for."""

    chunks: int = 0
    size_bytes: int = 0

    def plus(self, other: "Left") -> "Left":
        """Return both together."""
        return Left(self.chunks + other.chunks, self.size_bytes + other.size_bytes)


NOTHING = Left()


@dataclass(frozen=True, slots=True)
class Offer:
    """A page of a list, for one new owner."""

    epoch: int
    number: int = 0
    """Of the list; 0 while there is none."""
    start: int = 0
    ids: bytes = b""
    share: Share = field(default_factory=Share)
    """All that the list has for it."""
    is_over: bool = False


@dataclass(frozen=True, slots=True)
class Given:
    """How far this node is with handing over."""

    epoch: int = 0
    size_bytes: int = 0
    """What it holds of others' chunks, in files."""
    done_bytes: int = 0
    """The new owners have these, or had no room for them."""
    left_bytes: int = 0
    """Of those done: there was no room."""


@dataclass(frozen=True, slots=True)
class _Reached:
    """How far a new owner is in its share."""

    start: int = 0
    left: Left = NOTHING
    is_over: bool = False


@dataclass(slots=True)
class _Lists:
    """What this node holds of others' chunks at one epoch."""

    epoch: int
    absent: Set[str]
    copies: Copies
    number: int
    is_final: bool
    """Nothing was on its way by an earlier placement when they were made."""
    shares: dict[str, Share]
    reached: dict[str, _Reached] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        return self.is_final and all(self._reached(node).is_over for node in self._there)

    @property
    def _there(self) -> dict[str, Share]:
        """The shares of all but those in whose stead others have got theirs."""
        return {node: share for node, share in self.shares.items() if node not in self.absent}

    def add(self, node: str, chunk: Chunk) -> None:
        """Offer one more chunk to a node, whether or not it was done."""
        share = self.shares.setdefault(node, Share())
        share.ids += chunk.id
        share.size_bytes += chunk.length
        self.reached[node] = replace(self._reached(node), is_over=False)

    def given(self) -> Given:
        """Return how far all are together; within a share as if all chunks had one size."""
        there = self._there
        done = sum(
            share.size_bytes * self._reached(node).start // share.chunks
            for node, share in there.items()
        )
        return Given(
            self.epoch,
            sum(share.size_bytes for share in there.values()),
            done,
            sum(self._reached(node).left.size_bytes for node in there),
        )

    def _reached(self, node: str) -> _Reached:
        return self.reached.get(node, _Reached())


class Giving:
    """This node's part in handing over. On the event loop."""

    def __init__(
        self,
        *,
        cluster: Cluster,
        store: Store,
        has_work_before: Callable[[int], bool],
        absent: Callable[[], Set[str]],
        threads: Executor,
    ) -> None:
        """Put the parts together.

        Args:
            cluster: Who owns what.
            store: What is held.
            has_work_before: Whether a chunk is on its way to an owned tier by a placement from
                before an epoch.
            absent: Owners that have been away for long: others keep copies in their stead.
            threads: For disk work.
        """
        self._cluster = cluster
        self._store = store
        self._has_work_before = has_work_before
        self._absent = absent
        self._threads = threads
        self._lists: _Lists | None = None
        self._numbers = 0
        self._late: list[tuple[str, Chunk]] | None = None
        """What came while lists are being made: they may have been too early for it."""

    def given(self) -> Given:
        """Return how far this node is, at the last epoch for which it made lists."""
        return self._lists.given() if self._lists else Given()

    async def look(self) -> bool:
        """Make lists if they are wanted; tell whether this node has nothing left to hand over."""
        epoch, absent, copies = self._cluster.epoch, self._absent(), self._cluster.copies
        is_quiet = not self._has_work_before(epoch)
        present = self._lists
        if (
            present is None
            or (present.epoch, present.absent, present.copies) != (epoch, absent, copies)
            or (is_quiet and not present.is_final)
        ):
            if not self._store.is_scanned:
                return False
            self._lists = await self._made(epoch, absent, copies, is_final=is_quiet)
        return self._lists is not None and self._lists.is_over and self._lists.epoch == epoch

    async def _made(
        self, epoch: int, absent: Set[str], copies: Copies, *, is_final: bool
    ) -> _Lists:
        late = self._late = []
        ring, replicas = self._cluster.ring, copies.most
        node_id, owned = self._cluster.node_id, self._store.owned
        shares = await asyncio.get_running_loop().run_in_executor(
            self._threads,
            lambda: shares_of_others(
                owned.best_first(), ring, node_id=node_id, replicas=replicas, absent=absent
            ),
        )
        self._numbers += 1
        lists = _Lists(epoch, absent, copies, self._numbers, is_final, shares)
        for each in late:
            lists.add(*each)
        self._late = None
        return lists

    def missed(self, owners: Sequence[str], chunk: Chunk) -> None:
        """Take note of a chunk that came while some of its owners were away.

        It may have been on its way for long: who owns it no more does not ask for it either.
        """
        replicas = self._cluster.replicas_of(chunk.object.key)
        present = self._cluster.ring.owners(chunk.id, replicas)
        news = [(owner, chunk) for owner in owners if owner in present]
        if self._late is not None:
            self._late += news
        if self._lists is not None and self._lists.epoch == self._cluster.epoch:
            for each in news:
                self._lists.add(*each)

    def offer(self, node: str, *, epoch: int, number: int, start: int, left: Left) -> Offer:
        """Answer a new owner that has done with what comes before ``start`` of list ``number``."""
        lists = self._lists
        if lists is None or not lists.epoch == epoch == self._cluster.epoch:
            return Offer(self._cluster.epoch)
        share = lists.shares.get(node) or Share()
        if lists.number != number:
            start, left = 0, NOTHING
        is_over = start >= share.chunks and lists.is_final
        lists.reached[node] = _Reached(min(start, share.chunks), left, is_over)
        if is_over:
            return Offer(epoch, lists.number, start, share=share, is_over=True)
        return Offer(
            epoch, lists.number, start, share.page(start, chunks_max=OFFERED_AT_ONCE), share
        )

    async def describe(self, joined: bytes) -> Sequence[Described]:
        """Return what chunks are, those that are still here.

        Raises:
            InvalidRequest: Not ids, or too many.
        """
        if len(joined) % CHUNK_ID_BYTES or len(joined) > DESCRIBED_AT_ONCE * CHUNK_ID_BYTES:
            raise InvalidRequest(f"{len(joined)} bytes: want up to {DESCRIBED_AT_ONCE} ids")
        described = await asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: [self._store.owned.describe(each) for each in split_ids(joined)]
        )
        return [each for each in described if each is not None]

"""Copies: telling the other owners of a chunk that it has come, and taking what one is told of.

Responsible for: gathering what came for a moment, and bounded lines on both sides. What is lost
on the way back is made up for at the next placement (`giving`).
Not responsible for: bringing a chunk in (`moving`).
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Sequence

import structlog

from penstock import rpc
from penstock.errors import NodeUnavailable, Overloaded, PenstockError
from penstock.membership.view import Member
from penstock.v1 import handover_pb2
from penstock_node.chunk import Chunk
from penstock_node.cluster import Cluster
from penstock_node.guests import Guests
from penstock_node.handover.asking import Asking
from penstock_node.handover.giving import DESCRIBED_AT_ONCE
from penstock_node.handover.moving import Mover, chunk_of, described
from penstock_node.incoming import Listener

GATHER_S = 0.1
WAITING_MAX = 4096
"""Chunks to tell one node of, and chunks that one was told of: more are left to the next
placement's lists."""
FIRST_READINGS = 2.0
"""What is being read for the first time: as much as what was asked for."""

_log = structlog.get_logger(__name__)


class Copying:
    """This node's part in making copies; see the module. On the event loop."""

    def __init__(
        self, *, cluster: Cluster, mover: Mover, asking: Asking, guests: Guests, missed: Listener
    ) -> None:
        """Put the parts together.

        Args:
            cluster: Who owns what, and where nodes are.
            mover: Brings chunks in.
            asking: Calls other nodes.
            guests: Takes what is others', while many ask for it.
            missed: Told of who could not be told of a chunk: it is on the lists then.
        """
        self._cluster = cluster
        self._mover = mover
        self._asking = asking
        self._guests = guests
        self._missed = missed
        self._news = asyncio.Event()
        self._to_tell: defaultdict[str, list[Chunk]] = defaultdict(list)
        self._told = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def came(self, others: Sequence[str], chunk: Chunk) -> None:
        """Take note of a chunk that has come, of which others keep a copy."""
        for other in others:
            if len(self._to_tell[other]) < WAITING_MAX:
                self._to_tell[other].append(chunk)
        self._news.set()

    async def spread(self, others: Sequence[str], chunk: Chunk) -> int:
        """Have others keep a copy of a chunk for a while: many ask for it. Return how many do."""
        request = handover_pb2.TellRequest(
            node=self._cluster.node_id, chunks=[_told(chunk)], as_guests=True
        )

        async def tell(node_id: str) -> int:
            try:
                answer = await self._asking.ask(self._member(node_id), rpc.TELL, request)
            except PenstockError as error:
                _log.info("no copy of a hot chunk", peer=node_id, error=str(error))
                return 0
            return int(answer.kept)

        return sum(await asyncio.gather(*map(tell, others)))

    async def run(self) -> None:
        """Tell others, for ever; at the end, take no more."""
        try:
            while True:
                await self._news.wait()
                await asyncio.sleep(GATHER_S)
                self._news.clear()
                waiting, self._to_tell = self._to_tell, defaultdict(list)
                await asyncio.gather(*(self._tell(*each) for each in waiting.items()))
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _tell(self, node_id: str, chunks: Sequence[Chunk]) -> None:
        for first in range(0, len(chunks), DESCRIBED_AT_ONCE):
            request = handover_pb2.TellRequest(
                node=self._cluster.node_id,
                chunks=map(_told, chunks[first : first + DESCRIBED_AT_ONCE]),
            )
            try:
                await self._asking.ask(self._member(node_id), rpc.TELL, request)
            except PenstockError as error:
                _log.info("copies are left for later", peer=node_id, error=str(error))
                # A restart moves no epoch: without this they would wait for the next placement.
                for chunk in chunks[first:]:
                    self._missed([node_id], chunk)
                return

    def _member(self, node_id: str) -> Member:
        member = self._cluster.view.members.get(node_id)
        if member is None:
            raise NodeUnavailable(f"{self._cluster.node_id} does not see {node_id!r}")
        return member

    async def told_guests(self, node_id: str, chunks: Sequence[handover_pb2.DescribedChunk]) -> int:
        """Take copies of others' chunks for a while; return how many are here.

        Raises:
            NodeUnavailable: The node that tells is no member, as far as this node knows.
        """
        member = self._member(node_id)
        taken = [self._guests.take(member, chunk_of(described(each))) for each in chunks]
        return sum(await asyncio.gather(*taken))

    def told(self, node_id: str, chunks: Sequence[handover_pb2.DescribedChunk]) -> None:
        """Take chunks that a node tells of, in the background.

        Raises:
            NodeUnavailable: It is no member, as far as this node knows.
            Overloaded: Too many are waiting.
        """
        member = self._member(node_id)
        if self._told + len(chunks) > WAITING_MAX:
            raise Overloaded(f"{self._told} chunks are to be copied", retry_after_s=1.0)

        async def take() -> None:
            with contextlib.suppress(PenstockError):  # It is on the next placement's lists.
                await self._mover.take_all(member, chunks, epoch=self._cluster.epoch)

        self._told += len(chunks)
        task = asyncio.create_task(take(), name=f"copy from {node_id}")
        self._tasks.add(task)
        task.add_done_callback(lambda ended: self._took(ended, len(chunks)))

    def _took(self, task: "asyncio.Task[None]", count: int) -> None:
        self._told -= count
        self._tasks.discard(task)


def _told(chunk: Chunk) -> handover_pb2.DescribedChunk:
    return handover_pb2.DescribedChunk(
        key=chunk.object.key,
        version=chunk.object.version,
        size=chunk.object.size,
        chunk_size=chunk.object.chunk_size,
        index=chunk.index,
        readings=FIRST_READINGS,
    )

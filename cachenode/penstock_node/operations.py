"""What operators ask of a cluster, answered by whichever node they reached.

Responsible for: gathering from all members, dry runs, and passing changes to the coordination.
Not responsible for: who may ask; how a change becomes a placement.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import TypeVar

from google.protobuf.message import Message

from penstock import rpc
from penstock.errors import PenstockError, Retryable
from penstock.membership.view import Member
from penstock.ring import diff
from penstock.rpc import Channels, Method
from penstock.v1 import operator_pb2
from penstock_node.cluster import Cluster
from penstock_node.coordination import Coordination
from penstock_node.coordination.maintenance import behind, state_of
from penstock_node.coordination.state import check_node
from penstock_node.handover.giving import Given
from penstock_node.listing import Listings
from penstock_node.metrics import NodeMetrics
from penstock_node.moves import Moved, cached_moves, proposed_nodes, proposed_ring
from penstock_node.opening import Opener
from penstock_node.store.store import Store

ASK_TIMEOUT_S = 5.0
SCAN_TIMEOUT_S = 60.0
"""For a node that goes through its whole index."""
EVICT_OBJECTS_MAX = 10_000

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)
T = TypeVar("T")


@dataclass(slots=True)
class Evicted:
    """What left the cache, and who could not be asked."""

    chunks: int = 0
    bytes: int = 0
    unreachable: list[str] = field(default_factory=list)


class Operations:
    """The operator's view of the cluster, from this node."""

    def __init__(
        self,
        *,
        cluster: Cluster,
        coordination: Coordination,
        store: Store,
        opener: Opener,
        listings: Listings,
        metrics: NodeMetrics,
        given: Callable[[], Given],
        channels: Channels,
        threads: Executor,
        version: str,
    ) -> None:
        self._cluster = cluster
        self._coordination = coordination
        self._store = store
        self._opener = opener
        self._listings = listings
        self._metrics = metrics
        self._given = given
        self._channels = channels
        self._threads = threads
        self._version = version

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    async def ask_all(
        self, method: Method[Request, Response], request: Request, *, timeout_s: float
    ) -> dict[str, Response | PenstockError]:
        """Return each member's answer, or why there is none."""

        def ask(member: Member) -> Response | PenstockError:
            try:
                return self._channels.call(
                    member.grpc_address, method, request, timeout_s=timeout_s
                )
            except PenstockError as error:
                return error

        members = list(self._cluster.view.members.values())
        answers = await asyncio.gather(
            *(self._in_thread(lambda m=member: ask(m)) for member in members)  # type: ignore[misc]
        )
        return {member.id: answer for member, answer in zip(members, answers, strict=True)}

    async def node_status(self) -> operator_pb2.NodeStatusResponse:
        """Return what this node tells of itself."""
        # Goes through all of memory's chunks. Not in the threads that may all be asking nodes, this
        # one among them.
        cached = await asyncio.to_thread(self._cached)
        return self.node_status_with(*cached)

    def _cached(self) -> tuple[int, int]:
        return self._store.cached_bytes, self._store.cached_chunks

    def node_status_with(
        self, cached_bytes: int, cached_chunks: int
    ) -> operator_pb2.NodeStatusResponse:
        """Return the same, with what is cached counted by the caller."""
        return operator_pb2.NodeStatusResponse(
            id=self._cluster.node_id,
            owned_capacity_bytes=self._store.owned_capacity_bytes,
            cached_bytes=cached_bytes,
            cached_chunks=cached_chunks,
            version=self._version,
            epoch=self._cluster.epoch,
            counters=self._metrics.totals(),
            handed_over=self._handed_over(),
        )

    def _handed_over(self) -> operator_pb2.HandedOver:
        given = self._given()
        return operator_pb2.HandedOver(
            epoch=given.epoch,
            bytes=given.size_bytes,
            done_bytes=given.done_bytes,
            left_bytes=given.left_bytes,
        )

    async def status(self) -> operator_pb2.StatusResponse:
        """Return the cluster: every node on the ring, and every member that is not."""
        view, state = self._cluster.view, self._coordination.state
        answers = await self.ask_all(
            rpc.NODE_STATUS, operator_pb2.NodeStatusRequest(), timeout_s=ASK_TIMEOUT_S
        )
        shares = await asyncio.to_thread(self._cluster.ring.shares)
        placed = {node.id: node for node in view.placement.nodes}
        counters: Counter[str] = Counter()
        nodes = []
        for node_id in sorted(placed.keys() | view.members.keys()):
            answer = answers.get(node_id)
            told = answer if isinstance(answer, operator_pb2.NodeStatusResponse) else None
            if told:
                counters.update(told.counters)
            record, member = state.nodes.get(node_id), view.members.get(node_id)
            node = placed.get(node_id)
            weight = node.weight if node else 0
            nodes.append(
                operator_pb2.NodeSummary(
                    id=node_id,
                    host=record.host if record else "",
                    zone=record.zone if record else "",
                    state=state_of(state, node_id),
                    weight=weight,
                    weight_source="override" if node_id in state.weights else "auto",
                    share=shares.get(node_id, 0.0),
                    owned_capacity_bytes=record.owned_capacity_bytes if record else 0,
                    cached_bytes=told.cached_bytes if told else 0,
                    grpc_address=member.grpc_address if member else "",
                    version=told.version if told else "",
                    seen_epoch=member.seen_epoch if member else 0,
                )
            )
        return operator_pb2.StatusResponse(
            cluster=self._cluster.name,
            epoch=view.placement.epoch,
            nodes=nodes,
            counters=counters,
        )

    async def drain_status(self, node: str) -> operator_pb2.DrainStatusResponse:
        """Return how far a node is with handing over.

        Raises:
            InvalidRequest: The cluster does not know it.
        """
        state = self._coordination.state
        check_node(state, node)
        override, record = state.weights.get(node), state.members.get(node)
        answer = operator_pb2.DrainStatusResponse(
            state=state_of(state, node),
            epoch=state.epoch,
            behind=behind(state),
            set_at=override.set_at if override else 0.0,
            gone_at=override.gone_at if override else 0.0,
            reason=override.reason if override else "",
        )
        if record is not None:
            with contextlib.suppress(PenstockError):  # It does not answer at this moment.
                told = await self._in_thread(
                    lambda: self._channels.call(
                        record.member.grpc_address,
                        rpc.NODE_STATUS,
                        operator_pb2.NodeStatusRequest(),
                        timeout_s=ASK_TIMEOUT_S,
                    )
                )
                answer.handed_over.CopyFrom(told.handed_over)
        return answer

    async def set_weights(self, changes: Mapping[str, int | None], *, reason: str) -> int:
        """Set or lift overrides in one step; return the epoch at which they are in force."""
        proposed_nodes(self._coordination.state, changes)  # Refuses what cannot be.
        state = await self._coordination.operations.set_weights(changes, reason=reason)
        return state.epoch

    async def preview(self, changes: Mapping[str, int | None]) -> tuple[list[Moved], list[str]]:
        """Return what ``changes`` would move, and the nodes whose bytes are not known."""
        shares = await self._in_thread(lambda: self._shares_moved(changes))
        answers = await self.ask_all(
            rpc.COUNT_MOVES,
            operator_pb2.CountMovesRequest(changes=weight_changes(changes)),
            timeout_s=SCAN_TIMEOUT_S,
        )
        moves, unknown = {(m.source, m.target): m for m in shares}, []
        for node_id, answer in answers.items():
            if isinstance(answer, PenstockError):
                unknown.append(node_id)
                continue
            for told in answer.moves:
                pair = (told.source, told.target)
                share = moves[pair].share if pair in moves else 0.0
                moves[pair] = Moved(*pair, share, told.cached_bytes, told.cached_chunks)
        return [moves[pair] for pair in sorted(moves)], sorted(unknown)

    def _shares_moved(self, changes: Mapping[str, int | None]) -> list[Moved]:
        placement, ring = self._cluster.view.placement, self._cluster.ring
        nodes = proposed_nodes(self._coordination.state, changes)
        moved: Counter[tuple[str, str]] = Counter()
        for move in diff(ring, proposed_ring(ring, placement, nodes)):
            moved[move.source, move.target] += move.share  # type: ignore[assignment]
        return [Moved(source, target, share) for (source, target), share in moved.items()]

    async def count_moves(self, changes: Mapping[str, int | None]) -> list[Moved]:
        """Return what this node alone would hand over."""
        placement, ring = self._cluster.view.placement, self._cluster.ring
        nodes = proposed_nodes(self._coordination.state, changes)
        return await self._in_thread(
            lambda: cached_moves(
                self._store,
                self._cluster.node_id,
                proposed_ring(ring, placement, nodes),
                present=ring,
            )
        )

    async def evict(self, urls: Sequence[str]) -> Evicted:
        """Drop the objects at ``urls``, or below those that end in a slash, from every node.

        Raises:
            ObjectNotFound: There is no such object.
            InvalidRequest: More objects than one call evicts.
        """
        opened = await self._opener.open(await self._expand(urls), refresh=False, forwarded=False)
        for result in opened:
            if isinstance(result, PenstockError):
                raise result
        tickets = [result.ticket for result in opened if not isinstance(result, PenstockError)]
        answers = await self.ask_all(
            rpc.EVICT, operator_pb2.EvictRequest(tickets=tickets), timeout_s=SCAN_TIMEOUT_S
        )
        total = Evicted()
        for node_id, answer in answers.items():
            if isinstance(answer, Retryable):
                total.unreachable.append(node_id)
            elif isinstance(answer, PenstockError):
                raise answer
            else:
                total.chunks += answer.chunks
                total.bytes += answer.bytes
        return total

    async def _expand(self, urls: Sequence[str]) -> list[str]:
        expanded: list[str] = []
        for url in urls:
            if url.endswith("/"):
                expanded += await self._listings.all_below(url, limit=EVICT_OBJECTS_MAX)
            else:
                expanded.append(url)
        return expanded

    async def evict_here(self, tickets: Sequence[str]) -> Evicted:
        """Drop the tickets' objects from this node alone."""
        objects = [self._cluster.verify(ticket).object for ticket in tickets]
        total = Evicted()
        for subject in objects:
            chunks, size = await self._in_thread(lambda s=subject: self._store.evict(s))  # type: ignore[misc]
            total.chunks += chunks
            total.bytes += size
        return total


def weight_changes(changes: Mapping[str, int | None]) -> list[operator_pb2.WeightChange]:
    """Return changes of weights as messages."""
    return [
        operator_pb2.WeightChange(node=node_id)
        if weight is None
        else operator_pb2.WeightChange(node=node_id, weight=weight)
        for node_id, weight in changes.items()
    ]

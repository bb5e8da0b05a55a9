"""Chunks from other nodes: read through the library's planes, as any client does.

Responsible for: one chunk from one named node, and asking whether a node answers at all.
Not responsible for: which node to ask (`fill`).
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial

from penstock import tracing
from penstock.deadline import Deadline
from penstock.errors import CorruptData, NodeUnavailable, PenstockError
from penstock.membership.nodes import Nodes
from penstock.membership.view import Member
from penstock.memory import new_memory
from penstock.planes.plane import Landed, PieceRequest, Plane, ReadContext
from penstock.rpc import GET_PLACEMENT
from penstock.v1 import placement_pb2
from penstock_node.chunk import Chunk
from penstock_node.cluster import Cluster

PROBE_TIMEOUT_S = 5.0
"""For a node that only has to answer at all: one that is silent is given up long before."""
PROBES = 16
"""How often it is asked before it counts as away: a machine that has too much to do may starve it
for a moment, and whoever acts in its stead asks the origin for what it has."""


class Peers:
    """The other nodes of the cluster, as sources of chunks."""

    def __init__(
        self,
        *,
        cluster: Cluster,
        plane_for: Callable[[Member], Plane],
        nodes: Nodes,
        threads: Executor,
    ) -> None:
        """Put the parts together.

        Args:
            cluster: Tickets, and the epoch.
            plane_for: Returns the fastest plane that reaches a node.
            nodes: Calls nodes.
            threads: Where calls block.
        """
        self._cluster = cluster
        self._plane_for = plane_for
        self._nodes = nodes
        self._threads = threads
        self._probes: dict[str, asyncio.Future[bool]] = {}
        self._is_closed = False

    def close(self) -> None:
        """Begin no more probes: a node that stops waits for their threads."""
        self._is_closed = True

    async def fetch(
        self, member: Member, chunk: Chunk, *, only_if_cached: bool, timeout_s: float
    ) -> memoryview:
        """Return the whole chunk, verified, from ``member``.

        Args:
            member: Whom to ask.
            chunk: Which one. The caller has been lent the memory for it.
            only_if_cached: It is to send what it has, and fetch nothing.
            timeout_s: For all of it.

        Raises:
            NodeUnavailable: It does not answer.
            NotCached: It does not have the chunk and was asked only for what it has.
            PenstockError: What else it reported.
        """
        with tracing.span("peer", asks=member.id, only_if_cached=only_if_cached) as span:
            # Kept in no variable: its error would keep this frame, and this frame the error.
            return await asyncio.get_running_loop().run_in_executor(
                self._threads,
                tracing.carried(
                    partial(self._fetch, member, chunk, only_if_cached, timeout_s, span)
                ),
            )

    def _fetch(
        self,
        member: Member,
        chunk: Chunk,
        only_if_cached: bool,
        timeout_s: float,
        span: tracing.Span,
    ) -> memoryview:
        data = new_memory(chunk.length)
        context = ReadContext(
            ticket=self._cluster.sign(chunk.object, chunk.volume).text,
            object=chunk.object,
            epoch=self._cluster.epoch,
            only_if_cached=only_if_cached,
            on_behalf=True,
            traceparent=tracing.traceparent(),
        )
        deadline = Deadline.after(timeout_s)
        piece = PieceRequest(chunk.index, 0, chunk.length, data)
        plane = self._plane_for(member)
        (outcome,) = plane.read(member, context, [piece], deadline=deadline)
        if isinstance(outcome, CorruptData):  # It is told, and looks at its copy.
            context = replace(context, recheck=True)
            (outcome,) = plane.read(member, context, [piece], deadline=deadline)
        if isinstance(outcome, Landed):
            span.note(source=outcome.source)
            span.add_bytes(chunk.length)
            return data.toreadonly()
        try:
            raise outcome
        finally:
            del outcome  # It holds this frame, and with it the chunk's memory.

    async def answers(self, member: Member, *, probes: int = PROBES) -> bool:
        """Tell whether ``member`` answers at all; of several who want to know, one asks.

        One that is silent costs ``probes`` times half a second.
        """
        probe = self._probes.get(member.id)
        if probe is None:
            probe = asyncio.get_running_loop().run_in_executor(
                self._threads, self._probe, member, probes
            )
            self._probes[member.id] = probe
            probe.add_done_callback(lambda _: self._probes.pop(member.id, None))
        return await asyncio.shield(probe)

    def _probe(self, member: Member, probes: int) -> bool:
        return any(self._ping(member) for _ in range(probes) if not self._is_closed)

    def _ping(self, member: Member) -> bool:
        known = self._cluster.view.placement
        request = placement_pb2.GetPlacementRequest(
            cluster_uid=known.cluster_uid, epoch=known.epoch
        )
        try:
            self._nodes.ask(member, GET_PLACEMENT, request, timeout_s=PROBE_TIMEOUT_S)
        except NodeUnavailable:
            return False
        except PenstockError:
            return True  # It answers, if not to our liking.
        return True

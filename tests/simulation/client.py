"""A simulated client: the library's own decisions, in place of its threads and sockets.

Responsible for: opening objects, reading their chunks as `penstock.reader` does one by one, and
comparing what has landed with what the origin wrote.
Not responsible for: whom to ask and what follows from an answer: `penstock.routing` and
`penstock.attempt` decide.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from penstock.attempt import Attempt
from penstock.errors import ClusterUnavailable, PenstockError
from penstock.hedging import HedgeBudget
from penstock.load import Load
from penstock.membership.nodes import POLL_S, Nodes
from penstock.object_info import OpenedObject
from penstock.objects import ObjectId
from penstock.opens import Handle
from penstock.planes.plane import Landed, Outcome, PieceRequest, ReadContext
from penstock.routing import Candidate, Routing
from tests.simulation.edges import read_piece
from tests.simulation.network import Network
from tests.simulation.node import SimNode
from tests.simulation.origin import VOLUME, bytes_of


@dataclass(frozen=True, slots=True)
class ChunkRead:
    """What became of one read of one chunk."""

    client: str
    object: ObjectId
    index: int
    began_at: float
    ended_at: float
    source: str = ""
    """Where the node had it from; empty if the read failed."""
    error: PenstockError | None = None
    data: bytes = b""

    @property
    def is_right(self) -> bool:
        """Whether the bytes are those of that version."""
        subject = self.object
        length = subject.chunk_length(self.index)
        return self.data == bytes_of(subject.key, subject.version, self.index, length)


class SimClient:
    """One process that reads."""

    def __init__(
        self, name: str, network: Network, nodes: dict[str, SimNode], rng: random.Random
    ) -> None:
        self.name, self._network, self._rng = name, network, rng
        self._clock: Callable[[], float] = network.loop.time
        self._nodes = nodes
        self.routing = Routing(clock=self._clock, rng=rng)
        self._hedges = HedgeBudget()
        self._view = _Nodes(self, nodes)

    @property
    def replicas(self) -> int:
        """How many owners keep a chunk, as far as is known."""
        view = self.routing.view
        return view.replicas if view else 1

    def reachable(self) -> list[SimNode]:
        """Return the nodes that answer this client and know their cluster."""
        return [
            node
            for node in self._nodes.values()
            if node.parts is not None
            and node.parts.cluster.epoch > 0
            and self._network.answers(self.name, node.id)
        ]

    @property
    def network(self) -> Network:
        """What it is connected to."""
        return self._network

    @property
    def rng(self) -> random.Random:
        """Its chance."""
        return self._rng

    async def read(self, subject: ObjectId, index: int) -> ChunkRead:
        """Read one chunk, whatever it takes."""
        began_at = self._clock()
        buffer = bytearray(subject.chunk_length(index))
        source, failure = "", None
        try:
            source = await self._read_into(subject, index, memoryview(buffer))
        except PenstockError as error:
            failure = error
        return ChunkRead(
            self.name, subject, index, began_at, self._clock(), source, failure, bytes(buffer)
        )

    async def _read_into(self, subject: ObjectId, index: int, buffer: memoryview) -> str:
        """As `reader.Reader._read_alone`; return where the chunk was."""
        self._view.poll()
        request = PieceRequest(index, 0, len(buffer), buffer)
        stop = _Stop()
        load: Load[Candidate | None] = Load(
            cast("Handle", _Handle(subject, self)),
            [request],
            workers=1,
            stop=cast("Any", stop),
            group_of=lambda _request: None,
        )
        self._hedges.earn()
        attempt = Attempt(
            cast("Nodes", self._view),
            self.routing,
            load,
            request,
            local=None,
            hedges=self._hedges,
            rng=self._rng,
            clock=self._clock,
        )
        attempt.begin()
        while True:
            candidate = attempt.candidate()
            if candidate is None:
                attempt.wait_for_cluster()
            else:
                context = attempt.context(candidate)
                outcome = await self._ask(candidate, context, request, attempt)
                if attempt.settle(candidate, context, outcome):
                    assert isinstance(outcome, Landed)
                    return outcome.source
            await asyncio.sleep(stop.taken_s())

    async def _ask(
        self, candidate: Candidate, context: ReadContext, request: PieceRequest, attempt: Attempt
    ) -> Outcome:
        try:
            return await read_piece(
                self._network,
                self.name,
                candidate.member,
                context,
                request,
                timeout_s=attempt.deadline.remaining_s,
            )
        except PenstockError as error:
            return error


class _Stop:
    """Stands for the event that ends a read early: it never does; waits are made up for."""

    def __init__(self) -> None:
        self._owed_s = 0.0

    def is_set(self) -> bool:
        return False

    def wait(self, timeout: float) -> bool:
        self._owed_s += timeout
        return False

    def taken_s(self) -> float:
        owed_s, self._owed_s = self._owed_s, 0.0
        return owed_s


class _Nodes:
    """Views of the cluster, asked from its nodes. Takes no time: its callers do not await."""

    def __init__(self, client: SimClient, nodes: dict[str, SimNode]) -> None:
        self._client, self._all = client, nodes
        self._poll_at = 0.0

    def poll(self) -> None:
        """Look for a newer view every so often, as calls of the library do on their way."""
        now = self._client.network.loop.time()
        if now >= self._poll_at:
            self._poll_at = now + POLL_S * self._client.rng.uniform(0.75, 1.25)
            with contextlib.suppress(ClusterUnavailable):
                self.refresh(beyond_epoch=None)

    def poll_soon(self) -> None:
        self._poll_at = 0.0

    def refresh(self, *, beyond_epoch: int | None) -> None:
        routing = self._client.routing
        view = routing.view
        if view and beyond_epoch is not None and view.placement.epoch > beyond_epoch:
            return
        found = self._client.reachable()
        if not found:
            raise ClusterUnavailable("no node answers")
        parts = self._client.rng.choice(found).parts
        assert parts is not None
        routing.update(parts.cluster.view)

    def view(self) -> object:
        if self._client.routing.view is None:
            self.refresh(beyond_epoch=None)
        return self._client.routing.view


class _Handle:
    """An opened object. Its ticket is made by whatever node answers, and lasts."""

    def __init__(self, subject: ObjectId, client: SimClient) -> None:
        self._client = client
        self.opened = OpenedObject(
            url=subject.key,
            volume=VOLUME,
            id=subject,
            modified=None,
            ticket="",
            ticket_expires_at=0.0,
            fresh_for_s=0.0,
            replicas=client.replicas,
        )

        self._ticket = self.renew("")

    def ticket(self) -> str:
        return self._ticket

    def renew(self, _expired: str) -> str:
        for node in self._client.reachable():
            assert node.parts is not None
            return node.parts.cluster.sign(self.opened.id, VOLUME).text
        raise ClusterUnavailable("no node answers")

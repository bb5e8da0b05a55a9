"""The edges of a simulated node: what it sends to others, and how it answers them.

Responsible for: the interfaces of `Peers`, `Asking` and `Origins` over the simulated network; the
part of the bulk port that decides nothing.
Not responsible for: decisions; bytes on a wire, which other tests cover.
"""

import asyncio
from typing import TYPE_CHECKING, Any, cast

from penstock import rpc
from penstock.checksums import verify_blocks
from penstock.errors import CorruptData, NodeUnavailable
from penstock.membership.view import Member
from penstock.objects import CHUNK_BYTES_DEFAULT
from penstock.patience import LOOK_S, SILENT_LOOKS
from penstock.planes.plane import Landed, Outcome, PieceRequest, ReadContext
from penstock.volumes import Volume
from penstock_node.chunk import Chunk, Payload
from penstock_node.chunks import ChunkAnswer, ChunkRequest
from penstock_node.cluster import Cluster
from penstock_node.handover.asking import TIMEOUT_S, Asking, Request, Response
from penstock_node.origin import Origins
from penstock_node.peers import PROBES, Peers
from penstock_node.serve.bulk import FILL_S
from tests.simulation.network import Exchange, Network
from tests.simulation.origin import OriginRead, World

if TYPE_CHECKING:
    from tests.simulation.node import Parts

SILENCE_S = SILENT_LOOKS * LOOK_S
"""As the bulk plane's."""
KEEPALIVE_S = 4.0
"""Until gRPC notices that nobody answers its pings."""
SEND_S_PER_BYTE = 1e-9
COUNTS_AS_BYTES = CHUNK_BYTES_DEFAULT
"""Chunks are small here, so that there are many; where bytes count they are as large as usual."""


async def read_piece(
    network: Network,
    source: str,
    member: Member,
    context: ReadContext,
    piece: PieceRequest,
    *,
    timeout_s: float,
) -> Outcome:
    """Read a piece as the bulk plane does: verified, or an error."""
    request = ChunkRequest(
        ticket=context.ticket,
        index=piece.index,
        start=0,
        stop=None,
        epoch=context.epoch,
        only_if_cached=context.only_if_cached,
        suspects=context.suspects,
        recheck=context.recheck,
        on_behalf=context.on_behalf,
        goes_to_holder=context.goes_to_holder,
    )

    async def serve(_: Exchange[tuple[bytes, bytes, Landed]]) -> tuple[bytes, bytes, Landed]:
        parts = _parts(network, member.id)
        return await _serve_chunk(parts, request, may_be_sent_on=context.may_be_sent_on)

    data, checksums, landed = await network.call(
        source,
        member.id,
        serve,
        silence_s=SILENCE_S,
        timeout_s=timeout_s,
        gives_up=context.gives_up,
    )
    verify_blocks(data, checksums)
    piece.into[:] = data
    return landed


def _parts(network: Network, node_id: str) -> "Parts":
    return cast("Parts", network.processes[node_id].runs)


async def _serve_chunk(
    parts: "Parts", request: ChunkRequest, *, may_be_sent_on: bool
) -> tuple[bytes, bytes, Landed]:
    """Answer as the bulk port: what is here, else what a fill brings; or send the reader on."""
    chunk = parts.chunks.requested(request)
    if may_be_sent_on:
        parts.spreading.check(chunk, COUNTS_AS_BYTES)
    answer = await parts.chunks.look(chunk, recheck=request.recheck)
    if answer is None:
        parts.chunks.check_handed_over(chunk, request)
        try:
            async with asyncio.timeout(FILL_S):
                while (answer := await parts.chunks.fill(chunk, request)) is None:
                    pass
        except TimeoutError as error:
            raise NodeUnavailable(f"the chunk did not come within {FILL_S:.0f} s") from error
    try:
        data, checksums = _content(answer)
        await asyncio.sleep(len(data) * SEND_S_PER_BYTE)  # The file is open meanwhile.
        parts.served += not request.on_behalf
        copies = parts.spreading.served(chunk, COUNTS_AS_BYTES)
        parts.handover.guests.asked(chunk.id)
    finally:
        answer.close()
    return data, checksums, Landed(answer.source, parts.cluster.epoch, copies=copies)


def _content(answer: ChunkAnswer) -> tuple[bytes, bytes]:
    content = answer.content
    if isinstance(content, Payload):
        return bytes(content.data), content.checksums
    try:
        return content.read(0, content.length), content.checksums
    except CorruptData as error:  # On the wire, a connection that breaks.
        raise NodeUnavailable(str(error)) from error


class SimPeers(Peers):
    """Chunks from other nodes, over the simulated network."""

    def __init__(self, cluster: Cluster, network: Network) -> None:
        self._cluster, self._network = cluster, network

    async def fetch(
        self, member: Member, chunk: Chunk, *, only_if_cached: bool, timeout_s: float
    ) -> memoryview:
        data = memoryview(bytearray(chunk.length))
        context = ReadContext(
            ticket=self._cluster.sign(chunk.object, chunk.volume).text,
            object=chunk.object,
            epoch=self._cluster.epoch,
            only_if_cached=only_if_cached,
            on_behalf=True,
        )
        piece = PieceRequest(chunk.index, 0, chunk.length, data)
        try:
            await self._read(member, context, piece, timeout_s)
        except CorruptData:
            context = ReadContext(
                context.ticket,
                context.object,
                context.epoch,
                only_if_cached=only_if_cached,
                recheck=True,
                on_behalf=True,
            )
            await self._read(member, context, piece, timeout_s)
        return data.toreadonly()

    async def _read(
        self, member: Member, context: ReadContext, piece: PieceRequest, timeout_s: float
    ) -> None:
        await read_piece(
            self._network, self._cluster.node_id, member, context, piece, timeout_s=timeout_s
        )

    async def answers(self, member: Member, *, probes: int = PROBES) -> bool:
        async def serve(_exchange: Exchange[None]) -> None:
            """Any answer will do."""

        try:
            await self._network.call(
                self._cluster.node_id,
                member.id,
                serve,
                silence_s=probes * SILENCE_S,
                timeout_s=probes * SILENCE_S,
            )
        except NodeUnavailable:
            return False
        return True


class SimAsking(Asking):
    """Calls of hand-over, answered by the product's own service."""

    def __init__(self, node_id: str, network: Network) -> None:
        self._node_id, self._network = node_id, network

    async def ask(
        self, member: Member, method: rpc.Method[Request, Response], request: Request
    ) -> Response:
        name = method.path.rpartition("/")[2]
        request = method.request.FromString(request.SerializeToString())

        async def serve(_exchange: Exchange[Response]) -> Response:
            service = _parts(self._network, member.id).handover_service
            # Without the wrapper, which has errors travel by gRPC.
            answer: Response = await getattr(type(service), name).__wrapped__(
                service, request, None
            )
            return answer

        return await self._network.call(
            self._node_id, member.id, serve, silence_s=KEEPALIVE_S, timeout_s=TIMEOUT_S
        )


class SimOrigins(Origins):
    """The origin, as one node reads it."""

    def __init__(self, node_id: str, world: World) -> None:
        self._reads = _SimOrigin(node_id, world)

    def get(self, volume: Volume) -> Any:
        return self._reads


class _SimOrigin:
    def __init__(self, node_id: str, world: World) -> None:
        self._node_id, self._world = node_id, world

    async def read(self, path: str, version: str, size: int, start: int, _stop: int) -> bytes:
        subject = self._world.versions[path, version]
        assert subject.size == size, "an object's size is part of its version"
        read = OriginRead(self._node_id, subject, start // subject.chunk_size)
        return await self._world.read(read, version, path)

"""Warming up: `penstock.v1.Warmup`."""

from collections.abc import Callable, Sequence

from penstock.errors import InvalidRequest, Overloaded
from penstock.v1 import warmup_pb2, warmup_pb2_grpc
from penstock.wire import error_to_proto
from penstock_node.chunk import Chunk
from penstock_node.cluster import Cluster
from penstock_node.serve.rpc import Context, answers
from penstock_node.warming import State, Warmed, Warming, WarmWanted

CHUNKS_MAX = 1024
"""In one request."""
REQUESTS_MAX = 256
"""In hand at once, most of them waiting for news."""
RETRY_AFTER_S = 0.5

_STATES: dict[State, warmup_pb2.WarmedChunk.State.ValueType] = {
    "held": warmup_pb2.WarmedChunk.HELD,
    "filled": warmup_pb2.WarmedChunk.FILLED,
    "filling": warmup_pb2.WarmedChunk.FILLING,
    "failed": warmup_pb2.WarmedChunk.FAILED,
    "absent": warmup_pb2.WarmedChunk.ABSENT,
}


class WarmupService(warmup_pb2_grpc.WarmupServicer):
    """Translates requests to warm up and their answers."""

    def __init__(
        self,
        warming: Warming,
        *,
        cluster: Cluster,
        start: Callable[[Sequence[str], str], None],
    ) -> None:
        """Put the parts together.

        Args:
            warming: Brings chunks in.
            cluster: Verifies tickets.
            start: Begins a warm-up that nobody waits for, of some urls to a target.
        """
        self._warming = warming
        self._start = start
        self._cluster = cluster
        self._in_hand = 0

    @answers
    async def Warm(  # noqa: N802 - gRPC's name
        self, request: warmup_pb2.WarmRequest, context: Context
    ) -> warmup_pb2.WarmResponse:
        """Answer with how far each chunk is."""
        if self._in_hand >= REQUESTS_MAX:
            raise Overloaded(
                f"{self._cluster.node_id} has {REQUESTS_MAX} requests to warm up in hand",
                retry_after_s=RETRY_AFTER_S,
            )
        self._in_hand += 1
        try:
            warmed = await self._warming.warm(
                WarmWanted(
                    chunks=self._chunks(request),
                    epoch=request.epoch,
                    suspects=request.suspects,
                    for_host=request.for_host,
                    dry_run=request.dry_run,
                )
            )
        finally:
            self._in_hand -= 1
        return warmup_pb2.WarmResponse(chunks=map(_told, warmed), epoch=self._cluster.epoch)

    @answers
    async def Start(  # noqa: N802 - gRPC's name
        self, request: warmup_pb2.StartRequest, context: Context
    ) -> warmup_pb2.StartResponse:
        """Begin a warm-up that this node does by itself."""
        self._start(request.urls, request.target)
        return warmup_pb2.StartResponse(node=self._cluster.node_id)

    def _chunks(self, request: warmup_pb2.WarmRequest) -> list[Chunk]:
        count = sum(len(part.indexes) for part in request.parts)
        if count > CHUNKS_MAX:
            raise InvalidRequest(f"{count} chunks in one request: at most {CHUNKS_MAX}")
        chunks = []
        for part in request.parts:
            ticket = self._cluster.verify(part.ticket)
            chunks += [Chunk(ticket.object, ticket.volume, index) for index in part.indexes]
        for chunk in chunks:
            assert chunk.id, "a chunk that is none has raised InvalidRequest"
        return chunks


def _told(warmed: Warmed) -> warmup_pb2.WarmedChunk:
    told = warmup_pb2.WarmedChunk(state=_STATES[warmed.state])
    if warmed.error is not None:
        told.error.CopyFrom(error_to_proto(warmed.error))
    return told

"""The gRPC plane's service: `penstock.v1.Chunks`."""

import asyncio
import contextlib
import time
from concurrent.futures import Executor
from functools import partial

from penstock import tracing
from penstock.checksums import checksums_between
from penstock.errors import Overloaded, PenstockError
from penstock.v1 import cache_pb2, cache_pb2_grpc
from penstock_node.chunk import Payload
from penstock_node.chunks import ChunkAnswer, ChunkRequest, Chunks
from penstock_node.cluster import Cluster
from penstock_node.inflight import Inflight
from penstock_node.metrics import NodeMetrics
from penstock_node.serve.rpc import Context, answers
from penstock_node.traces import Traces

REQUESTS_MAX = 1024
"""In hand at once, most of them waiting for a fill; beyond it, readers are asked to come back."""
COPIES = 2
"""Of what is sent, in memory until the reader has it: the message, and the message encoded."""
RETRY_AFTER_S = 0.1


class ChunksService(cache_pb2_grpc.ChunksServicer):
    """Translates requests for chunks and their answers."""

    def __init__(
        self,
        chunks: Chunks,
        *,
        cluster: Cluster,
        metrics: NodeMetrics,
        traces: Traces,
        inflight: Inflight,
        threads: Executor,
    ) -> None:
        self._chunks = chunks
        self._cluster = cluster
        self._metrics = metrics
        self._traces = traces
        self._threads = threads
        self._in_hand = 0
        metrics.waits("grpc", lambda: self._in_hand)
        self._memory = inflight.sends

    @answers
    async def Get(  # noqa: N802 - gRPC's name
        self, request: cache_pb2.GetChunkRequest, context: Context
    ) -> cache_pb2.GetChunkResponse:
        """Answer with blocks of a chunk, or that it is being filled."""
        try:
            with self._traces.serving(request.traceparent, "serve", plane="grpc") as span:
                span.note(chunk=request.index)
                return await self._get(request, context)
        except PenstockError as error:
            self._metrics.chunk_read_failures.labels(error=error.name).inc()
            raise

    async def _get(
        self, request: cache_pb2.GetChunkRequest, context: Context
    ) -> cache_pb2.GetChunkResponse:
        if self._in_hand >= REQUESTS_MAX:
            raise Overloaded(
                f"{self._cluster.node_id} has {REQUESTS_MAX} reads in hand",
                retry_after_s=RETRY_AFTER_S,
            )
        self._in_hand += 1
        begun = time.monotonic()
        try:
            answer = await self._chunks.answer(
                ChunkRequest(
                    ticket=request.ticket,
                    index=request.index,
                    start=request.start,
                    stop=request.stop,
                    epoch=request.epoch,
                    only_if_cached=request.only_if_cached,
                    suspects=request.suspects,
                    recheck=request.recheck,
                    on_behalf=request.on_behalf,
                )
            )
            wanted = COPIES * (request.stop - request.start)
            if answer is not None and await self._takes_memory(answer, wanted, context):
                # Shielded: it closes the chunk, whether or not the reader is still there.
                if not request.on_behalf:
                    self._chunks.was_read(answer.chunk, request.stop - request.start)
                return await asyncio.shield(
                    asyncio.get_running_loop().run_in_executor(
                        self._threads,
                        tracing.carried(
                            partial(self._respond, answer, request.start, request.stop, begun)
                        ),
                    )
                )
            return cache_pb2.GetChunkResponse(filling=True, epoch=self._cluster.epoch)
        finally:
            self._in_hand -= 1

    async def _takes_memory(self, answer: ChunkAnswer, wanted: int, context: Context) -> bool:
        """Wait for memory to send from, given back once the reader has all or is gone.

        Without it the answer is closed, and the reader asks again: a node that has much to send is
        slow, never silent.
        """
        with contextlib.ExitStack() as unsent:
            unsent.callback(answer.close)
            loan = await self._memory.take_turn(wanted)
            if loan is None:
                return False
            # The stubs ask for a class of theirs where grpc takes anything to call.
            context.add_done_callback(lambda _: loan.release())  # type: ignore[arg-type]
            unsent.pop_all()
        return True

    def _respond(
        self, answer: ChunkAnswer, start: int, stop: int, begun: float
    ) -> cache_pb2.GetChunkResponse:
        content = answer.content
        with contextlib.closing(answer):
            if isinstance(content, Payload):
                data = bytes(content.data[start:stop])
            else:
                with tracing.span("disk", disk=content.disk.path):
                    data = content.read(start, stop)
        self._metrics.served(
            plane="grpc",
            source=answer.source,
            key=answer.chunk.object.key,
            length=len(data),
            seconds=time.monotonic() - begun,
        )
        tracing.here().note(source=answer.source)
        tracing.here().add_bytes(len(data))
        return cache_pb2.GetChunkResponse(
            data=data,
            checksums=checksums_between(content.checksums, start, stop),
            source=answer.source,
            epoch=self._cluster.epoch,
            load=self._in_hand,
            copies=self._cluster.replicas_of(answer.chunk.object.key),
        )

    @answers
    async def Holds(  # noqa: N802 - gRPC's name
        self, request: cache_pb2.HoldsRequest, context: Context
    ) -> cache_pb2.HoldsResponse:
        """Answer which chunks of an object are here."""
        indexes = await asyncio.get_running_loop().run_in_executor(
            self._threads, self._chunks.holds, request.ticket
        )
        return cache_pb2.HoldsResponse(indexes=indexes)

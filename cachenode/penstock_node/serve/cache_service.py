"""Opening, listing and portable reading: `penstock.v1.Cache`."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from concurrent.futures import Executor

from penstock import wire
from penstock.bulk_http import TRACEPARENT
from penstock.checksums import checksums_between, verify_blocks
from penstock.errors import CorruptData, Overloaded, PenstockError
from penstock.objects import Piece, check_range, cover_blocks, pieces
from penstock.v1 import cache_pb2, cache_pb2_grpc
from penstock_node.chunk import Chunk, Payload
from penstock_node.chunks import ChunkAnswer
from penstock_node.host_reads import HostReads
from penstock_node.inflight import Inflight, Loan
from penstock_node.metrics import NodeMetrics
from penstock_node.opening import Opener
from penstock_node.serve.calls import Calls
from penstock_node.serve.rpc import Context, answers, answers_stream
from penstock_node.traces import Traces

FRAME_BYTES = 1024 * 1024
"""Fastest for gRPC from Python, of the sizes that were measured."""
CHUNK_DEADLINE_S = 60.0
"""Longest that a chunk of a stream is waited for."""


class CacheService(cache_pb2_grpc.CacheServicer):
    """Translates requests of clients and their answers."""

    def __init__(
        self,
        calls: Calls,
        *,
        opener: Opener,
        host_reads: HostReads,
        inflight: Inflight,
        metrics: NodeMetrics,
        traces: Traces,
        threads: Executor,
    ) -> None:
        """Put the parts together.

        Args:
            calls: Answers what is unary.
            opener: Opens the object of a `Read`.
            host_reads: Brings its chunks, as for this machine's own readers.
            inflight: The memory that chunks take on their way out.
            metrics: What is counted.
            traces: What requests do that are traced.
            threads: For disk work.
        """
        self._calls = calls
        self._opener = opener
        self._host_reads = host_reads
        self._memory = inflight.sends
        self._metrics = metrics
        self._traces = traces
        self._threads = threads

    @answers
    async def Open(  # noqa: N802 - gRPC's name
        self, request: cache_pb2.OpenRequest, context: Context
    ) -> cache_pb2.OpenResponse:
        """Answer with an object or an error for each url."""
        return await self._calls.open(request)

    @answers
    async def Renew(  # noqa: N802 - gRPC's name
        self, request: cache_pb2.RenewRequest, context: Context
    ) -> cache_pb2.RenewResponse:
        """Answer with a new ticket for the same version."""
        return await self._calls.renew(request)

    @answers
    async def List(  # noqa: N802 - gRPC's name
        self, request: cache_pb2.ListRequest, context: Context
    ) -> cache_pb2.ListResponse:
        """Answer with one page of a listing."""
        return await self._calls.list(request)

    @answers_stream
    async def Read(  # noqa: N802 - gRPC's name
        self, request: cache_pb2.ReadRequest, context: Context
    ) -> AsyncIterator[cache_pb2.ReadResponse]:
        """Answer with the object, then its bytes; a slow reader holds one chunk in memory."""
        told = dict(context.invocation_metadata() or ())
        with self._traces.serving(str(told.get(TRACEPARENT, "")), "serve", plane="grpc"):
            async for response in self._answers(request):
                yield response

    async def _answers(
        self, request: cache_pb2.ReadRequest
    ) -> AsyncIterator[cache_pb2.ReadResponse]:
        (opened,) = await self._opener.open([request.url], refresh=False, forwarded=False)
        if isinstance(opened, PenstockError):
            raise opened
        length = request.length if request.HasField("length") else None
        wanted = check_range(opened.id.size, request.offset, length)
        yield cache_pb2.ReadResponse(object=wire.object_to_proto(opened))
        for piece in pieces(opened.id.chunk_size, request.offset, wanted):
            data, loan = await self._read(Chunk(opened.id, opened.volume, piece.index), piece)
            for at in range(0, piece.length, FRAME_BYTES):
                yield cache_pb2.ReadResponse(data=bytes(data[at : at + FRAME_BYTES]))
            loan.release()

    async def _read(self, chunk: Chunk, piece: Piece) -> tuple[memoryview, Loan]:
        """Return the piece's bytes, verified, and what their memory is lent by.

        A bad copy is brought in anew, once.
        """
        begun = time.monotonic()
        for _ in range(2):
            answer, loan = await self._answer_with_memory(chunk, piece.length)
            try:
                with loan.unless_it_fails():
                    # Shielded: it closes the chunk, whether or not the reader is still there.
                    data = await asyncio.shield(
                        asyncio.get_running_loop().run_in_executor(
                            self._threads, self._take, answer, piece, begun
                        )
                    )
            except CorruptData:
                await self._recheck(chunk)
            else:
                return data, loan
        raise CorruptData(f"chunk {chunk.index} of {chunk.object.key} is bad on this node")

    async def _answer_with_memory(self, chunk: Chunk, size_bytes: int) -> tuple[ChunkAnswer, Loan]:
        # In this order: what waits for a fill holds nothing that fills may wait for.
        while True:
            answer = await self._answer(chunk)
            with contextlib.ExitStack() as unsent:
                unsent.callback(answer.close)
                loan = await self._memory.take_turn(size_bytes)
                if loan is not None:
                    unsent.pop_all()
                    return answer, loan

    async def _answer(self, chunk: Chunk) -> ChunkAnswer:
        try:
            async with asyncio.timeout(CHUNK_DEADLINE_S):
                while (answer := await self._host_reads.answer(chunk)) is None:
                    pass
        except TimeoutError as error:
            raise Overloaded(f"chunk {chunk.index} did not come in time") from error
        return answer

    async def _recheck(self, chunk: Chunk) -> None:
        def look() -> None:
            answer = self._host_reads.at_hand(chunk, recheck=True)
            if answer is not None:
                answer.close()

        await asyncio.get_running_loop().run_in_executor(self._threads, look)

    def _take(self, answer: ChunkAnswer, piece: Piece, begun: float) -> memoryview:
        content = answer.content
        with contextlib.closing(answer):
            first, last = cover_blocks(piece.start, piece.stop, answer.chunk.length)
            if isinstance(content, Payload):
                blocks = content.data[first:last]
            else:
                blocks = memoryview(content.read(first, last))
                verify_blocks(blocks, checksums_between(content.checksums, first, last))
        self._metrics.served(
            plane="grpc",
            source=answer.source,
            key=answer.chunk.object.key,
            length=piece.length,
            seconds=time.monotonic() - begun,
        )
        self._host_reads.were_read(answer.chunk.object, [(answer.chunk.index, piece.length)])
        return blocks[piece.start - first : piece.stop - first]

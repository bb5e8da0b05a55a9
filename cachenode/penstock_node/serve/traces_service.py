"""What was traced here: `penstock.v1.Traces`."""

import time

from penstock.trace_messages import spans_to_proto
from penstock.v1 import trace_pb2, trace_pb2_grpc
from penstock_node.serve.calls import Calls
from penstock_node.serve.rpc import Context, answers
from penstock_node.traces import Traces


class TracesService(trace_pb2_grpc.TracesServicer):
    """Answers with spans."""

    def __init__(self, calls: Calls, traces: Traces) -> None:
        self._calls = calls
        self._traces = traces

    @answers
    async def GetTrace(  # noqa: N802 - gRPC's name
        self, request: trace_pb2.GetTraceRequest, context: Context
    ) -> trace_pb2.GetTraceResponse:
        """Answer with what is kept of one trace."""
        return await self._calls.trace(request)

    @answers
    async def ListSlow(  # noqa: N802 - gRPC's name
        self, request: trace_pb2.ListSlowRequest, context: Context
    ) -> trace_pb2.ListSlowResponse:
        """Answer with the slowest reads."""
        now = time.time()
        reads = [
            trace_pb2.SlowRead(trace_id=trace_id, spans=spans_to_proto(spans))
            for trace_id, spans in self._traces.slowest(request.count)
        ]
        return trace_pb2.ListSlowResponse(reads=reads, asked_at=now, answered_at=time.time())

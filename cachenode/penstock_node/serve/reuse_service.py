"""Telling what was read of this node's chunks: `penstock.v1.Reuse`."""

import asyncio

from penstock.reuse import sample_to_proto
from penstock.v1 import reuse_pb2, reuse_pb2_grpc
from penstock_node.demand import READS_MAX, Demand
from penstock_node.serve.rpc import Context, answers


class ReuseService(reuse_pb2_grpc.ReuseServicer):
    """Answers with the node's sample."""

    def __init__(self, demand: Demand, *, node_id: str) -> None:
        self._demand = demand
        self._node_id = node_id

    @answers
    async def Sample(  # noqa: N802 - gRPC's name
        self, request: reuse_pb2.SampleRequest, context: Context
    ) -> reuse_pb2.SampleResponse:
        """Answer for this node alone."""
        return await asyncio.to_thread(self._sample, request.reads_max or READS_MAX)

    def _sample(self, reads_max: int) -> reuse_pb2.SampleResponse:
        return sample_to_proto(self._demand.sample(reads_max=reads_max), node=self._node_id)

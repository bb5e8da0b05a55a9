"""What nodes do at this moment: `penstock.v1.Overviews`."""

import asyncio

from penstock.overview import STEP_S
from penstock.overview_messages import overview_to_proto, told_to_proto, warmup_from_proto
from penstock.v1 import overview_pb2, overview_pb2_grpc
from penstock_node.overview.gathering import samples_to_proto
from penstock_node.overview.held import held, object_to_proto, objects_below
from penstock_node.overview.overviews import Overviews
from penstock_node.serve.rpc import Context, answers
from penstock_node.tasks import in_thread


class OverviewService(overview_pb2_grpc.OverviewsServicer):
    """Translates requests of those who look, and of nodes that gather for them."""

    def __init__(self, overviews: Overviews) -> None:
        self._overviews = overviews

    @answers
    async def Get(  # noqa: N802 - gRPC's name
        self, request: overview_pb2.GetOverviewRequest, context: Context
    ) -> overview_pb2.GetOverviewResponse:
        """Answer with the cluster, as far as it is known."""
        overview = await self._overviews.whole.get()
        # A thousand nodes take a moment that others on the event loop need not wait for.
        return await asyncio.to_thread(overview_to_proto, overview)

    @answers
    async def History(  # noqa: N802 - gRPC's name
        self, request: overview_pb2.HistoryRequest, context: Context
    ) -> overview_pb2.HistoryResponse:
        """Answer with the last hour of a node, or of all."""
        samples = await self._overviews.whole.history(request.node)
        return overview_pb2.HistoryResponse(step_s=STEP_S, samples=samples_to_proto(samples))

    @answers
    async def Node(  # noqa: N802 - gRPC's name
        self, request: overview_pb2.NodeOverviewRequest, context: Context
    ) -> overview_pb2.NodeOverviewResponse:
        """Answer with this node alone."""
        own = self._overviews.own
        told = told_to_proto(own.told())
        if request.HasField("samples_after"):
            told.samples.CopyFrom(samples_to_proto(own.samples_after(request.samples_after)))
        return told

    @answers
    async def Objects(  # noqa: N802 - gRPC's name
        self, request: overview_pb2.ObjectsBelowRequest, context: Context
    ) -> overview_pb2.ObjectsBelowResponse:
        """Answer with what this node alone has opened below some directories."""
        found = objects_below(self._overviews.opener, request.keys)
        return overview_pb2.ObjectsBelowResponse(objects=map(object_to_proto, found))

    @answers
    async def Held(  # noqa: N802 - gRPC's name
        self, request: overview_pb2.HeldRequest, context: Context
    ) -> overview_pb2.HeldResponse:
        """Answer with which of some chunks this node alone holds."""
        store, threads = self._overviews.store, self._overviews.disk_threads
        bits = await in_thread(threads, lambda: held(store, request.chunks))
        return overview_pb2.HeldResponse(held=bits)

    @answers
    async def TellWarmup(  # noqa: N802 - gRPC's name
        self, request: overview_pb2.TellWarmupRequest, context: Context
    ) -> overview_pb2.TellWarmupResponse:
        """Take note of how far a program's warm-up is."""
        self._overviews.told_warmups.note(request.id, warmup_from_proto(request.warmup))
        return overview_pb2.TellWarmupResponse()

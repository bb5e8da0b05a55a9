"""Telling clients the placement: `penstock.v1.Placements`."""

from penstock.v1 import placement_pb2, placement_pb2_grpc
from penstock_node.serve.calls import Calls
from penstock_node.serve.rpc import Context, answers


class PlacementsService(placement_pb2_grpc.PlacementsServicer):
    """Answers with the placement and the members."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    @answers
    async def Get(  # noqa: N802 - gRPC's name
        self, request: placement_pb2.GetPlacementRequest, context: Context
    ) -> placement_pb2.GetPlacementResponse:
        """Answer with the view in force."""
        return await self._calls.placement(request)

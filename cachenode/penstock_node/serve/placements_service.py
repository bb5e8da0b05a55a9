"""Telling clients the placement: `penstock.v1.Placements`."""

import xxhash

from penstock import wire
from penstock.membership.view import View
from penstock.v1 import placement_pb2, placement_pb2_grpc
from penstock_node.cluster import Cluster
from penstock_node.serve.rpc import Context, answers


class PlacementsService(placement_pb2_grpc.PlacementsServicer):
    """Answers with the placement and the members, or that they are as the caller knows them."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._made: tuple[View, placement_pb2.GetPlacementResponse] | None = None

    @answers
    async def Get(  # noqa: N802 - gRPC's name
        self, request: placement_pb2.GetPlacementRequest, context: Context
    ) -> placement_pb2.GetPlacementResponse:
        """Answer with the view in force."""
        view = self._cluster.view
        response = self._response(view)
        unchanged = (
            request.cluster_uid == view.placement.cluster_uid
            and request.epoch == view.placement.epoch
            and request.members_digest == response.members_digest
        )
        return placement_pb2.GetPlacementResponse(unchanged=True) if unchanged else response

    def _response(self, view: View) -> placement_pb2.GetPlacementResponse:
        """Return the answer for ``view``: made once, since thousands of clients ask for it."""
        if self._made is None or self._made[0] is not view:
            response = placement_pb2.GetPlacementResponse(
                cluster=view.cluster,
                members=wire.members_to_proto(view.members.values()),
                replicas=view.replicas,
            )
            digest = xxhash.xxh3_64_intdigest(response.SerializeToString(deterministic=True))
            response.members_digest = digest
            response.placement.CopyFrom(wire.placement_to_proto(view.placement))
            self._made = (view, response)
        return self._made[1]

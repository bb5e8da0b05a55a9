"""What nodes ask each other after a change of the placement: `penstock.v1.Handover`."""

from penstock.v1 import handover_pb2, handover_pb2_grpc
from penstock_node.handover.copying import Copying
from penstock_node.handover.giving import Giving, Left
from penstock_node.serve.rpc import Context, answers


class HandoverService(handover_pb2_grpc.HandoverServicer):
    """Tells other nodes what this one holds of their chunks."""

    def __init__(self, *, giving: Giving, copying: Copying) -> None:
        self._giving = giving
        self._copying = copying

    @answers
    async def Tell(  # noqa: N802 - gRPC's name
        self, request: handover_pb2.TellRequest, context: Context
    ) -> handover_pb2.TellResponse:
        """Take note of chunks of which this node keeps a copy."""
        if request.as_guests:
            kept = await self._copying.told_guests(request.node, request.chunks)
            return handover_pb2.TellResponse(kept=kept)
        self._copying.told(request.node, request.chunks)
        return handover_pb2.TellResponse()

    @answers
    async def Offer(  # noqa: N802 - gRPC's name
        self, request: handover_pb2.OfferRequest, context: Context
    ) -> handover_pb2.OfferResponse:
        """Answer with ids, a page at a time."""
        offer = self._giving.offer(
            request.node,
            epoch=request.epoch,
            number=request.list,
            start=request.start,
            left=Left(request.left_chunks, request.left_bytes),
        )
        return handover_pb2.OfferResponse(
            epoch=offer.epoch,
            list=offer.number,
            start=offer.start,
            chunk_ids=offer.ids,
            chunks=offer.share.chunks,
            bytes=offer.share.size_bytes,
            is_over=offer.is_over,
        )

    @answers
    async def Describe(  # noqa: N802 - gRPC's name
        self, request: handover_pb2.DescribeRequest, context: Context
    ) -> handover_pb2.DescribeResponse:
        """Answer with what chunks are, as far as they are still here."""
        described = await self._giving.describe(request.chunk_ids)
        return handover_pb2.DescribeResponse(
            chunks=[
                handover_pb2.DescribedChunk(
                    key=each.object.key,
                    version=each.object.version,
                    size=each.object.size,
                    chunk_size=each.object.chunk_size,
                    index=each.index,
                    readings=each.readings,
                )
                for each in described
            ]
        )

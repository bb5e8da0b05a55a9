"""Writing objects: `penstock.v1.Puts`. What asks for the role ``writer`` is here alone."""

from penstock import wire
from penstock.checksums import verify_blocks
from penstock.v1 import put_pb2, put_pb2_grpc
from penstock_node.putting import WINDOW, Puts
from penstock_node.serve.rpc import Context, answers


class PutService(put_pb2_grpc.PutsServicer):
    """Translates requests of writers and their answers."""

    def __init__(self, puts: Puts) -> None:
        self._puts = puts

    @answers
    async def Start(  # noqa: N802 - gRPC's name
        self, request: put_pb2.StartPutRequest, context: Context
    ) -> put_pb2.StartPutResponse:
        """Begin to put an object."""
        name = await self._puts.start(
            request.url,
            size=request.size if request.HasField("size") else None,
            if_absent=request.if_absent,
            part_bytes=request.part_bytes,
        )
        return put_pb2.StartPutResponse(put=name, window=WINDOW)

    @answers
    async def Send(  # noqa: N802 - gRPC's name
        self, request: put_pb2.SendPartRequest, context: Context
    ) -> put_pb2.SendPartResponse:
        """Take one part, verified."""
        data = request.data
        verify_blocks(data, request.checksums)
        taken = await self._puts.send(request.put, request.index, data)
        return put_pb2.SendPartResponse(taken=taken)

    @answers
    async def Keep(  # noqa: N802 - gRPC's name
        self, request: put_pb2.KeepPutRequest, context: Context
    ) -> put_pb2.KeepPutResponse:
        """Hear that the sender lives."""
        await self._puts.keep(request.put)
        return put_pb2.KeepPutResponse()

    @answers
    async def Finish(  # noqa: N802 - gRPC's name
        self, request: put_pb2.FinishPutRequest, context: Context
    ) -> put_pb2.FinishPutResponse:
        """Publish the object, or say that it takes longer."""
        opened = await self._puts.finish(request.put, parts=request.parts, size=request.size)
        told = wire.object_to_proto(opened) if opened else None
        return put_pb2.FinishPutResponse(object=told)

    @answers
    async def Abort(  # noqa: N802 - gRPC's name
        self, request: put_pb2.AbortPutRequest, context: Context
    ) -> put_pb2.AbortPutResponse:
        """Give the object up."""
        await self._puts.abort(request.put)
        return put_pb2.AbortPutResponse()

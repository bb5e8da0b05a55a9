"""What operators do: `penstock.v1.Operator`."""

import asyncio
import json
from collections.abc import Callable, Iterable
from concurrent.futures import Executor

from penstock.errors import InvalidRequest
from penstock.v1 import operator_pb2, operator_pb2_grpc
from penstock.volume_messages import json_table, volume_from_proto, volume_to_proto
from penstock_node.access.grants import limited_caller
from penstock_node.cluster import Cluster
from penstock_node.coordination import Coordination
from penstock_node.models import Models
from penstock_node.moves import Moved
from penstock_node.operations import Operations
from penstock_node.pinning import Pinning
from penstock_node.serve.rpc import Context, answers


class OperatorService(operator_pb2_grpc.OperatorServicer):
    """Translates requests of operators and their answers."""

    def __init__(
        self,
        operations: Operations,
        *,
        pinning: Pinning,
        models: Models,
        threads: Executor,
        cluster: Cluster,
        coordination: Coordination,
        catalog_address: Callable[[], str],
    ) -> None:
        self._operations = operations
        self._pinning = pinning
        self._models = models
        self._threads = threads
        self._cluster = cluster
        self._coordination = coordination
        self._catalog_address = catalog_address

    @answers
    async def Status(  # noqa: N802 - gRPC's name
        self, request: operator_pb2.StatusRequest, context: Context
    ) -> operator_pb2.StatusResponse:
        """Answer with every node of the cluster."""
        return await self._operations.status()

    @answers
    async def NodeStatus(  # noqa: N802 - gRPC's name
        self, request: operator_pb2.NodeStatusRequest, context: Context
    ) -> operator_pb2.NodeStatusResponse:
        """Answer with this node alone."""
        return await self._operations.node_status()

    @answers
    async def SetWeights(  # noqa: N802 - gRPC's name
        self, request: operator_pb2.SetWeightsRequest, context: Context
    ) -> operator_pb2.SetWeightsResponse:
        """Change weights, or tell what the change would move."""
        if not request.changes:
            raise InvalidRequest("no node named; write for example: weight set NODE=200")
        changes = _changes(request.changes)
        if request.dry_run:
            moves, unknown = await self._operations.preview(changes)
            return operator_pb2.SetWeightsResponse(
                epoch=self._cluster.epoch,
                moves=_moves(moves),
                unknown=unknown,
                handoff_bytes_per_s=self._cluster.settings.handoff_bytes_per_s,
            )
        reason = request.changes[0].reason
        epoch = await self._operations.set_weights(changes, reason=reason)
        return operator_pb2.SetWeightsResponse(epoch=epoch)

    @answers
    async def CountMoves(  # noqa: N802 - gRPC's name
        self, request: operator_pb2.CountMovesRequest, context: Context
    ) -> operator_pb2.CountMovesResponse:
        """Answer with what this node alone would hand over."""
        moves = await self._operations.count_moves(_changes(request.changes))
        return operator_pb2.CountMovesResponse(moves=_moves(moves))

    @answers
    async def Cordon(  # noqa: N802 - gRPC's name
        self, request: operator_pb2.CordonRequest, context: Context
    ) -> operator_pb2.CordonResponse:
        """Take a node off the ring, until it is put back."""
        state = await self._coordination.operations.cordon(
            request.node,
            purpose="drain" if request.drain else "cordon",
            reason=request.reason,
            within_s=request.within_s,
        )
        return operator_pb2.CordonResponse(epoch=state.epoch)

    @answers
    async def Uncordon(  # noqa: N802 - gRPC's name
        self, request: operator_pb2.UncordonRequest, context: Context
    ) -> operator_pb2.UncordonResponse:
        """Put a node back on the ring with the weight that it had."""
        state = await self._coordination.operations.uncordon(request.node)
        return operator_pb2.UncordonResponse(epoch=state.epoch)

    @answers
    async def DrainStatus(  # noqa: N802 - gRPC's name
        self, request: operator_pb2.DrainStatusRequest, context: Context
    ) -> operator_pb2.DrainStatusResponse:
        """Answer with how far a node is with handing over."""
        return await self._operations.drain_status(request.node)

    @answers
    async def Forget(  # noqa: N802 - gRPC's name
        self, request: operator_pb2.ForgetRequest, context: Context
    ) -> operator_pb2.ForgetResponse:
        """Take a node that is away off the ring."""
        state = await self._coordination.operations.forget(request.node)
        return operator_pb2.ForgetResponse(epoch=state.epoch)

    @answers
    async def GetSettings(  # noqa: N802 - gRPC's name
        self, request: operator_pb2.GetSettingsRequest, context: Context
    ) -> operator_pb2.GetSettingsResponse:
        """Answer with the cluster's settings."""
        return operator_pb2.GetSettingsResponse(settings_json=self._settings_json())

    def _settings_json(self) -> str:
        return json.dumps(self._cluster.settings.to_json())

    @answers
    async def SetSettings(  # noqa: N802 - gRPC's name
        self, request: operator_pb2.SetSettingsRequest, context: Context
    ) -> operator_pb2.SetSettingsResponse:
        """Change settings of the whole cluster."""
        settings = await self._coordination.operations.set_settings(
            json_table(request.changes_json)
        )
        return operator_pb2.SetSettingsResponse(settings_json=json.dumps(settings.to_json()))

    @answers
    async def ListVolumes(  # noqa: N802 - gRPC's name
        self, request: operator_pb2.ListVolumesRequest, context: Context
    ) -> operator_pb2.ListVolumesResponse:
        """Answer with the volumes."""
        caller = limited_caller()
        volumes = [
            volume_to_proto(volume)
            for volume in self._cluster.volumes
            if caller is None or caller.sees(volume.name)
        ]
        return operator_pb2.ListVolumesResponse(volumes=volumes)

    @answers
    async def PutVolume(  # noqa: N802 - gRPC's name
        self, request: operator_pb2.PutVolumeRequest, context: Context
    ) -> operator_pb2.PutVolumeResponse:
        """Add a volume, or replace one."""
        volume = volume_from_proto(request.volume)
        await self._coordination.operations.put_volume(
            volume.name, json.loads(volume.to_json()), replace=request.replace
        )
        return operator_pb2.PutVolumeResponse()

    @answers
    async def RemoveVolume(  # noqa: N802 - gRPC's name
        self, request: operator_pb2.RemoveVolumeRequest, context: Context
    ) -> operator_pb2.RemoveVolumeResponse:
        """Remove a volume; what is cached of it ages out."""
        await self._coordination.operations.remove_volume(request.name)
        return operator_pb2.RemoveVolumeResponse()

    @answers
    async def FindCatalog(  # noqa: N802 - gRPC's name
        self, request: operator_pb2.FindCatalogRequest, context: Context
    ) -> operator_pb2.FindCatalogResponse:
        """Answer with where the catalog is."""
        assert self._cluster.view  # Else this node still starts: another may answer.
        return operator_pb2.FindCatalogResponse(address=self._catalog_address())

    @answers
    async def Evict(  # noqa: N802 - gRPC's name
        self, request: operator_pb2.EvictRequest, context: Context
    ) -> operator_pb2.EvictResponse:
        """Drop cached chunks, of every node or (with tickets) of this one."""
        evicted = (
            await self._operations.evict_here(request.tickets)
            if request.tickets
            else await self._operations.evict(request.urls)
        )
        return operator_pb2.EvictResponse(
            chunks=evicted.chunks, bytes=evicted.bytes, unreachable=evicted.unreachable
        )

    @answers
    async def Pin(  # noqa: N802 - gRPC's name
        self, request: operator_pb2.PinRequest, context: Context
    ) -> operator_pb2.PinResponse:
        """Keep what is at some urls now."""
        return await self._pinning.pin(request.urls)

    @answers
    async def Unpin(  # noqa: N802 - gRPC's name
        self, request: operator_pb2.UnpinRequest, context: Context
    ) -> operator_pb2.UnpinResponse:
        """Keep it no longer."""
        return await self._pinning.unpin(request.urls)

    @answers
    async def ListPins(  # noqa: N802 - gRPC's name
        self, request: operator_pb2.ListPinsRequest, context: Context
    ) -> operator_pb2.ListPinsResponse:
        """Answer with all pins, and how much of each is held."""
        return await self._pinning.list()

    @answers
    async def NodePins(  # noqa: N802 - gRPC's name
        self, request: operator_pb2.NodePinsRequest, context: Context
    ) -> operator_pb2.NodePinsResponse:
        """Answer with what this node alone keeps of each."""
        return self._pinning.here()

    @answers
    async def ListModels(  # noqa: N802 - gRPC's name
        self, request: operator_pb2.ListModelsRequest, context: Context
    ) -> operator_pb2.ListModelsResponse:
        """Answer with what was opened of late or is pinned, and how much of it is held."""
        return await self._models.list()

    @answers
    async def NodeObjects(  # noqa: N802 - gRPC's name
        self, request: operator_pb2.NodeObjectsRequest, context: Context
    ) -> operator_pb2.NodeObjectsResponse:
        """Answer with what this node alone has opened."""
        return self._models.objects_here()

    @answers
    async def NodeHolds(  # noqa: N802 - gRPC's name
        self, request: operator_pb2.NodeHoldsRequest, context: Context
    ) -> operator_pb2.NodeHoldsResponse:
        """Answer with which chunks of some objects this node alone holds."""
        held = await asyncio.get_running_loop().run_in_executor(
            self._threads, self._models.held_here, request.objects
        )
        return operator_pb2.NodeHoldsResponse(held=held)


def _changes(changes: Iterable[operator_pb2.WeightChange]) -> dict[str, int | None]:
    return {c.node: c.weight if c.HasField("weight") else None for c in changes}


def _moves(moves: list[Moved]) -> list[operator_pb2.Move]:
    return [
        operator_pb2.Move(
            source=move.source,
            target=move.target,
            share=move.share,
            cached_bytes=move.cached_bytes,
            cached_chunks=move.cached_chunks,
        )
        for move in moves
    ]

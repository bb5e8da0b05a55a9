"""What an operator does to a cluster: status, weights, settings, volumes, evicting, pins.

Responsible for: the operator's calls as a small typed class, with protobuf at this edge alone.
Not responsible for: reading objects (`cache`), printing (`cli`).
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from penstock.address import grpc_addresses
from penstock.catalog import Catalog
from penstock.credentials import authorization_for, insecure_from
from penstock.doctor.examine import Doctor
from penstock.errors import ClusterUnavailable, Conflict, PenstockError
from penstock.membership.nodes import Endpoint, Nodes
from penstock.operator_messages import (
    CHANGE_TIMEOUT_S,
    SCAN_TIMEOUT_S,
    STATUS_TIMEOUT_S,
    handoff_s,
    models_from_proto,
    move_from_proto,
    node_from_proto,
    weight_changes,
)
from penstock.operator_results import (
    ClusterStatus,
    DrainStatus,
    Evicted,
    Models,
    WeightsPreview,
    WeightsSet,
)
from penstock.overviews import Overviews
from penstock.pin_calls import PinCalls
from penstock.placement import Placement
from penstock.reuse import ask_all
from penstock.routing import Routing
from penstock.rpc import (
    CORDON,
    DRAIN_STATUS,
    EVICT,
    FORGET,
    GET_PLACEMENT,
    GET_SETTINGS,
    LIST_MODELS,
    LIST_VOLUMES,
    NODE_STATUS,
    PUT_VOLUME,
    REMOVE_VOLUME,
    SET_SETTINGS,
    SET_WEIGHTS,
    STATUS,
    UNCORDON,
    Channels,
)
from penstock.sampled_reads import SampledReads
from penstock.support import Support
from penstock.ticket_key_calls import TicketKeyCalls
from penstock.tls import Tls
from penstock.v1 import operator_pb2, placement_pb2
from penstock.volume_messages import json_table, volume_from_proto, volume_to_proto
from penstock.volumes import Volume
from penstock.wire import view_from_proto

IN_FORCE_TIMEOUT_S = 10.0
IN_FORCE_POLL_S = 0.02
DRAIN_POLL_S = 0.5


class Operator(PinCalls, TicketKeyCalls):
    """An operator's connection to a cluster. Thread-safe; `connect` makes one.

    Errors that any call may raise: `ClusterUnavailable` when no node answers, or the change
    did not come into force in time; `NotPermitted`; `Conflict` when others change the same.
    """

    def __init__(self, nodes: Nodes, channels: Channels) -> None:
        super().__init__(nodes)
        self._channels = channels
        self._catalog = Catalog(nodes, channels)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close connections."""
        self._channels.close()

    @property
    def catalog(self) -> Catalog:
        """The cluster's catalog, over the same connections."""
        return self._catalog

    @property
    def support(self) -> Support:
        """What nodes tell whoever looks for a fault, over the same connections."""
        return Support(self._nodes, self._channels)

    @property
    def doctor(self) -> Doctor:
        """Looks for what is wrong with the cluster, over the same connections."""
        return Doctor(self._nodes, self._channels, self._catalog)

    @property
    def overviews(self) -> Overviews:
        """What the cluster does at this moment, over the same connections."""
        return Overviews(self._nodes)

    def status(self) -> ClusterStatus:
        """Return every node of the cluster, and sums of what they counted."""
        answer = self._nodes.call(STATUS, operator_pb2.StatusRequest(), timeout_s=STATUS_TIMEOUT_S)
        nodes = sorted((node_from_proto(node) for node in answer.nodes), key=lambda node: node.id)
        return ClusterStatus(answer.cluster, answer.epoch, tuple(nodes), dict(answer.counters))

    def placement(self) -> Placement:
        """Return who is on the ring with what weight, without its history."""
        answer = self._nodes.call(GET_PLACEMENT, placement_pb2.GetPlacementRequest())
        return view_from_proto(answer).placement

    def preview_weights(self, changes: Mapping[str, int | None]) -> WeightsPreview:
        """Return what `set_weights` of ``changes`` would move, from whom to whom.

        Raises:
            InvalidRequest: A node that is not on the ring, or a weight out of bounds.
        """
        request = operator_pb2.SetWeightsRequest(changes=weight_changes(changes, ""), dry_run=True)
        answer = self._nodes.call(SET_WEIGHTS, request, timeout_s=SCAN_TIMEOUT_S)
        moves = tuple(move_from_proto(move) for move in answer.moves)
        seconds = handoff_s(moves, bytes_per_s=answer.handoff_bytes_per_s)
        return WeightsPreview(answer.epoch, moves, tuple(answer.unknown), seconds)

    def set_weights(self, changes: Mapping[str, int | None], *, reason: str = "") -> WeightsSet:
        """Change weights, all in one epoch; return when it is in force.

        Args:
            changes: Node id to weight, 0 to 10,000; None goes back to automatic.
            reason: For people who read it later.

        Raises:
            InvalidRequest: A node that is not on the ring, or a weight out of bounds.
        """
        request = operator_pb2.SetWeightsRequest(changes=weight_changes(changes, reason))
        answer = self._nodes.call(SET_WEIGHTS, request, timeout_s=CHANGE_TIMEOUT_S)
        placement = self._placement_from(answer.epoch)
        weights = {node.id: node.weight for node in placement.nodes if node.id in changes}
        return WeightsSet(placement.epoch, weights)

    def _placement_from(self, epoch: int) -> Placement:
        """Return the placement once the node that is asked acts on ``epoch``."""
        # Published is not yet in force: a node computes a ring before it acts on a placement.
        deadline = time.monotonic() + IN_FORCE_TIMEOUT_S
        while (placement := self.placement()).epoch < epoch:
            if time.monotonic() > deadline:
                raise ClusterUnavailable(
                    f"epoch {epoch} was published, but a node acts on {placement.epoch} yet; "
                    "watch it catch up with: penstock status"
                )
            time.sleep(IN_FORCE_POLL_S)
        return placement

    # Maintenance.

    def cordon(
        self, node: str, *, drain: bool = False, reason: str = "", within_s: float = 0.0
    ) -> int:
        """Take a node off the ring; what it weighed is kept for `uncordon`.

        It goes on serving what it holds, and new owners take that over.

        Args:
            node: Its id.
            drain: It is to be stopped when all is handed over: see `wait_drained`.
            reason: For people who read it later.
            within_s: Of a drain: after so many seconds the machine stops. Others take over as
                fast as that asks for, within bounds, what is read most first. 0: nobody knows.

        Returns:
            The epoch at which its weight is 0.

        Raises:
            InvalidRequest: The cluster does not know it, or it owns nothing.
            Conflict: It is cordoned already, or the last that owns anything; or it is to be
                drained and does not answer.
        """
        request = operator_pb2.CordonRequest(
            node=node, drain=drain, reason=reason, within_s=within_s
        )
        epoch = self._nodes.call(CORDON, request, timeout_s=CHANGE_TIMEOUT_S).epoch
        return self._placement_from(epoch).epoch

    def uncordon(self, node: str) -> int:
        """Put a node back on the ring with the weight that it had; return the epoch of that.

        Raises:
            InvalidRequest: The cluster does not know it, or it is not cordoned.
            Conflict: It does not answer.
        """
        request = operator_pb2.UncordonRequest(node=node)
        epoch = self._nodes.call(UNCORDON, request, timeout_s=CHANGE_TIMEOUT_S).epoch
        return self._placement_from(epoch).epoch

    def drain_status(self, node: str) -> DrainStatus:
        """Return how far a node is with handing over.

        Raises:
            InvalidRequest: The cluster does not know it.
        """
        request = operator_pb2.DrainStatusRequest(node=node)
        told = self._nodes.call(DRAIN_STATUS, request, timeout_s=STATUS_TIMEOUT_S)
        given = told.handed_over
        is_of_epoch = given.epoch == told.epoch
        handed = given.done_bytes - given.left_bytes if is_of_epoch else 0
        return DrainStatus(
            node,
            told.state,
            told.epoch,
            handed,
            given.bytes - handed if is_of_epoch else 0,
            tuple(told.behind),
            told.set_at,
            told.gone_at,
            told.reason,
        )

    def wait_drained(
        self,
        node: str,
        *,
        timeout_s: float,
        on_progress: Callable[[DrainStatus], None] = lambda _status: None,
    ) -> DrainStatus:
        """Watch a node that is being drained until it is safe to stop.

        Args:
            node: Its id.
            timeout_s: Return after so long even if it is not; it goes on handing over.
            on_progress: Called every half second.

        Raises:
            Conflict: It is not being drained: another operator has decided otherwise.
        """
        give_up_at = time.monotonic() + timeout_s
        first = status = self.drain_status(node)
        while True:
            if status.set_at != first.set_at or status.state in ("alive", "cordoned"):
                raise Conflict(
                    f"{node!r} is not being drained: another operator has set its weight since, or "
                    f"nobody has begun; look at: penstock status; begin with: penstock drain {node}"
                )
            on_progress(status)
            if status.state == "drained" or time.monotonic() >= give_up_at:
                return status
            time.sleep(DRAIN_POLL_S)
            status = self.drain_status(node)

    def asked_node(self) -> str:
        """Return the id of the node that answers this connection."""
        request = operator_pb2.NodeStatusRequest()
        return self._nodes.call(NODE_STATUS, request, timeout_s=STATUS_TIMEOUT_S).id

    def forget(self, node: str) -> int:
        """Take a node that is away off the ring, with its weight and its record.

        Returns:
            The epoch without it.

        Raises:
            InvalidRequest: The cluster does not know it.
            Conflict: It is alive.
        """
        request = operator_pb2.ForgetRequest(node=node)
        return self._nodes.call(FORGET, request, timeout_s=CHANGE_TIMEOUT_S).epoch

    def settings(self) -> dict[str, Any]:
        """Return every cluster-wide setting; sizes in bytes, durations in seconds."""
        answer = self._nodes.call(GET_SETTINGS, operator_pb2.GetSettingsRequest())
        return json_table(answer.settings_json)

    def set_settings(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Change cluster-wide settings and return them all.

        Args:
            changes: Name to value; sizes and durations may be texts, ``4MiB``, ``10m``.

        Raises:
            InvalidRequest: An unknown name (with the nearest known one) or a bad value.
        """
        request = operator_pb2.SetSettingsRequest(changes_json=json.dumps(dict(changes)))
        answer = self._nodes.call(SET_SETTINGS, request, timeout_s=CHANGE_TIMEOUT_S)
        return json_table(answer.settings_json)

    def volumes(self) -> list[Volume]:
        """Return the cluster's volumes, sorted by name."""
        answer = self._nodes.call(LIST_VOLUMES, operator_pb2.ListVolumesRequest())
        found = (volume_from_proto(told) for told in answer.volumes)
        return sorted(found, key=lambda volume: volume.name)

    def put_volume(self, volume: Volume, *, replace: bool = False) -> None:
        """Add a volume.

        Args:
            volume: It names its secret; the secret itself stands in the nodes' configuration.
            replace: Take the place of a volume of this name; a catalogued one keeps its uid.

        Raises:
            Conflict: There is one of this name, and not ``replace``.
        """
        request = operator_pb2.PutVolumeRequest(volume=volume_to_proto(volume), replace=replace)
        self._nodes.call(PUT_VOLUME, request, timeout_s=CHANGE_TIMEOUT_S)

    def remove_volume(self, name: str) -> None:
        """Remove a volume; what is cached of it ages out.

        Raises:
            InvalidRequest: There is none of this name.
        """
        request = operator_pb2.RemoveVolumeRequest(name=name)
        self._nodes.call(REMOVE_VOLUME, request, timeout_s=CHANGE_TIMEOUT_S)

    def evict(self, urls: Sequence[str]) -> Evicted:
        """Drop objects from every node's cache; their origin is not touched.

        Args:
            urls: Objects, or everything below a url that ends in ``/``.

        Raises:
            ObjectNotFound: There is no such object.
            InvalidRequest: More objects than one call evicts.
        """
        request = operator_pb2.EvictRequest(urls=urls)
        answer = self._nodes.call(EVICT, request, timeout_s=SCAN_TIMEOUT_S)
        return Evicted(answer.chunks, answer.bytes, tuple(answer.unreachable))

    def sampled_reads(
        self, addresses: Mapping[str, str]
    ) -> dict[str, SampledReads | PenstockError]:
        """Return what nodes tell was read of their chunks, by id; those that fail, their errors.

        Args:
            addresses: Of gRPC, by id.
        """
        return ask_all(self._channels, addresses)

    def models(self) -> Models:
        """Return what was opened of late or is pinned, by directory, and how much is held."""
        request = operator_pb2.ListModelsRequest()
        return models_from_proto(self._nodes.call(LIST_MODELS, request, timeout_s=SCAN_TIMEOUT_S))


def connect(
    address: str | None = None,
    *,
    token: str | None = None,
    tls: Tls | None = None,
    insecure: bool | None = None,
) -> Operator:
    """Connect to a cluster as its operator; nothing is asked of it until the first call.

    Args:
        address: As for `penstock.connect`.
        token: A bearer token with the role ``operator``; by default as for `penstock.connect`.
        tls: Certificates for gRPC; None for plain text.
        insecure: As for `penstock.connect`.

    Raises:
        InvalidRequest: The address is none.
        InvalidConfiguration: As for `penstock.connect`.
    """
    insecure = insecure_from(insecure)
    seeds = grpc_addresses(address, token=token)
    channels = Channels(
        authorization=authorization_for(
            seeds, token=token, insecure=insecure, is_encrypted=tls is not None
        ),
        credentials=tls.credentials() if tls else None,
        insecure=insecure,
    )
    nodes = Nodes(
        [Endpoint(channels, seed) for seed in seeds],
        channels=channels,
        bulk=None,
        routing=Routing(),
    )
    return Operator(nodes, channels)

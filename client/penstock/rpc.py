"""gRPC channels to nodes, and unary calls over them with deadlines and named errors.

Responsible for: one channel an address, made at its first use; translating gRPC's errors.
Not responsible for: which node to ask. No stream is ever opened here: a process with an open
stream cannot fork safely.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import grpc
from google.protobuf.message import Message

from penstock.credentials import Authorization, check_private
from penstock.errors import NodeUnavailable
from penstock.fork_gate import ForkGate
from penstock.v1 import (
    cache_pb2,
    handover_pb2,
    operator_pb2,
    placement_pb2,
    put_pb2,
    support_pb2,
    trace_pb2,
    warmup_pb2,
)
from penstock.wire import MESSAGE_BYTES_MAX, error_from_rpc

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)

CALL_TIMEOUT_S = 10.0

CHANNEL_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.enable_http_proxy", 0),
    # A child of a fork must not share its parent's connections.
    ("grpc.use_local_subchannel_pool", 1),
    # A node that was restarted is found again at once.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 3000),  # As long may a busy node take to accept.
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A machine that is frozen or unplugged closes nothing. While calls wait, an unanswered
    # ping tells it from a node that is only slow: those have as long as their deadlines.
    ("grpc.keepalive_time_ms", 1000),
    ("grpc.keepalive_timeout_ms", 3000),
    ("grpc.http2.ping_timeout_ms", 3000),  # The same, as later versions of grpc have it.
    ("grpc.http2.max_pings_without_data", 0),
)


@dataclass(frozen=True, slots=True)
class Method(Generic[Request, Response]):
    """A unary method of a node: its path, and its two messages."""

    path: str
    request: type[Request]
    response: type[Response]


OPEN = Method("/penstock.v1.Cache/Open", cache_pb2.OpenRequest, cache_pb2.OpenResponse)
RENEW = Method("/penstock.v1.Cache/Renew", cache_pb2.RenewRequest, cache_pb2.RenewResponse)
LIST = Method("/penstock.v1.Cache/List", cache_pb2.ListRequest, cache_pb2.ListResponse)
GET_CHUNK = Method("/penstock.v1.Chunks/Get", cache_pb2.GetChunkRequest, cache_pb2.GetChunkResponse)
HOLDS = Method("/penstock.v1.Chunks/Holds", cache_pb2.HoldsRequest, cache_pb2.HoldsResponse)
GET_PLACEMENT = Method(
    "/penstock.v1.Placements/Get",
    placement_pb2.GetPlacementRequest,
    placement_pb2.GetPlacementResponse,
)
OFFER = Method("/penstock.v1.Handover/Offer", handover_pb2.OfferRequest, handover_pb2.OfferResponse)
DESCRIBE = Method(
    "/penstock.v1.Handover/Describe",
    handover_pb2.DescribeRequest,
    handover_pb2.DescribeResponse,
)
TELL = Method("/penstock.v1.Handover/Tell", handover_pb2.TellRequest, handover_pb2.TellResponse)
STATUS = Method(
    "/penstock.v1.Operator/Status", operator_pb2.StatusRequest, operator_pb2.StatusResponse
)
NODE_STATUS = Method(
    "/penstock.v1.Operator/NodeStatus",
    operator_pb2.NodeStatusRequest,
    operator_pb2.NodeStatusResponse,
)
SET_WEIGHTS = Method(
    "/penstock.v1.Operator/SetWeights",
    operator_pb2.SetWeightsRequest,
    operator_pb2.SetWeightsResponse,
)
COUNT_MOVES = Method(
    "/penstock.v1.Operator/CountMoves",
    operator_pb2.CountMovesRequest,
    operator_pb2.CountMovesResponse,
)
CORDON = Method(
    "/penstock.v1.Operator/Cordon", operator_pb2.CordonRequest, operator_pb2.CordonResponse
)
UNCORDON = Method(
    "/penstock.v1.Operator/Uncordon", operator_pb2.UncordonRequest, operator_pb2.UncordonResponse
)
DRAIN_STATUS = Method(
    "/penstock.v1.Operator/DrainStatus",
    operator_pb2.DrainStatusRequest,
    operator_pb2.DrainStatusResponse,
)
FORGET = Method(
    "/penstock.v1.Operator/Forget", operator_pb2.ForgetRequest, operator_pb2.ForgetResponse
)
GET_SETTINGS = Method(
    "/penstock.v1.Operator/GetSettings",
    operator_pb2.GetSettingsRequest,
    operator_pb2.GetSettingsResponse,
)
SET_SETTINGS = Method(
    "/penstock.v1.Operator/SetSettings",
    operator_pb2.SetSettingsRequest,
    operator_pb2.SetSettingsResponse,
)
LIST_VOLUMES = Method(
    "/penstock.v1.Operator/ListVolumes",
    operator_pb2.ListVolumesRequest,
    operator_pb2.ListVolumesResponse,
)
PUT_VOLUME = Method(
    "/penstock.v1.Operator/PutVolume",
    operator_pb2.PutVolumeRequest,
    operator_pb2.PutVolumeResponse,
)
REMOVE_VOLUME = Method(
    "/penstock.v1.Operator/RemoveVolume",
    operator_pb2.RemoveVolumeRequest,
    operator_pb2.RemoveVolumeResponse,
)
FIND_CATALOG = Method(
    "/penstock.v1.Operator/FindCatalog",
    operator_pb2.FindCatalogRequest,
    operator_pb2.FindCatalogResponse,
)
EVICT = Method("/penstock.v1.Operator/Evict", operator_pb2.EvictRequest, operator_pb2.EvictResponse)
START_PUT = Method("/penstock.v1.Puts/Start", put_pb2.StartPutRequest, put_pb2.StartPutResponse)
SEND_PART = Method("/penstock.v1.Puts/Send", put_pb2.SendPartRequest, put_pb2.SendPartResponse)
KEEP_PUT = Method("/penstock.v1.Puts/Keep", put_pb2.KeepPutRequest, put_pb2.KeepPutResponse)
FINISH_PUT = Method("/penstock.v1.Puts/Finish", put_pb2.FinishPutRequest, put_pb2.FinishPutResponse)
ABORT_PUT = Method("/penstock.v1.Puts/Abort", put_pb2.AbortPutRequest, put_pb2.AbortPutResponse)
PIN = Method("/penstock.v1.Operator/Pin", operator_pb2.PinRequest, operator_pb2.PinResponse)
UNPIN = Method("/penstock.v1.Operator/Unpin", operator_pb2.UnpinRequest, operator_pb2.UnpinResponse)
LIST_PINS = Method(
    "/penstock.v1.Operator/ListPins", operator_pb2.ListPinsRequest, operator_pb2.ListPinsResponse
)
NODE_PINS = Method(
    "/penstock.v1.Operator/NodePins", operator_pb2.NodePinsRequest, operator_pb2.NodePinsResponse
)
LIST_MODELS = Method(
    "/penstock.v1.Operator/ListModels",
    operator_pb2.ListModelsRequest,
    operator_pb2.ListModelsResponse,
)
NODE_OBJECTS = Method(
    "/penstock.v1.Operator/NodeObjects",
    operator_pb2.NodeObjectsRequest,
    operator_pb2.NodeObjectsResponse,
)
NODE_HOLDS = Method(
    "/penstock.v1.Operator/NodeHolds",
    operator_pb2.NodeHoldsRequest,
    operator_pb2.NodeHoldsResponse,
)
START_WARMUP = Method(
    "/penstock.v1.Warmup/Start", warmup_pb2.StartRequest, warmup_pb2.StartResponse
)
GET_TRACE = Method(
    "/penstock.v1.Traces/GetTrace", trace_pb2.GetTraceRequest, trace_pb2.GetTraceResponse
)
LIST_SLOW = Method(
    "/penstock.v1.Traces/ListSlow", trace_pb2.ListSlowRequest, trace_pb2.ListSlowResponse
)
WARM = Method("/penstock.v1.Warmup/Warm", warmup_pb2.WarmRequest, warmup_pb2.WarmResponse)
GATHER = Method(
    "/penstock.v1.Support/Gather", support_pb2.GatherRequest, support_pb2.GatherResponse
)


_fork_gate = ForkGate()


class _Channel:
    """A gRPC channel and the callables of the methods used on it."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.grpc = channel
        self._callables: dict[str, Callable[..., Any]] = {}

    def callable(self, method: Method[Request, Response]) -> Callable[..., Response]:
        known = self._callables.get(method.path)
        if known is None:
            # Two threads may both make it; either one serves.
            known = self._callables[method.path] = self.grpc.unary_unary(
                method.path,
                request_serializer=method.request.SerializeToString,
                response_deserializer=method.response.FromString,
            )
        return known


class Channels:
    """Channels by address. Thread-safe; made anew in a forked child by `abandon`."""

    def __init__(
        self,
        *,
        authorization: Authorization | None = None,
        credentials: Any = None,
        insecure: bool = False,
    ) -> None:
        """Make no channel yet.

        Args:
            authorization: Asked before each call, so that a token may be replaced meanwhile. It
                must not block. None: nothing is shown.
            credentials: gRPC's, for TLS; None for plain text.
            insecure: Plain text may carry ``authorization`` to other machines too.
        """
        self._authorization, self._insecure = authorization, insecure
        self._credentials = credentials
        self._lock = threading.Lock()
        self._channels: dict[str, _Channel] = {}
        self._abandoned: list[dict[str, _Channel]] = []

    def call(
        self,
        address: str,
        method: Method[Request, Response],
        request: Request,
        *,
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> Response:
        """Call ``method`` of the node at ``address`` (``host:port``) and wait for its answer.

        Raises:
            InvalidConfiguration: It would be shown a token in plain text.
            NodeUnavailable: No answer in time.
            PenstockError: What the node reported, by its own class.
        """
        try:
            with _fork_gate:
                call = self._channel(address).callable(method)
                return call(request, timeout=timeout_s, metadata=self._metadata())
        except grpc.RpcError as error:
            raise error_from_rpc(error, target=address) from error
        except ValueError as error:  # grpc's word for a channel that was closed meanwhile.
            raise NodeUnavailable(f"the connection to {address} was closed") from error

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        shown = self._authorization() if self._authorization else ""
        return (("authorization", shown),) if shown else ()

    def _channel(self, address: str) -> _Channel:
        with self._lock:
            channel = self._channels.get(address)
            if channel is None:
                channel = self._channels[address] = _Channel(self._connect(address))
            return channel

    def _connect(self, address: str) -> grpc.Channel:
        if self._credentials is None:
            if self._authorization is not None:
                check_private(address, insecure=self._insecure)
            return grpc.insecure_channel(address, options=CHANNEL_OPTIONS)
        return grpc.secure_channel(address, self._credentials, options=CHANNEL_OPTIONS)

    def close(self) -> None:
        """Close every channel; calls in flight fail with `NodeUnavailable`."""
        with self._lock:
            channels, self._channels = self._channels, {}
        for channel in channels.values():
            channel.grpc.close()

    def abandon(self) -> None:
        """In a forked child: forget the parent's channels without touching them.

        They are kept, unused, since closing or collecting them would talk to threads that do
        not exist in the child.
        """
        self._lock = threading.Lock()
        self._abandoned.append(self._channels)
        self._channels = {}

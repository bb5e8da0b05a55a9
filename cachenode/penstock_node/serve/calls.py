"""What a program that reads may ask of a node, whatever carries the call.

Responsible for: opening, renewing, listing and telling the placement, in messages of
`penstock.v1`; gRPC, the bulk port and the host plane all answer from here.
Not responsible for: how a call travels, chunks (`chunks`), what operators do.
"""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import xxhash
from google.protobuf.message import DecodeError, Message

from penstock import wire
from penstock.errors import InvalidRequest, PenstockError
from penstock.membership.view import View
from penstock.rpc import GET_PLACEMENT, GET_TRACE, LIST, OPEN, RENEW, Method
from penstock.trace_messages import spans_to_proto
from penstock.v1 import cache_pb2, placement_pb2, trace_pb2
from penstock_node.access.gate import Gate
from penstock_node.access.grants import CALLER, limited_caller, volume_in
from penstock_node.cluster import Cluster
from penstock_node.key_listing import list_directory
from penstock_node.listing import Listings, Page
from penstock_node.opening import Opener
from penstock_node.traces import Traces

URLS_MAX = 1_000
PACKAGE = "/penstock.v1."


@dataclass(frozen=True, slots=True)
class _Call:
    method: Method[Any, Any]
    answer: Callable[[Any], Awaitable[Message]]


class Calls:
    """Answers calls, on the event loop."""

    def __init__(
        self, *, cluster: Cluster, opener: Opener, listings: Listings, traces: Traces, gate: Gate
    ) -> None:
        self._cluster = cluster
        self._gate = gate
        self._traces = traces
        self._opener = opener
        self._listings = listings
        self._placement: tuple[View, placement_pb2.GetPlacementResponse] | None = None
        self._calls = {
            call.method.path: call
            for call in (
                _Call(OPEN, self.open),
                _Call(RENEW, self.renew),
                _Call(LIST, self.list),
                _Call(GET_PLACEMENT, self.placement),
                _Call(GET_TRACE, self.trace),
            )
        }

    async def call(
        self, path: str, request: bytes, *, authorization: str | None, plane: str
    ) -> bytes:
        """Answer the method with gRPC's ``path``, messages encoded, to who may call it.

        Args:
            path: ``/penstock.v1.SERVICE/METHOD``.
            request: Its message.
            authorization: The header that was shown, "" for none; None: whoever asks was let in
                otherwise.
            plane: What carries the call.

        Raises:
            InvalidRequest: There is no such method, or ``request`` is not its message.
            PenstockError: What the gate or the method raised.
        """
        call = self._calls.get(path)
        if call is None:
            raise InvalidRequest(f"{path}: here are only {', '.join(sorted(self._calls))}")
        try:
            message = call.method.request.FromString(request)
        except DecodeError as error:
            raise InvalidRequest(f"not a message of {path}") from error
        if self._gate.callers is not None and authorization is not None:
            method = path.removeprefix(PACKAGE)
            # This is a task of the call's own: nobody else's work runs in it.
            CALLER.set(await self._gate.admit(method, message, authorization, plane=plane))
        answer = await call.answer(message)
        return answer.SerializeToString()

    async def open(self, request: cache_pb2.OpenRequest) -> cache_pb2.OpenResponse:
        """Answer with an object or an error for each url."""
        if len(request.urls) > URLS_MAX:
            raise InvalidRequest(f"{len(request.urls)} urls in one request: at most {URLS_MAX}")
        with self._traces.serving(request.traceparent, "open", urls=len(request.urls)):
            results = await self._opener.open(
                request.urls, refresh=request.refresh, forwarded=request.forwarded
            )
        return cache_pb2.OpenResponse(
            results=[
                cache_pb2.OpenResult(error=wire.error_to_proto(result))
                if isinstance(result, PenstockError)
                else cache_pb2.OpenResult(object=wire.object_to_proto(result))
                for result in results
            ],
            epoch=self._cluster.epoch,
        )

    async def renew(self, request: cache_pb2.RenewRequest) -> cache_pb2.RenewResponse:
        """Answer with a new ticket for the same version."""
        signed = self._cluster.renew(request.ticket)
        return cache_pb2.RenewResponse(ticket=signed.text, ticket_expires_at=signed.expires_at)

    async def list(self, request: cache_pb2.ListRequest) -> cache_pb2.ListResponse:
        """Answer with one page of a listing, or of a directory."""
        find: Callable[..., Awaitable[Page]] = (
            partial(list_directory, self._listings, self._cluster.volumes)
            if request.one_level
            else self._listings.page
        )
        found = await find(
            request.url,
            after=request.page_token,
            limit=request.page_size,
            refresh=request.refresh,
        )
        directories = found.directories
        if (caller := limited_caller()) is not None:  # At the root they are the volumes.
            directories = tuple(each for each in directories if caller.sees(volume_in(each)))
        return cache_pb2.ListResponse(
            objects=[wire.listed_to_proto(info) for info in found.objects],
            directories=directories,
            next_page_token=found.next_token,
        )

    async def trace(self, request: trace_pb2.GetTraceRequest) -> trace_pb2.GetTraceResponse:
        """Answer with what this node keeps of a trace. Whoever knows its id was told it."""
        asked_at = time.time()
        spans, dropped = await self._traces.spans(request.trace_id)
        return trace_pb2.GetTraceResponse(
            spans=spans_to_proto(spans),
            dropped=dropped,
            asked_at=asked_at,
            answered_at=time.time(),
        )

    async def placement(
        self, request: placement_pb2.GetPlacementRequest
    ) -> placement_pb2.GetPlacementResponse:
        """Answer with the placement and the members, or that they are as the caller knows them."""
        view = self._cluster.view
        response = self._placement_of(view)
        unchanged = (
            request.cluster_uid == view.placement.cluster_uid
            and request.epoch == view.placement.epoch
            and request.members_digest == response.members_digest
        )
        return placement_pb2.GetPlacementResponse(unchanged=True) if unchanged else response

    def _placement_of(self, view: View) -> placement_pb2.GetPlacementResponse:
        """Return the answer for ``view``: made once, since thousands of clients ask for it."""
        if self._placement is None or self._placement[0] is not view:
            response = placement_pb2.GetPlacementResponse(
                cluster=view.cluster,
                members=wire.members_to_proto(view.members.values()),
                replicas=view.replicas,
            )
            digest = xxhash.xxh3_64_intdigest(response.SerializeToString(deterministic=True))
            response.members_digest = digest
            response.placement.CopyFrom(wire.placement_to_proto(view.placement))
            self._placement = (view, response)
        return self._placement[1]

"""Protobuf at the edge: messages to the library's own types and back, and errors by name.

Only this module, the gRPC clients (`rpc`, `planes.grpc`) and the node's gRPC services see a
message.
"""

import contextlib
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, cast

import grpc
from google.protobuf.message import DecodeError

from penstock import errors
from penstock.json_text import read_json_object
from penstock.membership.view import Member, View
from penstock.object_info import ObjectInfo, OpenedObject, OriginSource
from penstock.objects import ObjectId
from penstock.placement import PlacedNode, Placement
from penstock.v1 import cache_pb2, placement_pb2

ERROR_METADATA_KEY = "penstock-error-bin"
MESSAGE_BYTES_MAX = 80 * 1024 * 1024
"""A chunk of the largest size, and what goes with it."""

_GRPC_STATUS: dict[type[errors.PenstockError], grpc.StatusCode] = {
    errors.ObjectNotFound: grpc.StatusCode.NOT_FOUND,
    errors.ObjectChanged: grpc.StatusCode.ABORTED,
    errors.Uncacheable: grpc.StatusCode.FAILED_PRECONDITION,
    errors.NotPermitted: grpc.StatusCode.PERMISSION_DENIED,
    errors.InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    errors.InvalidRange: grpc.StatusCode.OUT_OF_RANGE,
    errors.InvalidConfiguration: grpc.StatusCode.INVALID_ARGUMENT,
    errors.Conflict: grpc.StatusCode.ALREADY_EXISTS,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.TicketExpired: grpc.StatusCode.UNAUTHENTICATED,
    errors.NotOwner: grpc.StatusCode.FAILED_PRECONDITION,
    errors.NotCached: grpc.StatusCode.NOT_FOUND,
    errors.CorruptData: grpc.StatusCode.DATA_LOSS,
    errors.OriginUnavailable: grpc.StatusCode.UNAVAILABLE,
    errors.ClusterUnavailable: grpc.StatusCode.UNAVAILABLE,
    errors.NodeUnavailable: grpc.StatusCode.UNAVAILABLE,
    errors.CatalogUnavailable: grpc.StatusCode.UNAVAILABLE,
    errors.Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
}
# A node names each of its own errors; these without a name are the connection's.
_NO_ANSWER = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
}


def grpc_status(error: errors.PenstockError) -> grpc.StatusCode:
    """Return the status code that carries ``error``."""
    return _GRPC_STATUS.get(type(error), grpc.StatusCode.INTERNAL)


def error_to_proto(error: errors.PenstockError) -> cache_pb2.Error:
    """Return ``error`` as a message."""
    message = cache_pb2.Error(name=error.name, message=str(error))
    if isinstance(error, errors.NotOwner):
        message.epoch = error.epoch
    if isinstance(error, errors.Overloaded):
        message.retry_after_ms = round(error.retry_after_s * 1000)
    return message


def error_from_proto(message: cache_pb2.Error) -> errors.PenstockError:
    """Return the error that another process reported."""
    return errors.from_name(
        message.name,
        message.message,
        epoch=message.epoch,
        retry_after_s=message.retry_after_ms / 1000,
    )


def error_from_rpc(error: grpc.RpcError, *, target: str) -> errors.PenstockError:
    """Return the error behind a failed call to ``target``, whoever made it."""
    trailers = dict(cast("Iterable[tuple[str, Any]]", error.trailing_metadata() or ()))
    if ERROR_METADATA_KEY in trailers:
        with contextlib.suppress(DecodeError):  # Not ours: the status code has to do.
            return error_from_proto(cache_pb2.Error.FromString(trailers[ERROR_METADATA_KEY]))
    code, details = error.code(), error.details()
    if code in _NO_ANSWER:
        return errors.NodeUnavailable(f"{target} does not answer: {code.name}: {details}")
    if code == grpc.StatusCode.UNAUTHENTICATED:
        return errors.Unauthenticated(f"{target} refuses: {details}")
    if code == grpc.StatusCode.PERMISSION_DENIED:
        return errors.NotPermitted(f"{target} refuses: {details}")
    return errors.PenstockError(f"{target} failed: {code.name}: {details}")


def _moment(microseconds: int) -> datetime | None:
    """Return a moment; what no calendar has is not known."""
    try:
        return datetime.fromtimestamp(microseconds / 1e6, tz=UTC) if microseconds else None
    except (OverflowError, ValueError, OSError):
        return None


def microseconds(moment: datetime | None) -> int:
    """Return a moment as it stands on the wire: microseconds since 1970, 0 for None."""
    return round(moment.timestamp() * 1e6) if moment else 0


def object_to_proto(opened: OpenedObject) -> cache_pb2.Object:
    """Return an opened object as a message."""
    return cache_pb2.Object(
        url=opened.url,
        volume=opened.volume,
        key=opened.id.key,
        version=opened.id.version,
        size=opened.id.size,
        chunk_size=opened.id.chunk_size,
        modified_us=microseconds(opened.modified),
        ticket=opened.ticket,
        ticket_expires_at=round(opened.ticket_expires_at),
        fresh_for_ms=round(opened.fresh_for_s * 1000),
        sources=[
            cache_pb2.Source(
                url=source.url, options_json=json.dumps(source.options), version=source.version
            )
            for source in opened.sources
        ],
        replicas=opened.replicas,
    )


def object_from_proto(message: cache_pb2.Object) -> OpenedObject:
    """Return the object in a message.

    Raises:
        InvalidRequest: Its fields are out of bounds.
    """
    return OpenedObject(
        url=message.url,
        volume=message.volume,
        id=ObjectId(message.key, message.version, message.size, message.chunk_size),
        modified=_moment(message.modified_us),
        ticket=message.ticket,
        ticket_expires_at=message.ticket_expires_at,
        fresh_for_s=message.fresh_for_ms / 1000,
        sources=tuple(
            OriginSource(source.url, read_json_object(source.options_json or "{}"), source.version)
            for source in message.sources
        ),
        replicas=max(1, message.replicas),
    )


def listed_to_proto(info: ObjectInfo) -> cache_pb2.ListedObject:
    """Return one line of a listing as a message."""
    return cache_pb2.ListedObject(
        url=info.url,
        version=info.version,
        size=info.size,
        modified_us=microseconds(info.modified),
    )


def listed_from_proto(message: cache_pb2.ListedObject) -> ObjectInfo:
    """Return the line of a listing in a message."""
    return ObjectInfo(message.url, message.version, message.size, _moment(message.modified_us))


def placement_to_proto(placement: Placement) -> placement_pb2.Placement:
    """Return a placement as clients need it: without its history."""
    return placement_pb2.Placement(
        cluster_uid=placement.cluster_uid,
        epoch=placement.epoch,
        points_per_100=placement.points_per_100,
        nodes=[
            placement_pb2.PlacedNode(id=n.id, host=n.host, zone=n.zone, weight=n.weight)
            for n in placement.nodes
        ],
    )


def placement_from_proto(message: placement_pb2.Placement) -> Placement:
    """Return the placement in a message.

    Raises:
        InvalidRequest: No ring can be made of it.
    """
    return Placement(
        cluster_uid=message.cluster_uid,
        epoch=message.epoch,
        points_per_100=message.points_per_100,
        nodes=tuple(PlacedNode(n.id, n.host, n.zone, n.weight) for n in message.nodes),
    ).checked()


_MEMBER_TEXTS = (
    "id",
    "host",
    "zone",
    "grpc_address",
    "bulk_address",
    "admin_address",
    "s3_address",
    "socket",
    "incarnation",
)


def members_to_proto(members: Iterable[Member]) -> list[placement_pb2.Member]:
    """Return members as messages, sorted by id."""
    return [
        placement_pb2.Member(
            **{name: getattr(member, name) for name in _MEMBER_TEXTS},
            seen_epoch=member.seen_epoch,
            settled_epoch=member.settled_epoch,
            tls_ports=member.tls_ports,
        )
        for member in sorted(members, key=lambda member: member.id)
    ]


def view_from_proto(response: placement_pb2.GetPlacementResponse) -> View:
    """Return the view in an answer that is not ``unchanged``."""
    members = {
        message.id: Member(
            **{name: getattr(message, name) for name in _MEMBER_TEXTS},
            seen_epoch=message.seen_epoch,
            settled_epoch=message.settled_epoch,
            tls_ports=tuple(message.tls_ports),
        )
        for message in response.members
    }
    return View(
        cluster=response.cluster,
        placement=placement_from_proto(response.placement),
        members=members,
        replicas=response.replicas,
    )

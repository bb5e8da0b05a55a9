"""Where the chunks of an object are: who owns each, and who holds it now."""

from penstock.core import Core
from penstock.errors import NodeUnavailable
from penstock.membership.view import Member, View
from penstock.object_info import ChunkLocation, ObjectLocation
from penstock.rpc import HOLDS
from penstock.v1 import cache_pb2


def locate(core: Core, url: str, *, refresh: bool) -> ObjectLocation:
    """Tell where the chunks of the object at ``url`` are; see `Cache.locate`."""
    opened = core.opens.open(url, refresh=refresh).opened
    view = core.nodes.view()
    held = _held_by(core, view, opened.ticket)
    chunks = []
    for index in range(opened.id.chunk_count):
        chunk_id = opened.id.chunk_id(index)
        owners = core.routing.ring.owners(chunk_id, opened.replicas)
        holders = tuple(node for node, indexes in held.items() if index in indexes)
        chunks.append(ChunkLocation(index, chunk_id, tuple(owners), holders))
    return ObjectLocation(url, opened.id, tuple(chunks))


def _held_by(core: Core, view: View, ticket: str) -> dict[str, set[int]]:
    """Return the chunks that each member holds; one that does not answer holds none."""
    request = cache_pb2.HoldsRequest(ticket=ticket)

    def ask(member: Member) -> set[int]:
        try:
            return set(core.channels.call(member.grpc_address, HOLDS, request).indexes)
        except NodeUnavailable:
            return set()

    members = sorted(view.members.values(), key=lambda member: member.id)
    return {
        member.id: indexes
        for member, indexes in zip(members, core.pool.map(ask, members), strict=True)
    }

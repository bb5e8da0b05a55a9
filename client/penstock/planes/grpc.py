"""The gRPC plane: chunks by unary calls. Portable, not the fastest.

A chunk that the node is still filling answers ``filling`` after at most 200 ms, and is asked
for again: so silence means trouble, however slow the origin is, and no stream is ever open.
"""

from collections.abc import Sequence
from typing import get_args

from penstock.deadline import Deadline
from penstock.errors import NodeUnavailable, PenstockError
from penstock.membership.view import Member
from penstock.objects import cover_blocks
from penstock.planes.plane import Landed, Outcome, PieceRequest, ReadContext, Source, land
from penstock.rpc import GET_CHUNK, Channels
from penstock.v1 import cache_pb2

SILENCE_S = 20.0
"""A node that has said nothing for this long does not answer. Long, since a busy link may take
seconds for a chunk: a machine that is frozen or gone is found out by pings, see `penstock.rpc`."""

_SOURCES: dict[str, Source] = {name: name for name in get_args(Source)}


class GrpcPlane:
    """Reads pieces through `penstock.v1.Chunks`."""

    name = "grpc"
    pieces_max = 1

    def __init__(self, channels: Channels, *, silence_s: float = SILENCE_S) -> None:
        self._channels = channels
        self._silence_s = silence_s

    def read(
        self,
        member: Member,
        context: ReadContext,
        pieces: Sequence[PieceRequest],
        *,
        deadline: Deadline,
    ) -> list[Outcome]:
        """Read ``pieces`` one after another; see `Plane.read`."""
        assert len(pieces) <= self.pieces_max, f"{len(pieces)} pieces in one request"
        return [self._outcome(member, context, piece, deadline) for piece in pieces]

    def _outcome(
        self, member: Member, context: ReadContext, piece: PieceRequest, deadline: Deadline
    ) -> Outcome:
        try:
            return self._read_piece(member, context, piece, deadline)
        except PenstockError as error:
            return error

    def _read_piece(
        self, member: Member, context: ReadContext, piece: PieceRequest, deadline: Deadline
    ) -> Landed:
        chunk_length = context.object.chunk_length(piece.index)
        request = _request(context, piece, chunk_length)
        answer = self._get(member, request, deadline)
        while answer.filling:
            answer = self._get(member, request, deadline)
        land(piece, chunk_length, answer.data, answer.checksums)
        source = _SOURCES.get(answer.source, "disk")  # A later version's word: the bytes are good.
        return Landed(source, answer.epoch, load=answer.load, copies=answer.copies)

    def _get(
        self, member: Member, request: cache_pb2.GetChunkRequest, deadline: Deadline
    ) -> cache_pb2.GetChunkResponse:
        timeout_s = min(self._silence_s, deadline.remaining_s)
        if timeout_s <= 0:
            raise NodeUnavailable(f"{member.id} did not deliver within the deadline")
        return self._channels.call(
            member.grpc_address,
            GET_CHUNK,
            request,
            timeout_s=timeout_s,
        )

    def close(self) -> None:
        """Nothing of its own: the channels belong to whoever made them."""

    def abandon(self) -> None:
        """Nothing of its own."""


def _request(
    context: ReadContext, piece: PieceRequest, chunk_length: int
) -> cache_pb2.GetChunkRequest:
    start, stop = cover_blocks(piece.start, piece.stop, chunk_length)
    return cache_pb2.GetChunkRequest(
        ticket=context.ticket,
        index=piece.index,
        start=start,
        stop=stop,
        epoch=context.epoch,
        only_if_cached=context.only_if_cached,
        suspects=context.suspects,
        recheck=context.recheck,
        on_behalf=context.on_behalf,
        traceparent=context.traceparent,
    )

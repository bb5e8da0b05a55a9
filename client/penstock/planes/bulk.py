"""The bulk plane: chunks by HTTP from a node's bulk port, straight into the caller's memory.

Several pieces are asked for at once on one connection, and answered in order, so that a node
never waits for the next request. While it works on a request the node says so (102) every 200 ms:
silence means trouble, slowness does not.
"""

import base64
from collections.abc import Sequence
from typing import get_args

from penstock import tracing
from penstock.bulk_calls import error_of
from penstock.bulk_connection import BulkConnection, BulkConnections, Head
from penstock.bulk_http import (
    CHECKSUMS,
    CHUNK_PATH,
    COPIES,
    EPOCH,
    HOLDER,
    HOLDER_ASKED,
    IF,
    IF_CACHED,
    LOAD,
    ON_BEHALF,
    RECHECK,
    SOURCE,
    SPREAD,
    SUSPECTS,
    TICKET_SCHEME,
    TRACEPARENT,
    format_range,
)
from penstock.connection_pool import Stale
from penstock.deadline import Deadline
from penstock.errors import CorruptData, NodeUnavailable, NotPermitted
from penstock.membership.view import Member
from penstock.objects import cover_blocks
from penstock.planes.landing import Bounce, Landing
from penstock.planes.plane import Landed, Outcome, PieceRequest, ReadContext, Source

_SOURCES: dict[str, Source] = {name: name for name in get_args(Source)}
_PARTIAL = 206


class BulkPlane:
    """Reads pieces from bulk ports."""

    name = "bulk"
    pieces_max = 8

    def __init__(self, connections: BulkConnections, *, landing: type[Landing] = Landing) -> None:
        """Connect to nothing yet.

        Args:
            connections: Made and closed by the caller.
            landing: How bytes get into place; whoever measures may have one that checks nothing.
        """
        self._connections = connections
        self._landing = landing
        self._bounce = Bounce()

    def read(
        self,
        member: Member,
        context: ReadContext,
        pieces: Sequence[PieceRequest],
        *,
        deadline: Deadline,
    ) -> list[Outcome]:
        """Read ``pieces`` over one connection; see `Plane.read`."""
        assert len(pieces) <= self.pieces_max, f"{len(pieces)} pieces in one request"
        outcomes: list[Outcome] = []
        try:
            self._read(member.bulk_target, context, pieces, deadline, outcomes, fresh=False)
        except Stale:
            self._read_rest(member, context, pieces, deadline, outcomes)
        except (NodeUnavailable, NotPermitted) as error:
            outcomes += [error.with_traceback(None)] * (len(pieces) - len(outcomes))
        return outcomes

    def _read_rest(
        self,
        member: Member,
        context: ReadContext,
        pieces: Sequence[PieceRequest],
        deadline: Deadline,
        outcomes: list[Outcome],
    ) -> None:
        """Read again over a new connection: the node had closed the one that was kept."""
        try:
            self._read(member.bulk_target, context, pieces, deadline, outcomes, fresh=True)
        except (NodeUnavailable, NotPermitted) as error:
            outcomes += [error.with_traceback(None)] * (len(pieces) - len(outcomes))

    def _read(
        self,
        address: str,
        context: ReadContext,
        pieces: Sequence[PieceRequest],
        deadline: Deadline,
        outcomes: list[Outcome],
        *,
        fresh: bool,
    ) -> None:
        with self._connections.borrow(address, fresh=fresh) as connection:
            connection.send(requests(connection.host, context, pieces))
            for piece in pieces:
                head = connection.receive_head(deadline, gives_up=context.gives_up)
                outcomes.append(self._outcome(connection, context, piece, head, deadline))

    def _outcome(
        self,
        connection: BulkConnection,
        context: ReadContext,
        piece: PieceRequest,
        head: Head,
        deadline: Deadline,
    ) -> Outcome:
        """Take in one answer; what it says is wrong leaves the connection usable."""
        if head.status != _PARTIAL:
            return error_of(head, connection.receive_body(head.length, deadline), connection)
        chunk_length = context.object.chunk_length(piece.index)
        try:
            landing = self._landing(piece, chunk_length, _checksums(head), self._bounce.memory)
        except CorruptData as error:
            raise NodeUnavailable(f"{connection.address} sends other blocks: {error}") from error
        if head.length != landing.stop - landing.start:
            raise NodeUnavailable(f"{connection.address} sends {head.length} bytes of a chunk")
        try:
            with tracing.span("receive", chunk=piece.index) as span:
                landing.fill(lambda into, _at: connection.receive_into(into, deadline))
                span.add_bytes(head.length)
        except CorruptData as error:
            return error
        return Landed(
            _SOURCES.get(head.headers.get(SOURCE.lower(), ""), "disk"),  # A later version's word.
            head.number(EPOCH),
            load=head.number(LOAD),
            copies=head.number(COPIES),
        )

    def close(self) -> None:
        """Nothing of its own: the connections belong to whoever made them."""

    def abandon(self) -> None:
        """Nothing of its own."""


def requests(host: str, context: ReadContext, pieces: Sequence[PieceRequest]) -> bytes:
    """Return the HTTP requests for ``pieces``, one after another."""
    lines = [
        f"Host: {host}",
        f"Authorization: {TICKET_SCHEME}{context.ticket}",
        f"{EPOCH}: {context.epoch}",
    ]
    for wanted, name, value in (
        (context.only_if_cached, IF, IF_CACHED),
        (context.suspects, SUSPECTS, ",".join(context.suspects)),
        (context.recheck, RECHECK, "1"),
        (context.on_behalf, ON_BEHALF, "1"),
        (context.may_be_sent_on, SPREAD, "1"),
        (context.goes_to_holder, HOLDER, HOLDER_ASKED),
        (context.traceparent, TRACEPARENT, context.traceparent),
    ):
        if wanted:
            lines.append(f"{name}: {value}")
    shared = "\r\n".join(lines)
    return "".join(_request(context, piece, shared) for piece in pieces).encode("latin-1")


def _request(context: ReadContext, piece: PieceRequest, shared: str) -> str:
    start, stop = cover_blocks(piece.start, piece.stop, context.object.chunk_length(piece.index))
    line = f"GET {CHUNK_PATH}{piece.index} HTTP/1.1"
    return f"{line}\r\n{shared}\r\nRange: {format_range(start, stop)}\r\n\r\n"


def _checksums(head: Head) -> bytes:
    try:
        return base64.b64decode(head.headers.get(CHECKSUMS.lower(), ""), validate=True)
    except ValueError as error:
        raise NodeUnavailable("an answer whose checksums cannot be read") from error

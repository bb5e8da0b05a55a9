"""The host plane: open files of chunks from the node of this machine, read in place.

One message asks for many chunks. The node answers with descriptors, which are read straight into
the caller's memory and closed. A chunk that is on its way is asked for again, while those that
are here are read; one whose file this program is not given is read over the node's bulk port.
"""

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from penstock import tracing
from penstock.checksums import checksums_between
from penstock.connection_pool import Stale
from penstock.deadline import Deadline
from penstock.errors import (
    CorruptData,
    NodeUnavailable,
    NotCached,
    NotOwner,
    Overloaded,
    PenstockError,
)
from penstock.host_connection import Answer, HostConnection, HostConnections
from penstock.host_frames import AGAIN_MAX, INDEXES_MAX
from penstock.membership.view import Member
from penstock.objects import cover_blocks
from penstock.planes.host_file import DONE, land_file, source_of
from penstock.planes.host_kept import KeptReads
from penstock.planes.landing import Bounce, Landing
from penstock.planes.plane import Landed, Outcome, PieceRequest, Plane, ReadContext
from penstock.v1 import host_pb2
from penstock.wire import error_from_proto

EVICTIONS_MAX = 3
"""How often a chunk may be gone between the node's answer and the read over bulk."""


class HostPlane:
    """Reads pieces from the files of the node whose socket lies at ``path``."""

    name = "host"
    pieces_max = INDEXES_MAX

    def __init__(
        self,
        path: str,
        *,
        connections: HostConnections,
        bulk: Plane,
        landing: type[Landing] = Landing,
    ) -> None:
        """Connect to nothing yet.

        Args:
            path: Of the node's socket.
            connections: Made and closed by the caller.
            bulk: Reads what no file is given for.
            landing: How bytes get into place; whoever measures may have one that checks nothing.
        """
        self._path = path
        self._connections = connections
        self._bulk = bulk
        self._landing = landing
        self._bounce = Bounce()
        self.kept = KeptReads(
            lambda: connections.connect(path), landing=landing, bounce=self._bounce
        )
        """Reads from files that are kept open."""

    def read(
        self,
        member: Member,
        context: ReadContext,
        pieces: Sequence[PieceRequest],
        *,
        deadline: Deadline,
    ) -> list[Outcome]:
        """Read ``pieces`` of what ``member``, this machine's node, has; see `Plane.read`."""
        assert len(pieces) <= self.pieces_max, f"{len(pieces)} pieces in one request"
        if context.recheck:
            self.kept.forget(context.object, [piece.index for piece in pieces])
        elif len(pieces) == 1:
            outcome = self.kept.read_small(context, pieces[0], deadline)
            if outcome is not None:
                return [outcome]
        reading = _Reading(context, pieces, deadline)
        for _ in range(EVICTIONS_MAX):
            self._ask(reading)
            if not reading.over_bulk:
                break
            self._read_over_bulk(member, reading)
        reading.fail_waiting(Overloaded("the chunk leaves as soon as it comes in; ask again"))
        return reading.outcomes

    def _ask(self, reading: "_Reading") -> None:
        try:
            self._ask_until_there(reading, fresh=False)
        except Stale:
            self._ask_again(reading)
        except PenstockError as error:
            reading.fail_waiting(error)

    def _ask_again(self, reading: "_Reading") -> None:
        """Ask over a new connection: the one that was kept was of a node that has ended."""
        try:
            self._ask_until_there(reading, fresh=True)
        except PenstockError as error:
            reading.fail_waiting(error)

    def _ask_until_there(self, reading: "_Reading", *, fresh: bool) -> None:
        with self._connections.borrow(self._path, fresh=fresh) as connection:
            asked = tuple(reading.waiting)
            while asked:
                if self._ask_once(connection, reading, asked):
                    connection.tell(DONE)
                asked = tuple(reading.waiting)[:AGAIN_MAX]  # All the others are on their way too.

    def _ask_once(
        self, connection: HostConnection, reading: "_Reading", asked: tuple[int, ...]
    ) -> bool:
        """Ask for some that are waited for, and read what comes; return whether files came."""
        has_files = False
        for answer in connection.answers(reading.request(asked), reading.deadline):
            with answer:
                has_files |= bool(answer.files)
                asked = self._take(answer, reading, asked)
        return has_files

    def _take(self, answer: Answer, reading: "_Reading", asked: tuple[int, ...]) -> tuple[int, ...]:
        """Read what has come; return those of ``asked`` that are told of in the next answer.

        What has not come stays in ``reading.waiting``.
        """
        told = answer.message.chunks
        now, later = asked[: len(told.chunks)], asked[len(told.chunks) :]
        is_theirs = [chunk.index for chunk in told.chunks] == [
            reading.pieces[at].index for at in now
        ]
        if not (now and is_theirs and told.more == bool(later)):
            raise NodeUnavailable(f"the node at {self._path} answers for other chunks")
        for at, chunk in zip(now, told.chunks, strict=True):
            match chunk.WhichOneof("state"):
                case "file":
                    outcome = self._land(answer, chunk.file, reading, at)
                    reading.settle(at, outcome)
                case "over_bulk":
                    reading.send_over_bulk(at, chunk.over_bulk)
                case "error":
                    reading.settle(at, error_from_proto(chunk.error))
                case _:
                    reading.check_time()
        return later

    def _land(
        self, answer: Answer, file: host_pb2.HostFile, reading: "_Reading", at: int
    ) -> Outcome:
        piece = reading.pieces[at]
        try:
            descriptor = answer.take_file()
        except IndexError:
            return _no_descriptor(answer)
        try:
            reading.check_time()
            self._read_file(descriptor, file, piece, reading.context)
        except PenstockError as error:
            return error
        finally:
            os.close(descriptor)
        return Landed(source_of(file.source), answer.message.chunks.epoch)

    def _read_file(
        self,
        descriptor: int,
        file: host_pb2.HostFile,
        piece: PieceRequest,
        context: ReadContext,
    ) -> None:
        chunk_length = context.object.chunk_length(piece.index)
        if file.length != chunk_length:
            raise CorruptData(f"chunk {piece.index} has {file.length} bytes, not {chunk_length}")
        start, stop = cover_blocks(piece.start, piece.stop, chunk_length)
        checksums = checksums_between(file.checksums, start, stop)
        landing = self._landing(piece, chunk_length, checksums, self._bounce.memory)
        with tracing.span("read file", chunk=piece.index, source=file.source) as span:
            land_file(descriptor, file.offset, landing)
            span.add_bytes(piece.stop - piece.start)

    def _read_over_bulk(self, member: Member, reading: "_Reading") -> None:
        for (address, speaks_tls), positions in reading.over_bulk.items():
            tls_ports = ("bulk",) if speaks_tls else ()
            local = replace(member, bulk_address=address, tls_ports=tls_ports)
            for batch in _batches(positions, self._bulk.pieces_max):
                outcomes = self._bulk.read(
                    local,
                    replace(reading.context, only_if_cached=True, recheck=False),
                    [reading.pieces[at] for at in batch],
                    deadline=reading.deadline,
                )
                for at, outcome in zip(batch, outcomes, strict=True):
                    reading.settle_over_bulk(at, outcome)
        reading.over_bulk.clear()

    def close(self) -> None:
        """Close the files that are kept; the connections belong to whoever made them."""
        self.kept.close()

    def abandon(self) -> None:
        """In a forked child: close its copies of the files that are kept."""
        self.kept.abandon()


class _Reading:
    """One read: which pieces have an outcome, and which are waited for."""

    def __init__(
        self, context: ReadContext, pieces: Sequence[PieceRequest], deadline: Deadline
    ) -> None:
        self.context, self.pieces, self.deadline = context, pieces, deadline
        self.waiting = dict.fromkeys(range(len(pieces)))
        """Positions of pieces that the node has yet to answer for, in order."""
        self.over_bulk: defaultdict[tuple[str, bool], list[int]] = defaultdict(list)
        """Positions of pieces to be read over bulk, by address and whether TLS is spoken there."""
        self._outcomes: dict[int, Outcome] = {}

    @property
    def outcomes(self) -> list[Outcome]:
        """One outcome a piece, in order; all of them are settled."""
        return [self._outcomes[at] for at in range(len(self.pieces))]

    def request(self, asked: Sequence[int]) -> host_pb2.HostRequest:
        """Return what to ask the node for some pieces."""
        wanted = [self.pieces[at] for at in asked]
        return host_pb2.HostRequest(
            read=host_pb2.HostRead(
                ticket=self.context.ticket,
                indexes=[piece.index for piece in wanted],
                lengths=[piece.stop - piece.start for piece in wanted],
                only_if_cached=self.context.only_if_cached,
                recheck=self.context.recheck,
                traceparent=self.context.traceparent,
                in_parts=len(wanted) > 1,
            )
        )

    def check_time(self) -> None:
        """Raise `NodeUnavailable` when the time is over, or nobody waits any more."""
        if self.deadline.remaining_s == 0:
            raise NodeUnavailable("the node of this machine did not deliver within the deadline")

    def settle(self, at: int, outcome: Outcome) -> None:
        """Take note of an outcome."""
        self._outcomes[at] = outcome
        del self.waiting[at]

    def send_over_bulk(self, at: int, where: host_pb2.HostOverBulk) -> None:
        """Have a piece read over bulk."""
        del self.waiting[at]
        self.over_bulk[where.address, where.speaks_tls].append(at)

    def settle_over_bulk(self, at: int, outcome: Outcome) -> None:
        """Take note of what the bulk plane brought: a chunk that has left is waited for again."""
        if isinstance(outcome, NotCached | NotOwner):
            self.waiting[at] = None
        else:
            self._outcomes[at] = outcome

    def fail_waiting(self, error: PenstockError) -> None:
        """End the pieces that are waited for."""
        for at in tuple(self.waiting):
            self.settle(at, error.with_traceback(None))


def _no_descriptor(answer: Answer) -> PenstockError:
    if answer.are_cut:
        return Overloaded(
            "this process has as many files open as it may: raise its limit (ulimit -n)"
        )
    return NodeUnavailable("the node of this machine names a file that it did not send")


def _batches(positions: Sequence[int], size: int) -> list[list[int]]:
    rest = list(positions)
    return [rest[first : first + size] for first in range(0, len(rest), size)]

"""The files in which the node of this machine keeps an object's chunks: open, as they come.

Responsible for: asking until all have come, and telling the node when nobody uses them any more.
Not responsible for: what is done with them: maps (`host_view`), copies (`tensors.parts`); sockets
(`host_connection`).

They have a connection of their own: for as long as that is open, the node counts the chunks as in
use.
"""

import os
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from penstock.counters import Counters, add_to_all
from penstock.deadline import Deadline
from penstock.errors import (
    Cancelled,
    CorruptData,
    NodeUnavailable,
    NotOwner,
    NotPermitted,
    Overloaded,
    PenstockError,
    TicketExpired,
)
from penstock.host_connection import Answer, HostConnection
from penstock.host_frames import AGAIN_MAX, INDEXES_MAX
from penstock.objects import ObjectId
from penstock.v1 import host_pb2
from penstock.wire import error_from_proto

PROGRESS_TIMEOUT_S = 60.0
"""Longest that is waited for the next chunk."""
TRIES = 5
"""How often the node is asked in a row before it counts as away: there is no other."""
PAUSE_S = 0.2
"""In between; a node that is started anew is there again after some."""


@dataclass(frozen=True, slots=True)
class ChunkFile:
    """Where a chunk's bytes lie. Whoever was given it closes the descriptor."""

    index: int
    descriptor: int
    offset: int
    """Of the chunk's first byte in the file."""
    length: int
    checksums: bytes
    """Of its blocks, as the node has verified them when it brought the chunk in."""
    source: str = ""
    """Where the node had it from: see `penstock.planes.host_file.source_of`."""


class ChunkFiles:
    """Asks for the files of one object. Used by one thread at a time; close it."""

    def __init__(
        self,
        connect: Callable[[], HostConnection],
        ticket: Callable[[], str],
        obj: ObjectId,
        *,
        renew: Callable[[str], object] = lambda _: None,
        stop: threading.Event | None = None,
        counters: Sequence[Counters] = (),
    ) -> None:
        """Ask for nothing yet.

        Args:
            connect: Makes a connection to the node, which is this object's from then on.
            ticket: Returns a ticket that is good for a while.
            obj: The object.
            renew: Told a ticket that is good no longer: ``ticket`` returns another from then on.
            stop: Set from another thread to give up early.
            counters: Count the files that come.
        """
        self.object = obj
        self._counters = counters
        self.into_memory = True
        """Whether the node has them in its memory tier before it tells them, as for maps."""
        self.tries = TRIES
        """How often the node is asked in a row, for who has no other way."""
        self._connect, self._ticket, self._renew = connect, ticket, renew
        self.stop = stop or threading.Event()
        """What makes it give up; another one may take its place between two chunks."""
        self._connection: HostConnection | None = None
        self._connections: list[HostConnection] = []

    def check_wanted(self) -> None:
        """Raise `Cancelled` once nobody wants them any more."""
        if self.stop.is_set():
            raise Cancelled

    def close(self) -> None:
        """Tell the node that the chunks are no longer in use; again does nothing."""
        for each in self._connections:
            each.close()

    def each(self, indexes: Iterable[int], *, recheck: bool = False) -> Iterator[ChunkFile]:
        """Tell the chunks' files, in the order in which they come; the node brings in the rest.

        Args:
            indexes: Of the chunks.
            recheck: Bytes that came before were bad: the node looks at them first.

        Raises:
            NotPermitted: The node gives this program no files.
            NodeUnavailable: The node does not answer.
            Overloaded: This process may not open so many files.
        """
        rest = iter(indexes)
        coming: list[int] = []
        deadline = self._deadline()
        while True:
            new = list(islice(rest, INDEXES_MAX - len(coming)))
            asked = coming[:AGAIN_MAX] + new
            if not asked:
                return
            filling = yield from self._ask(asked, deadline, recheck=recheck)
            if len(filling) < len(asked):
                deadline = self._deadline()
            elif deadline.remaining_s == 0:
                raise NodeUnavailable(f"no chunk came within {PROGRESS_TIMEOUT_S:.0f} s")
            come = set(asked).difference(filling)
            coming = [index for index in coming + new if index not in come]

    def _ask(
        self, indexes: list[int], deadline: Deadline, *, recheck: bool
    ) -> Generator[ChunkFile, None, list[int]]:
        """Tell the files that are here; return the chunks that are still on their way."""
        left, filling = list(indexes), list[int]()
        for tries_left in reversed(range(self.tries)):
            ticket = self._ticket()
            try:
                yield from self._ask_once(ticket, left, filling, deadline, recheck=recheck)
                break
            except (NodeUnavailable, TicketExpired) as error:
                if not tries_left:
                    raise
                if isinstance(error, TicketExpired):
                    self._renew(ticket)
                else:
                    self._connection = None
                self.stop.wait(PAUSE_S)
                self.check_wanted()
        return filling

    def _ask_once(
        self,
        ticket: str,
        left: list[int],
        filling: list[int],
        deadline: Deadline,
        *,
        recheck: bool,
    ) -> Iterator[ChunkFile]:
        """Take those from ``left`` of which the node has told."""
        request = host_pb2.HostRequest(
            read=host_pb2.HostRead(
                ticket=ticket,
                indexes=left,
                recheck=recheck,
                into_memory=self.into_memory,
                in_parts=True,
            )
        )
        for answer in self._connected().answers(request, deadline):
            with answer:
                yield from self._take(answer, left, filling)

    def _connected(self) -> HostConnection:
        if self._connection is None:
            connection = self._connect()
            self._connections.append(connection)
            if not connection.welcome.gives_files:
                raise _no_files(connection)
            self._connection = connection
        return self._connection

    def _deadline(self) -> Deadline:
        self.check_wanted()
        return Deadline.after(PROGRESS_TIMEOUT_S, is_over=self.stop.is_set)

    def _take(self, answer: Answer, left: list[int], filling: list[int]) -> Iterator[ChunkFile]:
        told = answer.message.chunks
        indexes = [chunk.index for chunk in told.chunks]
        is_whole = told.more == (len(indexes) < len(left))
        if not indexes or indexes != left[: len(indexes)] or not is_whole:
            raise NodeUnavailable("the node of this machine answers for other chunks")
        for chunk in told.chunks:
            match chunk.WhichOneof("state"):
                case "file":
                    if not answer.files:
                        raise Overloaded(
                            "this process may not open enough files: raise its limit (ulimit -n)"
                        )
                    file = take_file(answer, chunk)
                    add_to_all(self._counters, "files", file.source or "disk", by=file.length)
                    del left[0]
                    yield file
                    continue
                case "error":
                    self._raise(error_from_proto(chunk.error))
                case "over_bulk":
                    raise _no_files(self._connected())
            del left[0]
            filling.append(chunk.index)

    def _raise(self, error: PenstockError) -> None:
        """Raise what asking again does not help; wait for what it does."""
        if isinstance(error, NotOwner):  # One of the nodes is behind, for a moment.
            self.stop.wait(PAUSE_S)
        elif isinstance(error, Overloaded):
            self.stop.wait(error.retry_after_s)
        else:
            raise error


def take_file(answer: Answer, chunk: host_pb2.HostChunk) -> ChunkFile:
    """Return the next file of an answer, which is of ``chunk``: the caller's from now on.

    Raises:
        IndexError: There is none.
    """
    file = chunk.file
    return ChunkFile(
        chunk.index, answer.take_file(), file.offset, file.length, file.checksums, file.source
    )


def read_exactly(descriptor: int, span: memoryview, offset: int) -> None:
    """Fill ``span`` from ``offset`` of a chunk's file.

    Raises:
        CorruptData: The file is short or cannot be read.
    """
    try:
        size = os.preadv(descriptor, [span], offset)
    except OSError as error:
        raise CorruptData(f"a chunk's file cannot be read: {error}") from error
    if size != len(span):
        raise CorruptData(f"a chunk's file ends at byte {offset + size}")


def _no_files(connection: HostConnection) -> NotPermitted:
    return NotPermitted(
        f"the node at {connection.address} gives this program no files: give the node's tiers a "
        "read_only_path; or read the object, which needs none"
    )

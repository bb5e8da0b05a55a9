"""Reads of the host plane from files that are kept open, so that most cost no question.

Responsible for: asking for a chunk's file once for many small reads, and for many files at once for
who reads on; on a connection of its own, for as long as whose holds the node counts the kept files
as in use.
Not responsible for: reads of which one asks for many chunks at once (`planes.host`).
"""

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping

from penstock.checksums import checksums_between
from penstock.deadline import Deadline
from penstock.errors import CorruptData, NodeUnavailable, PenstockError
from penstock.host_connection import Answer, HostConnection
from penstock.host_frames import INDEXES_MAX
from penstock.kept_files import KeptFile, KeptFiles
from penstock.objects import ObjectId, cover_blocks
from penstock.planes.host_file import DONE, land_file, source_of
from penstock.planes.landing import Bounce, Landing
from penstock.planes.plane import Landed, Outcome, PieceRequest, ReadContext
from penstock.v1 import host_pb2

SMALL_BYTES = 2 * 1024 * 1024
"""Of a read of more, asking is a small part, and what it reads of a chunk is seldom followed."""
ASK_WAIT_S = 0.1
"""How long who reads on waits for another thread that asks."""


class KeptReads:
    """Reads pieces from kept files. Thread-safe."""

    def __init__(
        self, connect: Callable[[], HostConnection], *, landing: type[Landing], bounce: Bounce
    ) -> None:
        """Keep nothing yet.

        Args:
            connect: Makes a connection to the node.
            landing: How bytes get into place.
            bounce: Memory for those that do not go straight there.
        """
        self._connect = connect
        self._landing, self._bounce = landing, bounce
        self._files = KeptFiles()
        # Whoever uses or ends the connection holds it: files are given back by a timer too.
        self._asking = threading.RLock()
        self._connection: HostConnection | None = None
        self._gives_files = True
        self._epoch = 0

    def read_small(
        self, context: ReadContext, piece: PieceRequest, deadline: Deadline
    ) -> Outcome | None:
        """Read ``piece`` if it is small; None: it has to be asked for in the usual way."""
        is_small = piece.stop - piece.start <= SMALL_BYTES
        if not (is_small and self._gives_files):
            return None
        outcome = self.read(context, piece)
        # While another thread asks, this one does so on a connection of the pool.
        lengths = {piece.index: piece.stop - piece.start}
        if outcome is None and self._ask(context, lengths, deadline, wait_s=0.0):
            outcome = self.read(context, piece)
        return outcome

    def keep(self, context: ReadContext, needed: range, *, ahead: int, deadline: Deadline) -> bool:
        """Have the files of chunks kept; False if the node does not have all of them at hand.

        Args:
            context: What to tell the node.
            needed: The chunks' indexes.
            ahead: How many that follow are asked for with the first that is missing; fewer come
                while other objects are read too.
            deadline: When to give up.
        """
        missing = self._files.missing(context.object, needed)
        if not missing:
            return True
        if not self._gives_files:
            return False
        count = min(len(needed) + ahead, max(len(needed), self._files.share), INDEXES_MAX)
        stop = min(missing[0] + count, context.object.chunk_count)
        asked = self._files.missing(context.object, range(missing[0], stop))
        lengths = {index: context.object.chunk_length(index) for index in asked}
        self._ask(context, lengths, deadline, wait_s=ASK_WAIT_S)
        return not self._files.missing(context.object, needed)

    def forget(self, obj: ObjectId, indexes: Iterable[int]) -> None:
        """Close files: their chunks' bytes were wrong."""
        for index in indexes:
            self._files.forget(obj, index)

    def read(self, context: ReadContext, piece: PieceRequest) -> Outcome | None:
        """Read ``piece`` from its chunk's file; None if that is not kept."""
        with self._files.borrow(context.object, piece.index) as file:
            return None if file is None else self._land(file, context, piece)

    def _land(self, file: KeptFile, context: ReadContext, piece: PieceRequest) -> Outcome:
        length = context.object.chunk_length(piece.index)
        start, stop = cover_blocks(piece.start, piece.stop, length)
        checksums = checksums_between(file.checksums, start, stop)
        try:
            target = self._landing(piece, length, checksums, self._bounce.memory)
            land_file(file.descriptor, file.offset, target)
        except CorruptData as error:
            self._files.forget(context.object, piece.index)
            return error
        return Landed(source_of(file.source), self._epoch)

    def _ask(
        self,
        context: ReadContext,
        lengths: Mapping[int, int],
        deadline: Deadline,
        *,
        wait_s: float,
    ) -> bool:
        """Have chunks' files kept, of those that are to be had at once; False if none are.

        Args:
            context: What to tell the node.
            lengths: By the chunks' indexes, how many bytes of each are wanted.
            deadline: When to give up.
            wait_s: How long to wait for another thread that asks.
        """
        if not self._asking.acquire(timeout=wait_s):
            return False
        try:
            self._files.make_room(len(lengths))
            return self._fetch(context, lengths, deadline)
        except PenstockError:  # The usual way tells it to the caller.
            self._begin_anew()
            return False
        finally:
            self._asking.release()

    def _fetch(self, context: ReadContext, lengths: Mapping[int, int], deadline: Deadline) -> bool:
        connection = self._connection = self._connection or self._connect()
        if not connection.welcome.gives_files:
            self._gives_files = False
            return False
        read = host_pb2.HostRead(
            ticket=context.ticket,
            indexes=list(lengths),
            lengths=list(lengths.values()),
            only_if_cached=True,
            traceparent=context.traceparent,
            in_parts=len(lengths) > 1,
        )
        files: dict[int, KeptFile] = {}
        try:
            for answer in connection.answers(host_pb2.HostRequest(read=read), deadline):
                with answer:
                    files |= self._take(answer, context, lengths)
        except BaseException:
            for file in files.values():
                os.close(file.descriptor)
            raise
        self._files.keep(context.object, files, give_back=lambda: self._end(connection))
        return bool(files)

    def _take(
        self, answer: Answer, context: ReadContext, lengths: Mapping[int, int]
    ) -> Iterator[tuple[int, KeptFile]]:
        """Tell the files of an answer."""
        told = answer.message.chunks
        self._epoch = told.epoch
        for chunk in told.chunks:
            file = chunk.file
            if chunk.WhichOneof("state") != "file":
                continue
            if not answer.files:  # This process may not open more.
                return
            is_wanted = chunk.index in lengths
            if not is_wanted or file.length != context.object.chunk_length(chunk.index):
                raise NodeUnavailable("the node of this machine answers for other chunks")
            descriptor = answer.take_file()
            yield chunk.index, KeptFile(descriptor, file.offset, file.checksums, file.source)

    def _begin_anew(self) -> None:
        self._files.drop_all()
        connection = self._connection
        if connection is not None:
            self._end(connection)

    def _end(self, connection: HostConnection) -> None:
        """Tell the node that the files are closed, and that no more are asked for here."""
        with self._asking:
            if self._connection is connection:
                if len(self._files):  # Kept since: they are given back with the connection later.
                    return
                self._connection = None
            # A forked child may have the socket too: then closing it says nothing. If the node
            # is gone, so is what it counted.
            with contextlib.suppress(PenstockError):
                connection.tell(DONE)
            connection.close()

    def close(self) -> None:
        """Close all files, and the connection."""
        self._begin_anew()

    def abandon(self) -> None:
        """In a forked child: close its copies of the files, and leave the connection alone."""
        self._files.abandon()

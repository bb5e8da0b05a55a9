"""Small reads of the host plane: from files that are kept open, so that most cost no question.

Responsible for: asking for a chunk's file once for many small reads, on a connection of its own,
for as long as whose holds the node counts the kept files as in use.
Not responsible for: reads of which one asks for many chunks at once (`planes.host`).
"""

import contextlib
import threading
from collections.abc import Callable

from penstock.checksums import checksums_between
from penstock.deadline import Deadline
from penstock.errors import CorruptData, PenstockError
from penstock.host_connection import HostConnection
from penstock.kept_files import KeptFile, KeptFiles
from penstock.objects import cover_blocks
from penstock.planes.host_file import DONE, land_file, source_of
from penstock.planes.landing import Landing
from penstock.planes.plane import Landed, Outcome, PieceRequest, ReadContext
from penstock.v1 import host_pb2

SMALL_BYTES = 256 * 1024
"""A read of more spends its time on bytes, not on asking."""


class SmallReads:
    """Reads small pieces from kept files. Thread-safe."""

    def __init__(self, connect: Callable[[], HostConnection]) -> None:
        """Keep nothing yet; ``connect`` makes a connection to the node."""
        self._connect = connect
        self._files = KeptFiles()
        # Whoever uses or ends the connection holds it: files are given back by a timer too.
        self._asking = threading.RLock()
        self._connection: HostConnection | None = None
        self._gives_files = True
        self._epoch = 0

    def read(
        self,
        context: ReadContext,
        piece: PieceRequest,
        deadline: Deadline,
        *,
        bounce: memoryview,
        landing: type[Landing],
    ) -> Outcome | None:
        """Read ``piece``; None: it has to be asked for in the usual way."""
        is_small = piece.stop - piece.start <= SMALL_BYTES
        if not (is_small and self._gives_files) or context.recheck:
            return None
        outcome = self._read_kept(context, piece, bounce, landing)
        if outcome is None and self._ask(context, piece, deadline):
            outcome = self._read_kept(context, piece, bounce, landing)
        return outcome

    def _read_kept(
        self, context: ReadContext, piece: PieceRequest, bounce: memoryview, landing: type[Landing]
    ) -> Outcome | None:
        with self._files.borrow(context.object, piece.index) as file:
            return None if file is None else self._land(file, context, piece, bounce, landing)

    def _land(
        self,
        file: KeptFile,
        context: ReadContext,
        piece: PieceRequest,
        bounce: memoryview,
        landing: type[Landing],
    ) -> Outcome:
        length = context.object.chunk_length(piece.index)
        start, stop = cover_blocks(piece.start, piece.stop, length)
        checksums = checksums_between(file.checksums, start, stop)
        try:
            target = landing(piece, length, checksums, bounce)
            land_file(file.descriptor, file.offset, target)
        except CorruptData as error:
            self._files.forget(context.object, piece.index)
            return error
        return Landed(source_of(file.source), self._epoch)

    def _ask(self, context: ReadContext, piece: PieceRequest, deadline: Deadline) -> bool:
        """Have the file of the piece's chunk kept; False if that is not to be had at once."""
        if not self._asking.acquire(blocking=False):
            return False  # Another thread asks: this one does so on a connection of the pool.
        try:
            return self._fetch(context, piece, deadline)
        except PenstockError:  # The usual way tells it to the caller.
            self._begin_anew()
            return False
        finally:
            self._asking.release()

    def _fetch(self, context: ReadContext, piece: PieceRequest, deadline: Deadline) -> bool:
        connection = self._connection = self._connection or self._connect()
        if not connection.welcome.gives_files:
            self._gives_files = False
            return False
        read = host_pb2.HostRead(
            ticket=context.ticket,
            indexes=[piece.index],
            lengths=[piece.stop - piece.start],
            only_if_cached=True,
        )
        with connection.ask(host_pb2.HostRequest(read=read), deadline) as answer:
            chunks = answer.message.chunks.chunks
            told = chunks[0].file if chunks else host_pb2.HostFile()
            if not answer.files or told.length != context.object.chunk_length(piece.index):
                return False
            self._epoch = answer.message.chunks.epoch
            file = KeptFile(answer.take_file(), told.offset, told.checksums, told.source)
        self._files.keep(context.object, piece.index, file, give_back=lambda: self._end(connection))
        return True

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

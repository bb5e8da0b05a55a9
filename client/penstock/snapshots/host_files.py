"""Chunks of one object as open files of this machine's node, for whoever copies them.

Responsible for: asking for many chunks at once, and again for those on their way; never more open
files than a message brings; telling the node when they are closed.
Not responsible for: copying (`host_copy`). What it does not bring, for whatever reason, is read
in the usual way, which knows what to do about errors.
"""

import os
import threading
from collections.abc import Generator, Sequence

from penstock.chunk_files import ChunkFile, take_file
from penstock.deadline import Deadline
from penstock.errors import NodeUnavailable, Overloaded, PenstockError
from penstock.host_connection import Answer, HostConnection
from penstock.opens import Handle
from penstock.planes.host_file import DONE
from penstock.snapshots.source import HostAccess
from penstock.v1 import host_pb2
from penstock.wire import error_from_proto

BATCH_MAX = 32
"""Chunks asked for, and files open, at once."""
PROGRESS_TIMEOUT_S = 20.0
"""Longest without a chunk: then the rest is read in the usual way."""


class HostFiles:
    """Files of one object's chunks, over a connection of its own."""

    def __init__(self, host: HostAccess, handle: Handle, over: threading.Event) -> None:
        """Ask for nothing yet.

        Args:
            host: The node.
            handle: The object.
            over: Set from another thread to give up.
        """
        self._host, self._handle, self._over = host, handle, over

    def batches(self, indexes: Sequence[int]) -> Generator[list[ChunkFile], None, None]:
        """Yield files as they come, some at a time; they are closed when the next are asked for.

        It ends early, and tells no error, where the node has something else to say than files.
        """
        try:
            connection = self._host.connect()
        except PenstockError:
            return
        try:
            if connection.welcome.gives_files:
                yield from self._batches(connection, list(indexes))
        except PenstockError:
            return
        finally:
            connection.close()

    def _batches(
        self, connection: HostConnection, waiting: list[int]
    ) -> Generator[list[ChunkFile], None, None]:
        deadline = self._deadline()
        while waiting and not self._over.is_set():
            asked, waiting = waiting[:BATCH_MAX], waiting[BATCH_MAX:]
            with connection.ask(self._request(asked), deadline) as answer:
                given, filling = self._take(answer, asked)
                try:
                    if given:
                        yield given
                        deadline = self._deadline()
                finally:
                    for one in given:
                        os.close(one.descriptor)
            connection.tell(DONE)
            # First those on their way: no more are begun than a batch has, and none is brought to
            # be evicted before its turn.
            waiting = filling + waiting
            if deadline.remaining_s == 0:
                return

    def _request(self, indexes: Sequence[int]) -> host_pb2.HostRequest:
        read = host_pb2.HostRead(
            ticket=self._handle.ticket(), indexes=indexes, only_if_cached=not self._host.brings
        )
        return host_pb2.HostRequest(read=read)

    def _deadline(self) -> Deadline:
        return Deadline.after(PROGRESS_TIMEOUT_S, is_over=self._over.is_set)

    def _take(self, answer: Answer, asked: list[int]) -> tuple[list[ChunkFile], list[int]]:
        """Return the files that came, and the chunks to be asked for again."""
        chunks = answer.message.chunks.chunks
        if [chunk.index for chunk in chunks] != asked:
            raise NodeUnavailable("the node of this machine answers for other chunks")
        given: list[ChunkFile] = []
        filling: list[int] = []
        retry_after_s = 0.0
        for chunk in chunks:
            match chunk.WhichOneof("state"):
                case "file" if answer.files:
                    given.append(take_file(answer, chunk))
                case "filling":
                    filling.append(chunk.index)
                case "error":
                    error = error_from_proto(chunk.error)
                    if isinstance(error, Overloaded):
                        retry_after_s = max(retry_after_s, error.retry_after_s)
                        filling.append(chunk.index)
                case _:
                    pass  # It is given no file, or has no room for one: it reads that chunk.
        if not given:
            self._over.wait(retry_after_s)
        return given, filling

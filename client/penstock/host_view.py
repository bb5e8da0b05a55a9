"""Views: a whole object as memory, over the files that the node of this machine keeps it in.

Responsible for: asking for all chunks of an object, mapping each file in its place, checking what
was asked to be checked, and telling the node when nobody looks any more.
Not responsible for: maps (`mapping`), opening objects, sockets (`host_connection`).

A view has a connection of its own: for as long as that is open, the node counts the chunks as in
use. It ends with the last view, also in a forked child that has inherited it.
"""

import os
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from typing import Literal, TypeAlias

from penstock.checksums import verify_blocks
from penstock.deadline import Deadline
from penstock.errors import (
    Cancelled,
    CorruptData,
    InvalidRequest,
    NodeUnavailable,
    NotPermitted,
    Overloaded,
    PenstockError,
)
from penstock.host_connection import Answer, HostConnection
from penstock.host_frames import INDEXES_MAX
from penstock.mapping import MappedRange, check_maps, maps_max
from penstock.objects import ObjectId
from penstock.v1 import host_pb2
from penstock.wire import error_from_proto

Verify: TypeAlias = Literal["node", "full"]

PROGRESS_TIMEOUT_S = 60.0
"""Longest that a view waits for its next chunk."""
TRIES = 5
"""How often the node is asked in a row before it counts as away: there is no other."""
PAUSE_S = 0.2
"""In between; a node that is started anew is there again after some."""
HELPERS_MAX = 8
"""Threads that fill page tables and check blocks, at most one a processor."""
HELP_CHUNKS = 16
"""What one is given at a time: in huge pages, filling the tables for a chunk takes 10 µs."""


def view_object(
    connect: Callable[[], HostConnection],
    ticket: Callable[[], str],
    obj: ObjectId,
    *,
    verify: Verify = "node",
    copy_on_write: bool = False,
    stop: threading.Event | None = None,
    map_count_max: int | None = None,
) -> memoryview:
    """Return all of ``obj`` as memory that lies in the node's files, read-only by default.

    No byte is copied. All pages are there when it returns: a file that cannot be read is an
    error, and never a signal.

    Args:
        connect: Makes a connection to the node, which is the view's from then on.
        ticket: Returns a ticket that is good for a while.
        obj: The object.
        verify: ``node`` trusts the node, which checks chunks as it brings them in; ``full``
            checks every block before anything is returned.
        copy_on_write: It can be written to: this process gets its own copy of such pages.
        stop: Set from another thread to give up early.
        map_count_max: How many maps a process may have; by default what the kernel says.

    Raises:
        NotPermitted: The node gives this program no files.
        InvalidConfiguration: The object has more chunks than this process may have maps.
        InvalidRequest: ``verify`` is neither, or this is not Linux.
        CorruptData: A chunk's bytes are wrong, also after the node has looked at its copies.
        NodeUnavailable: The node does not answer.
    """
    if verify not in ("node", "full"):
        raise InvalidRequest(f"verify={verify!r}: want node or full")
    if obj.size == 0:
        return memoryview(bytearray() if copy_on_write else b"")
    # First: it says when this is no system for views.
    mapped = MappedRange(obj.size, copy_on_write=copy_on_write)
    check_maps(obj.chunk_count, limit=map_count_max or maps_max())
    building = _Building(connect, ticket, obj, mapped, stop or threading.Event())
    bad = building.fill(range(obj.chunk_count), verify=verify, recheck=False)
    if bad:
        _refuse_bad(building.fill(bad, verify=verify, recheck=True))
    return mapped.view()


class _Building:
    """A view that is being made."""

    def __init__(
        self,
        connect: Callable[[], HostConnection],
        ticket: Callable[[], str],
        obj: ObjectId,
        mapped: MappedRange,
        stop: threading.Event,
    ) -> None:
        self._connect, self._ticket, self._object = connect, ticket, obj
        self._mapped, self._stop = mapped, stop
        self._connection: HostConnection | None = None
        self._checksums: dict[int, bytes] = {}
        self._unmapped: set[int] = set()

    def fill(self, indexes: Sequence[int], *, verify: Verify, recheck: bool) -> list[int]:
        """Map the chunks' files and have all pages there; return the chunks that are bad.

        Args:
            indexes: Of the chunks.
            verify: Whether to check every block.
            recheck: Files that came before were bad: the node looks at them first.
        """
        self._unmapped.clear()
        self._map_all(indexes, recheck=recheck)
        # Not before all are mapped: each map would wait for page tables that are being filled.
        parts = [indexes[at : at + HELP_CHUNKS] for at in range(0, len(indexes), HELP_CHUNKS)]
        with ThreadPoolExecutor(min(HELPERS_MAX, os.cpu_count() or 1)) as helpers:
            bad = helpers.map(lambda part: self._bad_of(part, verify), parts)
            return list(chain.from_iterable(bad))

    def _map_all(self, indexes: Iterable[int], *, recheck: bool) -> None:
        """Map the chunks' files, in the order in which they come."""
        rest = iter(indexes)
        waiting: list[int] = []
        deadline = self._deadline()
        while waiting := waiting + list(islice(rest, INDEXES_MAX - len(waiting))):
            filling = self._ask(waiting, deadline, recheck=recheck)
            if len(filling) < len(waiting):
                deadline = self._deadline()
            elif deadline.remaining_s == 0:
                raise NodeUnavailable(f"no chunk came within {PROGRESS_TIMEOUT_S:.0f} s")
            waiting = filling

    def _ask(self, indexes: list[int], deadline: Deadline, *, recheck: bool) -> list[int]:
        request = host_pb2.HostRequest(
            read=host_pb2.HostRead(
                ticket=self._ticket(), indexes=indexes, recheck=recheck, into_memory=True
            )
        )
        for left in reversed(range(TRIES)):
            try:
                with self._connected().ask(request, deadline) as answer:
                    return self._take(answer, indexes)
            except NodeUnavailable:
                self._connection = None
                self._stop.wait(PAUSE_S)
                self._check_wanted()
                if not left:
                    raise
        raise AssertionError("unreachable")

    def _connected(self) -> HostConnection:
        """Return a connection that lasts as long as the view: the node counts by it who reads."""
        if self._connection is None:
            connection = self._connect()
            weakref.finalize(self._mapped.owner, connection.close)
            if not connection.welcome.gives_files:
                raise _no_files(connection)
            self._connection = connection
        return self._connection

    def _deadline(self) -> Deadline:
        self._check_wanted()
        return Deadline.after(PROGRESS_TIMEOUT_S, is_over=self._stop.is_set)

    def _check_wanted(self) -> None:
        if self._stop.is_set():
            raise Cancelled

    def _take(self, answer: Answer, indexes: list[int]) -> list[int]:
        """Map what has come; return what is still on its way."""
        chunks = answer.message.chunks.chunks
        if [chunk.index for chunk in chunks] != indexes:
            raise NodeUnavailable("the node of this machine answers for other chunks")
        filling = []
        for chunk in chunks:
            match chunk.WhichOneof("state"):
                case "file":
                    self._map(answer, chunk)
                case "error":
                    _raise(error_from_proto(chunk.error), self._stop)
                    filling.append(chunk.index)
                case "over_bulk":
                    raise _no_files(self._connected())
                case _:
                    filling.append(chunk.index)
        return filling

    def _map(self, answer: Answer, chunk: host_pb2.HostChunk) -> None:
        index, file = chunk.index, chunk.file
        length = self._object.chunk_length(index)
        if not answer.files:
            raise Overloaded("this process may not open enough files: raise its limit (ulimit -n)")
        descriptor = answer.take_file()
        try:
            if file.length != length:
                raise CorruptData(f"chunk {index} has {file.length} bytes, not {length}")
            at = index * self._object.chunk_size
            self._mapped.map_file(descriptor, at=at, length=length, offset=file.offset)
        except CorruptData:
            self._unmapped.add(index)
        finally:
            os.close(descriptor)
        self._checksums[index] = file.checksums

    def _bad_of(self, indexes: Iterable[int], verify: Verify) -> list[int]:
        self._check_wanted()
        return [index for index in indexes if not self._is_good(index, verify)]

    def _is_good(self, index: int, verify: Verify) -> bool:
        if index in self._unmapped:
            return False
        start, length = index * self._object.chunk_size, self._object.chunk_length(index)
        try:
            self._mapped.populate(at=start, length=length)
            if verify == "full":
                with self._mapped.view() as view, view[start : start + length] as chunk:
                    verify_blocks(chunk, self._checksums[index])
        except CorruptData:
            return False
        return True


def _raise(error: PenstockError, stop: threading.Event) -> None:
    """Raise what asking again does not help; wait for what it does."""
    if not isinstance(error, Overloaded):
        raise error
    stop.wait(error.retry_after_s)


def _refuse_bad(bad: list[int]) -> None:
    if bad:
        raise CorruptData(f"{len(bad)} chunks are bad, the first is chunk {bad[0]}")


def _no_files(connection: HostConnection) -> NotPermitted:
    return NotPermitted(
        f"the node at {connection.address} gives this program no files, so there is no view: "
        "give the node's tiers a read_only_path, or read the object instead"
    )

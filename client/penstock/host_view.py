"""Views: a whole object as memory, over the files that the node of this machine keeps it in.

Responsible for: mapping each chunk's file in its place, having all pages there, and checking what
was asked to be checked.
Not responsible for: maps (`mapping`), opening objects, asking the node (`chunk_files`).

A view ends with the last that looks at it, also in a forked child that has inherited it: then the
node hears that its chunks are no longer in use.
"""

import os
import weakref
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Literal, TypeAlias

from penstock.checksums import verify_blocks
from penstock.chunk_files import ChunkFile, ChunkFiles
from penstock.errors import CorruptData, InvalidRequest
from penstock.mapping import MappedRange, check_maps, maps_max

Verify: TypeAlias = Literal["node", "full"]

HELPERS_MAX = 8
"""Threads that fill page tables and check blocks, at most one a processor."""
HELP_CHUNKS = 16
"""What one is given at a time: in huge pages, filling the tables for a chunk takes 10 µs."""


def view_object(
    files: ChunkFiles,
    *,
    verify: Verify = "node",
    copy_on_write: bool = False,
    map_count_max: int | None = None,
) -> memoryview:
    """Return all of an object as memory that lies in the node's files, read-only by default.

    No byte is copied. All pages are there when it returns: a file that cannot be read is an
    error, and never a signal.

    Args:
        files: Of the object; the view's from now on.
        verify: ``node`` trusts the node, which checks chunks as it brings them in; ``full``
            checks every block before anything is returned.
        copy_on_write: It can be written to: this process gets its own copy of such pages.
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
    obj = files.object
    if obj.size == 0:
        return memoryview(bytearray() if copy_on_write else b"")
    # First: it says when this is no system for views.
    mapped = MappedRange(obj.size, copy_on_write=copy_on_write)
    weakref.finalize(mapped.owner, files.close)
    check_maps(obj.chunk_count, limit=map_count_max or maps_max())
    building = Building(files, mapped)
    bad = building.fill(range(obj.chunk_count), verify=verify, recheck=False)
    if bad:
        _refuse_bad(building.fill(bad, verify=verify, recheck=True))
    return mapped.view()


class Building:
    """A view that is being made, or is made as far as somebody looks."""

    def __init__(self, files: ChunkFiles, mapped: MappedRange) -> None:
        """Map nothing yet.

        Args:
            files: Of the object.
            mapped: As long as the object.
        """
        self._files, self._mapped = files, mapped
        self._object = files.object
        self.checksums: dict[int, bytes] = {}
        """Of the blocks of each chunk that is mapped."""
        self._unmapped: set[int] = set()

    def have(self, indexes: Sequence[int]) -> None:
        """Map the chunks' files that are not mapped yet, and have all pages there.

        Raises:
            CorruptData: Some cannot be read.
        """
        missing = [index for index in indexes if index not in self.checksums]
        if missing:
            _refuse_bad(self.fill(missing, verify="node", recheck=False))

    def fill(self, indexes: Sequence[int], *, verify: Verify, recheck: bool) -> list[int]:
        """Map the chunks' files and have all pages there; return the chunks that are bad.

        Args:
            indexes: Of the chunks.
            verify: Whether to check every block.
            recheck: Files that came before were bad: the node looks at them first.
        """
        self._unmapped.clear()
        for file in self._files.each(indexes, recheck=recheck):
            self._map(file)
        # Not before all are mapped: each map would wait for page tables that are being filled.
        parts = [indexes[at : at + HELP_CHUNKS] for at in range(0, len(indexes), HELP_CHUNKS)]
        if len(parts) == 1:
            return self._bad_of(parts[0], verify)
        with ThreadPoolExecutor(min(HELPERS_MAX, os.cpu_count() or 1)) as helpers:
            bad = helpers.map(lambda part: self._bad_of(part, verify), parts)
            return list(chain.from_iterable(bad))

    def _map(self, file: ChunkFile) -> None:
        index, length = file.index, self._object.chunk_length(file.index)
        try:
            if file.length != length:
                raise CorruptData(f"chunk {index} has {file.length} bytes, not {length}")
            at = index * self._object.chunk_size
            self._mapped.map_file(file.descriptor, at=at, length=length, offset=file.offset)
        except CorruptData:
            self._unmapped.add(index)
        finally:
            os.close(file.descriptor)
        self.checksums[index] = file.checksums

    def _bad_of(self, indexes: Iterable[int], verify: Verify) -> list[int]:
        self._files.check_wanted()
        return [index for index in indexes if not self._is_good(index, verify)]

    def _is_good(self, index: int, verify: Verify) -> bool:
        if index in self._unmapped:
            return False
        start, length = index * self._object.chunk_size, self._object.chunk_length(index)
        try:
            self._mapped.populate(at=start, length=length)
            if verify == "full":
                with self._mapped.view() as view, view[start : start + length] as chunk:
                    verify_blocks(chunk, self.checksums[index])
        except CorruptData:
            return False
        return True


def _refuse_bad(bad: list[int]) -> None:
    if bad:
        raise CorruptData(f"{len(bad)} chunks are bad, the first is chunk {bad[0]}")

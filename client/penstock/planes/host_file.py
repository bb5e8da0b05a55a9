"""Reading a chunk's open file into place."""

import functools
import os
from typing import get_args

from penstock.errors import CorruptData
from penstock.planes.landing import Landing
from penstock.planes.plane import Source
from penstock.v1 import host_pb2

DONE = host_pb2.HostRequest(done=host_pb2.HostDone())

_SOURCES: dict[str, Source] = {name: name for name in get_args(Source)}


def source_of(word: str) -> Source:
    """Return where the node had a chunk from; a later version's word for it means a disk."""
    return _SOURCES.get(word, "disk")


def land_file(descriptor: int, offset: int, landing: Landing) -> None:
    """Have ``landing`` filled from the chunk that begins at byte ``offset`` of a file.

    Raises:
        CorruptData: A block does not match, or the file is short or cannot be read.
    """
    landing.fill(functools.partial(_read_at, descriptor, offset))


def _read_at(descriptor: int, offset: int, span: memoryview, at: int) -> None:
    """Fill ``span`` from byte ``at`` of the chunk that begins at ``offset`` of the file."""
    try:
        size = os.preadv(descriptor, [span], offset + at)
    except OSError as error:
        raise CorruptData(f"a chunk's file cannot be read: {error}") from error
    if size != len(span):
        raise CorruptData(f"a chunk's file ends at byte {at + size}")

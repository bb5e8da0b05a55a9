"""Reading a chunk's open file into place."""

from typing import get_args

from penstock.chunk_files import read_exactly
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
    landing.fill(lambda span, at: read_exactly(descriptor, span, offset + at))

"""What one node tells of objects: which it has opened in some directories, which chunks it holds.

Responsible for: the two questions that `hot_models` and `chunk_map` ask all nodes; their bounds.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from penstock.errors import InvalidRequest
from penstock.objects import ObjectId
from penstock.v1 import overview_pb2
from penstock_node.opening import Opener
from penstock_node.store.store import Store

DIRECTORIES_MAX = 20
OBJECTS_MAX = 2_000
CHUNKS_MAX = 24_000
"""In one question: a node looks for each of them, in two microseconds or three."""


def objects_below(opener: Opener, keys: Sequence[str]) -> list[ObjectId]:
    """Return the objects that lie directly in some directories, of those opened here of late.

    Raises:
        InvalidRequest: More directories than one question asks for.
    """
    if len(keys) > DIRECTORIES_MAX:
        raise InvalidRequest(f"{len(keys)} directories in one request: at most {DIRECTORIES_MAX}")
    wanted = set(keys)
    return [
        each
        for each, _age_s in opener.known(limit=OBJECTS_MAX)
        if each.key.rpartition("/")[0] in wanted
    ]


def asked_of(chunk_count: int, stride: int) -> range:
    """Return the indexes that are asked for, of an object with so many chunks."""
    return range(0, chunk_count, max(1, stride))


def held(store: Store, wanted: Iterable[overview_pb2.ChunksOfObject]) -> list[bytes]:
    """Return, for each object, a bit for each chunk that is asked for. Blocks.

    Raises:
        InvalidRequest: More than one question asks for, or no objects.
    """
    asked = [(object_from_proto(each.object), each.stride) for each in wanted]
    indexes = [asked_of(of.chunk_count, stride) for of, stride in asked]
    if len(asked) > OBJECTS_MAX or sum(map(len, indexes)) > CHUNKS_MAX:
        raise InvalidRequest(
            f"at most {OBJECTS_MAX} objects and {CHUNKS_MAX} chunks in one request"
        )
    return [
        np.packbits(
            np.fromiter((store.holds(of, index) for index in some), bool, len(some)),
            bitorder="little",
        ).tobytes()
        for (of, _stride), some in zip(asked, indexes, strict=True)
    ]


def bits_of(told: bytes, count: int) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    """Return whether each of so many chunks is held; one that is not told of is not."""
    bits = np.zeros(count, np.bool_)
    found = np.unpackbits(np.frombuffer(told, np.uint8), bitorder="little")[:count]
    bits[: len(found)] = found
    return bits


def object_to_proto(of: ObjectId) -> overview_pb2.ObjectLine:
    """Return an object as a message."""
    return overview_pb2.ObjectLine(
        key=of.key, version=of.version, size=of.size, chunk_size=of.chunk_size
    )


def object_from_proto(told: overview_pb2.ObjectLine) -> ObjectId:
    """Return the object in a message.

    Raises:
        InvalidRequest: It is none.
    """
    return ObjectId(told.key, told.version, told.size, told.chunk_size)

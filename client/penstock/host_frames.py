"""The host plane's frames: what both ends of the Unix socket agree on.

Responsible for: where one message ends and the next begins, and how large one may be.
Not responsible for: sockets, what messages mean (`penstock.v1.host`).

A frame is the length of a message (u32, little-endian) and the message.
"""

import struct

from google.protobuf.message import Message

REQUEST_BYTES_MAX = 1024 * 1024
RESPONSE_BYTES_MAX = 64 * 1024 * 1024
"""The answer to a thousand opened objects, with room to spare."""
INDEXES_MAX = 128
"""Chunks in one request, and so open files in one answer."""
AGAIN_MAX = 8
"""Of chunks that are on their way, asked for again at once. They come about in the order in which
they were asked for first, and a question costs the node a look for each chunk of it."""

_HEAD = struct.Struct("<I")
HEAD_BYTES = _HEAD.size


def frame(message: Message) -> bytes:
    """Return ``message`` as it stands on the socket."""
    data = message.SerializeToString()
    return _HEAD.pack(len(data)) + data


def frame_bytes(start: bytes | bytearray) -> int:
    """Return how long the frame is that begins with ``start``, of at least `HEAD_BYTES`."""
    (length,) = _HEAD.unpack_from(start)
    return HEAD_BYTES + int(length)

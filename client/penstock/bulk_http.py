"""The bulk plane's HTTP: what both sides call things.

Responsible for: paths, header names, and the texts that have a form of their own.
Not responsible for: connections, parsing HTTP.
"""

import re

from penstock.errors import InvalidRange

CHUNK_PATH = "/v1/chunk/"
"""Followed by a chunk's index."""
TRANSFER_PATH = "/v1/transfer/"
"""Followed by a number of bytes: so many come, of no chunk, for who measures the link."""
TRANSFER_BYTES_MAX = 16 * 1024 * 1024
CALL_PATH = "/v1/call/"
"""Followed by a gRPC method's path: the same messages, without gRPC."""

TLS = "tls:"
"""Before the ``host:port`` of a bulk port that speaks TLS, where it stands for how to reach it."""

TICKET_SCHEME = "Penstock "
EPOCH = "Penstock-Epoch"
IF = "Penstock-If"
IF_CACHED = "cached"
SUSPECTS = "Penstock-Suspects"
RECHECK = "Penstock-Recheck"
"""``1``: blocks sent before were wrong, the node looks at its copy first."""
ON_BEHALF = "Penstock-On-Behalf"
"""``1``: sent by a node for another reader."""
SPREAD = "Penstock-Spread"
"""``1``: asked by too many, the node may answer 503 with ``Penstock-Copies``, the number of owners
that have the chunk, instead of the chunk."""
HOLDER = "Penstock-Holder"
"""``ask``: if the chunk is still to be handed over to it, the node may answer 503 with this header,
the node that has it, instead of the chunk."""
HOLDER_ASKED = "ask"
TRACEPARENT = "traceparent"

CHECKSUMS = "Penstock-Checksums"
SOURCE = "Penstock-Source"
LOAD = "Penstock-Load"
COPIES = "Penstock-Copies"
ERROR = "Penstock-Error"

HEAD_END = b"\r\n\r\n"
WORKING = b"HTTP/1.1 102 Processing" + HEAD_END
"""The interim answer: the node works on the request, the chunk is on its way."""

_RANGE = re.compile(r"bytes=(\d{1,10})-(\d{1,10})?")


def parse_range(text: str) -> tuple[int, int | None]:
    """Return first byte, and the byte after the last one; None: to the chunk's end.

    Raises:
        InvalidRange: It is not a single range of this form.
    """
    match = _RANGE.fullmatch(text)
    if match is None:
        raise InvalidRange(f"Range {text!r}: want bytes=FIRST-LAST, one range")
    return int(match[1]), int(match[2]) + 1 if match[2] else None


def format_range(start: int, stop: int) -> str:
    """Return the value of ``Range`` for bytes ``start`` to ``stop``."""
    return f"bytes={start}-{stop - 1}"

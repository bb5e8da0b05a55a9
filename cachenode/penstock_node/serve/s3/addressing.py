"""What a request is about: a bucket, a key and a query, out of the request's target.

Responsible for: path style, ``/bucket/key?query``, percent-decoded exactly once.
Not responsible for: which bucket there is (`buckets`).

A key is opaque here, as in S3: ``..``, ``//`` and a slash at its end are characters like others,
and a ``+`` in it is a plus. In the query a plus is a space.
"""

import re
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import unquote_to_bytes

from penstock_node.serve.s3.errors import S3Error

_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True)
class Target:
    """What a request is about. All text is decoded."""

    path: str
    bucket: str
    """Empty: the service itself."""
    key: str
    """Empty: the bucket itself."""
    query: tuple[tuple[str, str], ...]
    """As sent, in order; a name without a value has an empty one."""

    def __contains__(self, name: str) -> bool:
        return any(known == name for known, _ in self.query)

    def get(self, name: str, default: str = "") -> str:
        """Return the first value of ``name`` in the query."""
        return next((value for known, value in self.query if known == name), default)


def parse_target(target: str) -> Target:
    """Return what a request's target means.

    Raises:
        S3Error: InvalidURI: it is no path, a broken escape, or not UTF-8.
    """
    raw_path, _, raw_query = target.partition("?")
    if not raw_path.startswith("/"):
        raise _invalid_uri("write the path of the url alone: /BUCKET/KEY")
    raw_bucket, _, raw_key = raw_path[1:].partition("/")
    return Target(
        path=_decoded(raw_path),
        bucket=_decoded(raw_bucket),
        key=_decoded(raw_key),
        query=tuple(_pair(item) for item in raw_query.split("&") if item),
    )


def _pair(item: str) -> tuple[str, str]:
    name, _, value = item.replace("+", " ").partition("=")
    return _decoded(name), _decoded(value)


def _decoded(raw: str) -> str:
    if _BAD_ESCAPE.search(raw):
        raise _invalid_uri("a percent sign stands before two hexadecimal digits; write %25")
    try:
        # The transport reads targets as latin-1: these are the bytes that were sent.
        return unquote_to_bytes(raw.encode("latin-1")).decode()
    except UnicodeDecodeError:
        raise _invalid_uri("names are UTF-8, percent-encoded") from None


def _invalid_uri(message: str) -> S3Error:
    return S3Error(HTTPStatus.BAD_REQUEST, "InvalidURI", message)

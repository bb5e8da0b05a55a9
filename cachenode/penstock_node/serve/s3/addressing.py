"""What a request is about: a bucket, a key and a query, out of the request's target and host.

Responsible for: path style, ``/bucket/key?query``, and below ``s3_domain`` virtual-host style,
``Host: bucket.domain`` and ``/key?query``; percent-decoded exactly once.
Not responsible for: which bucket there is (`buckets`).

A key is opaque here, as in S3: ``..``, ``//`` and a slash at its end are characters like others,
and a ``+`` in it is a plus. In the query a plus is a space.
"""

import re
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import unquote_to_bytes

from penstock_node.serve.s3.errors import S3Error

_ABSOLUTE = re.compile(r"https?://([^/?]*)", re.IGNORECASE)
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


def parse_target(target: str, *, host: str = "", domain: str = "") -> Target:
    """Return what a request's target means.

    Args:
        target: As it was sent.
        host: What the request calls this server, with or without a port.
        domain: ``s3_domain``: a host below it is named for a bucket. Empty: none is.

    Raises:
        S3Error: InvalidURI: it is no path, a broken escape, not UTF-8, or of another host.
    """
    raw_path, _, raw_query = _in_origin_form(target, host).partition("?")
    if not raw_path.startswith("/"):
        raise _invalid_uri("write the path of the url alone: /BUCKET/KEY")
    bucket, key = bucket_in_host(host, domain), _decoded(raw_path[1:])
    if not bucket:
        raw_bucket, _, raw_key = raw_path[1:].partition("/")
        bucket, key = _decoded(raw_bucket), _decoded(raw_key)
    return Target(
        path=_decoded(raw_path),
        bucket=bucket,
        key=key,
        query=tuple(_pair(item) for item in raw_query.split("&") if item),
    )


def _in_origin_form(target: str, host: str) -> str:
    """Return path and query of a target that may be a whole url, as some clients send it.

    What a bucket is named by, and what is signed, is the Host header: the url has to agree.
    """
    found = _ABSOLUTE.match(target)
    if found is None:
        return target
    if found[1].lower() != host.lower():
        raise _invalid_uri("the url is of another host than the Host header")
    rest = target[found.end() :]
    return rest if rest.startswith("/") else f"/{rest}"


def bucket_in_host(host: str, domain: str) -> str:
    """Return the bucket that a host below ``domain`` is named for; empty for any other host."""
    name = host.lower().partition(":")[0].rstrip(".")
    is_below = bool(domain) and name.endswith(f".{domain}")
    return name.removesuffix(f".{domain}") if is_below else ""


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

"""What the gateway refuses, in S3's words.

Responsible for: S3's error codes, which of them each of Penstock's errors becomes, and the
document that a client gets. Messages say which setting to change.
Not responsible for: deciding that something is wrong.
"""

import math
from http import HTTPStatus

from penstock.errors import (
    InvalidRequest,
    NotPermitted,
    ObjectChanged,
    ObjectNotFound,
    Overloaded,
    PenstockError,
    Retryable,
    Uncacheable,
)
from penstock_node.transport.http import Headers

_TABLE: tuple[tuple[type[PenstockError], HTTPStatus, str], ...] = (
    (ObjectNotFound, HTTPStatus.NOT_FOUND, "NoSuchKey"),
    (NotPermitted, HTTPStatus.FORBIDDEN, "AccessDenied"),
    (Overloaded, HTTPStatus.SERVICE_UNAVAILABLE, "SlowDown"),
    (Retryable, HTTPStatus.SERVICE_UNAVAILABLE, "ServiceUnavailable"),
    (ObjectChanged, HTTPStatus.CONFLICT, "OperationAborted"),
    (Uncacheable, HTTPStatus.NOT_IMPLEMENTED, "NotImplemented"),
    (InvalidRequest, HTTPStatus.BAD_REQUEST, "InvalidArgument"),
    (PenstockError, HTTPStatus.INTERNAL_SERVER_ERROR, "InternalError"),
)
"""The first row that fits says what a client is told. S3's clients try 500 and 503 again."""


class S3Error(Exception):
    """A request is answered with an error: its status, S3's code, and what to do about it."""

    def __init__(
        self, status: HTTPStatus, code: str, message: str, *, headers: Headers = ()
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers
        """What the answer carries besides the document."""


def in_s3_words(error: PenstockError) -> S3Error:
    """Return what a client is told of ``error``."""
    status, code = next((row[1], row[2]) for row in _TABLE if isinstance(error, row[0]))
    headers = []
    if isinstance(error, Overloaded):
        headers.append(("Retry-After", str(math.ceil(error.retry_after_s))))
    return S3Error(status, code, str(error), headers=headers)


def access_denied(message: str) -> S3Error:
    """Return an AccessDenied."""
    return S3Error(HTTPStatus.FORBIDDEN, "AccessDenied", message)


def invalid_argument(message: str) -> S3Error:
    """Return an InvalidArgument."""
    return S3Error(HTTPStatus.BAD_REQUEST, "InvalidArgument", message)


def no_such_bucket(message: str) -> S3Error:
    """Return a NoSuchBucket."""
    return S3Error(HTTPStatus.NOT_FOUND, "NoSuchBucket", message)


def no_such_key(message: str) -> S3Error:
    """Return a NoSuchKey."""
    return S3Error(HTTPStatus.NOT_FOUND, "NoSuchKey", message)


def not_implemented(message: str) -> S3Error:
    """Return a NotImplemented."""
    return S3Error(HTTPStatus.NOT_IMPLEMENTED, "NotImplemented", message)

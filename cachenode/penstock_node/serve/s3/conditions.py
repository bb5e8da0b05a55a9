"""What a client makes its read depend on, and which part of the object it wants.

Responsible for: ``If-Match`` and its like, ``Range``, ``partNumber``: pure rules, as in RFC 9110
(sections 13 and 14) and the S3 API reference of GetObject, which differs in nothing used here.
Not responsible for: where the object's version comes from, sending.

A range that is malformed, of another unit or of several parts is ignored, and the whole object
sent: RFC 9110 14.2 allows it, and S3 does so.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from http import HTTPStatus

from penstock.object_info import OpenedObject
from penstock_node.serve.s3.errors import S3Error, invalid_argument

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# More digits than any size has: a range beyond the end, not a number too long to read.
_RANGE = re.compile(r"bytes=([0-9]{0,64})-([0-9]{0,64})", re.IGNORECASE)


def etag_of(version: str) -> str:
    """Return the etag of an object's version: the origin's own, where it has one."""
    return version if version.startswith('"') else f'"{version}"'


def modified_of(opened: OpenedObject) -> datetime:
    """Return when the object changed, to the second; 1970 where its origin does not say."""
    return (opened.modified or EPOCH).replace(microsecond=0)


def http_date(moment: datetime) -> str:
    """Return a time in UTC as HTTP writes it."""
    return format_datetime(moment, usegmt=True)


def is_not_modified(opened: OpenedObject, headers: Mapping[str, str]) -> bool:
    """Tell whether the client has this version already.

    Raises:
        S3Error: PreconditionFailed: it wants another version.
    """
    etag, modified = etag_of(opened.id.version), modified_of(opened)
    _check_wanted(etag, modified, headers)
    if "if-none-match" in headers:
        return _names(headers["if-none-match"], etag)
    since = _date(headers.get("if-modified-since"))
    return since is not None and modified <= since


def _check_wanted(etag: str, modified: datetime, headers: Mapping[str, str]) -> None:
    if "if-match" in headers:
        is_wanted = _names(headers["if-match"], etag)
    else:
        until = _date(headers.get("if-unmodified-since"))
        is_wanted = until is None or modified <= until
    if not is_wanted:
        raise S3Error(
            HTTPStatus.PRECONDITION_FAILED,
            "PreconditionFailed",
            f"the object is another version by now: {etag}",
        )


def _names(condition: str, etag: str) -> bool:
    """Tell whether a list of etags has this one. S3's clients leave quotes out at times."""
    if condition.strip() == "*":
        return True
    named = (part.strip().removeprefix("W/").strip('"') for part in condition.split(","))
    return etag.strip('"') in named


def _date(text: str | None) -> datetime | None:
    """Return the time that a header tells; None for what is no time, which counts as absent."""
    try:
        moment = parsedate_to_datetime(text) if text else None
    except (ValueError, OverflowError, IndexError, TypeError):
        return None
    if moment is not None and moment.tzinfo is None:
        return moment.replace(tzinfo=UTC)
    return moment


def wanted_range(
    opened: OpenedObject, headers: Mapping[str, str], *, part_number: str
) -> tuple[int, int] | None:
    """Return the first byte wanted, and the one behind the last; None for the whole object.

    Args:
        opened: The object.
        headers: Of the request.
        part_number: Of the query. Objects have one part here, whatever they were uploaded in.

    Raises:
        S3Error: InvalidRange, InvalidPartNumber.
    """
    if part_number:
        return _part(opened.id.size, part_number)
    condition = headers.get("if-range")
    if condition is not None and not _is_same(condition, opened):
        return None
    return parse_range(headers.get("range", ""), opened.id.size)


def _is_same(condition: str, opened: OpenedObject) -> bool:
    date = _date(condition)
    return modified_of(opened) == date if date else _names(condition, etag_of(opened.id.version))


def _part(size: int, part_number: str) -> tuple[int, int]:
    if not re.fullmatch(r"[0-9]{1,5}", part_number):
        raise invalid_argument("partNumber: want a number from 1 to 10000")
    if int(part_number) != 1:
        raise S3Error(
            HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
            "InvalidPartNumber",
            "objects have one part here; read them by ranges",
        )
    return 0, size


def parse_range(text: str, size: int) -> tuple[int, int] | None:
    """Return what a Range header asks of an object; None where it is to be ignored.

    Raises:
        S3Error: InvalidRange: there is nothing of it in an object of ``size`` bytes.
    """
    found = _RANGE.fullmatch(text.strip())
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        start, stop = max(0, size - int(found[2])), size
    else:
        start, stop = int(found[1]), min(size, int(found[2]) + 1) if found[2] else size
        if found[2] and int(found[2]) < start:
            return None
    if start >= stop:
        raise S3Error(
            HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
            "InvalidRange",
            f"{text[:100]}: the object has {size} bytes",
            headers=[("Content-Range", f"bytes */{size}")],
        )
    return start, stop

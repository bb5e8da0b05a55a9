"""`obstore`'s errors, translated once, at this edge.

Responsible for: which of our errors a failed request becomes, whether another attempt may
help, and that no message carries a secret.
`obstore` tells a status only in an error's text; reading it there is confined to this module.
"""

import contextlib
import re
from collections.abc import Iterator
from http import HTTPStatus

from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    InvalidPathError,
    NotSupportedError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
    UnknownConfigurationKeyError,
)

from penstock.errors import (
    InvalidRequest,
    NotPermitted,
    ObjectChanged,
    ObjectNotFound,
    OriginUnavailable,
    PenstockError,
    Uncacheable,
)
from penstock.volumes import Volume
from penstock_node.origin.interface import Kind, describe, kind_of_status

CAUSE_CHARACTERS_MAX = 300

REDIRECT_TRAP = "127.0.0.1:0"
"""Where requests to any but the volume's own host are sent: nobody can listen on port 0."""

FINAL = (
    FileNotFoundError,
    PreconditionError,
    PermissionDeniedError,
    UnauthenticatedError,
    InvalidPathError,
    NotSupportedError,
    AlreadyExistsError,
    UnknownConfigurationKeyError,
)
RETRIED_STATUS = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})
_STATUS = re.compile(r"status code: (\d{3})")
_KIND = re.compile(r"\bkind: (Timeout|Connect)\b")
_REASONS = {"Timeout": "no answer in time", "Connect": "no connection"}
_QUERY = re.compile(r"\?[^\s,)\"']*")


class ShortBody(Exception):
    """A body ended before its announced length: ask again."""


@contextlib.contextmanager
def panics_as_errors(volume: Volume) -> Iterator[None]:
    """Turn a panic of `obstore`, which is no `Exception`, into one.

    Raises:
        InvalidRequest: It panicked.
    """
    try:
        yield
    except BaseException as error:
        # The class is made at run time and cannot be imported.
        if type(error).__name__ != "PanicException":
            raise
        raise InvalidRequest(
            f"volume {volume.name!r}: obstore cannot work with its options: {first_line(error)}"
        ) from None


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status that ``error`` tells of; None when there was no answer."""
    found = _STATUS.search(str(error))
    return int(found[1]) if found else None


def is_transient(error: BaseException) -> bool:
    """Whether asking again may help: no answer, a broken one, or one that says so."""
    if isinstance(error, ShortBody):
        return True
    if not isinstance(error, BaseError) or isinstance(error, FINAL):
        return False
    if REDIRECT_TRAP in str(error):
        return False
    status = status_of(error)
    return status is None or status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in RETRIED_STATUS


def is_answer(error: BaseException) -> bool:
    """Whether the origin answered, though not well: it may be for this object alone."""
    return isinstance(error, ShortBody) or status_of(error) is not None


def reason_of(error: BaseException) -> str:
    """Return why a request had no answer, in a few words that name no object."""
    status = status_of(error)
    if status is not None:
        names = {each.value: each.phrase for each in HTTPStatus}
        return f"it answers {status} {names.get(status, '')}".rstrip()
    if isinstance(error, ShortBody):
        return "its answers end early"
    kind = _KIND.search(str(error))
    return _REASONS[kind[1]] if kind else first_line(error).rpartition(" - ")[2]


def kind_of(error: BaseException) -> Kind:
    """Return what a failure that another attempt may mend is counted as."""
    status = status_of(error)
    if status is not None:
        return kind_of_status(status)
    if isinstance(error, ShortBody):
        return "short"
    found = _KIND.search(str(error))
    if found is None:
        return "timeout" if isinstance(error, TimeoutError) else "other"
    return "timeout" if found[1] == "Timeout" else "connection"


def first_line(error: BaseException) -> str:
    """Return what happened, in a line that carries no query and no dump."""
    # The rest is a dump of structures. Queries may be signatures (Azure's SAS).
    line = next(iter(str(error).splitlines()), "")
    return _QUERY.sub("?…", line)[:CAUSE_CHARACTERS_MAX] or type(error).__name__


def refused(volume: Volume, what: str, host: str) -> NotPermitted:
    """Return what is told when an origin refuses us ``what``."""
    check = (
        f"check [secrets.{volume.secret}] in this node's configuration"
        if volume.secret
        else "the volume names no secret; give it one if the place is not public"
    )
    return NotPermitted(f"{what}: {host} refuses volume {volume.name!r}; {check}")


def translate(error: BaseException, *, volume: Volume, path: str, host: str) -> PenstockError:
    """Return our error for one of `obstore`'s, or for a deadline that is over.

    Args:
        error: What the last attempt met.
        volume: Where.
        path: Of which object, or below which prefix.
        host: The origin's, for people.
    """
    what = describe(volume, path)
    if isinstance(error, FileNotFoundError):
        return ObjectNotFound(f"{what}: the origin has no such object")
    if isinstance(error, PreconditionError):
        return ObjectChanged(f"{what} was overwritten; open it again")
    if isinstance(error, PermissionDeniedError | UnauthenticatedError):
        return refused(volume, what, host)
    if isinstance(error, NotSupportedError):
        return Uncacheable(f"{what}: {host} does not answer range requests; cached reads need them")
    if isinstance(error, InvalidPathError):
        return InvalidRequest(f"{what}: {first_line(error)}")
    if isinstance(error, TimeoutError):
        return OriginUnavailable(f"{what}: volume {volume.name!r}: {host} did not answer in time")
    return _translate_by_text(error, volume=volume, what=what, host=host)


def _translate_by_text(
    error: BaseException, *, volume: Volume, what: str, host: str
) -> PenstockError:
    status = status_of(error)
    if REDIRECT_TRAP in str(error):
        return NotPermitted(
            f"{what}: {host} sends volume {volume.name!r} to another host, and redirects off the "
            "configured host are refused; point the volume at that host if it is the right one"
        )
    if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        return ObjectChanged(f"{what} is shorter than it was; open it again")
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return refused(volume, what, host)
    return OriginUnavailable(f"{what}: volume {volume.name!r}: {host}: {first_line(error)}")

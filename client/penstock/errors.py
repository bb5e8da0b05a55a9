"""Every failure that Penstock reports, named by what a caller can do about it.

The tree::

    PenstockError
    ├── ObjectNotFound        stop: the origin has no such object
    ├── ObjectChanged         open the object again: it was overwritten
    ├── Uncacheable           stop: the origin tells neither an etag nor a modification time
    ├── NotPermitted          stop: outside every volume or what your token may, a forged ticket
    ├── Unauthenticated       show a token: none, an unknown or an expired one was shown
    ├── InvalidRequest        stop: the request itself is wrong
    │   └── InvalidRange        stop: not whole blocks within the chunk
    ├── InvalidConfiguration  stop: a file, flag or environment variable is wrong
    ├── NoSpace               free some space, or allow more: the message has the numbers
    ├── Conflict              look again: somebody else changed it, or it exists already
    ├── TicketExpired         renew the ticket
    ├── NotOwner              ask the owners of a newer placement
    ├── NotCached             ask another node, or the origin
    ├── CorruptData           read again: bytes did not match their checksums
    ├── Cancelled             nothing: the caller asked for it
    └── Retryable             try again later; nothing is wrong with the request
        ├── OriginUnavailable   the object store does not answer, or answers with errors
        ├── ClusterUnavailable  no node that could answer does
        ├── NodeUnavailable     this node does not answer; ask the next owner
        ├── CatalogUnavailable  the catalog or its database does not answer
        ├── KubernetesUnavailable  Kubernetes' API server does not answer the node, or refuses it
        └── Overloaded          the node asks to come back after `retry_after_s`

One table of names serves all planes: a name is the class name, and travels in gRPC's trailing
metadata, in the bulk plane's `Penstock-Error` header and in the host plane's answers.
"""

from http import HTTPStatus
from typing import ClassVar


class PenstockError(Exception):
    """Base of every error of Penstock's."""

    http_status: ClassVar[HTTPStatus] = HTTPStatus.INTERNAL_SERVER_ERROR

    @property
    def name(self) -> str:
        """The error's name on every plane."""
        return type(self).__name__


class ObjectNotFound(PenstockError):
    """The origin has no object at this url."""

    http_status = HTTPStatus.NOT_FOUND


class ObjectChanged(PenstockError):
    """The object was overwritten since it was opened; open it again to read the new version."""

    http_status = HTTPStatus.CONFLICT


class Uncacheable(PenstockError):
    """The origin gives the object neither an etag nor a modification time to tell versions by."""

    http_status = HTTPStatus.UNPROCESSABLE_ENTITY


class NotPermitted(PenstockError):
    """Not allowed: outside every volume, or not with your token, or with a forged ticket."""

    http_status = HTTPStatus.FORBIDDEN


class Unauthenticated(PenstockError):
    """Who asks is not known: no token was shown, or one that is unknown here or has expired."""

    http_status = HTTPStatus.UNAUTHORIZED


class InvalidRequest(PenstockError):
    """The request is malformed or out of range; sending it again will not help."""

    http_status = HTTPStatus.BAD_REQUEST


class InvalidRange(InvalidRequest):
    """The range is not whole blocks within the chunk, or not a range at all."""

    http_status = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE


class InvalidConfiguration(PenstockError):
    """A configuration value is wrong; the message names it and says what to write instead."""

    http_status = HTTPStatus.BAD_REQUEST


class NoSpace(PenstockError):
    """A disk or a budget has no room for what was asked for; nothing was removed for it."""

    http_status = HTTPStatus.INSUFFICIENT_STORAGE


class Conflict(PenstockError):
    """The thing exists already, or somebody else changed it first; look again and decide."""

    http_status = HTTPStatus.CONFLICT


class TicketExpired(PenstockError):
    """The ticket's time is over; renew it, or open the object again."""

    http_status = HTTPStatus.UNAUTHORIZED


class NotOwner(PenstockError):
    """This node does not own the chunk at ``epoch``, the newest placement it knows."""

    http_status = HTTPStatus.MISDIRECTED_REQUEST

    def __init__(self, message: str, *, epoch: int) -> None:
        super().__init__(message)
        self.epoch = epoch


class NotCached(PenstockError):
    """The node was asked only for what it has, and it does not have the chunk."""

    http_status = HTTPStatus.NOT_FOUND


class CorruptData(PenstockError):
    """Bytes did not match their checksums; they were not returned."""

    http_status = HTTPStatus.BAD_GATEWAY


class Cancelled(PenstockError):
    """The caller stopped the read; nothing lands in its buffer any more."""


class Retryable(PenstockError):
    """Nothing is wrong with the request: trying again later can succeed."""

    http_status = HTTPStatus.SERVICE_UNAVAILABLE


class OriginUnavailable(Retryable):
    """The object store does not answer, or answers with errors."""

    http_status = HTTPStatus.BAD_GATEWAY


class ClusterUnavailable(Retryable):
    """No node that could answer does."""


class NodeUnavailable(Retryable):
    """One node does not answer; the next owner may."""


class CatalogUnavailable(Retryable):
    """The catalog does not answer, or its database does not."""


class KubernetesUnavailable(Retryable):
    """Kubernetes' API server does not answer a node, or refuses what the node asks."""

    is_refused = False
    """Whether it does not let this node ask: its role wants a rule more."""
    status = 0
    """Of HTTP, where there was an answer."""


class Overloaded(Retryable):
    """The node has too much to do; come back after ``retry_after_s`` seconds."""

    def __init__(self, message: str, *, retry_after_s: float = 0.2) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.copies = 0
        """How many owners have the chunk, if others should be asked at once; 0: come back."""
        self.held_by = ""
        """The node that has it still, if that should be asked at once."""

    @property
    def is_sent_on(self) -> bool:
        """Whether others are named who have the chunk: nothing is wrong."""
        return bool(self.copies or self.held_by)


def _tree(root: type[PenstockError]) -> dict[str, type[PenstockError]]:
    found = {root.__name__: root}
    for child in root.__subclasses__():
        found |= _tree(child)
    return found


BY_NAME: dict[str, type[PenstockError]] = _tree(PenstockError)
"""The one table of error names."""


def from_name(
    name: str, message: str, *, epoch: int = 0, retry_after_s: float = 0.2
) -> PenstockError:
    """Return the error that another process named; an unknown name becomes `PenstockError`."""
    if name == "NotOwner":
        return NotOwner(message, epoch=epoch)
    if name == "Overloaded":
        return Overloaded(message, retry_after_s=retry_after_s)
    return BY_NAME.get(name, PenstockError)(message)

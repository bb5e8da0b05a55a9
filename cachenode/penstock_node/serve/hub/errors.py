"""What the hub refuses, in the words of the Hugging Face Hub.

Responsible for: the error codes by which `huggingface_hub` chooses its exceptions, and which
status and code each of Penstock's errors becomes.
Not responsible for: deciding that something is wrong.
"""

import math
from http import HTTPStatus
from typing import Final

from penstock.errors import InvalidRequest, NotPermitted, Overloaded, PenstockError, Retryable
from penstock_node.serve.s3.errors import S3Error
from penstock_node.transport.http import Headers

REPO_NOT_FOUND: Final = "RepoNotFound"
REVISION_NOT_FOUND: Final = "RevisionNotFound"
ENTRY_NOT_FOUND: Final = "EntryNotFound"
GATED: Final = "GatedRepo"
"""The client raises this one as it is from every call, with our message: so it is what whoever
may not read is told."""

_TABLE: tuple[tuple[type[PenstockError], HTTPStatus], ...] = (
    (NotPermitted, HTTPStatus.FORBIDDEN),
    (Overloaded, HTTPStatus.SERVICE_UNAVAILABLE),
    (Retryable, HTTPStatus.SERVICE_UNAVAILABLE),
    (InvalidRequest, HTTPStatus.BAD_REQUEST),
    (PenstockError, HTTPStatus.INTERNAL_SERVER_ERROR),
)
"""The first row that fits says what a client is told. It tries 500 and 503 again by itself."""


class HubError(Exception):
    """A request is answered with an error: its status, the hub's code, and what to do about it."""

    def __init__(
        self,
        status: HTTPStatus,
        code: str,
        message: str,
        *,
        commit: str = "",
        retry_after_s: float | None = None,
        headers: Headers = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        """Empty: the status says it all."""
        self.commit = commit
        """Of the repository that was looked into; the client remembers what it has not."""
        self.retry_after_s = retry_after_s
        self._headers = headers

    @property
    def headers(self) -> list[tuple[str, str]]:
        """What the answer carries besides the document."""
        lines = [("X-Error-Message", _header_text(str(self))), *self._headers]
        if self.code:
            lines.append(("X-Error-Code", self.code))
        if self.commit:
            lines.append(("X-Repo-Commit", self.commit))
        if self.retry_after_s is not None:
            lines.append(("Retry-After", str(math.ceil(self.retry_after_s))))
        return lines


def _header_text(text: str) -> str:
    """Return ``text`` as a header can carry it: printable ASCII, in one line."""
    return "".join(c if " " <= c <= "~" else "?" for c in text)


def in_hub_words(error: HubError | S3Error | PenstockError) -> HubError:
    """Return what a client is told of ``error``."""
    if isinstance(error, HubError):
        return error
    if isinstance(error, S3Error):  # Of what the hub shares with the gateway.
        code = GATED if error.status is HTTPStatus.FORBIDDEN else ""
        return HubError(error.status, code, str(error), headers=error.headers)
    status = next(row[1] for row in _TABLE if isinstance(error, row[0]))
    code = GATED if status is HTTPStatus.FORBIDDEN else ""
    retry_after_s = error.retry_after_s if isinstance(error, Overloaded) else None
    return HubError(status, code, str(error), retry_after_s=retry_after_s)


def repo_not_found(message: str) -> HubError:
    """Return a RepoNotFound."""
    return HubError(HTTPStatus.NOT_FOUND, REPO_NOT_FOUND, message)


def revision_not_found(message: str) -> HubError:
    """Return a RevisionNotFound."""
    return HubError(HTTPStatus.NOT_FOUND, REVISION_NOT_FOUND, message)


def entry_not_found(message: str, *, commit: str) -> HubError:
    """Return an EntryNotFound in the repository's ``commit``."""
    return HubError(HTTPStatus.NOT_FOUND, ENTRY_NOT_FOUND, message, commit=commit)


def bad_request(message: str) -> HubError:
    """Return an error about the request itself."""
    return HubError(HTTPStatus.BAD_REQUEST, "", message)

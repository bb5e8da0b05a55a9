"""One request to the hub, and what every answer to it carries.

Responsible for: the head of answers, documents in JSON, errors among them.
Not responsible for: what is answered.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from penstock_node.serve.hub.errors import HubError
from penstock_node.serve.hub.requests import Wanted
from penstock_node.serve.s3.access import Caller
from penstock_node.serve.s3.addressing import Target
from penstock_node.serve.s3.conditions import http_date
from penstock_node.transport.http import Headers, HttpRequest, head
from penstock_node.transport.reply import Octets, Reply


@dataclass(frozen=True, slots=True)
class HubExchange:
    """A request that was let in."""

    request: HttpRequest
    wanted: Wanted
    target: Target
    caller: Caller
    id: str
    speaks_tls: bool = False
    """Whether it came over TLS, to this node or to something before it."""

    @property
    def is_head(self) -> bool:
        """Whether the answer has no body."""
        return self.request.method == "HEAD"

    def flag(self, name: str) -> bool:
        """Tell whether the query has ``name``, and does not say that it is false."""
        return name in self.target and self.target.get(name).lower() not in ("false", "0")

    def headed(self, status: HTTPStatus, headers: Headers, *, more: bool = False) -> Octets:
        """Return an answer's status line and headers; with ``more`` a body follows at once."""
        return Octets(head(status, [*_common_headers(self.id), *headers]), more=more)

    def document(self, data: Any, headers: Headers) -> Reply:
        """Return an answer that is a document."""
        return _document(HTTPStatus.OK, data, headers, request_id=self.id, is_head=self.is_head)


def error_reply(error: HubError, *, request_id: str, is_head: bool) -> Reply:
    """Return what a client gets that is refused."""
    return _document(
        error.status,
        {"error": str(error)},
        error.headers,
        request_id=request_id,
        is_head=is_head,
    )


def _common_headers(request_id: str) -> list[tuple[str, str]]:
    return [
        ("Server", "Penstock"),
        ("Date", http_date(datetime.now(UTC))),
        ("X-Request-Id", request_id),
    ]


def _document(
    status: HTTPStatus, data: Any, headers: Headers, *, request_id: str, is_head: bool
) -> Reply:
    body = json.dumps(data).encode()
    lines = [
        *_common_headers(request_id),
        *headers,
        ("Content-Type", "application/json; charset=utf-8"),
        ("Content-Length", str(len(body))),
    ]
    return Reply([Octets(head(status, lines) + (b"" if is_head else body))])

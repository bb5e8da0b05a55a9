"""One request and what every answer to it carries.

Responsible for: the head of answers, documents in S3's XML, errors among them.
Not responsible for: what is answered.
"""

import re
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from xml.etree import ElementTree

from penstock_node.serve.s3.access import Caller
from penstock_node.serve.s3.addressing import Target
from penstock_node.serve.s3.conditions import http_date
from penstock_node.serve.s3.errors import S3Error
from penstock_node.transport.http import Headers, HttpRequest, head
from penstock_node.transport.reply import Octets, Reply

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"

# What XML 1.0 cannot write; a carriage return it would read as another character.
_UNWRITABLE = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def is_writable(text: str) -> bool:
    """Tell whether XML can write ``text`` so that it is read the same."""
    return _UNWRITABLE.search(text) is None


def new_request_id() -> str:
    """Return what an answer is called by, in logs and by clients."""
    return secrets.token_hex(8).upper()


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request that was let in."""

    request: HttpRequest
    target: Target
    caller: Caller
    id: str = field(default_factory=new_request_id)

    @property
    def is_head(self) -> bool:
        """Whether the answer has no body."""
        return self.request.method == "HEAD"

    def headed(self, status: HTTPStatus, headers: Headers, *, more: bool = False) -> Octets:
        """Return an answer's status line and headers; with ``more`` a body follows at once."""
        return Octets(head(status, [*common_headers(self.id), *headers]), more=more)

    def empty(self, status: HTTPStatus, headers: Headers) -> Reply:
        """Return an answer without a body."""
        return Reply([self.headed(status, headers)])

    def document(self, root: ElementTree.Element) -> Reply:
        """Return an answer that is a document."""
        return document_reply(HTTPStatus.OK, root, request_id=self.id, is_head=self.is_head)


def common_headers(request_id: str) -> list[tuple[str, str]]:
    """Return what every answer carries."""
    return [
        ("Server", "Penstock"),
        ("Date", http_date(datetime.now(UTC))),
        ("x-amz-request-id", request_id),
    ]


def document_reply(
    status: HTTPStatus,
    root: ElementTree.Element,
    *,
    request_id: str,
    is_head: bool,
    headers: Headers = (),
    ends: bool = False,
) -> Reply:
    """Return an answer that is a document; to HEAD only its head."""
    body: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    lines = [
        *common_headers(request_id),
        *headers,
        ("Content-Type", "application/xml"),
        ("Content-Length", str(len(body))),
    ]
    if ends:
        lines.append(("Connection", "close"))
    return Reply([Octets(head(status, lines) + (b"" if is_head else body))], ends=ends)


def error_reply(
    error: S3Error, *, resource: str, request_id: str, is_head: bool, ends: bool = False
) -> Reply:
    """Return what a client gets that is refused."""
    root = ElementTree.Element("Error")
    for name, text in (
        ("Code", error.code),
        ("Message", str(error)),
        ("Resource", resource),
        ("RequestId", request_id),
    ):
        ElementTree.SubElement(root, name).text = _UNWRITABLE.sub("\ufffd", text)
    return document_reply(
        error.status,
        root,
        request_id=request_id,
        is_head=is_head,
        headers=error.headers,
        ends=ends,
    )

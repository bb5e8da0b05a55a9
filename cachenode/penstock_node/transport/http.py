"""HTTP/1.1 on one connection: requests out of bytes, replies into bytes.

Responsible for: framing, limits, refusing what is malformed; `httptools` parses.
Not responsible for: what is asked (the handler), sockets (`engine`).

Only what is needed: one request at a time, no transfer codings, bodies of a stated length for
POST alone. A request that could be understood in two ways is refused and its connection ends.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import TypeAlias

import httptools

from penstock_node.transport.reply import Octets, Outcome, Part, Reply

HEAD_BYTES_MAX = 32 * 1024
"""Of request line and headers together; the longest ticket takes 8 KiB of it."""
HEADERS_MAX = 64
BODY_BYTES_MAX = 1024 * 1024

_END_OF_HEAD = b"\r\n\r\n"
_ONCE = {"authorization", "content-length", "host", "range", "transfer-encoding"}
_LENGTH = re.compile(r"[0-9]{1,9}")

Headers: TypeAlias = Iterable[tuple[str, str]]


@dataclass(slots=True)
class HttpRequest:
    """One request. Header names are in small letters."""

    method: str
    target: str
    """Path and query as they were sent, percent-encoded."""
    headers: dict[str, str]
    keeps_alive: bool = True
    body: bytes = b""


Handler: TypeAlias = Callable[[HttpRequest], Outcome]
Refusal: TypeAlias = Callable[[HTTPStatus, str], Reply]


class BadRequest(Exception):
    """Not a request that is answered; ``status`` says why."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class _Parsed:
    """What httptools calls while it parses one head."""

    def __init__(self) -> None:
        self.target = b""
        self.headers: dict[str, str] = {}
        self.is_whole = False
        self._count = 0

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count += 1
        if self._count > HEADERS_MAX:
            raise BadRequest(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"more than {HEADERS_MAX} headers"
            )
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        if key in self.headers:
            if key in _ONCE:
                raise BadRequest(HTTPStatus.BAD_REQUEST, f"{key} is there twice")
            text = f"{self.headers[key]}, {text}"
        self.headers[key] = text

    def on_headers_complete(self) -> None:
        self.is_whole = True


def parse_head(head: bytes) -> HttpRequest:
    """Return the request whose line and headers ``head`` is, the empty line included.

    Raises:
        BadRequest: It is not one, or not of a kind that is answered.
    """
    parsed = _Parsed()
    parser = httptools.HttpRequestParser(parsed)
    try:
        parser.feed_data(head)
    except httptools.HttpParserCallbackError as error:
        if isinstance(error.__context__, BadRequest):
            raise error.__context__ from None
        raise
    except httptools.HttpParserUpgrade:
        raise BadRequest(HTTPStatus.BAD_REQUEST, "no other protocol is spoken here") from None
    except httptools.HttpParserError as error:
        raise BadRequest(HTTPStatus.BAD_REQUEST, f"not HTTP: {error}") from None
    if not parsed.is_whole:
        raise BadRequest(HTTPStatus.BAD_REQUEST, "not a whole request")
    if parser.get_http_version() not in ("1.0", "1.1"):
        raise BadRequest(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "HTTP/1.1 is spoken here")
    return HttpRequest(
        method=parser.get_method().decode("latin-1"),
        target=parsed.target.decode("latin-1"),
        headers=parsed.headers,
        keeps_alive=_keeps_alive(parser.get_http_version(), parsed.headers),
    )


def _keeps_alive(version: str, headers: dict[str, str]) -> bool:
    """Tell whether the sender goes on; by then the parser has forgotten."""
    if "connection" not in headers:
        return version == "1.1"
    options = {option.strip().lower() for option in headers.get("connection", "").split(",")}
    return "close" not in options and (version == "1.1" or "keep-alive" in options)


def body_length(request: HttpRequest) -> int:
    """Return how many bytes of body follow.

    Raises:
        BadRequest: It cannot be told, or is too much.
    """
    if "transfer-encoding" in request.headers:
        raise BadRequest(HTTPStatus.LENGTH_REQUIRED, "send a Content-Length")
    text = request.headers.get("content-length", "0")
    if not _LENGTH.fullmatch(text):
        raise BadRequest(HTTPStatus.BAD_REQUEST, f"Content-Length {text!r} is no length")
    length = int(text)
    if length > (BODY_BYTES_MAX if request.method == "POST" else 0):
        raise BadRequest(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body of {length} bytes is not taken here"
        )
    return length


def _head_length(inbox: bytearray) -> int | None:
    end = inbox.find(_END_OF_HEAD)
    length = len(inbox) if end < 0 else end + len(_END_OF_HEAD)
    if length > HEAD_BYTES_MAX:
        raise BadRequest(
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"a head of over {HEAD_BYTES_MAX} bytes"
        )
    return length if end >= 0 else None


class HttpSession:
    """HTTP/1.1 on one connection, for one handler."""

    __slots__ = ("_awaited", "_handler", "_refuse", "interim", "is_last")

    def __init__(
        self, handler: Handler, *, refuse: Refusal | None = None, interim: bytes = b""
    ) -> None:
        """Begin to speak.

        Args:
            handler: Answers requests.
            refuse: Answers what is no request that is taken, by status and reason; the
                connection ends with that. By default a line of text.
            interim: Says that a request is worked on; none: nothing does.
        """
        self.is_last = False
        """See `Session.is_last`."""
        self.interim = interim
        """See `Session.interim`."""
        self._handler = handler
        self._refuse = refuse or refusal
        # A head whose body is coming, where that begins, and where it ends.
        self._awaited: tuple[HttpRequest, int, int] | None = None

    def step(self, inbox: bytearray) -> Outcome | None:
        """See `Session.step`."""
        try:
            request = self._take(inbox)
        except BadRequest as error:
            return self._refuse(error.status, str(error))
        if request is None:
            return None
        self.is_last = not request.keeps_alive
        return self._handler(request)

    def _take(self, inbox: bytearray) -> HttpRequest | None:
        """Return a request when all of it is there; until then it stays in ``inbox``."""
        if self._awaited is None:
            start = _head_length(inbox)
            if start is None:
                return None
            request = parse_head(bytes(inbox[:start]))
            self._awaited = (request, start, start + body_length(request))
        request, start, stop = self._awaited
        if len(inbox) < stop:
            return None
        request.body = bytes(inbox[start:stop])
        del inbox[:stop]
        self._awaited = None
        return request

    def close(self) -> None:
        """See `Session.close`."""


def head(status: HTTPStatus, headers: Headers) -> bytes:
    """Return a status line and headers, and the empty line that ends them."""
    lines = [f"HTTP/1.1 {status.value} {status.phrase}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def reply(
    status: HTTPStatus, headers: Headers = (), body: bytes = b"", *, ends: bool = False
) -> Reply:
    """Return a reply whose body is in memory."""
    lines = [*headers, ("Content-Length", str(len(body)))]
    if ends:
        lines.append(("Connection", "close"))
    return Reply([Octets(head(status, lines) + body)], ends=ends)


def reply_with(status: HTTPStatus, headers: Headers, length: int, parts: list[Part]) -> Reply:
    """Return a reply whose body is ``parts``, of ``length`` bytes together."""
    lines = [*headers, ("Content-Length", str(length))]
    return Reply([Octets(head(status, lines), more=length > 0), *parts])


def refusal(status: HTTPStatus, reason: str) -> Reply:
    """Return a reply to what was no request; the connection ends with it."""
    body = (reason + "\n").encode("utf-8", "replace")
    return reply(status, [("Content-Type", "text/plain; charset=utf-8")], body, ends=True)

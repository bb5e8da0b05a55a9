"""Requests out of bytes: which are taken, in which pieces they may come, and what is refused."""

import itertools
from collections.abc import Sequence
from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_node.transport.http import (
    BODY_BYTES_MAX,
    HEAD_BYTES_MAX,
    HEADERS_MAX,
    HttpRequest,
    HttpSession,
    head,
    parse_head,
    reply,
)
from penstock_node.transport.reply import Outcome, Reply

GET = b"GET /v1/chunk/7?a=%20 HTTP/1.1\r\nHost: node\r\nRange: bytes=0-65535\r\n\r\n"
POST = b"POST /v1/call/a HTTP/1.1\r\nContent-Length: 8\r\n\r\n\r\n\r\nbody"
"""Its body looks like the end of a head."""


class Asked:
    """A handler that remembers what it was asked."""

    def __init__(self) -> None:
        self.requests: list[HttpRequest] = []

    def __call__(self, request: HttpRequest) -> Outcome:
        self.requests.append(request)
        return reply(HTTPStatus.OK)


class Refused:
    """What a session says to bytes that are no request."""

    def __init__(self) -> None:
        self.told: list[tuple[HTTPStatus, str]] = []

    def __call__(self, status: HTTPStatus, reason: str) -> Reply:
        self.told.append((status, reason))
        return reply(status, ends=True)


class Rig:
    """A session that is fed by hand."""

    def __init__(self) -> None:
        self.asked, self.refused = Asked(), Refused()
        self.session = HttpSession(self.asked, refuse=self.refused)
        self.inbox = bytearray()

    def feed(self, data: bytes) -> list[Outcome]:
        """Let ``data`` come in; return the answers that it calls forth."""
        self.inbox += data
        outcomes: list[Outcome] = []
        while self.inbox and not self.refused.told:
            outcome = self.session.step(self.inbox)
            if outcome is None:
                break
            outcomes.append(outcome)
        return outcomes


def fed(*pieces: bytes) -> Rig:
    rig = Rig()
    for piece in pieces:
        rig.feed(piece)
    return rig


# Requests that are taken --------------------------------------------------------------------


def test_a_request_is_its_line_its_headers_and_its_body() -> None:
    rig = fed(GET + POST)

    get, post = rig.asked.requests
    assert (get.method, get.target, get.body) == ("GET", "/v1/chunk/7?a=%20", b"")
    assert get.headers == {"host": "node", "range": "bytes=0-65535"}
    assert (post.method, post.target, post.body) == ("POST", "/v1/call/a", b"\r\n\r\nbody")
    assert not rig.inbox


@pytest.mark.parametrize("request_", [GET, POST], ids=["get", "post"])
def test_a_request_may_be_cut_at_every_byte(request_: bytes) -> None:
    for cut in range(1, len(request_)):
        rig = Rig()

        assert rig.feed(request_[:cut]) == []
        assert len(rig.feed(request_[cut:])) == 1, f"cut at {cut}"
        assert rig.asked.requests == fed(request_).asked.requests


def test_until_it_is_whole_a_request_stays_where_it_is() -> None:
    """So its connection is not taken for an idle one, whose time is longer."""
    for cut in range(1, len(POST)):
        assert fed(POST[:cut]).inbox == POST[:cut]


def test_a_request_may_come_byte_by_byte() -> None:
    rig = fed(*(bytes([byte]) for byte in POST + GET))

    assert [request.method for request in rig.asked.requests] == ["POST", "GET"]


@given(st.lists(st.sampled_from([GET, POST]), max_size=6), st.data())
def test_requests_sent_without_waiting_are_taken_in_order_however_they_are_cut(
    sent: Sequence[bytes], data: st.DataObject
) -> None:
    stream = b"".join(sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    edges = [0, *cuts, len(stream)]

    rig = fed(*(stream[a:b] for a, b in itertools.pairwise(edges)))

    assert [request.method for request in rig.asked.requests] == [
        "GET" if one is GET else "POST" for one in sent
    ]
    assert not rig.inbox


def test_a_header_that_may_come_twice_is_joined() -> None:
    request = parse_head(b"GET / HTTP/1.1\r\nAccept: a\r\nACCEPT: b\r\n\r\n")

    assert request.headers == {"accept": "a, b"}


def test_a_body_as_long_as_allowed_is_taken() -> None:
    body = b"x" * BODY_BYTES_MAX
    rig = fed(f"POST / HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n".encode(), body)

    assert [request.body for request in rig.asked.requests] == [body]


def test_a_head_as_long_as_allowed_is_taken() -> None:
    start, end = b"GET / HTTP/1.1\r\nX: ", b"\r\n\r\n"
    filler = b"x" * (HEAD_BYTES_MAX - len(start) - len(end))

    assert len(fed(start + filler + end).asked.requests) == 1


@pytest.mark.parametrize(
    ("line", "goes_on"),
    [
        (b"GET / HTTP/1.1\r\n", True),
        (b"GET / HTTP/1.1\r\nConnection: keep-alive\r\n", True),
        (b"GET / HTTP/1.1\r\nConnection: Close\r\n", False),
        (b"GET / HTTP/1.1\r\nConnection: x, close\r\n", False),
        (b"GET / HTTP/1.1\r\nConnection: x\r\nConnection: close\r\n", False),
        (b"GET / HTTP/1.0\r\n", False),
        (b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n", True),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n", False),
        (b"POST / HTTP/1.1\r\nContent-Length: 0\r\nConnection: close\r\n", False),
    ],
)
def test_a_connection_goes_on_unless_its_reader_says_otherwise(line: bytes, goes_on: bool) -> None:
    rig = fed(line + b"\r\n")

    assert len(rig.asked.requests) == 1
    assert rig.session.is_last is not goes_on


# What is refused ----------------------------------------------------------------------------

CASES: dict[str, tuple[bytes, HTTPStatus]] = {
    "two lengths": (
        b"POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        HTTPStatus.BAD_REQUEST,
    ),
    "two other lengths": (
        b"POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 30\r\n\r\nabc",
        HTTPStatus.BAD_REQUEST,
    ),
    "a list of lengths": (
        b"POST / HTTP/1.1\r\nContent-Length: 3, 3\r\n\r\nabc",
        HTTPStatus.BAD_REQUEST,
    ),
    "a signed length": (
        b"POST / HTTP/1.1\r\nContent-Length: +3\r\n\r\nabc",
        HTTPStatus.BAD_REQUEST,
    ),
    "a negative length": (
        b"POST / HTTP/1.1\r\nContent-Length: -3\r\n\r\nabc",
        HTTPStatus.BAD_REQUEST,
    ),
    "no length": (b"POST / HTTP/1.1\r\nContent-Length:\r\n\r\n", HTTPStatus.BAD_REQUEST),
    "a length of many digits": (
        b"POST / HTTP/1.1\r\nContent-Length: " + b"0" * 30 + b"3\r\n\r\nabc",
        HTTPStatus.BAD_REQUEST,
    ),
    "chunks": (
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        HTTPStatus.LENGTH_REQUIRED,
    ),
    "chunks and a length": (
        b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc",
        HTTPStatus.BAD_REQUEST,
    ),
    "two codings": (
        b"POST / HTTP/1.1\r\nTransfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        HTTPStatus.BAD_REQUEST,
    ),
    "a coding with a body on GET": (
        b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HTTPStatus.LENGTH_REQUIRED,
    ),
    "a body on GET": (
        b"GET / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    ),
    "a body that is too long": (
        f"POST / HTTP/1.1\r\nContent-Length: {BODY_BYTES_MAX + 1}\r\n\r\n".encode(),
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    ),
    "two hosts": (
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        HTTPStatus.BAD_REQUEST,
    ),
    "two tickets": (
        b"GET / HTTP/1.1\r\nAuthorization: a\r\nAuthorization: b\r\n\r\n",
        HTTPStatus.BAD_REQUEST,
    ),
    "two ranges": (
        b"GET / HTTP/1.1\r\nRange: bytes=0-1\r\nrange: bytes=2-3\r\n\r\n",
        HTTPStatus.BAD_REQUEST,
    ),
    "many headers": (
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * (HEADERS_MAX + 1) + b"\r\n",
        HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    ),
    "a long head": (
        b"GET / HTTP/1.1\r\nX: " + b"x" * HEAD_BYTES_MAX + b"\r\n\r\n",
        HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    ),
    "an endless line": (
        b"GET /" + b"x" * HEAD_BYTES_MAX,
        HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    ),
    "another protocol": (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", HTTPStatus.BAD_REQUEST),
    "an upgrade": (
        b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        HTTPStatus.BAD_REQUEST,
    ),
    "a tunnel": (b"CONNECT node:7401 HTTP/1.1\r\n\r\n", HTTPStatus.BAD_REQUEST),
    "only an empty line": (b"\r\n\r\n", HTTPStatus.BAD_REQUEST),
    "no version": (b"GET /\r\n\r\n", HTTPStatus.HTTP_VERSION_NOT_SUPPORTED),
    "a later version": (b"GET / HTTP/2.0\r\n\r\n", HTTPStatus.HTTP_VERSION_NOT_SUPPORTED),
    "a space before the colon": (
        b"POST / HTTP/1.1\r\nContent-Length : 3\r\n\r\nabc",
        HTTPStatus.BAD_REQUEST,
    ),
    "a folded header": (b"GET / HTTP/1.1\r\nX: a\r\n b\r\n\r\n", HTTPStatus.BAD_REQUEST),
    "a line that ends early": (
        b"GET / HTTP/1.1\nHost: a\n\nGET /hidden HTTP/1.1\r\n\r\n",
        HTTPStatus.BAD_REQUEST,
    ),
    "a zero byte": (b"GET / HTTP/1.1\r\nX: a\x00b\r\n\r\n", HTTPStatus.BAD_REQUEST),
}


@pytest.mark.parametrize(("sent", "status"), CASES.values(), ids=CASES)
def test_what_could_be_understood_in_two_ways_or_is_too_much_is_refused(
    sent: bytes, status: HTTPStatus
) -> None:
    rig = fed(sent)

    assert rig.asked.requests == []
    assert [told for told, _ in rig.refused.told] == [status]


def test_an_endless_head_is_refused_before_its_end() -> None:
    rig, line = Rig(), b"X-More: and more\r\n"
    rig.feed(b"GET / HTTP/1.1\r\n")

    while not rig.refused.told:
        assert len(rig.inbox) <= HEAD_BYTES_MAX
        rig.feed(line)

    assert rig.refused.told[0][0] is HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE


def test_junk_behind_a_request_costs_that_request_nothing() -> None:
    rig = fed(GET + b"\x00\x01 junk\r\n\r\n")

    assert len(rig.asked.requests) == 1
    assert [status for status, _ in rig.refused.told] == [HTTPStatus.BAD_REQUEST]


def test_a_refusal_ends_the_connection() -> None:
    refused = HttpSession(Asked()).step(bytearray(b"junk\r\n\r\n"))

    assert isinstance(refused, Reply)
    assert refused.ends


@given(st.lists(st.binary(max_size=60) | st.sampled_from([GET, POST, b"\r\n\r\n"]), max_size=8))
def test_no_bytes_make_a_session_fail(pieces: list[bytes]) -> None:
    fed(*pieces)


# Replies ------------------------------------------------------------------------------------


def test_a_head_is_a_line_headers_and_an_empty_line() -> None:
    assert head(HTTPStatus.PARTIAL_CONTENT, [("A", "1"), ("B", "2")]) == (
        b"HTTP/1.1 206 Partial Content\r\nA: 1\r\nB: 2\r\n\r\n"
    )

"""What S3's clients and a hub's clients ask, and what hubs answer."""

import io
import json
from datetime import UTC, datetime
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, urlsplit
from xml.etree import ElementTree

from penstock.errors import PenstockError
from penstock.object_info import ObjectInfo, OpenedObject
from penstock.objects import ObjectId
from penstock.volumes import Volume
from penstock_node.key_pages import KeyPage, KeyQuery
from penstock_node.origin import hub_answers, hub_http
from penstock_node.origin.hub_requests import HubRequests
from penstock_node.origin.interface import OriginLimits
from penstock_node.serve.hub.access import Tokens, token_of
from penstock_node.serve.hub.errors import HubError, in_hub_words
from penstock_node.serve.hub.exchange import error_reply as hub_error_reply
from penstock_node.serve.hub.requests import asked_paths, is_of_hub, parse_request
from penstock_node.serve.s3 import conditions, listing, sigv4
from penstock_node.serve.s3.access import Key, Keys
from penstock_node.serve.s3.addressing import Target as S3Target
from penstock_node.serve.s3.addressing import parse_target
from penstock_node.serve.s3.errors import S3Error
from penstock_node.serve.s3.exchange import error_reply
from penstock_node.serve.s3.gateway import _operation, _refuse_other_operations
from penstock_node.serve.s3.listing_xml import key_list
from penstock_node.transport.http import HttpRequest
from penstock_node.transport.reply import Octets, Reply
from tests.fuzz.mutation import mutate_json
from tests.fuzz.target import AnyTarget, Target

NOW = datetime(2026, 12, 31, 12, tzinfo=UTC)
OPENED = OpenedObject(
    "penstock://m/k",
    "m",
    ObjectId("s3://b/k", '"etag"', size=200_000, chunk_size=65_536),
    NOW,
    "",
    0.0,
    0.0,
)


def _request(data: bytes) -> HttpRequest:
    """Return a request out of lines: target, host, then headers; behind an empty one the body."""
    head, _, body = data.partition(b"\n\n")
    target, *lines = head.decode("latin-1").split("\n")
    pairs = (line.partition(": ") for line in lines)
    headers = {name.lower(): value for name, _, value in pairs}
    method, _, target = target.partition(" ")
    return HttpRequest(method, target, headers, body=body)


def _octets(answer: Reply) -> bytes:
    (part,) = answer.parts
    assert isinstance(part, Octets)
    data = part.peek(slice(None))
    assert isinstance(data, bytes)
    return data


# S3.


def _s3_target(data: bytes) -> tuple[HttpRequest, S3Target]:
    request = _request(data)
    host = request.headers.get("host", "")
    target = parse_target(request.target, host=host, domain="s3.local")
    return request, target


def _is_served(_data: bytes, found: tuple[HttpRequest, S3Target]) -> None:
    request, target = found
    written = quote(target.path, safe="/")
    pairs = ((quote(name, safe=""), quote(value, safe="")) for name, value in target.query)
    written += "?" + "&".join(f"{name}={value}" for name, value in pairs)
    again = parse_target(written, host=request.headers.get("host", ""), domain="s3.local")
    assert again == target
    _operation(request.method, target)
    try:
        _refuse_other_operations(target)
    except S3Error as error:
        _is_xml(error, request)
    refused = S3Error(HTTPStatus.NOT_FOUND, "NoSuchKey", f"{target.key}: none")
    _is_xml(refused, request)


def _is_xml(error: S3Error, request: HttpRequest) -> None:
    answer = error_reply(error, resource=request.target, request_id="1", is_head=False)
    body = _octets(answer).partition(b"\r\n\r\n")[2]
    assert ElementTree.fromstring(body).findtext("Code") == error.code  # noqa: S314 - we wrote it


SECRET = "secret"
KEYS = Keys([Key("k", "AKID", SECRET)], clock=lambda: NOW)
SIGNED = (
    b"GET /b/k?x=y\nhost: h\nx-amz-date: 20261231T120000Z\nx-amz-content-sha256: UNSIGNED-PAYLOAD\n"
    b"authorization: AWS4-HMAC-SHA256 Credential=AKID/20261231/us-east-1/s3/aws4_request,"
    b"SignedHeaders=host;x-amz-content-sha256;x-amz-date,Signature=" + b"0" * 64
)
PRESIGNED = (
    b"GET /b/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKID%2F20261231%2Fus-east-1%2Fs3"
    b"%2Faws4_request&X-Amz-Date=20261231T120000Z&X-Amz-Expires=600&X-Amz-SignedHeaders=host"
    b"&X-Amz-Signature=" + b"0" * 64 + b"\nhost: h"
)


def _signature(data: bytes) -> sigv4.Presented | None:
    request, target = _s3_target(data)
    return sigv4.presented(target, request.headers)


def _is_let_in_with_the_secret_alone(data: bytes, found: sigv4.Presented | None) -> None:
    request, target = _s3_target(data)
    try:
        KEYS.admit(request, target, peer="")
    except S3Error as error:
        _is_xml(error, request)
        return
    assert found is not None
    wanted = sigv4.signature(
        SECRET, found, method=request.method, target=target, headers=request.headers
    )
    assert wanted == found.signature


def _signed(data: bytes) -> bytes:
    """Return the request with its right signature, if it shows any."""
    try:
        request, target = _s3_target(data)
        found = sigv4.presented(target, request.headers)
    except S3Error:
        return data
    if found is None or len(found.signature) < 8:
        return data
    wanted = sigv4.signature(
        SECRET, found, method=request.method, target=target, headers=request.headers
    )
    return data.replace(found.signature.encode(), wanted.encode())


def _conditions(data: bytes) -> tuple[bool, tuple[int, int] | None]:
    request = _request(data)
    part = request.method if request.method.isdigit() else ""
    is_known = conditions.is_not_modified(OPENED, request.headers)
    return is_known, conditions.wanted_range(OPENED, request.headers, part_number=part)


def _is_within(_data: bytes, found: tuple[bool, tuple[int, int] | None]) -> None:
    if found[1] is not None:
        start, stop = found[1]
        assert 0 <= start < stop <= OPENED.id.size


class _Listed:
    """A query of a listing, and a page of what lies there."""

    def __init__(self, target: S3Target) -> None:
        is_second = target.get("list-type") == "2"
        after = listing._after_v2(target) if is_second else target.get("marker")
        self.query: KeyQuery = listing._query(target, after=after)
        self.page = KeyPage(self.query)
        for key in sorted(["a/b", "a/c d", "b", "é", "z\ud7ff"]):
            info = ObjectInfo(f"s3://b/{key}", '"v"', 5, NOW)
            if not self.page.is_over:
                self.page.take(key, info, floor=after)
        fields = listing._fields_v2 if is_second else listing._fields_v1
        self.root = key_list(
            "b", self.page, fields(target, self.page), encoding_type=target.get("encoding-type")
        )


def _listing(data: bytes) -> _Listed:
    return _Listed(_s3_target(data)[1])


def _is_a_document(_data: bytes, found: _Listed) -> None:
    text = ElementTree.tostring(found.root, encoding="utf-8", xml_declaration=True)
    root = ElementTree.parse(io.BytesIO(text)).getroot()  # noqa: S314 - we wrote it
    assert len(root.findall("{*}Contents")) == len(found.page.objects)
    assert len(found.page) <= found.query.limit
    if found.page.is_truncated:
        token = listing._token(found.page)
        target = S3Target("/b", "b", "", (("continuation-token", token),))
        assert listing._after_v2(target) == found.page.last


# A hub's clients.

HUB_KEY = Key("k", "AKID", SECRET)
HUB_TOKENS = Tokens([HUB_KEY])


def _hub(data: bytes) -> Any:
    request = _request(data)
    if not is_of_hub(request):
        return None
    wanted, target = parse_request(request)
    if wanted.operation == "paths":
        assert len(asked_paths(request)) <= 1000
    HUB_TOKENS.admit(request, target, peer="")
    return wanted


def _is_answered(data: bytes) -> Any:
    """Return what is wanted; what is refused is told in a head that a client can read."""
    try:
        return _hub(data)
    except (HubError, S3Error) as error:
        told = _octets(hub_error_reply(in_hub_words(error), request_id="1", is_head=False))
        head, _, body = told.partition(b"\r\n\r\n")
        assert b"\r" not in head.replace(b"\r\n", b"")
        assert head.count(b"\n") == head.count(b"\r\n")
        json.loads(body)
        raise


def _is_a_place(_data: bytes, wanted: Any) -> None:
    if wanted is not None:
        org, name = wanted.repo.split("/")
        assert org not in (".", "..")
        assert name not in (".", "..")
        json.dumps(wanted.path).encode()


# Hubs' answers.


def _hub_answer(data: bytes) -> Any:
    status, *lines = data.decode("latin-1").split("\n")
    pairs = (line.partition(": ") for line in lines)
    headers = {name.lower(): value for name, _, value in pairs}
    facts = hub_answers.file_facts(len(status) * 100, headers)
    return SimpleNamespace(
        facts=facts,
        next_page=hub_answers.next_page(headers),
        span=hub_answers.content_range(headers),
    )


def _are_facts(_data: bytes, found: Any) -> None:
    assert found.facts.size is None or 0 <= found.facts.size < 10**20
    assert len(found.facts.version) != 1
    assert ">" not in found.next_page


def _hub_documents(data: bytes) -> Any:
    if data.startswith(b"["):
        return hub_answers.files_of(data)
    return hub_answers.commit_of(data)


def _are_files(_data: bytes, found: Any) -> None:
    for file in found if isinstance(found, tuple | list) else ():
        assert file.size >= 0
        file.path.encode()


HUB = HubRequests(
    Volume("hub", "hf://org/name", {"redirect_hosts": ".cdn.co"}),
    endpoint="https://huggingface.co",
    token="t",
    limits=OriginLimits(),
)


def _redirect(data: bytes) -> str:
    headers = {"location": data.decode("latin-1")}
    return HUB._next("https://huggingface.co/a/b", hub_http.Answer(302, headers, bytearray()), "p")


def _leads_where_it_may(_data: bytes, url: str) -> None:
    parts = urlsplit(url)
    assert parts.hostname == "huggingface.co" or (parts.hostname or "").endswith(".cdn.co")
    assert parts.port is None or 0 < parts.port < 65_536
    assert HUB.is_hub(url) or parts.scheme == "https"


TREE = json.dumps(
    [
        {"type": "file", "path": "a/b", "size": 5, "oid": "ab" * 20},
        {"type": "file", "path": "c", "size": 5, "oid": "x", "lfs": {"oid": "sha256:" + "a" * 64}},
        {"type": "directory", "path": "d"},
    ]
).encode()

TARGETS: tuple[AnyTarget, ...] = (
    Target(
        "s3-targets",
        "penstock_node.serve.s3.addressing penstock_node.serve.s3.exchange",
        _s3_target,
        (S3Error,),
        _is_served,
        seeds=[
            b"GET /bucket/key%20x?partNumber=1\nhost: h:1",
            b"GET /k?versionId\nhost: bucket.s3.local",
            b"GET http://h/bucket/k\nhost: h",
        ],
        words=[
            b"?",
            b"&",
            b"%",
            b"%25",
            b"%C3%A9",
            b"+",
            b"host: ",
            b".s3.local",
            b"http://",
            b"/",
        ],
    ),
    Target(
        "s3-signatures",
        "penstock_node.serve.s3.sigv4 penstock_node.serve.s3.access",
        _signature,
        (S3Error,),
        _is_let_in_with_the_secret_alone,
        seeds=[_signed(SIGNED), _signed(PRESIGNED), _signed(SIGNED.replace(b"?x=y", b"?a+b=%20"))],
        words=[
            *(b"SignedHeaders=", b"Credential=", b"Signature=", b";host", b"X-Amz-Date=", b"\n"),
            *(b"X-Amz-Expires=", b"X-Amz-SignedHeaders=", b"x-amz-date: ", b"20261231T120000Z"),
            *(b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD", b"UNSIGNED-PAYLOAD", b"0" * 64, b"%2F"),
        ],
        mend=_signed,
    ),
    Target(
        "s3-conditions",
        "penstock_node.serve.s3.conditions",
        _conditions,
        (S3Error,),
        _is_within,
        seeds=[
            b'GET /\nrange: bytes=0-5\nif-match: "etag"',
            b"GET /\nif-modified-since: Thu, 31 Dec 2026 12:00:00 GMT\nrange: bytes=-5",
            b'GET /\nif-none-match: W/"x", *\nif-range: "etag"',
            b"1 /\nif-unmodified-since: Thu, 31 Dec 2026 12:00:00 +0100",
        ],
        words=[b"range: bytes=", b"if-range: ", b"if-modified-since: ", b"99999999999999", b"-"],
        bytes_max=1024,
    ),
    Target(
        "s3-listings",
        "penstock_node.serve.s3.listing penstock_node.serve.s3.listing_xml penstock_node.key_pages",
        _listing,
        (S3Error,),
        _is_a_document,
        seeds=[
            b"GET /b?list-type=2&prefix=a&delimiter=%2F&max-keys=1",
            b"GET /b?list-type=2&continuation-token=YS9i&encoding-type=url&start-after=x",
            b"GET /b?marker=a&max-keys=2&delimiter=b",
        ],
        words=[
            *(b"&prefix=", b"&delimiter=", b"&max-keys=", b"&continuation-token=", b"&marker="),
            *(b"&encoding-type=url", b"&list-type=2", b"%00", b"%F4%8F%BF%BF", b"%ED%9F%BF"),
        ],
        bytes_max=1024,
    ),
    Target(
        "hub-requests",
        "penstock_node.serve.hub.requests penstock_node.serve.hub.access "
        "penstock_node.serve.hub.errors",
        _is_answered,
        (HubError, S3Error),
        _is_a_place,
        seeds=[
            b"GET /hf/api/models/org/name/tree/main/sub%2Fx\nauthorization: Bearer "
            + token_of(HUB_KEY).encode(),
            b"GET /hf/org/name/resolve/main/a/b\nauthorization: bearer AKID.0",
            b"POST /hf/api/models/o/n/paths-info/main\ncontent-type: application/json\n"
            b"authorization: Bearer " + token_of(HUB_KEY).encode() + b'\n\n{"paths": ["a", "b"]}',
            b"POST /hf/api/models/o/n/paths-info/main\n\npaths=a&paths=b&expand=true",
        ],
        words=[b"/hf/", b"%2F", b"%0d%0a", b"resolve", b"/..", b"paths=", b"[", b'{"paths": ["'],
    ),
    Target(
        "hub-answers",
        "penstock_node.origin.hub_answers",
        _hub_answer,
        (),
        _are_facts,
        seeds=[
            b'22\netag: W/"abc"\ncontent-length: 5\nx-repo-commit: ' + b"ab" * 20,
            b'333\nx-linked-etag: "x"\nx-linked-size: 7',
            b'22\ncontent-range: bytes 0-5/7\nlink: <http://h/a,b>; rel="next", <x>; rel=prev',
        ],
        words=[b"link: ", b"<", b">; rel=next", b"content-range: bytes ", b"content-length: "],
    ),
    Target(
        "hub-redirects",
        "penstock_node.origin.hub_requests",
        _redirect,
        (PenstockError,),
        _leads_where_it_may,
        seeds=[b"https://x.cdn.co/a?b", b"/c/d", b"//huggingface.co:443/x", b"https://u@h/"],
        words=[
            b"//",
            b"https://",
            b"http://",
            b":",
            b"[",
            b"]",
            b"@",
            b".cdn.co",
            b"\\",
            b"#",
            b"?",
        ],
        bytes_max=512,
    ),
    Target(
        "hub-documents",
        "penstock_node.origin.hub_answers penstock.json_text",
        _hub_documents,
        (hub_answers.BadAnswer,),
        _are_files,
        seeds=[TREE, json.dumps({"sha": "ab" * 20}).encode()],
        words=[b"type", b"file", b"path", b"size", b"oid", b"lfs", b"sha"],
        mutate=mutate_json,
    ),
)

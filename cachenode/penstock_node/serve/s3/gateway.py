"""The gateway: from requests to the operations that answer them.

Responsible for: which operations there are, letting callers in, and saying what is not served.
Not responsible for: HTTP itself (`transport.http`), each operation (`objects`, `listing`).

It reads and never writes. A request is taken on a worker of the engine; what is at hand is
answered there, and what has to be waited for on the event loop.
"""

import asyncio
import functools
import socket
from collections.abc import Callable
from http import HTTPStatus
from typing import Final, TypeAlias

import structlog

from penstock.bulk_http import TRACEPARENT
from penstock.errors import NotPermitted, PenstockError
from penstock.volumes import penstock_url
from penstock_node.cluster import Cluster
from penstock_node.listing import Listings
from penstock_node.metrics import NodeMetrics
from penstock_node.opening import Opener
from penstock_node.serve.http_counts import HttpCounts
from penstock_node.serve.own_names import OwnNames
from penstock_node.serve.s3.access import Access
from penstock_node.serve.s3.addressing import Target, bucket_in_host, parse_target
from penstock_node.serve.s3.body import ChunkReads, Sending
from penstock_node.serve.s3.buckets import IN_HOST_HINT, Bucket, bucket_names, find_bucket
from penstock_node.serve.s3.errors import S3Error, in_s3_words, not_implemented
from penstock_node.serve.s3.exchange import Exchange, error_reply, new_request_id
from penstock_node.serve.s3.listing import BucketListing
from penstock_node.serve.s3.listing_xml import bucket_list, bucket_location
from penstock_node.serve.s3.objects import Answer, Objects
from penstock_node.serve.s3.recent import RecentOpens
from penstock_node.serve.traced import traced
from penstock_node.traces import Traces
from penstock_node.transport.http import HttpRequest, HttpSession
from penstock_node.transport.reply import Outcome, Reply

ANSWER_S = 60.0
"""Longest until an answer begins."""
REGION: Final = "us-east-1"
"""What clients are told. Signatures of any region are taken."""
SERVED = (
    "HeadObject, GetObject, ListObjectsV2, ListObjects, ListBuckets, HeadBucket and "
    "GetBucketLocation"
)

OTHER: Final = "Other"
"""What all operations are counted under that are not served."""
_METHODS = ("GET", "HEAD")
# A query that names one of these asks for something else than the object or the list of keys.
_OTHER_OPERATIONS = (
    "abac accelerate acl analytics attributes cors encryption intelligent-tiering inventory "
    "legal-hold lifecycle logging metadataConfiguration metadataTable metrics notification "
    "object-lock ownershipControls policy policyStatus publicAccessBlock renameObject replication "
    "requestPayment restore retention select session tagging torrent uploadId uploads versionId "
    "versioning versions website"
)
_SUBRESOURCES = frozenset(_OTHER_OPERATIONS.split())
_OF_BUCKETS = frozenset({"delimiter", "list-type", "location", "marker", "max-keys", "start-after"})

Others: TypeAlias = Callable[[HttpRequest, str], Outcome | None]
"""Answers a request from an address; None: it is S3's after all."""

_log = structlog.get_logger("penstock.s3")


class S3Gateway:
    """Serves the cluster's volumes to S3's clients; see the module."""

    def __init__(
        self,
        *,
        cluster: Cluster,
        opener: Opener,
        listings: Listings,
        reads: ChunkReads,
        metrics: NodeMetrics,
        traces: Traces,
        access: Access,
        names: OwnNames | None,
        domain: str,
        loop: asyncio.AbstractEventLoop,
        others: Others = lambda request, peer: None,
    ) -> None:
        """Put the parts together.

        Args:
            cluster: Its volumes.
            opener: Opens objects.
            listings: Lists volumes.
            reads: Chunks for this machine's readers, whoever owns them.
            metrics: What is counted.
            traces: What requests do that are traced.
            access: Who may read.
            names: Those that requests may come by; None: any.
            domain: Below which hosts are named for buckets; empty: path style alone.
            loop: Where whatever takes time runs.
            others: Asked first, but where the host names a bucket: answers what is not S3's,
                and looks at names itself.
        """
        self._counts = HttpCounts("s3", registry=metrics.registry)
        self._others = others
        self._cluster = cluster
        self._traces = traces
        self._access, self._names = access, names
        self._domain = domain
        self._loop = loop
        self._objects = Objects(
            RecentOpens(opener), Sending(reads=reads, metrics=metrics, loop=loop)
        )
        self._listing = BucketListing(listings)

    def open_session(self, sock: socket.socket) -> HttpSession:
        """Return what speaks on a new connection: see `Engine.listen`."""
        try:
            peer = str(sock.getpeername()[0])
        except (OSError, IndexError):  # Gone again, or of no address.
            peer = ""
        return HttpSession(functools.partial(self._traced, peer=peer), refuse=_refuse_malformed)

    def _traced(self, request: HttpRequest, *, peer: str) -> Outcome:
        traceparent = request.headers.get(TRACEPARENT, "")
        answer = functools.partial(self._answer, request, peer=peer)
        return traced(self._traces, traceparent, answer, plane="s3")

    def _answer(self, request: HttpRequest, *, peer: str) -> Outcome:
        """Answer one request; on a worker's thread. See `transport.http.Handler`."""
        host = request.headers.get("host", "")
        if not bucket_in_host(host, self._domain):
            other = self._others(request, peer)
            if other is not None:
                return other
        request_id = new_request_id()
        try:
            self._check_name(host)
            target = parse_target(request.target, host=host, domain=self._domain)
        except (S3Error, PenstockError) as error:
            refused = self._refused(error, request, request_id)
            return self._counts.counted(refused, operation=OTHER)
        outcome = self._answered(request, target, peer=peer, request_id=request_id)
        return self._counts.counted(outcome, operation=_operation(request.method, target))

    def _check_name(self, host: str) -> None:
        if self._names is None:
            return
        try:
            self._names.check(host)
        except NotPermitted as error:
            raise NotPermitted(f"{error}; {IN_HOST_HINT}") from None

    def _answered(
        self, request: HttpRequest, target: Target, *, peer: str, request_id: str
    ) -> Outcome:
        try:
            answer = self._begin(request, target, peer=peer, request_id=request_id)
        except (S3Error, PenstockError) as error:
            return self._refused(error, request, request_id)
        if isinstance(answer, Reply):
            return answer
        return asyncio.run_coroutine_threadsafe(
            self._finished(answer, request, request_id), self._loop
        )

    async def _finished(self, answer: Answer, request: HttpRequest, request_id: str) -> Reply:
        assert not isinstance(answer, Reply), "a reply is sent at once"
        try:
            async with asyncio.timeout(ANSWER_S):
                return await answer
        except (S3Error, PenstockError) as error:
            return self._refused(error, request, request_id)
        except TimeoutError:
            late = S3Error(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "ServiceUnavailable",
                f"nothing came within {ANSWER_S:.0f} s; try again later",
            )
            return self._refused(late, request, request_id)

    def _begin(self, request: HttpRequest, target: Target, *, peer: str, request_id: str) -> Answer:
        if request.method not in _METHODS:
            raise _read_only(request.method)
        caller = self._access.admit(request, target, peer=peer)
        exchange = Exchange(request, target, caller, request_id)
        _refuse_other_operations(target)
        if not target.bucket:
            return self._service(exchange)
        bucket = find_bucket(self._cluster.volumes, target.bucket, caller)
        if not target.key:
            return self._bucket(exchange, bucket)
        location = bucket.locate(target.key)
        return self._objects.answer(exchange, penstock_url(location.volume.name, location.path))

    def _service(self, exchange: Exchange) -> Answer:
        if exchange.target.key:
            raise S3Error(HTTPStatus.BAD_REQUEST, "InvalidBucketName", "write /BUCKET/KEY")
        _refuse_keys_of_no_bucket(exchange.target)
        prefix = exchange.target.get("prefix")
        names = bucket_names(self._cluster.volumes, exchange.caller)
        return exchange.document(bucket_list(name for name in names if name.startswith(prefix)))

    def _bucket(self, exchange: Exchange, bucket: Bucket) -> Answer:
        if exchange.is_head:
            return exchange.empty(HTTPStatus.OK, [("x-amz-bucket-region", REGION)])
        if "location" in exchange.target:
            return exchange.document(bucket_location())
        return self._listing.answer(exchange, bucket)

    def _refused(
        self, error: S3Error | PenstockError, request: HttpRequest, request_id: str
    ) -> Reply:
        told = error if isinstance(error, S3Error) else in_s3_words(error)
        if told.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            _log.info("a request failed", request=request_id, code=told.code, why=str(told))
        return error_reply(
            told,
            resource=request.target.partition("?")[0],
            request_id=request_id,
            is_head=request.method == "HEAD",
        )


def _operation(method: str, target: Target) -> str:
    """Return what S3 calls the operation that is asked for, if it is one that is served."""
    is_head = method == "HEAD"
    if method not in _METHODS or _asked_otherwise(target):
        return OTHER
    if not target.bucket:
        return "ListBuckets"
    if target.key:
        return "HeadObject" if is_head else "GetObject"
    if is_head:
        return "HeadBucket"
    return "GetBucketLocation" if "location" in target else "ListObjects"


def _asked_otherwise(target: Target) -> list[str]:
    """Return what of a query asks for an operation that is not served."""
    return sorted(_SUBRESOURCES.intersection(name for name, _ in target.query))


def _refuse_keys_of_no_bucket(target: Target) -> None:
    """Refuse a client that puts its bucket into a host that is not below ``s3_domain``.

    It would take the list of buckets for a list of no keys.
    """
    asked = sorted(_OF_BUCKETS.intersection(name for name, _ in target.query))
    if asked:
        raise S3Error(
            HTTPStatus.BAD_REQUEST,
            "InvalidBucketName",
            f"?{asked[0]} is asked of a bucket, and none is named: {IN_HOST_HINT}",
        )


def _refuse_other_operations(target: Target) -> None:
    other = _asked_otherwise(target)
    if other:
        raise not_implemented(f"?{other[0]} is not served here; this gateway serves {SERVED}")


def _read_only(method: str) -> S3Error:
    return S3Error(
        HTTPStatus.METHOD_NOT_ALLOWED,
        "MethodNotAllowed",
        f"{method}: this gateway only reads ({SERVED}); write to the volume's origin",
    )


def _refuse_malformed(status: HTTPStatus, reason: str) -> Reply:
    """Refuse what is no request that can be answered; its connection ends."""
    if status in (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.LENGTH_REQUIRED):
        error = _read_only("a request with a body")
    else:
        code = "NotImplemented" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "InvalidRequest"
        error = S3Error(status, code, reason)
    return error_reply(error, resource="", request_id=new_request_id(), is_head=False, ends=True)

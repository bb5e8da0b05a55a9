"""What a catalog answers on its admin port: health, metrics, and stores that tell of changes.

Responsible for: who may tell, how much at once, and the answers.
Not responsible for: what becomes of it (`events`).
"""

import asyncio
import base64
import binascii
import hmac
from dataclasses import asdict
from http import HTTPStatus

from prometheus_client import CollectorRegistry, Counter
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from penstock.credentials import is_loopback
from penstock.errors import NoSpace, NotPermitted, PenstockError, Retryable
from penstock_node.catalog_server.events import Events
from penstock_node.serve.admin import shared_routes
from penstock_node.serve.door import Door

EVENTS_PATH = "/events"
BODY_BYTES_MAX = 1024 * 1024
BODY_TIMEOUT_S = 10.0
REQUESTS_MAX = 64
"""Bodies at once: so many are in memory."""
RETRY_AFTER_S = 5


class EventsEndpoint:
    """Takes what is posted. On one event loop."""

    def __init__(
        self, events: Events | None, *, token: str, mirror_of: str, registry: CollectorRegistry
    ) -> None:
        """Take nothing yet.

        Args:
            events: Hears it; None: this catalog is a mirror.
            token: What senders have to show; empty: only this machine may send.
            mirror_of: Whose mirror.
            registry: Has the counter.
        """
        self._events, self._token, self._mirror_of = events, token, mirror_of
        self._open = 0
        self._counter = Counter(
            "penstock_catalog_event_requests",
            "Requests that tell of events, by the status of the answer.",
            labelnames=("status",),
            registry=registry,
        )

    async def __call__(self, request: Request) -> Response:
        """Answer, when what the body names is noted."""
        response = await self._answer(request)
        self._counter.labels(status=str(response.status_code)).inc()
        return response

    async def _answer(self, request: Request) -> Response:
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal
        if self._open >= REQUESTS_MAX:
            return _later(f"{REQUESTS_MAX} bodies are looked into")
        self._open += 1
        try:
            return await self._take(request)
        except (Retryable, NoSpace) as error:
            return _later(str(error))
        except PenstockError as error:
            return _refused(error.http_status, str(error))
        finally:
            self._open -= 1

    async def _take(self, request: Request) -> Response:
        if self._events is None:
            raise NotPermitted(
                f"this catalog mirrors the one at {self._mirror_of}: have events sent there"
            )
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                body = await _body(request)
        except TimeoutError:
            return _refused(HTTPStatus.REQUEST_TIMEOUT, f"no body within {BODY_TIMEOUT_S:.0f} s")
        except ClientDisconnect:
            return _refused(HTTPStatus.BAD_REQUEST, "the body ends early")
        if body is None:
            return _refused(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body has at most {BODY_BYTES_MAX} bytes"
            )
        return JSONResponse(asdict(await self._events.take(body)))

    def _refusal(self, request: Request) -> Response | None:
        if not self._token:
            host = request.client.host if request.client else ""
            if host and is_loopback(host):
                return None
            return _refused(
                HTTPStatus.FORBIDDEN,
                "without events_token in the catalog's configuration only its own machine is "
                'heard; set events_token = { env = "NAME" } or { file = "PATH" } there',
            )
        shown = _shown_token(request.headers.get("authorization", ""))
        if hmac.compare_digest(shown, self._token.encode()):
            return None
        refused = _refused(
            HTTPStatus.UNAUTHORIZED,
            "send the catalog's events_token, as Authorization: Bearer TOKEN, or as a password",
        )
        # SNS shows a password only where it is asked for one.
        refused.headers["WWW-Authenticate"] = 'Basic realm="penstock"'
        return refused


def catalog_app(registry: CollectorRegistry, *, door: Door, events: EventsEndpoint) -> Starlette:
    """Return what a catalog answers.

    Args:
        registry: For ``/metrics``.
        door: Who is shown metrics.
        events: For ``/events``.
    """

    async def post(request: Request) -> Response:
        return await events(request)

    shared = shared_routes(registry, door=door)
    return Starlette(routes=[*shared, Route(EVENTS_PATH, post, methods=["POST"])])


async def _body(request: Request) -> bytes | None:
    """Return a request's body; None: it is too large."""
    parts, size = list[bytes](), 0
    async for part in request.stream():
        size += len(part)
        if size > BODY_BYTES_MAX:
            return None
        parts.append(part)
    return b"".join(parts)


def _shown_token(authorization: str) -> bytes:
    scheme, _, value = authorization.partition(" ")
    value = value.strip()
    match scheme.lower():
        case "bearer":
            return value.encode("latin-1")  # As it came.
        case "basic":
            try:
                return base64.b64decode(value, validate=True).partition(b":")[2]
            except (binascii.Error, ValueError):
                return b""
    return b""


def _refused(status: HTTPStatus, reason: str) -> Response:
    return JSONResponse({"error": reason}, status_code=status)


def _later(reason: str) -> Response:
    response = _refused(HTTPStatus.SERVICE_UNAVAILABLE, f"{reason}; send it again")
    response.headers["Retry-After"] = str(RETRY_AFTER_S)
    return response

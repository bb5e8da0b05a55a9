"""GetObject and HeadObject.

Responsible for: opening the object, its conditions and ranges, the head of the answer, and
opening it anew when it was overwritten before anything was sent.
Not responsible for: the bytes behind the head (`body`), who may read (`buckets`).
"""

from collections.abc import Coroutine
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeAlias

from penstock.errors import ObjectChanged
from penstock.object_info import OpenedObject
from penstock_node.serve.s3.body import Body, Sending
from penstock_node.serve.s3.conditions import (
    etag_of,
    http_date,
    is_not_modified,
    modified_of,
    wanted_range,
)
from penstock_node.serve.s3.exchange import Exchange
from penstock_node.serve.s3.recent import RecentOpens
from penstock_node.transport.reply import Part, Reply

Answer: TypeAlias = Reply | Coroutine[Any, Any, Reply]
"""An answer, or what makes it on the event loop."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """An answer's head, and which bytes follow it."""

    status: HTTPStatus
    headers: list[tuple[str, str]]
    start: int = 0
    stop: int = 0


class Objects:
    """Answers requests for objects."""

    def __init__(self, opens: RecentOpens, sending: Sending) -> None:
        self._opens = opens
        self._sending = sending

    def answer(self, exchange: Exchange, url: str) -> Answer:
        """Answer at once where all is at hand; on a worker's thread."""
        known = self._opens.recall(url)
        reply = None if known is None else self._at_once(exchange, known)
        return reply or self._opened(exchange, url)

    def _at_once(self, exchange: Exchange, opened: OpenedObject) -> Reply | None:
        plan = _plan(exchange, opened)
        if plan.start == plan.stop:
            return exchange.empty(plan.status, plan.headers)
        body = Body(opened, plan.start, plan.stop, sending=self._sending)
        part = body.first_at_hand()
        return None if part is None else _reply(exchange, plan, body, part)

    async def _opened(self, exchange: Exchange, url: str) -> Reply:
        opened = await self._opens.open(url, refresh=False)
        try:
            return await self._begun(exchange, opened)
        except ObjectChanged:
            # Nothing is sent yet: the newer version will do, unless the client wanted this one.
            return await self._begun(exchange, await self._opens.open(url, refresh=True))

    async def _begun(self, exchange: Exchange, opened: OpenedObject) -> Reply:
        plan = _plan(exchange, opened)
        if plan.start == plan.stop:
            return exchange.empty(plan.status, plan.headers)
        body = Body(opened, plan.start, plan.stop, sending=self._sending)
        return _reply(exchange, plan, body, await body.first())


def _reply(exchange: Exchange, plan: _Plan, body: Body, first: Part) -> Reply:
    return Reply([exchange.headed(plan.status, plan.headers, more=True), first], then=body.then())


def _plan(exchange: Exchange, opened: OpenedObject) -> _Plan:
    """Return what is answered with this version of the object.

    Raises:
        S3Error: The client wants another version, or bytes that it has not.
    """
    request, size = exchange.request, opened.id.size
    headers = [
        ("ETag", etag_of(opened.id.version)),
        ("Last-Modified", http_date(modified_of(opened))),
        ("Accept-Ranges", "bytes"),
    ]
    if is_not_modified(opened, request.headers):
        return _Plan(HTTPStatus.NOT_MODIFIED, headers)
    part_number = exchange.target.get("partNumber")
    wanted = wanted_range(opened, request.headers, part_number=part_number)
    start, stop = wanted or (0, size)
    status = HTTPStatus.PARTIAL_CONTENT if wanted and size else HTTPStatus.OK
    if status is HTTPStatus.PARTIAL_CONTENT:
        headers.append(("Content-Range", f"bytes {start}-{stop - 1}/{size}"))
    headers += [
        ("Content-Type", "application/octet-stream"),
        ("Content-Length", str(stop - start)),
    ]
    return _Plan(status, headers) if exchange.is_head else _Plan(status, headers, start, stop)

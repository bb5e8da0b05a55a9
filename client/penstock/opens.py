"""Opening objects: urls to objects with tickets, believed for as long as the node says.

Responsible for: the client's short memory of opened objects, and renewing tickets.
Not responsible for: asking the origin (nodes do, one for all).
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace

from penstock import tracing
from penstock.counters import Counters
from penstock.errors import InvalidRequest, ObjectChanged, PenstockError, TicketExpired
from penstock.membership.nodes import Nodes
from penstock.object_info import OpenedObject
from penstock.open_ahead import OpenAhead
from penstock.rpc import OPEN, RENEW
from penstock.v1 import cache_pb2
from penstock.wire import error_from_proto, object_from_proto

REMEMBERED_MAX = 10_000
URLS_MAX = 1_000
"""In one request."""
RENEW_BEFORE_S = 60.0
OPEN_TIMEOUT_S = 30.0
"""For a node that asks another, which asks a slow origin: each of them is less patient."""


class Handle:
    """An opened object whose ticket is renewed as needed. Thread-safe."""

    def __init__(
        self,
        opened: OpenedObject,
        nodes: Nodes,
        *,
        reopen: Callable[[], OpenedObject] | None = None,
    ) -> None:
        """Keep ``opened``.

        Args:
            opened: The object.
            nodes: Renew its tickets.
            reopen: Opens it anew, where a ticket can be renewed no more: its key is gone. None:
                then it is `TicketExpired`.
        """
        self.opened = opened
        self._nodes, self._reopen = nodes, reopen
        self._lock = threading.Lock()

    def ticket(self) -> str:
        """Return a ticket that is good for a while yet.

        Raises:
            ObjectChanged: The version is gone.
            ClusterUnavailable: No node renews it.
        """
        opened = self.opened
        if opened.ticket_expires_at - RENEW_BEFORE_S > time.time():
            return opened.ticket
        return self.renew(opened.ticket)

    def renew(self, expired: str) -> str:
        """Return a ticket other than ``expired``; of several threads one asks for it.

        Raises:
            ObjectChanged: The version is gone.
            ClusterUnavailable: No node renews it.
        """
        with self._lock:
            if self.opened.ticket == expired:
                try:
                    self.opened = self._renewed(expired)
                except TicketExpired:
                    if self._reopen is None:
                        raise
                    self.opened = self._same(self._reopen())
            return self.opened.ticket

    def _renewed(self, expired: str) -> OpenedObject:
        answer = self._nodes.call(RENEW, cache_pb2.RenewRequest(ticket=expired))
        return replace(
            self.opened, ticket=answer.ticket, ticket_expires_at=answer.ticket_expires_at
        )

    def _same(self, opened: OpenedObject) -> OpenedObject:
        if opened.id != self.opened.id:
            raise ObjectChanged(f"{self.opened.url} was overwritten while it was read; open it")
        return opened


class Opens:
    """Opens objects through any node, and remembers each for as long as it is fresh."""

    def __init__(self, nodes: Nodes, *, counters: Counters | None = None) -> None:
        self._nodes = nodes
        self._counters = counters or Counters()
        self.ahead = OpenAhead()
        self.opened = 0
        """Objects so far, those that were known among them."""
        self._lock = threading.Lock()
        self._remembered: OrderedDict[str, tuple[float, OpenedObject]] = OrderedDict()

    def open(self, url: str, *, refresh: bool = False) -> Handle:
        """Return the object at ``url``; with ``refresh`` the origin is asked again.

        Raises:
            ObjectNotFound: There is no such object.
            NotPermitted: It lies outside every volume.
            OriginUnavailable: The origin does not answer and nothing is known of it.
            ClusterUnavailable: No node answers.
        """
        known = self._recall(url, refresh=refresh)
        if known is not None:
            return self._handle(url, known)
        urls = [url] if refresh else self.ahead.from_here(url)
        result, *_ = self._ask(urls, refresh=refresh)
        if isinstance(result, PenstockError):
            self._counters.add("errors", result.name)
            raise result
        return self._handle(url, result)

    def _handle(self, url: str, opened: OpenedObject) -> Handle:
        return Handle(opened, self._nodes, reopen=lambda: self._opened_anew(url))

    def _opened_anew(self, url: str) -> OpenedObject:
        (result,) = self._ask([url], refresh=False)
        if isinstance(result, PenstockError):
            raise result
        return result

    def open_many(self, urls: Sequence[str]) -> list[Handle | PenstockError]:
        """Return the object, or why there is none, at each of up to `URLS_MAX` urls, in order.

        Raises:
            ClusterUnavailable: No node answers.
        """
        known = {url: self._recall(url, refresh=False) for url in urls}
        missing = [url for url, opened in known.items() if opened is None]
        asked = (
            dict(zip(missing, self._ask(missing, refresh=False), strict=True)) if missing else {}
        )
        results = [known[url] or asked[url] for url in urls]
        for result in results:
            if isinstance(result, PenstockError):
                self._counters.add("errors", result.name)
        return [
            result if isinstance(result, PenstockError) else self._handle(url, result)
            for url, result in zip(urls, results, strict=True)
        ]

    def _recall(self, url: str, *, refresh: bool) -> OpenedObject | None:
        with self._lock:
            self.opened += 1
            fresh_until, opened = self._remembered.get(url, (0.0, None))
        return opened if fresh_until > time.monotonic() and not refresh else None

    def _ask(self, urls: Sequence[str], *, refresh: bool) -> list[OpenedObject | PenstockError]:
        if len(urls) > URLS_MAX:
            raise InvalidRequest(f"{len(urls)} urls in one request: at most {URLS_MAX}")
        asked_at = time.monotonic()
        try:
            with tracing.span("open", urls=len(urls)) as span:
                response = self._nodes.call(
                    OPEN,
                    cache_pb2.OpenRequest(
                        urls=urls, refresh=refresh, traceparent=tracing.traceparent()
                    ),
                    timeout_s=OPEN_TIMEOUT_S,
                    span=span,
                )
        except PenstockError as error:
            self._counters.add("errors", error.name)
            raise
        finally:
            self._counters.add("open_requests")
            self._counters.add("open_s", by=time.monotonic() - asked_at)
        assert len(response.results) == len(urls), "one result per url"
        return [
            self._take(url, result, asked_at)
            for url, result in zip(urls, response.results, strict=True)
        ]

    def _take(
        self, url: str, result: cache_pb2.OpenResult, asked_at: float
    ) -> OpenedObject | PenstockError:
        if result.WhichOneof("result") == "error":
            self.forget(url)
            return error_from_proto(result.error)
        opened = object_from_proto(result.object)
        with self._lock:
            self._remember(url, opened, asked_at)
        return opened

    def _remember(self, url: str, opened: OpenedObject, asked_at: float) -> None:
        self._remembered[url] = (asked_at + opened.fresh_for_s, opened)
        self._remembered.move_to_end(url)
        if len(self._remembered) > REMEMBERED_MAX:
            self._remembered.popitem(last=False)

    def was_put(self, opened: OpenedObject) -> None:
        """Believe ``opened``, and nothing else of that object by whatever url it was opened."""
        with self._lock:
            known = list(self._remembered.items())
            for url, (_, other) in known:
                if other.id.key == opened.id.key:
                    del self._remembered[url]
            self._remember(opened.url, opened, time.monotonic())

    def forget(self, url: str) -> None:
        """Believe no longer what is known of ``url``."""
        with self._lock:
            self._remembered.pop(url, None)

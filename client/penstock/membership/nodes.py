"""Views of the cluster, asked from its nodes: what a client without etcd knows.

Responsible for: reaching any node that answers, and keeping `Routing` up to date.
Unary calls only and no thread of its own: a new epoch is learnt from the answers to reads,
and a slow poll happens on the way of other calls.
"""

import contextlib
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from penstock import tracing
from penstock.errors import ClusterUnavailable, NodeUnavailable, PenstockError
from penstock.membership.view import Member, View
from penstock.routing import Routing
from penstock.rpc import (
    CALL_TIMEOUT_S,
    GET_PLACEMENT,
    GET_TRACE,
    LIST,
    OPEN,
    RENEW,
    Method,
    Request,
    Response,
)
from penstock.v1 import placement_pb2
from penstock.wire import view_from_proto

POLL_S = 10.0
"""A view older than this is asked for again, at the next call: a node that came back within its
grace moves no epoch, and is heard of only so. 10,000 clients ask 1,000 nodes once a second each."""
NODES_TRIED_MAX = 8
VIEW_TIMEOUT_S = 3.0


READING = frozenset({OPEN, RENEW, LIST, GET_PLACEMENT, GET_TRACE})
"""What a program that reads calls: answered without gRPC too."""


class Caller(Protocol):
    """One way to call a node's methods."""

    def call(
        self,
        address: str,
        method: Method[Request, Response],
        request: Request,
        *,
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> Response:
        """Call ``method`` of the node at ``address``; see `penstock.rpc.Channels.call`."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a node is called, and how."""

    caller: Caller
    address: str


class Nodes:
    """The nodes of a cluster, reached through the first that answers. Thread-safe."""

    def __init__(
        self,
        seeds: Sequence[Endpoint],
        *,
        channels: Caller,
        bulk: Caller | None,
        routing: Routing,
        rng: random.Random | None = None,
    ) -> None:
        """Know nothing yet.

        Args:
            seeds: Where to begin.
            channels: Calls any method.
            bulk: Calls the methods of `READING` at bulk ports; None: only ``channels`` may.
            routing: Kept up to date.
            rng: Spreads load.
        """
        assert seeds, "no address to begin with"
        self._seeds = tuple(seeds)
        self._channels = channels
        self._bulk = bulk
        self._routing = routing
        self._rng = rng or random.Random()  # noqa: S311 - spreads load, guards nothing
        self._lock = threading.Lock()
        self._last_good: dict[bool, Endpoint] = {}
        self._members_digest = 0
        self._poll_at = 0.0

    def call(
        self,
        method: Method[Request, Response],
        request: Request,
        *,
        timeout_s: float = CALL_TIMEOUT_S,
        span: tracing.Span = tracing.NO_SPAN,
    ) -> Response:
        """Call ``method`` of any node that answers.

        Args:
            method: Of those that the node has.
            request: Its message.
            timeout_s: For each node that is tried.
            span: Told who answered, and who did not.

        Raises:
            ClusterUnavailable: None of those tried answers.
            PenstockError: What a node reported.
        """
        failures: list[str] = []
        for endpoint in self._endpoints(method)[:NODES_TRIED_MAX]:
            try:
                response = endpoint.caller.call(
                    endpoint.address, method, request, timeout_s=timeout_s
                )
            except NodeUnavailable as error:
                span.note(silent=endpoint.address)
                failures.append(str(error))
            else:
                span.note(asks=endpoint.address)
                self._last_good[method in READING] = endpoint
                return response
        raise ClusterUnavailable(
            f"no node answers; start one, or correct the address. Tried: {'; '.join(failures)}"
        )

    def ask(
        self,
        member: Member,
        method: Method[Request, Response],
        request: Request,
        *,
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> Response:
        """Call ``method`` of one node; raises as `Caller.call`."""
        endpoint = self._endpoint(member, is_reading=method in READING)
        return endpoint.caller.call(endpoint.address, method, request, timeout_s=timeout_s)

    def _endpoints(self, method: Method[Any, Any]) -> list[Endpoint]:
        """Return where to ask, the best first: the last that answered, members, seeds."""
        is_reading = method in READING
        seeds = [seed for seed in self._seeds if is_reading or seed.caller is self._channels]
        view = self._routing.view if is_reading or seeds else self.view()
        members = list(view.members.values()) if view else []
        self._rng.shuffle(members)
        members.sort(key=lambda member: self._routing.is_suspected(member.id))
        known = [self._endpoint(member, is_reading=is_reading) for member in members]
        last = [self._last_good[is_reading]] if is_reading in self._last_good else []
        found = dict.fromkeys((*last, *known, *seeds))
        return [endpoint for endpoint in found if endpoint.address]

    def _endpoint(self, member: Member, *, is_reading: bool) -> Endpoint:
        if is_reading and self._bulk is not None and member.bulk_address:
            return Endpoint(self._bulk, member.bulk_target)
        return Endpoint(self._channels, member.grpc_address)

    def view(self) -> View:
        """Return the view, asked for at the first call and slowly polled after.

        Raises:
            ClusterUnavailable: No node answers, and none ever did.
        """
        view = self._routing.view
        if view is None or time.monotonic() > self._poll_at:
            try:
                self.refresh(beyond_epoch=None)
            except ClusterUnavailable:
                if view is None:
                    raise
        view = self._routing.view
        assert view is not None, "a refresh gives a view or raises"
        return view

    def poll_is_due(self) -> bool:
        """Tell, once, that the view should be asked for again: the caller does, or has it done."""
        now = time.monotonic()
        if now <= self._poll_at or self._routing.view is None:
            return False
        if not self._lock.acquire(blocking=False):
            return False  # Another asks at this moment.
        try:
            is_due, self._poll_at = now > self._poll_at, max(self._poll_at, now + POLL_S)
            return is_due
        finally:
            self._lock.release()

    def poll_soon(self) -> None:
        """Have the next caller of `poll_is_due` poll: a node has told of a newer placement."""
        self._poll_at = 0.0

    def poll(self) -> None:
        """Ask for the view, if anybody answers."""
        with contextlib.suppress(PenstockError):
            self.refresh(beyond_epoch=None)

    def refresh(self, *, beyond_epoch: int | None) -> None:
        """Ask for a newer view; of several threads one asks and the rest use its answer.

        Args:
            beyond_epoch: Do nothing if a later epoch is known already. None always asks.

        Raises:
            ClusterUnavailable: No node answers.
        """
        with self._lock:
            view = self._routing.view
            if view and beyond_epoch is not None and view.placement.epoch > beyond_epoch:
                return
            self._ask(view)

    def _ask(self, view: View | None) -> None:
        request = placement_pb2.GetPlacementRequest()
        if view:
            request.cluster_uid = view.placement.cluster_uid
            request.epoch = view.placement.epoch
            request.members_digest = self._members_digest
        response = self.call(GET_PLACEMENT, request, timeout_s=VIEW_TIMEOUT_S)
        self._poll_at = time.monotonic() + POLL_S * self._rng.uniform(0.75, 1.25)
        if not response.unchanged:
            self._members_digest = response.members_digest
            self._routing.update(view_from_proto(response))

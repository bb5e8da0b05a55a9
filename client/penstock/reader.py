"""Reading: a byte range of an object, chunk by chunk, into the caller's memory.

Responsible for: workers that take pieces in batches, ask whoever should have them, and ask
again elsewhere when a node fails. Bytes land in place; nothing unverified is reported as read.
Not responsible for: moving bytes (planes), choosing owners (`routing`), what follows from a
failure (`attempt`), opening (`opens`).
"""

import contextlib
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from penstock import tracing
from penstock.attempt import PIECE_TIMEOUT_S, Attempt
from penstock.counters import Counters, add_to_all
from penstock.deadline import Deadline
from penstock.errors import ClusterUnavailable, PenstockError
from penstock.hedging import HedgeBudget
from penstock.load import BATCH_LOCAL_MAX, BATCH_MAX, Load, Span, cut
from penstock.local_node import LocalNode
from penstock.membership.nodes import Nodes
from penstock.membership.view import Member
from penstock.opens import Handle
from penstock.planes.plane import Landed, Outcome, PieceRequest, Plane, ReadContext
from penstock.routing import Candidate, Routing
from penstock.sampling import Sampling
from penstock.together import work_together

if TYPE_CHECKING:
    from penstock.origin_fallback import OriginFallback

WORKERS_MAX = 16
"""Threads of one library instance that read at once."""
LOCAL_WORKERS = min(4, max(2, os.cpu_count() or 1))
"""The same for files of this machine's node: what more of them do is wait for the interpreter.
Measured on 16 processors: 9.7 GB/s with 4, 6.1 with 16."""

_Load: TypeAlias = Load[Candidate | None]


class Reader:
    """Reads ranges of opened objects from whoever has their chunks. Thread-safe."""

    def __init__(
        self,
        *,
        nodes: Nodes,
        routing: Routing,
        plane_for: Callable[[Member], Plane],
        pool: ThreadPoolExecutor,
        workers: int = WORKERS_MAX,
        local: Callable[[], LocalNode | None] = lambda: None,
        fallback: "OriginFallback | None" = None,
        sampling: Sampling | None = None,
        counters: Counters | None = None,
        polls: bool = True,
        rng: random.Random | None = None,
    ) -> None:
        """Put the parts together.

        Args:
            nodes: Renews tickets and tells newer placements.
            routing: Knows the owners.
            plane_for: Returns the fastest plane that reaches a node.
            pool: Of ``workers`` threads or more.
            workers: Threads that one read uses at most.
            local: Tells the node of this machine that is asked first, if there is one.
            fallback: Reads the origin when no node answers; None: that is an error.
            sampling: Which reads are traced though nobody follows them.
            counters: Count what is read.
            polls: Whether the view is asked for now and then; else somebody else keeps it new.
            rng: Spreads load.
        """
        self._nodes = nodes
        self._routing = routing
        self._fallback = fallback
        self._plane_for = plane_for
        self._pool = pool
        self._workers = workers
        self._polls = polls
        self._local = local
        self._rng = rng or random.Random()  # noqa: S311 - spreads load, guards nothing
        self._hedges = HedgeBudget()
        self._sampling = sampling or Sampling(0.0)
        self._counters = counters or Counters()

    def read_into(
        self,
        handle: Handle,
        buffer: memoryview,
        offset: int,
        *,
        stop: threading.Event | None = None,
        tally: Counters | None = None,
    ) -> None:
        """Fill ``buffer`` with the object's bytes from ``offset``: see `read_spans`."""
        self.read_spans(handle, [(buffer, offset)], stop=stop, tally=tally)

    def read_spans(
        self,
        handle: Handle,
        spans: Sequence[Span],
        *,
        stop: threading.Event | None = None,
        tally: Counters | None = None,
    ) -> None:
        """Fill each span's memory with the object's bytes from its offset, all at once.

        On return, also by an exception, nothing writes into them any more.

        Args:
            handle: The object; the spans lie within it.
            spans: Writable, contiguous, of bytes; and the offset of the first within the object.
            stop: Set from another thread to give up early.
            tally: Counts this read too.

        Raises:
            ObjectChanged: The object was overwritten and this version is no longer to be had.
            OriginUnavailable: A chunk is not cached and the origin does not answer.
            ClusterUnavailable: No owner of a chunk answers.
            Cancelled: ``stop`` was set.
        """
        counters = (self._counters,) if tally is None else (self._counters, tally)
        begun_at = time.monotonic()
        try:
            with self._sampling.reading(handle.opened.url):
                self._read_spans(handle, spans, stop, counters)
        except PenstockError as error:
            add_to_all(counters, "errors", error.name)
            raise
        finally:
            seconds = time.monotonic() - begun_at
            for each in counters:
                each.add_read(seconds)

    def _read_spans(
        self,
        handle: Handle,
        spans: Sequence[Span],
        stop: threading.Event | None,
        counters: Sequence[Counters],
    ) -> None:
        local = self._local()
        if self._routing.view is None and local is None:
            # Pieces are put together by their owners; without a view each is tried alone.
            with contextlib.suppress(ClusterUnavailable):
                self._nodes.view()
        if self._polls and local is None and self._nodes.poll_is_due():
            self._pool.submit(self._nodes.poll)  # Who came back moves no epoch: none tells it.
        requests = cut(handle, spans, rng=self._rng)
        is_local = local is not None and local.candidate() is not None
        wanted = min(self._workers, LOCAL_WORKERS) if is_local else self._workers
        workers = min(wanted, len(requests))
        load: _Load = Load(
            handle,
            requests,
            workers=workers,
            stop=stop or threading.Event(),
            group_of=lambda request: self._first_candidate(handle, request),
            batch_max=BATCH_LOCAL_MAX if is_local else BATCH_MAX,
            are_even=is_local,
            counters=counters,
        )
        work_together(self._pool, lambda: self._work(load), threads=workers, give_up=load.fail)
        load.check()

    def _first_candidate(self, handle: Handle, request: PieceRequest) -> Candidate | None:
        """Return whom to ask first, None if that is not known yet."""
        local = self._local()
        candidate = local.candidate() if local else None
        if candidate is not None or self._routing.view is None:
            return candidate
        return self._routing.candidate(
            handle.opened.id.chunk_id(request.index), copies=handle.opened.replicas
        )

    def _work(self, load: _Load) -> None:
        while True:
            candidate, batch = load.take()
            if not batch:
                return
            try:
                self._read_batch(load, candidate, batch)
            except BaseException as error:  # noqa: BLE001 - raised again by `check`
                load.fail(error)

    def _read_batch(
        self, load: _Load, candidate: Candidate | None, batch: list[PieceRequest]
    ) -> None:
        """Ask for all at once where one node answers for all, and for the rest one by one."""
        attempts = [self._attempt(load, request) for request in batch]
        # It was chosen a moment ago: by now the owners may be others.
        if len(batch) > 1 and candidate is not None and attempts[0].agrees(candidate):
            missing = self._read_together(load, candidate, attempts, batch)
        else:
            missing = list(zip(attempts, batch, strict=True))
        for attempt, request in missing:
            self._read_alone(load, attempt, request)

    def _attempt(self, load: _Load, request: PieceRequest) -> Attempt:
        self._hedges.earn()
        return Attempt(
            self._nodes,
            self._routing,
            load,
            request,
            local=self._local(),
            hedges=self._hedges,
            rng=self._rng,
        )

    def _read_together(
        self,
        load: _Load,
        candidate: Candidate,
        attempts: list[Attempt],
        batch: list[PieceRequest],
    ) -> list[tuple[Attempt, PieceRequest]]:
        """Return those that have not landed."""
        context = attempts[0].context(candidate)
        deadline = Deadline.after(PIECE_TIMEOUT_S * len(batch), is_over=load.is_over)
        missing: list[tuple[Attempt, PieceRequest]] = []
        plane, outcomes = self._ask(candidate, context, batch, deadline)
        for attempt, request, outcome in zip(attempts, batch, outcomes, strict=True):
            attempt.begin()  # The others of the batch took their time too.
            if attempt.settle(candidate, context, outcome):
                self._settled(load, plane, outcome, request)
            else:
                missing.append((attempt, request))
        return missing

    def _read_alone(self, load: _Load, attempt: Attempt, request: PieceRequest) -> None:
        """Ask one node after another until the piece has landed."""
        attempt.begin()
        while True:
            candidate = attempt.candidate()
            if candidate is not None:
                context = attempt.context(candidate)
                plane, (outcome,) = self._ask(candidate, context, [request], attempt.deadline)
                if attempt.settle(candidate, context, outcome):
                    self._settled(load, plane, outcome, request)
                    return
            elif self._fallback is not None:
                load.count("fallbacks")
                with tracing.span("origin", asks="origin", chunk=request.index) as span:
                    self._fallback.read(load.handle.opened, request)
                    span.add_bytes(request.stop - request.start)
                self._landed(load, "origin", "origin", request)
                return
            else:
                attempt.wait_for_cluster()

    def _ask(
        self,
        candidate: Candidate,
        context: ReadContext,
        requests: Sequence[PieceRequest],
        deadline: Deadline,
    ) -> tuple[str, list[Outcome]]:
        """Return the plane that was asked, and an outcome for each request."""
        plane = self._plane_for(candidate.member)
        outcomes: list[Outcome] = []
        for at in range(0, len(requests), plane.pieces_max):
            some = requests[at : at + plane.pieces_max]
            with (
                self._routing.standing.asking(candidate.member.id),
                tracing.span("ask", asks=candidate.member.id, plane=plane.name) as span,
            ):
                if span is not tracing.NO_SPAN:
                    context = replace(context, traceparent=tracing.traceparent())
                found = plane.read(candidate.member, context, some, deadline=deadline)
                _note(span, some, found)
            outcomes += found
        return plane.name, outcomes

    def _settled(self, load: _Load, plane: str, outcome: Outcome, request: PieceRequest) -> None:
        assert isinstance(outcome, Landed), "only a landed piece is settled"
        # By now another plane may be the fastest that reaches the node.
        self._landed(load, outcome.plane or plane, outcome.source, request)

    def _landed(self, load: _Load, plane: str, source: str, request: PieceRequest) -> None:
        load.count("bytes", plane, source, by=request.stop - request.start)
        load.landed()


def _note(
    span: tracing.Span, requests: Sequence[PieceRequest], outcomes: Sequence[Outcome]
) -> None:
    """Note on a span what was asked for, and what came of it."""
    if span is tracing.NO_SPAN:
        return
    span.note(chunks=",".join(str(request.index) for request in requests))
    for request, outcome in zip(requests, outcomes, strict=True):
        if isinstance(outcome, Landed):
            span.add_bytes(request.stop - request.start)
            span.note(source=outcome.source)
        else:
            tracing.note_error(span, outcome)

"""Reading: a byte range of an object, chunk by chunk, into the caller's memory.

Responsible for: which pieces, how many at once, whom to ask next when a node fails, and when
to give up. Bytes land in place; nothing unverified is ever reported as read.
Not responsible for: moving bytes (planes), choosing owners (`routing`), opening (`opens`).
"""

import contextlib
import itertools
import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from penstock.errors import (
    Cancelled,
    ClusterUnavailable,
    CorruptData,
    NodeUnavailable,
    NotOwner,
    Overloaded,
    PenstockError,
    TicketExpired,
)
from penstock.membership.nodes import Nodes
from penstock.membership.view import Member
from penstock.objects import Piece, pieces
from penstock.opens import Handle
from penstock.planes.plane import Deadline, Landed, Outcome, PieceRequest, Plane, ReadContext
from penstock.routing import Candidate, Routing

if TYPE_CHECKING:
    from penstock.origin_fallback import OriginFallback

WORKERS_MAX = 16
"""Threads of one library instance that read at once."""
PIECE_TIMEOUT_S = 60.0
"""Longest that one piece may take, every retry included."""
CLUSTER_TIMEOUT_S = 10.0
"""How long a piece is tried for while no owner answers."""
BACKOFF_S = 0.05
BACKOFF_MAX_S = 1.0


@dataclass
class Counters:
    """What was read, by plane and by where the node had it from; in bytes."""

    bytes: Counter[tuple[str, str]] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, plane: str, source: str, length: int) -> None:
        """Count ``length`` bytes."""
        with self.lock:
            self.bytes[plane, source] += length


class _Load:
    """One read: pieces that workers take in turn, until all are taken or one has failed."""

    def __init__(self, handle: Handle, requests: list[PieceRequest], stop: threading.Event) -> None:
        self.handle = handle
        self.stop = stop
        self._requests = iter(requests)
        self._missing = len(requests)
        self._lock = threading.Lock()
        self._failure: BaseException | None = None

    def is_over(self) -> bool:
        """Tell whether nobody waits for the pieces any more."""
        return self._failure is not None or self.stop.is_set()

    def take(self, count: int) -> list[PieceRequest]:
        """Return the next pieces, at most ``count``; none when the read is over."""
        with self._lock:
            if self.is_over():
                return []
            return list(itertools.islice(self._requests, count))

    def landed(self) -> None:
        """Count one piece as read."""
        with self._lock:
            self._missing -= 1

    def fail(self, error: BaseException) -> None:
        """End the read: other workers finish what they have in hand."""
        with self._lock:
            self._failure = self._failure or error

    def check(self) -> None:
        """Raise what ended the read early, if anything did."""
        if self._failure:
            raise self._failure
        if self.stop.is_set():
            raise Cancelled
        assert self._missing == 0, f"{self._missing} pieces were never read"


class Reader:
    """Reads ranges of opened objects from the nodes that own their chunks. Thread-safe."""

    def __init__(
        self,
        *,
        nodes: Nodes,
        routing: Routing,
        plane_for: Callable[[Member], Plane],
        pool: ThreadPoolExecutor,
        fallback: "OriginFallback | None" = None,
        rng: random.Random | None = None,
    ) -> None:
        self._nodes = nodes
        self._routing = routing
        self._fallback = fallback
        self._plane_for = plane_for
        self._pool = pool
        self._rng = rng or random.Random()  # noqa: S311 - spreads load, guards nothing
        self.counters = Counters()

    def read_into(
        self,
        handle: Handle,
        buffer: memoryview,
        offset: int,
        *,
        stop: threading.Event | None = None,
    ) -> None:
        """Fill ``buffer`` with the object's bytes from ``offset``.

        On return, also by an exception, nothing writes into ``buffer`` any more.

        Args:
            handle: The object; the range must lie within it.
            buffer: Writable, contiguous, of bytes.
            offset: Of the first byte within the object.
            stop: Set from another thread to give up early.

        Raises:
            ObjectChanged: The object was overwritten and this version is no longer to be had.
            OriginUnavailable: A chunk is not cached and the origin does not answer.
            ClusterUnavailable: No owner of a chunk answers.
            Cancelled: ``stop`` was set.
        """
        requests = self._requests(handle, buffer, offset)
        load = _Load(handle, requests, stop or threading.Event())
        helpers = [
            self._pool.submit(self._work, load) for _ in range(min(WORKERS_MAX, len(requests)) - 1)
        ]
        try:
            self._work(load)
            _join(helpers)
        except BaseException as error:  # An interrupt, in this thread alone.
            load.fail(error)
            _join(helpers)
            raise
        load.check()

    def _requests(self, handle: Handle, buffer: memoryview, offset: int) -> list[PieceRequest]:
        identity = handle.opened.id
        cut = list(pieces(identity.chunk_size, offset, len(buffer)))
        if len(buffer) == identity.size and len(cut) > 1:
            # A thousand readers of one model start at different chunks and so spread over all
            # owners; later each finds cached what the others brought in.
            first = self._rng.randrange(len(cut))
            cut = cut[first:] + cut[:first]
        return [_request(piece, buffer) for piece in cut]

    def _work(self, load: _Load) -> None:
        while batch := load.take(1):
            for request in batch:
                try:
                    self._read_piece(load, request)
                    load.landed()
                except BaseException as error:  # noqa: BLE001 - raised again by `check`
                    load.fail(error)

    def _read_piece(self, load: _Load, request: PieceRequest) -> None:
        """Ask one owner after another until the piece has landed."""
        attempt = _Attempt(self._nodes, self._routing, load, request, rng=self._rng)
        while True:
            candidate = attempt.candidate()
            if candidate is None:
                if self._fallback is not None:
                    self._fallback.read(load.handle.opened, request)
                    self.counters.add("origin", "origin", request.stop - request.start)
                    return
                attempt.wait_for_cluster()
                continue
            plane = self._plane_for(candidate.member)
            context = attempt.context(candidate)
            (outcome,) = plane.read(candidate.member, context, [request], deadline=attempt.deadline)
            if attempt.settle(candidate, context, outcome):
                assert isinstance(outcome, Landed), "only a landed piece is settled"
                self.counters.add(plane.name, outcome.source, request.stop - request.start)
                return


class _Attempt:
    """The efforts to read one piece: what was tried, and what to do next."""

    def __init__(
        self,
        nodes: Nodes,
        routing: Routing,
        load: _Load,
        request: PieceRequest,
        *,
        rng: random.Random,
    ) -> None:
        self.deadline = Deadline.after(PIECE_TIMEOUT_S, is_over=load.is_over)
        self._cluster_deadline: Deadline | None = None
        self._nodes = nodes
        self._routing = routing
        self._load = load
        self._chunk_id = load.handle.opened.id.chunk_id(request.index)
        self._rng = rng
        self._unreachable: set[str] = set()
        self._recheck = False
        self._pauses = 0
        self._last_error: PenstockError | None = None

    def candidate(self) -> Candidate | None:
        """Return the next node to ask."""
        self._check_wanted()
        if self._routing.view is None:
            try:
                self._nodes.view()
            except ClusterUnavailable as error:
                self._last_error = error
                return None
        return self._routing.candidate(self._chunk_id, unreachable=self._unreachable)

    def _check_wanted(self) -> None:
        # Whatever came of a piece that nobody wants says nothing of the node.
        if self._load.is_over():
            raise Cancelled

    def context(self, candidate: Candidate) -> ReadContext:
        """Return what to tell the node."""
        return ReadContext(
            ticket=self._load.handle.ticket(),
            object=self._load.handle.opened.id,
            epoch=candidate.epoch,
            suspects=candidate.suspects,
            recheck=self._recheck,
        )

    def settle(self, candidate: Candidate, context: ReadContext, outcome: Outcome) -> bool:
        """Take note of an outcome: True when the piece has landed, False to try again.

        Raises:
            PenstockError: Trying again cannot help, or the time is over.
        """
        member = candidate.member
        if isinstance(outcome, Landed):
            self._routing.trust([member.id])
            self._catch_up(outcome.epoch)
            return True
        self._check_wanted()
        self._last_error = outcome
        if self.deadline.remaining_s == 0:
            raise outcome
        match outcome:
            case TicketExpired():
                self._load.handle.renew(context.ticket)
                self.pause()  # For a node whose clock is off the new one has expired as well.
            case NodeUnavailable():
                self._routing.suspect(member.id)
                self._unreachable.add(member.id)
            case NotOwner():
                self._disagree(candidate, outcome)
            case CorruptData() if self._recheck:
                self._unreachable.add(member.id)  # Sent wrong bytes twice: ask another.
            case CorruptData():
                self._recheck = True
            case Overloaded():
                self.pause(at_least_s=outcome.retry_after_s)
            case _:
                raise outcome
        return False

    def _disagree(self, candidate: Candidate, error: NotOwner) -> None:
        """The node says that others own the chunk: one of us is behind, or suspects wrongly."""
        if candidate.suspects:
            self._routing.trust(candidate.suspects)
            self._unreachable.difference_update(candidate.suspects)
        self._catch_up(error.epoch)
        view = self._routing.view
        if error.epoch <= candidate.epoch or (view and view.placement.epoch < error.epoch):
            self.pause()  # There is nothing newer to go by: whoever is behind needs a moment.

    def _catch_up(self, epoch: int) -> None:
        view = self._routing.view
        if view is None or epoch > view.placement.epoch:
            self._refresh(beyond_epoch=epoch - 1)

    def _refresh(self, *, beyond_epoch: int | None) -> None:
        # With nobody to ask, the view at hand goes on: owners rarely change, and answer if not.
        with contextlib.suppress(ClusterUnavailable):
            self._nodes.refresh(beyond_epoch=beyond_epoch)

    def wait_for_cluster(self) -> None:
        """Every owner was tried in vain: pause, look for a newer placement, begin again.

        Raises:
            ClusterUnavailable: It has been so for `CLUSTER_TIMEOUT_S`.
        """
        if self._cluster_deadline is None:
            self._cluster_deadline = Deadline.after(CLUSTER_TIMEOUT_S)
        if self._cluster_deadline.remaining_s == 0:
            raise ClusterUnavailable(
                f"no owner of a chunk of {self._load.handle.opened.url} answers: "
                f"{self._last_error or 'the ring has no node that answers'}"
            ) from self._last_error
        self.pause()
        self._unreachable.clear()
        self._refresh(beyond_epoch=None)

    def pause(self, *, at_least_s: float = 0.0) -> None:
        """Wait a little longer each time, jittered; a cancelled read wakes at once."""
        backoff_s = min(BACKOFF_MAX_S, BACKOFF_S * 2**self._pauses) * self._rng.uniform(0.5, 1.0)
        self._pauses = min(self._pauses + 1, 10)
        self._load.stop.wait(min(max(at_least_s, backoff_s), self.deadline.remaining_s))


def _request(piece: Piece, buffer: memoryview) -> PieceRequest:
    into = buffer[piece.at : piece.at + piece.length]
    return PieceRequest(piece.index, piece.start, piece.stop, into)


def _join(helpers: Sequence[Future[None]]) -> None:
    """Wait until no helper touches the buffer; one that has not begun never will."""
    for helper in helpers:
        if not helper.cancel():
            helper.exception()

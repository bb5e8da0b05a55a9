"""The efforts to read one piece: whom to ask next, and when to give up.

Responsible for: what follows from each outcome, and pauses between efforts.
Not responsible for: moving bytes (planes), who owns what (`routing`).
"""

import contextlib
import random
import time
from collections.abc import Callable

from penstock import tracing
from penstock.deadline import Deadline
from penstock.errors import (
    Cancelled,
    ClusterUnavailable,
    CorruptData,
    NodeUnavailable,
    NotCached,
    NotOwner,
    Overloaded,
    PenstockError,
    TicketExpired,
)
from penstock.hedging import HedgeBudget
from penstock.load import Load
from penstock.local_node import LocalNode
from penstock.membership.nodes import Nodes
from penstock.membership.view import Member
from penstock.patience import Slow
from penstock.planes.plane import Landed, Outcome, PieceRequest, ReadContext
from penstock.routing import Candidate, Routing

PIECE_TIMEOUT_S = 60.0
"""Longest that one piece may take, every retry included."""
CLUSTER_TIMEOUT_S = 10.0
"""How long a piece is tried for while no owner answers."""
BACKOFF_S = 0.05
BACKOFF_MAX_S = 1.0


class Attempt:
    """The efforts to read one piece: what was tried, and what to do next."""

    def __init__(
        self,
        nodes: Nodes,
        routing: Routing,
        load: Load[Candidate | None],
        request: PieceRequest,
        *,
        local: LocalNode | None,
        hedges: HedgeBudget,
        rng: random.Random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin.

        Args:
            nodes: Renews tickets and tells newer placements.
            routing: Knows the owners.
            load: The read that the piece is of.
            request: The piece.
            local: The node of this machine, asked before any owner; None: there is none.
            hedges: Whether another owner may be asked because one takes its time.
            rng: For the length of pauses.
            clock: Tells when to give up.
        """
        self._load, self._clock = load, clock
        self.begin()
        self._cluster_deadline: Deadline | None = None
        self._nodes = nodes
        self._routing = routing
        self._index = request.index
        self._rng = rng
        self._local = local
        self._hedges = hedges
        self._chunk_id = load.handle.opened.id.chunk_id(request.index)
        self._copies = load.handle.opened.replicas
        self._hedge: Candidate | None = None
        """Another owner, to be asked for what it has; the first takes its time."""
        self._may_hedge = self._copies > 1
        self._again: Candidate | None = None
        """To be asked once more: its copy may be bad, and only it can tell."""
        self._may_be_sent_on = True
        self._goes_to_holder = True
        """A new owner has not yet named who has the chunk, nor has that one been asked in vain."""
        self._sent_on_by = ""
        self._asked = ""
        self._unreachable: set[str] = set()
        self._recheck = False
        self._pauses = 0
        self._last_error: PenstockError | None = None

    def begin(self) -> None:
        """Let the time run from now."""
        self.deadline = Deadline.after(
            PIECE_TIMEOUT_S, is_over=self._load.is_over, clock=self._clock
        )

    def candidate(self) -> Candidate | None:
        """Return the next node to ask."""
        self._check_wanted()
        if self._local is not None:
            local = self._local.candidate()
            if local is not None:
                return local
            self._local = None
        if self._routing.view is None:
            try:
                self._nodes.view()
            except ClusterUnavailable as error:
                self._last_error = error
                return None
        if self._hedge is not None:
            return self._hedge
        again, self._again = self._again, None
        if again is not None and self._routing.is_current(again):
            return again
        elsewhere = self._elsewhere() if self._sent_on_by else None
        return elsewhere or self._routing.candidate(
            self._chunk_id, copies=self._copies, unreachable=self._unreachable
        )

    def _elsewhere(self) -> Candidate | None:
        """Return another than the one that sent this read on."""
        than = {self._sent_on_by, *self._unreachable}
        return self._routing.other_copy(self._chunk_id, copies=self._copies, than=than)

    def agrees(self, candidate: Candidate) -> bool:
        """Tell whether to ask the one that was chosen a moment ago."""
        if self._local is not None:
            return self._local.candidate() == candidate
        return self._routing.is_current(candidate)

    def _check_wanted(self) -> None:
        # Whatever came of a piece that nobody wants says nothing of the node.
        if self._load.is_over():
            raise Cancelled

    def context(self, candidate: Candidate) -> ReadContext:
        """Return what to tell the node."""
        self._asked = candidate.member.id
        return ReadContext(
            ticket=self._load.handle.ticket(),
            object=self._load.handle.opened.id,
            epoch=candidate.epoch,
            suspects=candidate.suspects,
            recheck=self._recheck,
            only_if_cached=self._is_for_what_it_has(candidate),
            goes_to_holder=self._goes_to_holder and self._local is None,
            may_be_sent_on=self._may_be_sent_on and self._knows_no_other(candidate),
            gives_up=self._gives_up if self._may_hedge and self._local is None else None,
        )

    def _is_for_what_it_has(self, candidate: Candidate) -> bool:
        return candidate is self._hedge or candidate.is_guest

    def _knows_no_other(self, candidate: Candidate) -> bool:
        """Tell whether the node was not chosen among all that have the chunk."""
        return candidate is not self._hedge and not self._routing.hot.copies(self._chunk_id)

    def _gives_up(self) -> bool:
        """Tell whether to ask another owner for its copy, now that this one takes its time."""
        return self._other_copy() is not None and self._hedges.take()

    def _other_copy(self) -> Candidate | None:
        than = {self._asked, *self._unreachable}
        return self._routing.other_copy(self._chunk_id, copies=self._copies, than=than)

    def settle(self, candidate: Candidate, context: ReadContext, outcome: Outcome) -> bool:
        """Take note of an outcome: True when the piece has landed, False to try again.

        Raises:
            PenstockError: Trying again cannot help, or the time is over.
        """
        member = candidate.member
        if isinstance(outcome, Landed):
            if self._local is None:
                self._routing.trust([member.id])
                self._routing.standing.tells_load(member.id, outcome.load)
                if outcome.copies > self._copies:
                    self._routing.hot.tell(self._chunk_id, outcome.copies)
                if self._is_behind(outcome.epoch):
                    self._nodes.poll_soon()  # In the background: this piece has landed.
            return True
        self._check_wanted()
        self._last_error = outcome
        if not isinstance(outcome, Slow):
            self._load.count("asked_again", outcome.name)
        if self.deadline.remaining_s == 0:
            raise outcome
        if self._local is not None and self._passes_local_over(self._local, outcome):
            self._local = None
        elif candidate is self._hedge:
            self._end_hedge(candidate, outcome)
        else:
            self._learn(candidate, context, outcome)
        return False

    def _learn(self, candidate: Candidate, context: ReadContext, outcome: PenstockError) -> None:
        member = candidate.member
        match outcome:
            case Slow():
                self._load.count("hedges")
                self._begin_hedge(candidate)
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
                self._recheck, self._again = True, candidate
            case NotCached() if candidate.is_guest:
                self._unreachable.add(member.id)
                self._sent_on_by, self._goes_to_holder = "", False
                self._routing.hot.forget(self._chunk_id)
            case Overloaded() if outcome.is_sent_on:
                self._go_on(member, outcome)
            case Overloaded():
                self.pause(at_least_s=outcome.retry_after_s)
            case _:
                raise outcome

    def _go_on(self, member: Member, sent_on: Overloaded) -> None:
        if sent_on.held_by:
            self._goes_to_holder = False
            self._routing.are_handing_over()
            self._again = self._routing.guest(sent_on.held_by)
        else:
            self._may_be_sent_on, self._sent_on_by = False, member.id
            self._routing.hot.tell(self._chunk_id, sent_on.copies)

    def _begin_hedge(self, candidate: Candidate) -> None:
        self._routing.standing.is_slow(candidate.member.id)
        self._may_hedge, self._hedge = False, self._other_copy()

    def _end_hedge(self, candidate: Candidate, error: PenstockError) -> None:
        """The other owner has not got it, or not well: from here on whoever is asked has time."""
        self._hedge = None
        if isinstance(error, NodeUnavailable):
            self._routing.suspect(candidate.member.id)
            self._unreachable.add(candidate.member.id)

    def _passes_local_over(self, local: LocalNode, error: PenstockError) -> bool:
        """Tell whether to ask the owners rather than this machine's node again."""
        if isinstance(error, NodeUnavailable):
            local.suspect()
        sent_wrong_bytes_again = self._recheck and isinstance(error, CorruptData)
        return sent_wrong_bytes_again or isinstance(error, NodeUnavailable | NotOwner | NotCached)

    def _disagree(self, candidate: Candidate, error: NotOwner) -> None:
        """The node says that others own the chunk: one of us is behind, or suspects wrongly."""
        if candidate.suspects:
            self._routing.trust(candidate.suspects)
            self._unreachable.difference_update(candidate.suspects)
        self._catch_up(error.epoch)
        view = self._routing.view
        if view and not view.members.keys() >= set(candidate.suspects):
            # They were away when the view was told, and are back: that moves no epoch.
            self._refresh(beyond_epoch=None)
        if error.epoch <= candidate.epoch or (view and view.placement.epoch < error.epoch):
            self.pause()  # There is nothing newer to go by: whoever is behind needs a moment.

    def _catch_up(self, epoch: int) -> None:
        if self._is_behind(epoch):
            self._refresh(beyond_epoch=epoch - 1)

    def _is_behind(self, epoch: int) -> bool:
        view = self._routing.view
        return view is None or epoch > view.placement.epoch

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
            self._cluster_deadline = Deadline.after(CLUSTER_TIMEOUT_S, clock=self._clock)
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
        begun_at = self._clock()
        with tracing.span("pause", because=type(self._last_error).__name__):
            self._load.stop.wait(min(max(at_least_s, backoff_s), self.deadline.remaining_s))
        self._load.count("paused_s", by=self._clock() - begun_at)

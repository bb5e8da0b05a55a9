"""Following reads: `Cache.tracing`, and the spans of all processes put together.

Responsible for: the trace that a program's reads are in, asking the nodes that had to do with them
for theirs, and bringing all to one clock.
Not responsible for: making spans (`penstock.tracing`), drawing them (`penstock.cli`).
"""

import contextlib
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

from penstock import tracing
from penstock.core import Core
from penstock.errors import ClusterUnavailable, InvalidRequest, PenstockError
from penstock.membership.view import Member
from penstock.rpc import GET_TRACE, LIST_SLOW
from penstock.trace_messages import spans_from_proto
from penstock.tracing import Span, Trace, Traceparent, parse_traceparent
from penstock.v1 import trace_pb2

ASK_TIMEOUT_S = 5.0
"""For one node's spans; it may wait a second for what is still under way."""
ASKED_AT_ONCE = 16
ROUNDS_MAX = 4
"""A node names those that it asked in turn: an owner the first one, that one a former owner."""
SLOW_NODES_MAX = 1_000


@dataclass(slots=True)
class ReadTrace:
    """What was traced; complete when the ``with`` of `Cache.tracing` has ended."""

    id: str
    spans: list[Span] = field(default_factory=list)
    """By their begin, on this process's clock; the first is the one that all others are in."""
    silent: list[str] = field(default_factory=list)
    """Nodes that were asked for their spans, and did not answer."""
    dropped: int = 0
    """Spans that were too many to be kept."""


@dataclass(frozen=True, slots=True)
class SlowRead:
    """One of the slowest reads that a node remembers."""

    trace_id: str
    spans: tuple[Span, ...]
    """Of that node alone; the first is the one that the others are in."""

    @property
    def top(self) -> Span:
        """The span that all others are in."""
        return self.spans[0]


class Following:
    """A trace that a program's reads are in, from its begin until all its spans are together."""

    def __init__(self, core: Core, *, traceparent: str) -> None:
        """Trace nothing yet.

        Raises:
            InvalidRequest: ``traceparent`` is none.
        """
        self._core = core
        self._trace = Trace(parent=_parent(traceparent))
        self.result = ReadTrace(self._trace.id)

    @contextlib.contextmanager
    def reading(self, name: str) -> Iterator[None]:
        """Trace what this thread or task reads meanwhile."""
        with tracing.at(tracing.within(self._trace)), tracing.span(name):
            yield

    def gather(self) -> None:
        """Ask the nodes that had to do with it for their spans. Blocks."""
        _gather(self._core, self._trace, self.result)


@dataclass(frozen=True, slots=True)
class SlowReads:
    """What `Cache.slow_reads` found."""

    reads: list[SlowRead]
    silent: list[str]
    """Nodes that did not answer."""


class TraceCalls(Protocol):
    """What a cache offers to whoever wants to know where time goes."""

    def _open_core(self) -> Core: ...

    def _follow(self, traceparent: str) -> Following:
        return Following(self._open_core(), traceparent=traceparent)

    @contextlib.contextmanager
    def tracing(self, name: str = "read", *, traceparent: str = "") -> Iterator[ReadTrace]:
        """Trace all that this thread or task reads meanwhile, through all nodes to the origin.

        Args:
            name: Of the span that all others are in.
            traceparent: A W3C trace context to go on from.

        Raises:
            InvalidRequest: ``traceparent`` is none.
        """
        following = self._follow(traceparent)
        try:
            with following.reading(name):
                yield following.result
        except Exception:  # Not an interrupt: who ends a program does not wait for spans.
            following.gather()
            raise
        following.gather()

    def slow_reads(self, count: int = 20) -> SlowReads:
        """Return the slowest reads that all nodes remember, the slowest first.

        Args:
            count: How many at most.
        """
        core = self._open_core()
        found: list[SlowRead] = []
        silent: list[str] = []
        members = list(core.nodes.view().members.values())[:SLOW_NODES_MAX]

        def ask(member: Member) -> None:
            try:
                found.extend(_slow_reads(core, member, count))
            except PenstockError:
                silent.append(member.id)

        with ThreadPoolExecutor(ASKED_AT_ONCE, thread_name_prefix="penstock-trace") as threads:
            list(threads.map(ask, members))
        found.sort(key=lambda read: -read.top.duration_s)
        return SlowReads(found[:count], sorted(silent))


def _parent(text: str) -> Traceparent | None:
    parent = parse_traceparent(text)
    if text and parent is None:
        raise InvalidRequest(
            f"{text!r} is no traceparent; want 00-{{32 hex digits}}-{{16 hex digits}}-01"
        )
    return parent


def _gather(core: Core, trace: Trace, result: ReadTrace) -> None:
    """Put the spans of this process, and of the nodes that are named in them, into the result."""
    result.spans, result.dropped = list(trace.spans), trace.dropped
    members = _members(core)
    asked: set[str] = set()
    with ThreadPoolExecutor(ASKED_AT_ONCE, thread_name_prefix="penstock-trace") as threads:
        for _ in range(ROUNDS_MAX):
            named = _named(result.spans, members) - asked
            asked |= named
            answers = threads.map(lambda node: _node_spans(core, members[node], trace.id), named)
            for node, answer in zip(named, answers, strict=True):
                if isinstance(answer, PenstockError):
                    result.silent.append(node)
                else:
                    spans, dropped = answer
                    result.spans += spans
                    result.dropped += dropped
    result.spans.sort(key=lambda span: span.started_at)
    result.silent.sort()


def _members(core: Core) -> dict[str, Member]:
    try:
        return dict(core.nodes.view().members)
    except ClusterUnavailable:  # Then its spans of this process are all that there are.
        return {}


def _named(spans: Iterable[Span], members: dict[str, Member]) -> set[str]:
    """Return the nodes that spans say were asked, by id or by address."""
    by_address = {
        address: member.id
        for member in members.values()
        for address in (member.grpc_address, member.bulk_target, member.socket)
    }
    told = {span.notes.get("asks", "") for span in spans}
    return {by_address.get(name, name) for name in told} & members.keys()


def _node_spans(
    core: Core, member: Member, trace_id: str
) -> tuple[list[Span], int] | PenstockError:
    asked_at = time.time()
    request = trace_pb2.GetTraceRequest(trace_id=trace_id)
    try:
        answer = core.nodes.ask(member, GET_TRACE, request, timeout_s=ASK_TIMEOUT_S)
    except PenstockError as error:
        return error
    ahead_s = _ahead(asked_at, answer.asked_at, answer.answered_at, time.time())
    return spans_from_proto(answer.spans, ahead_s=ahead_s), answer.dropped


def _slow_reads(core: Core, member: Member, count: int) -> Sequence[SlowRead]:
    asked_at = time.time()
    request = trace_pb2.ListSlowRequest(count=count)
    answer = core.nodes.ask(member, LIST_SLOW, request, timeout_s=ASK_TIMEOUT_S)
    ahead_s = _ahead(asked_at, answer.asked_at, answer.answered_at, time.time())
    return [
        SlowRead(read.trace_id, tuple(spans_from_proto(read.spans, ahead_s=ahead_s)))
        for read in answer.reads
        if read.spans
    ]


def _ahead(sent: float, arrived: float, left: float, came: float) -> float:
    """Return what the other clock is ahead, in seconds, as NTP reckons it (RFC 5905, section 8)."""
    return ((arrived - sent) + (left - came)) / 2

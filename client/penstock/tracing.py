"""Traces: what each hop of a read did, in spans that hang together over all processes.

Responsible for: spans, which one the present thread or task is in, and the header that carries a
trace from one process into the next (W3C Trace Context, `traceparent`).
Not responsible for: keeping spans (`penstock_node.traces`), gathering those of other processes
(`penstock.trace_calls`).

Where nothing is traced, `span` costs a look at a context variable.
"""

import contextlib
import contextvars
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TypeVar

SPANS_MAX = 2_000
"""Of one trace in one process; more are counted and not kept."""
NOTE_CHARACTERS_MAX = 300
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = 1

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Traceparent:
    """Where in which trace a request was made. See https://www.w3.org/TR/trace-context/."""

    trace_id: str
    span_id: str
    is_sampled: bool = True

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{_SAMPLED if self.is_sampled else 0:02x}"


def parse_traceparent(text: str) -> Traceparent | None:
    """Return what the header says; None if it says nothing, or not in a known form."""
    match = _TRACEPARENT.fullmatch(text.strip()) if text else None
    if match is None or (match[4] and text.startswith("00")):
        return None
    trace_id, span_id = match[1], match[2]
    if not (int(trace_id, 16) and int(span_id, 16)):
        return None
    return Traceparent(trace_id, span_id, bool(int(match[3], 16) & _SAMPLED))


@dataclass(slots=True)
class Span:
    """What one hop did for a while."""

    name: str
    node: str
    """Its id; empty: the program that reads."""
    id: str
    parent: str
    """The id of the span that this one is in; empty: none that is known."""
    started_at: float
    """In seconds since 1970, by the clock of its machine."""
    duration_s: float = 0.0
    bytes: int = 0
    queued_s: float = 0.0
    """What of the duration was waiting for a turn."""
    notes: dict[str, str] = field(default_factory=dict)

    def note(self, **notes: object) -> None:
        """Say more: ``plane``, ``source``, ``disk``, ``error`` and the like."""
        for name, value in notes.items():
            self.notes[name] = str(value)[:NOTE_CHARACTERS_MAX]

    @contextlib.contextmanager
    def queued(self) -> Iterator[None]:
        """Count what happens meanwhile as waiting for a turn."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.queued_s += time.perf_counter() - begun

    def add_bytes(self, count: int) -> None:
        """Count payload that the hop has moved."""
        self.bytes += count


class _NoSpan(Span):
    """Of what is not traced: forgets all that it is told."""

    __slots__ = ()

    def note(self, **notes: object) -> None:
        """Do nothing."""

    @contextlib.contextmanager
    def queued(self) -> Iterator[None]:
        """Do nothing."""
        yield

    def add_bytes(self, count: int) -> None:
        """Do nothing."""


NO_SPAN: Span = _NoSpan("", "", "", "", 0.0)


class Trace:
    """The spans of one trace in this process. Thread-safe: they are only ever added."""

    def __init__(self, *, node: str = "", parent: Traceparent | None = None) -> None:
        """Begin.

        Args:
            node: The id of this process's node; empty: it is a program that reads.
            parent: Where in which trace it goes on; None: it is a trace of its own.
        """
        self.id = parent.trace_id if parent else secrets.token_hex(16)
        self.node = node
        self.spans: list[Span] = []
        self.dropped = 0
        self._above = parent.span_id if parent else ""
        self._epoch = time.time() - time.perf_counter()

    def begin(self, name: str, above: Span | None = None, *, ago_s: float = 0.0) -> Span:
        """Return a new span, in ``above``; it is over with `end`."""
        parent = above.id if above is not None else self._above
        begun = self._epoch + time.perf_counter() - ago_s
        span = Span(name, self.node, secrets.token_hex(8), parent, begun)
        if len(self.spans) < SPANS_MAX:
            self.spans.append(span)
        else:
            self.dropped += 1
        return span

    def end(self, span: Span) -> None:
        """Note how long a span took; again: how long it took in all."""
        span.duration_s = self._epoch + time.perf_counter() - span.started_at

    def adopt(self, other: "Trace", above: Span) -> None:
        """Take over the spans of a trace that went on beside this one, for this one too."""
        known = {span.id for span in other.spans}
        for span in list(other.spans[: SPANS_MAX - len(self.spans)]):
            parent = span.parent if span.parent in known else above.id
            copied = Span(span.name, span.node, span.id, parent, span.started_at, span.duration_s)
            copied.bytes, copied.queued_s, copied.notes = (
                span.bytes,
                span.queued_s,
                dict(span.notes),
            )
            self.spans.append(copied)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a thread or a task is: in which span of which trace."""

    trace: Trace
    span: Span | None
    is_sampled: bool
    """Whether other processes are to record it too."""


_place: contextvars.ContextVar[Place | None] = contextvars.ContextVar(
    "penstock-trace", default=None
)


def current() -> Place | None:
    """Return where this thread or task is; None: nothing is traced."""
    return _place.get()


@contextlib.contextmanager
def at(place: Place | None) -> Iterator[None]:
    """Be at ``place``, which another thread or task told."""
    before = _place.get()
    _place.set(place)
    try:
        yield
    finally:
        _place.set(before)  # Not `reset`: a generator may be closed from elsewhere.


def within(trace: Trace, span: Span | None = None, *, is_sampled: bool = True) -> Place:
    """Return the place in a span of a trace, or at its top."""
    return Place(trace, span, is_sampled)


def carried(call: Callable[[], T]) -> Callable[[], T]:
    """Return ``call`` for another thread, where it is to be at this place."""
    place = _place.get()
    if place is None:
        return call

    def at_place() -> T:
        with at(place):
            return call()

    return at_place


def span(name: str, **notes: object) -> AbstractContextManager[Span]:
    """``with span("peer", asks=member.id) as peer:`` a span around the block, if it is traced.

    What the block raises is noted, and raised.
    """
    place = _place.get()
    return _NOT_TRACED if place is None else _Traced(name, notes, place)


_NOT_TRACED = contextlib.nullcontext(NO_SPAN)


class _Traced:
    """See `span`."""

    __slots__ = ("_name", "_notes", "_place", "_span")

    def __init__(self, name: str, notes: Mapping[str, object], place: Place) -> None:
        self._name, self._notes, self._place = name, notes, place

    def __enter__(self) -> Span:
        place = self._place
        self._span = place.trace.begin(self._name, place.span)
        self._span.note(**self._notes)
        _place.set(Place(place.trace, self._span, place.is_sampled))
        return self._span

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        _place.set(self._place)
        if error is not None:
            note_error(self._span, error)
        self._place.trace.end(self._span)


def note_error(where: Span, error: BaseException) -> None:
    """Note on a span what it ended with."""
    text = str(error)
    where.note(error=f"{type(error).__name__}: {text}" if text else type(error).__name__)


def here() -> Span:
    """Return the span that this thread or task is in; one that forgets all, if there is none."""
    place = _place.get()
    return NO_SPAN if place is None or place.span is None else place.span


def traceparent() -> str:
    """Return what to send with a request to another process; empty: nothing."""
    place = _place.get()
    if place is None or place.span is None or not place.is_sampled:
        return ""
    return str(Traceparent(place.trace.id, place.span.id))


def trace_id() -> str:
    """Return the id of the trace that this thread or task is in; empty: of none that is wanted."""
    place = _place.get()
    return "" if place is None or not place.is_sampled else place.trace.id

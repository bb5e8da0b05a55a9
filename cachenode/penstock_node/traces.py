"""The traces of a node: spans of the reads that it had to do with, for who asks afterwards.

Responsible for: beginning a trace where a request says so, keeping what came of it, and the slowest
reads of late, traced or not; all of it bounded.
Not responsible for: what spans say (each part of the read path), asking for them (`serve`).

Each fill has a trace, asked for or not: beside a fill it costs nothing that can be measured, and
the slowest of them are what people ask for afterwards. A hit has one if it is asked for.
"""

import asyncio
import contextlib
import heapq
import itertools
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from penstock import tracing
from penstock.tracing import NO_SPAN, Span, Trace, parse_traceparent

TRACES_MAX = 256
"""Kept at once: the latest."""
SPANS_MAX = 20_000
"""Of all that are kept, some 600 bytes each."""
SLOW_MAX = 64
SLOW_FOR_S = 3600.0
"""How long a slow read is remembered."""
SLOW_SPANS_MAX = 100
"""Of each."""
SETTLE_S = 1.0
"""How long who asks for a trace waits for what is still under way in it."""


@dataclass(slots=True)
class _Kept:
    spans: list[Span] = field(default_factory=list)
    open: int = 0
    """Requests under way."""
    dropped: int = 0
    waiters: list[Callable[[], object]] = field(default_factory=list)
    """Called once none is under way."""


@dataclass(frozen=True, slots=True, order=True)
class _Slow:
    duration_s: float
    number: int
    """Of two that took as long, the later one counts as slower."""
    ended_at: float = field(compare=False)
    trace_id: str = field(compare=False)
    spans: tuple[Span, ...] = field(compare=False)


class Traces:
    """See the module. Thread-safe."""

    def __init__(
        self,
        node_id: str,
        *,
        export: Callable[[Trace], None] = lambda _trace: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Keep nothing yet.

        Args:
            node_id: Of this node, for its spans.
            export: Given each trace that was asked for, when this node's part of it is over.
            clock: Monotonic, in seconds.
        """
        self._node_id = node_id
        self._export = export
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._span_count = 0
        self._slow: list[_Slow] = []
        self._numbers = itertools.count()

    @contextlib.contextmanager
    def serving(self, traceparent: str, name: str, **notes: object) -> Iterator[Span]:
        """Trace what happens meanwhile for a request, if it says so."""
        request = self.begin(traceparent, name, **notes)
        if request is None:
            yield NO_SPAN
            return
        with contextlib.closing(request), tracing.at(request.place):
            try:
                yield request.span
            except BaseException as error:
                tracing.note_error(request.span, error)
                raise

    def begin(self, traceparent: str, name: str, **notes: object) -> "Served | None":
        """Return the trace of a request, to be closed; None: it asks for none."""
        parent = parse_traceparent(traceparent)
        if parent is None or not parent.is_sampled:
            return None
        trace = Trace(node=self._node_id, parent=parent)
        span = trace.begin(name)
        span.note(**notes)
        with self._lock:
            self._kept_of(trace.id).open += 1
        return Served(self, trace, span)

    @contextlib.contextmanager
    def filling(self, **notes: object) -> Iterator[Trace]:
        """Trace a fill: within the trace of the request that began it, if there is one."""
        place = tracing.current()
        if place is not None and place.is_sampled:
            trace = Trace(node=self._node_id, parent=_parent_of(place))
            with self._lock:
                self._kept_of(trace.id).open += 1
        else:
            trace = Trace(node=self._node_id)
        is_asked_for = place is not None and place.is_sampled
        here = tracing.within(trace, is_sampled=is_asked_for)
        try:
            with tracing.at(here), tracing.span("fill", **notes):
                yield trace
        finally:
            if is_asked_for:
                self.ended(trace)
            else:
                self._note_slow(trace)

    def ended(self, trace: Trace) -> None:
        """Keep the spans of a request that is over."""
        self._export(trace)
        with self._lock:
            kept = self._kept_of(trace.id)
            kept.open = max(0, kept.open - 1)  # It may have been dropped meanwhile, and be new.
            kept.dropped += trace.dropped
            kept.spans += trace.spans
            waiters: list[Callable[[], object]] = []
            if not kept.open:
                waiters, kept.waiters = kept.waiters, waiters
            self._span_count += len(trace.spans)
            while len(self._kept) > TRACES_MAX or self._span_count > SPANS_MAX:
                _, oldest = self._kept.popitem(last=False)
                self._span_count -= len(oldest.spans)
        for told in waiters:
            told()
        self._note_slow(trace)

    def _kept_of(self, trace_id: str) -> _Kept:
        kept = self._kept.setdefault(trace_id, _Kept())
        self._kept.move_to_end(trace_id)
        return kept

    def took(self, name: str, duration_s: float, **notes: object) -> None:
        """Take note of a read that was not traced and `is_slow`."""
        trace = Trace(node=self._node_id)
        span = trace.begin(name, ago_s=duration_s)
        span.note(**notes)
        trace.end(span)
        self._note_slow(trace)

    def is_slow(self, duration_s: float) -> bool:
        """Tell whether a read that took so long would be one of the slowest."""
        slow = self._slow
        return len(slow) < SLOW_MAX or duration_s > slow[0].duration_s

    def _note_slow(self, trace: Trace) -> None:
        duration_s = trace.spans[0].duration_s if trace.spans else 0.0
        with self._lock:
            self._forget_old()
            if not self.is_slow(duration_s):
                return
            spans = tuple(trace.spans[:SLOW_SPANS_MAX])
            one = _Slow(duration_s, next(self._numbers), self._clock(), trace.id, spans)
            heapq.heappush(self._slow, one)
            if len(self._slow) > SLOW_MAX:
                heapq.heappop(self._slow)

    def _forget_old(self) -> None:
        since = self._clock() - SLOW_FOR_S
        if any(each.ended_at < since for each in self._slow):
            self._slow = [each for each in self._slow if each.ended_at >= since]
            heapq.heapify(self._slow)

    def slowest(self, count: int) -> list[tuple[str, tuple[Span, ...]]]:
        """Return trace ids and spans of the slowest reads of the last hour, the slowest first."""
        with self._lock:
            self._forget_old()
            found = sorted(self._slow, reverse=True)
        return [(each.trace_id, each.spans) for each in found[: count or SLOW_MAX]]

    async def spans(self, trace_id: str) -> tuple[list[Span], int]:
        """Return what is kept of a trace, and how many spans were too many to be kept.

        What is under way in it is waited for, `SETTLE_S` at most: a reader asks as soon as it has
        its bytes, and a node may have to write them to a disk yet.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_S):
                await self._settled(trace_id)
        with self._lock:
            kept = self._kept.get(trace_id) or _Kept()
            return list(kept.spans), kept.dropped

    async def _settled(self, trace_id: str) -> None:
        loop, is_over = asyncio.get_running_loop(), asyncio.Event()
        with self._lock:
            kept = self._kept.get(trace_id)
            if kept is None or not kept.open:
                return
            kept.waiters.append(lambda: loop.call_soon_threadsafe(is_over.set))
        await is_over.wait()


class Served:
    """The trace of one request, until `close`."""

    def __init__(self, traces: Traces, trace: Trace, span: Span) -> None:
        self._traces = traces
        self._is_closed = False
        self.trace = trace
        self.span = span

    @property
    def place(self) -> tracing.Place:
        """Where the parts are that work on the request."""
        return tracing.within(self.trace, self.span)

    def close(self) -> None:
        """The request is over; again does nothing."""
        if not self._is_closed:
            self._is_closed = True
            self.trace.end(self.span)
            self._traces.ended(self.trace)


def _parent_of(place: tracing.Place) -> tracing.Traceparent:
    return tracing.Traceparent(place.trace.id, place.span.id if place.span else "0" * 16)

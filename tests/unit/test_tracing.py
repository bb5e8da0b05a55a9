"""Spans hang together over threads, tasks and processes, and cost nothing where none are wanted."""

import asyncio
import contextvars
from concurrent.futures import ThreadPoolExecutor

import pytest

from penstock import tracing
from penstock.together import work_together
from penstock.tracing import NO_SPAN, SPANS_MAX, Span, Trace, Traceparent, parse_traceparent, span

TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def names(trace: Trace) -> list[str]:
    return [each.name for each in trace.spans]


def parents(trace: Trace) -> dict[str, str]:
    by_id = {each.id: each.name for each in trace.spans}
    return {each.name: by_id.get(each.parent, each.parent) for each in trace.spans}


# traceparent.


def test_a_traceparent_is_read_and_written_as_the_specification_has_it() -> None:
    text = f"00-{TRACE_ID}-{SPAN_ID}-01"

    parsed = parse_traceparent(text)

    assert parsed == Traceparent(TRACE_ID, SPAN_ID)
    assert str(parsed) == text


@pytest.mark.parametrize(("flags", "is_sampled"), [("00", False), ("01", True), ("03", True)])
def test_the_flags_say_whether_it_is_recorded(flags: str, is_sampled: bool) -> None:
    parsed = parse_traceparent(f"00-{TRACE_ID}-{SPAN_ID}-{flags}")

    assert parsed is not None
    assert parsed.is_sampled == is_sampled


def test_a_later_version_may_say_more_behind_what_is_known() -> None:
    assert parse_traceparent(f"01-{TRACE_ID}-{SPAN_ID}-01-what-comes") is not None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        f"ff-{TRACE_ID}-{SPAN_ID}-01",
        f"00-{'0' * 32}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"00-{TRACE_ID.upper()}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{SPAN_ID}-01-more",
        f"00-{TRACE_ID}-{SPAN_ID}",
        f"00-{TRACE_ID[1:]}-{SPAN_ID}-01",
    ],
)
def test_whatever_else_a_header_says_is_no_traceparent(text: str) -> None:
    assert parse_traceparent(text) is None


# Spans.


def test_spans_are_in_the_one_that_was_open() -> None:
    trace = Trace(node="gpu-1")
    with tracing.at(tracing.within(trace)), span("read"):
        with span("open"):
            pass
        with span("ask", asks="gpu-2") as ask:
            ask.add_bytes(7)

    assert parents(trace) == {"read": "", "open": "read", "ask": "read"}
    assert (trace.spans[2].bytes, trace.spans[2].notes) == (7, {"asks": "gpu-2"})
    assert {each.node for each in trace.spans} == {"gpu-1"}


def test_one_that_goes_on_from_another_process_is_in_that_ones_span() -> None:
    trace = Trace(parent=Traceparent(TRACE_ID, SPAN_ID))
    with tracing.at(tracing.within(trace)), span("serve"):
        told = parse_traceparent(tracing.traceparent())

    assert trace.spans[0].parent == SPAN_ID
    assert told == Traceparent(TRACE_ID, trace.spans[0].id)


def test_where_nothing_is_traced_nothing_is_kept_and_nothing_is_sent() -> None:
    with span("read", of="much") as outer, span("ask") as inner, inner.queued():
        inner.note(error="none")
        inner.add_bytes(5)

    assert outer is inner is tracing.here() is NO_SPAN
    assert (NO_SPAN.notes, NO_SPAN.bytes) == ({}, 0)
    assert tracing.traceparent() == ""


def test_what_is_not_to_be_recorded_elsewhere_is_not_told_there() -> None:
    with tracing.at(tracing.within(Trace(), is_sampled=False)), span("fill"):
        assert tracing.traceparent() == ""


def test_an_error_is_noted_and_raised() -> None:
    trace = Trace()

    def fails() -> None:
        with tracing.at(tracing.within(trace)), span("ask"):
            raise ConnectionError("nobody is there")

    with pytest.raises(ConnectionError):
        fails()

    assert trace.spans[0].notes["error"] == "ConnectionError: nobody is there"
    assert tracing.current() is None


def test_spans_beyond_the_most_are_counted() -> None:
    trace = Trace()
    with tracing.at(tracing.within(trace)):
        for _ in range(SPANS_MAX + 3):
            with span("ask"):
                pass

    assert (len(trace.spans), trace.dropped) == (SPANS_MAX, 3)


# Threads and tasks.


def test_threads_that_work_together_are_within_the_trace_of_who_called() -> None:
    trace = Trace()

    def work() -> None:
        with span("work"):
            pass

    with ThreadPoolExecutor(3) as pool, tracing.at(tracing.within(trace)), span("read"):
        work_together(pool, work, threads=3, give_up=lambda _: None)

    assert set(names(trace)) == {"read", "work"}
    assert set(parents(trace).values()) == {"", "read"}


def test_a_thread_is_told_where_it_is_only_if_anything_is_traced() -> None:
    def call() -> None:
        pass

    assert tracing.carried(call) is call


async def test_a_task_is_where_it_was_begun_and_others_are_not() -> None:
    trace = Trace()

    async def ask() -> None:
        with span("ask"):
            await asyncio.sleep(0)

    other = asyncio.create_task(ask())
    with tracing.at(tracing.within(trace)), span("read"):
        mine = asyncio.create_task(ask())
        with span("open"):
            await asyncio.gather(mine, other)

    assert parents(trace) == {"read": "", "ask": "read", "open": "read"}


def test_a_place_may_be_left_from_elsewhere() -> None:
    place = tracing.within(Trace())
    staying = tracing.at(place)
    contextvars.copy_context().run(staying.__enter__)

    staying.__exit__(None, None, None)

    assert tracing.current() is None


def test_who_waits_for_what_another_began_has_its_spans_too() -> None:
    waits, fills = Trace(), Trace(node="gpu-1")
    with tracing.at(tracing.within(fills)), span("fill"), span("origin"):
        pass
    waiting = waits.begin("wait")

    waits.adopt(fills, waiting)

    assert parents(waits) == {"wait": "", "fill": "wait", "origin": "fill"}
    assert fills.spans[0].parent == ""


def test_a_span_that_is_open_has_no_length_yet() -> None:
    trace = Trace()
    open_still: Span = trace.begin("read")

    assert open_still.duration_s == 0.0
    trace.end(open_still)
    assert open_still.duration_s > 0.0

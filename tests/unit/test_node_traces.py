"""What a node keeps of traces: what was asked for, the slowest of late, and no more."""

import asyncio

import pytest

from penstock import tracing
from penstock.tracing import Trace, Traceparent
from penstock_node.traces import SLOW_FOR_S, SLOW_MAX, SLOW_SPANS_MAX, TRACES_MAX, Traces


def traceparent(number: int = 1, *, is_sampled: bool = True) -> str:
    return str(Traceparent(f"{number:032x}", f"{number:016x}", is_sampled))


def trace_id(number: int = 1) -> str:
    return f"{number:032x}"


def serve(traces: Traces, number: int = 1) -> None:
    with traces.serving(traceparent(number), "serve", plane="bulk"), tracing.span("look"):
        pass


async def test_what_a_request_asks_for_is_kept_under_its_id() -> None:
    traces = Traces("gpu-1")

    serve(traces)
    spans, dropped = await traces.spans(trace_id())

    assert [(span.name, span.node) for span in spans] == [("serve", "gpu-1"), ("look", "gpu-1")]
    assert (spans[0].parent, spans[1].parent) == (f"{1:016x}", spans[0].id)
    assert dropped == 0
    assert await traces.spans(trace_id(2)) == ([], 0)


@pytest.mark.parametrize("text", ["", "nonsense", traceparent(is_sampled=False)])
async def test_what_does_not_ask_for_it_is_not_traced(text: str) -> None:
    traces = Traces("gpu-1")

    with traces.serving(text, "serve") as span:
        assert span is tracing.NO_SPAN
        assert tracing.current() is None

    assert await traces.spans(trace_id()) == ([], 0)


async def test_requests_of_one_trace_are_kept_together() -> None:
    traces = Traces("gpu-1")

    serve(traces)
    serve(traces)

    spans, _ = await traces.spans(trace_id())
    assert [span.name for span in spans] == ["serve", "look"] * 2


async def test_an_error_is_told() -> None:
    traces = Traces("gpu-1")

    def fails() -> None:
        with traces.serving(traceparent(), "serve"):
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        fails()

    ((span,), _) = await traces.spans(trace_id())
    assert span.notes["error"] == "OSError: the disk is gone"


async def test_who_asks_waits_for_what_is_under_way() -> None:
    traces = Traces("gpu-1")
    request = traces.begin(traceparent(), "serve")
    assert request is not None
    asking = asyncio.create_task(traces.spans(trace_id()))
    await asyncio.sleep(0)
    assert not asking.done()

    await asyncio.to_thread(request.close)  # As an engine's worker does.

    ((span,), _) = await asking
    assert span.name == "serve"


async def test_who_asks_waits_for_all_that_are_under_way() -> None:
    traces = Traces("gpu-1")
    first, second = (traces.begin(traceparent(), "serve") for _ in range(2))
    assert first is not None
    assert second is not None
    asking = asyncio.create_task(traces.spans(trace_id()))
    await asyncio.sleep(0)

    first.close()
    await asyncio.wait([asking], timeout=0.1)
    was_told_early = asking.done()
    second.close()

    spans, _ = await asking
    assert not was_told_early
    assert len(spans) == 2


async def test_how_many_spans_were_too_many_is_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "SPANS_MAX", 1)
    traces = Traces("gpu-1")

    serve(traces)
    serve(traces)

    spans, dropped = await traces.spans(trace_id())
    assert ([span.name for span in spans], dropped) == (["serve", "serve"], 2)


async def test_only_the_latest_are_kept() -> None:
    traces = Traces("gpu-1")
    for number in range(1, TRACES_MAX + 6):
        serve(traces, number)

    kept = [
        number for number in range(1, TRACES_MAX + 6) if (await traces.spans(trace_id(number)))[0]
    ]
    assert kept == list(range(6, TRACES_MAX + 6))


async def test_a_trace_that_was_dropped_while_it_went_on_is_no_trouble() -> None:
    traces = Traces("gpu-1")
    request = traces.begin(traceparent(), "serve")
    assert request is not None
    for number in range(2, TRACES_MAX + 3):
        serve(traces, number)

    request.close()

    ((span,), _) = await traces.spans(trace_id())
    assert span.name == "serve"


# Fills.


async def test_a_fill_is_within_the_request_that_began_it() -> None:
    traces = Traces("gpu-1")

    with traces.serving(traceparent(), "serve"), traces.filling(chunk=3):
        assert tracing.traceparent().startswith(f"00-{trace_id()}")

    spans, _ = await traces.spans(trace_id())
    by_name = {span.name: span for span in spans}
    assert by_name["fill"].parent == by_name["serve"].id


def test_a_fill_that_nobody_asked_about_is_traced_here_alone_and_may_be_the_slowest() -> None:
    traces = Traces("gpu-1")

    with traces.filling(chunk=3) as trace:
        assert tracing.traceparent() == ""

    ((kept, (span,)),) = traces.slowest(10)
    assert (kept, span.name, span.notes["chunk"]) == (trace.id, "fill", "3")


# The slowest.


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_slowest_are_kept_the_slowest_first() -> None:
    traces = Traces("gpu-1")
    for at in range(SLOW_MAX + 20):
        traces.took("look", (at * 37) % (SLOW_MAX + 20), chunk=at)

    found = [round(spans[0].duration_s) for _, spans in traces.slowest(0)]

    assert found == list(range(SLOW_MAX + 19, 19, -1))
    assert len(traces.slowest(5)) == 5


def test_one_is_slow_for_an_hour() -> None:
    clock = Clock()
    traces = Traces("gpu-1", clock=clock)
    traces.took("look", 9.0)
    clock.now = SLOW_FOR_S
    traces.took("look", 1.0)
    assert len(traces.slowest(0)) == 2

    clock.now += 1

    assert [spans[0].duration_s for _, spans in traces.slowest(0)] == [pytest.approx(1.0, rel=0.1)]


def test_of_a_slow_one_so_many_spans_are_kept() -> None:
    traces = Traces("gpu-1")
    with traces.serving(traceparent(), "serve"):
        for _ in range(SLOW_SPANS_MAX + 5):
            with tracing.span("look"):
                pass

    ((_, spans),) = traces.slowest(0)
    assert len(spans) == SLOW_SPANS_MAX


def test_what_was_asked_for_is_exported_once_it_is_over() -> None:
    exported: list[Trace] = []
    traces = Traces("gpu-1", export=exported.append)

    serve(traces)
    with traces.filling(chunk=1):
        pass

    assert [trace.id for trace in exported] == [trace_id()]

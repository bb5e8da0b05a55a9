"""A request's trace is over when its answer is sent, or cannot be; what it holds is let go of."""

import socket
from concurrent.futures import Future

import pytest

from penstock import tracing
from penstock.tracing import Traceparent
from penstock_node.serve.traced import traced
from penstock_node.traces import Traces
from penstock_node.transport.reply import Octets, Outcome, Part, Reply

TRACE_ID = "1" * 32
PARENT = str(Traceparent(TRACE_ID, "2" * 16))


class HeldFile:
    """A part that is told when it is closed."""

    def __init__(self) -> None:
        self.is_closed = False

    def send_to(self, target: socket.socket) -> bool:
        return True

    def close(self) -> None:
        self.is_closed = True


def end(reply: Outcome) -> None:
    """Close all parts, as a connection does once they are sent."""
    assert isinstance(reply, Reply)
    for part in reply.parts:
        part.close()


async def names(traces: Traces) -> list[str]:
    return [span.name for span in (await traces.spans(TRACE_ID))[0]]


async def test_it_is_over_when_the_last_part_is_sent() -> None:
    traces = Traces("a")

    def answer() -> Reply:
        with tracing.span("look"):
            return Reply([Octets(b"x")])

    reply = traced(traces, PARENT, answer, plane="bulk")
    assert traces.slowest(0) == []
    end(reply)

    assert await names(traces) == ["serve", "look", "send"]


async def test_an_answer_in_parts_is_one_request() -> None:
    traces = Traces("a")
    last = Reply([Octets(b"y")])

    first = traced(traces, PARENT, lambda: Reply([Octets(b"x")], then=lambda: last), plane="host")
    assert isinstance(first, Reply)
    assert first.then is not None
    end(first)
    assert traces.slowest(0) == []
    end(first.then())

    assert await names(traces) == ["serve", "send"]


async def test_an_answer_that_comes_later_is_the_same_and_so_is_its_end() -> None:
    traces, coming = Traces("a"), Future[Reply]()

    answered = traced(traces, PARENT, lambda: coming, plane="bulk")
    assert isinstance(answered, Future)
    coming.set_result(Reply([Octets(b"x")]))
    end(answered.result(0))

    assert await names(traces) == ["serve", "send"]


async def test_who_is_gone_when_the_answer_comes_leaves_nothing_open() -> None:
    """A connection gives its future up; the answer may have been made by then."""
    traces, coming, file = Traces("a"), Future[Reply](), HeldFile()
    coming.set_running_or_notify_cancel()  # So that it can be given up no more.
    parts: list[Part] = [file]

    answered = traced(traces, PARENT, lambda: coming, plane="bulk")
    assert isinstance(answered, Future)
    answered.cancel()
    coming.set_result(Reply(parts))

    assert file.is_closed
    assert await names(traces) == ["serve", "send"]


async def test_who_gives_up_ends_what_is_under_way() -> None:
    traces, coming = Traces("a"), Future[Reply]()

    answered = traced(traces, PARENT, lambda: coming, plane="bulk")
    assert isinstance(answered, Future)
    answered.cancel()

    assert coming.cancelled()
    assert await names(traces) == ["serve"]


async def test_an_error_is_passed_on_and_ends_it() -> None:
    traces, coming = Traces("a"), Future[Reply]()

    answered = traced(traces, PARENT, lambda: coming, plane="bulk")
    assert isinstance(answered, Future)
    coming.set_exception(OSError("lost"))

    with pytest.raises(OSError, match="lost"):
        answered.result(0)
    ((span,), _) = await traces.spans(TRACE_ID)
    assert span.notes["error"] == "OSError: lost"


def test_what_asks_for_no_trace_is_answered_as_it_is() -> None:
    reply = Reply([Octets(b"x")])

    assert traced(Traces("a"), "", lambda: reply, plane="bulk") is reply
    assert len(reply.parts) == 1

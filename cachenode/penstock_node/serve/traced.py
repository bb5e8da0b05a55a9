"""Requests that are traced: from being taken to the last byte that is sent.

Responsible for: the place of a request's trace wherever it is worked on, and its end.
Not responsible for: keeping traces (`penstock_node.traces`).
"""

import contextlib
import socket
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError

from penstock import tracing
from penstock.tracing import note_error
from penstock_node.traces import Served, Traces
from penstock_node.transport.reply import Outcome, Reply


def traced(
    traces: Traces, traceparent: str, answer: Callable[[], Outcome], *, plane: str
) -> Outcome:
    """Return what ``answer`` does, within the trace that the request names, if it names one."""
    served = traces.begin(traceparent, "serve", plane=plane) if traceparent else None
    return answer() if served is None else _answered(served, answer)


def _answered(served: Served, answer: Callable[[], Outcome]) -> Outcome:
    try:
        with tracing.at(served.place):
            outcome = answer()
    except BaseException as error:
        note_error(served.span, error)
        served.close()
        raise
    return _sent(served, outcome) if isinstance(outcome, Reply) else _later(served, outcome)


def _sent(served: Served, reply: Reply) -> Reply:
    """Have the trace end when the last of the reply is sent, or cannot be."""
    if reply.then is not None:
        then = reply.then
        # Its type is of an answer that is at hand or to come: that of a first one.
        reply.then = lambda: _answered(served, then)
    elif reply.parts:
        reply.parts.append(_End(served))
    else:
        served.close()
    return reply


def _later(served: Served, coming: "Future[Reply]") -> "Future[Reply]":
    answered: Future[Reply] = Future()

    def came(_: "Future[Reply]") -> None:
        if coming.cancelled():
            served.close()
            answered.cancel()
        elif error := coming.exception():
            note_error(served.span, error)
            served.close()
            with contextlib.suppress(InvalidStateError):  # Nobody waits any more.
                answered.set_exception(error)
        else:
            _hand_over(_sent(served, coming.result()))

    def _hand_over(reply: Reply) -> None:
        try:
            answered.set_result(reply)
        except InvalidStateError:  # Its reader is gone: nobody else closes what it holds.
            for part in reply.parts:
                part.close()
            served.close()

    def cancel(_: "Future[Reply]") -> None:
        if answered.cancelled():
            coming.cancel()

    answered.add_done_callback(cancel)
    coming.add_done_callback(came)
    return answered


class _End:
    """Comes after the last part of a reply; see `penstock_node.transport.reply.Part`."""

    __slots__ = ("_sending", "_served")

    def __init__(self, served: Served) -> None:
        self._served = served
        self._sending = served.trace.begin("send", served.span)

    def send_to(self, target: socket.socket) -> bool:
        """See `Part.send_to`: nothing is sent."""
        return True

    def close(self) -> None:
        """See `Part.close`."""
        self._served.trace.end(self._sending)
        self._served.close()

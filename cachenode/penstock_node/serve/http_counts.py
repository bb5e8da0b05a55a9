"""Requests of an HTTP port for programs of others, counted by operation and status.

Responsible for: reading the status of an answer off the line that is sent.
Not responsible for: what the operations are (`s3.gateway`, `hub.hub`), chunks, which planes count.
"""

from concurrent.futures import Future

from prometheus_client import CollectorRegistry, Counter

from penstock_node.transport.reply import Octets, Outcome, Reply

_STATUS_AT = slice(9, 12)
"""In ``HTTP/1.1 200 OK``."""
NO_ANSWER = "none"
"""The status of a request whose connection ended without one."""


class HttpCounts:
    """Counts requests of one protocol. Thread-safe."""

    def __init__(self, protocol: str, *, registry: CollectorRegistry) -> None:
        """Count none yet.

        Args:
            protocol: Part of the metric's name.
            registry: Exports it.
        """
        self._requests = Counter(
            f"penstock_{protocol}_requests",
            "Requests that were answered, by operation and status.",
            labelnames=("operation", "status"),
            registry=registry,
        )

    def counted(self, outcome: Outcome, *, operation: str) -> Outcome:
        """Return ``outcome``, counted when its answer is there.

        Args:
            outcome: Of a request.
            operation: One of few names.
        """
        if isinstance(outcome, Reply):
            self._count(outcome, operation)
        else:
            outcome.add_done_callback(lambda answered: self._count(_reply(answered), operation))
        return outcome

    def _count(self, reply: Reply | None, operation: str) -> None:
        self._requests.labels(operation=operation, status=status_of(reply)).inc()


def _reply(answered: "Future[Reply]") -> Reply | None:
    is_there = not answered.cancelled() and answered.exception() is None
    return answered.result() if is_there else None


def status_of(reply: Reply | None) -> str:
    """Return the status in the first line of an answer that is not sent yet."""
    if reply is None or not reply.parts or not isinstance(reply.parts[0], Octets):
        return NO_ANSWER
    return reply.parts[0].peek(_STATUS_AT).decode("ascii", "replace")

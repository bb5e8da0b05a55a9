"""Spans as messages of `penstock.v1`, and back."""

from collections.abc import Iterable

from penstock.tracing import Span
from penstock.v1 import trace_pb2


def spans_to_proto(spans: Iterable[Span]) -> list[trace_pb2.Span]:
    """Return spans as messages."""
    return [
        trace_pb2.Span(
            name=span.name,
            node=span.node,
            id=span.id,
            parent=span.parent,
            started_at=span.started_at,
            duration_s=span.duration_s,
            bytes=span.bytes,
            queued_s=span.queued_s,
            notes=span.notes,
        )
        for span in spans
    ]


def spans_from_proto(messages: Iterable[trace_pb2.Span], *, ahead_s: float = 0.0) -> list[Span]:
    """Return what messages tell, by this process's clock.

    Args:
        messages: Of one node.
        ahead_s: What that node's clock is ahead of this one's.
    """
    return [
        Span(
            message.name,
            message.node,
            message.id,
            message.parent,
            message.started_at - ahead_s,
            message.duration_s,
            message.bytes,
            message.queued_s,
            dict(message.notes),
        )
        for message in messages
    ]

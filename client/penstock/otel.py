"""Traces for OpenTelemetry: spans of ours as OTLP, and programs' own spans as parents of ours.

Responsible for: what our spans are called there, sending them in batches beside the work, and
dropping what cannot be sent in time.
Not responsible for: making spans (`penstock.tracing`), which reads are traced. Needs the extra
``otel``; names follow OpenTelemetry's semantic conventions where those have one.
"""

from collections.abc import Sequence

from opentelemetry import trace as api
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

from penstock.tracing import Span, Trace, Traceparent

QUEUE_MAX = 8192
"""Spans that wait to be sent; more are dropped."""
DELAY_MS = 1000
TIMEOUT_S = 5.0
FLUSH_MS = 2000
_SCOPE = InstrumentationScope("penstock")
_ASKING = frozenset(("ask", "peer", "forward", "open", "origin", "source"))
_NS = 1_000_000_000


class Export:
    """Sends traces to a collector. Thread-safe; a fork's child makes its own."""

    def __init__(
        self,
        *,
        service: str,
        instance: str = "",
        endpoint: str = "",
        to: SpanExporter | None = None,
    ) -> None:
        """Send nothing yet.

        Args:
            service: The name of the service, ``penstock-node`` for example.
            instance: Which of them.
            endpoint: Of the collector's OTLP over HTTP, ``http://host:4318``; by default what
                ``OTEL_EXPORTER_OTLP_ENDPOINT`` says.
            to: Takes the spans instead.
        """
        attributes = {"service.name": service} | (
            {"service.instance.id": instance} if instance else {}
        )
        self._resource = Resource.create(attributes)
        if to is None:
            url = f"{endpoint.rstrip('/')}/v1/traces" if endpoint else None
            to = OTLPSpanExporter(endpoint=url, timeout=TIMEOUT_S)
        self._sending = BatchSpanProcessor(
            to, max_queue_size=QUEUE_MAX, schedule_delay_millis=DELAY_MS
        )

    def __call__(self, trace: Trace) -> None:
        """Have a trace's spans sent, soon; never waits."""
        for span in _sendable(trace, self._resource):
            self._sending.on_end(span)

    def close(self) -> None:
        """Send what waits, for a moment, and end."""
        self._sending.force_flush(FLUSH_MS)
        self._sending.shutdown()  # type: ignore[no-untyped-call]


def current_parent() -> Traceparent | None:
    """Return the program's own span that this thread or task is in, if that is recorded."""
    context = api.get_current_span().get_span_context()
    if not (context.is_valid and context.trace_flags.sampled):
        return None
    return Traceparent(f"{context.trace_id:032x}", f"{context.span_id:016x}")


def _sendable(trace: Trace, resource: Resource) -> Sequence[ReadableSpan]:
    return [_readable(trace.id, span, resource) for span in trace.spans]


def _readable(trace_id: str, span: Span, resource: Resource) -> ReadableSpan:
    begun_ns = round(span.started_at * _NS)
    error = span.notes.get("error")
    return ReadableSpan(
        name=f"penstock {span.name}",
        context=_context(trace_id, span.id),
        parent=_context(trace_id, span.parent) if int(span.parent or "0", 16) else None,
        resource=resource,
        attributes={
            **{f"penstock.{name}": value for name, value in span.notes.items()},
            **({"penstock.node": span.node} if span.node else {}),
            **({"penstock.bytes": span.bytes} if span.bytes else {}),
            **({"penstock.queued_ms": span.queued_s * 1000} if span.queued_s else {}),
        },
        kind=_kind(span),
        instrumentation_scope=_SCOPE,
        status=Status(StatusCode.ERROR, error) if error else Status(StatusCode.UNSET),
        start_time=begun_ns,
        end_time=begun_ns + round(span.duration_s * _NS),
    )


def _kind(span: Span) -> SpanKind:
    if span.name == "serve":
        return SpanKind.SERVER
    return SpanKind.CLIENT if span.name in _ASKING else SpanKind.INTERNAL


def _context(trace_id: str, span_id: str) -> SpanContext:
    return SpanContext(
        int(trace_id, 16), int(span_id, 16), is_remote=False, trace_flags=TraceFlags(1)
    )

"""Which of a program's reads are traced though nobody follows them.

Responsible for: a share of all reads, and those within a span of the program's own.
Not responsible for: following one read (`trace_calls`), sending spans anywhere (`otel`).
"""

import contextlib
import os
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from penstock import tracing
from penstock.errors import InvalidConfiguration, InvalidRequest
from penstock.tracing import Trace, Traceparent

_NOTHING = contextlib.nullcontext()
SHARE_VARIABLE = "PENSTOCK_TRACE_SHARE"
_COLLECTOR_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


class Sampling:
    """Thread-safe."""

    def __init__(
        self,
        share: float,
        *,
        parent: Callable[[], Traceparent | None] = lambda: None,
        export: Callable[[Trace], None] = lambda _trace: None,
        close: Callable[[], object] = lambda: None,
        rng: random.Random | None = None,
    ) -> None:
        """Trace nothing yet.

        Args:
            share: Of reads, from 0 to 1.
            parent: Tells the program's own span, if there is one: then its reads are traced.
            export: Given each trace that was begun here, when it is over.
            close: Called in the end.
            rng: Chooses.
        """
        self._share = share
        self._parent = parent
        self._export = export
        self.close = close
        self._rng = rng or random.Random()  # noqa: S311 - chooses, guards nothing

    def reading(self, url: str) -> AbstractContextManager[object]:
        """Trace a read of ``url`` for as long as the ``with`` lasts, if it is one of those."""
        if tracing.current() is not None:
            return tracing.span("load", url=url)
        parent = self._parent()
        if parent is None and not (self._share and self._rng.random() < self._share):
            return _NOTHING
        return self._traced(url, parent)

    @contextlib.contextmanager
    def _traced(self, url: str, parent: Traceparent | None) -> Iterator[None]:
        trace = Trace(parent=parent)
        try:
            with tracing.at(tracing.within(trace)), tracing.span("read", url=url):
                yield
        finally:
            self._export(trace)


def share_from(text: str | float | None) -> float:
    """Return the share of reads to be traced; None and an empty text are none.

    Raises:
        InvalidRequest: It is not from 0 to 1.
    """
    try:
        share = float(text or 0.0)
    except ValueError:
        share = -1.0
    if not 0.0 <= share <= 1.0:
        raise InvalidRequest(
            f"trace_share (or {SHARE_VARIABLE}) is {text!r}: want a number from 0, no read, to 1, "
            "all of them"
        )
    return share


def sampling_for_programs(share: float) -> Sampling:
    """Return what a program asked for: its traces go to a collector where it names one.

    Raises:
        InvalidConfiguration: It names one, and the extra ``otel`` is not installed.
    """
    if not any(os.environ.get(name) for name in _COLLECTOR_VARIABLES):
        return Sampling(share)
    try:
        from penstock import otel
    except ImportError as error:
        if not share:  # The collector is for others.
            return Sampling(share)
        raise InvalidConfiguration(
            "traces go to an OpenTelemetry collector with: pip install 'penstock[otel]'; or unset "
            f"{' and '.join(_COLLECTOR_VARIABLES)}"
        ) from error
    export = otel.Export(service=os.environ.get("OTEL_SERVICE_NAME", "penstock-client"))
    return Sampling(share, parent=otel.current_parent, export=export, close=export.close)

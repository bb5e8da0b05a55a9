"""Calls of a gRPC port, counted by method: how many, how long, and with which status they end.

Responsible for: counting around whatever a service does.
Not responsible for: what it does (`rpc` gives its errors names).
"""

import contextlib
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any

import grpc
from prometheus_client.core import Metric

from penstock_node.durations import Durations, Tally
from penstock_node.metrics import counter, histogram
from penstock_node.serve.gated import Gated
from penstock_node.serve.rpc import Context

CALL_BUCKETS_S = (0.002, 0.01, 0.05, 0.2, 1, 5, 30)
_CODES = {code.value[0]: code.name for code in grpc.StatusCode}
_SEPARATOR = " "


class Calls:
    """What became of calls. Methods are those of services, and so few."""

    def __init__(self) -> None:
        self._ended = Tally()
        self._durations: dict[str, Durations] = {}

    def ended(self, method: str, code: str, *, seconds: float) -> None:
        """Count a call."""
        self._ended.add(f"{method}{_SEPARATOR}{code}")
        self._durations.setdefault(method, Durations(CALL_BUCKETS_S)).add(seconds)

    def collect(self) -> Iterable[Metric]:
        """Return the metrics; see `penstock_node.metrics.scrape`."""
        yield counter(
            "penstock_grpc_requests",
            "Calls of the gRPC port that are over, by method and gRPC's status.",
            [(tuple(key.split(_SEPARATOR)), count) for key, count in self._ended.now().items()],
            "method",
            "code",
        )
        yield histogram(
            "penstock_grpc_request_duration_seconds",
            "How long calls of the gRPC port took; some wait for news by design.",
            [((method,), durations) for method, durations in self._durations.items()],
            "method",
        )


class Counted:
    """A service whose methods are counted. gRPC asks it for each of them once, when it is added."""

    def __init__(self, servicer: object, *, name: str, calls: Calls, gated: Gated) -> None:
        """Stand before ``servicer``, whose service has ``name``; ``gated`` lets callers in."""
        self._servicer, self._name, self._calls, self._gated = servicer, name, calls, gated

    def __getattr__(self, method: str) -> Callable[..., Any]:
        answer: Callable[..., Any] = getattr(self._servicer, method)
        answer = self._gated.before(answer, f"{self._name}/{method}")
        counted = _stream if inspect.isasyncgenfunction(answer) else _unary
        return counted(answer, f"{self._name}.{method}", self._calls)


def _unary(
    answer: Callable[[Any, Context], Awaitable[Any]], method: str, calls: Calls
) -> Callable[[Any, Context], Awaitable[Any]]:
    async def call(request: Any, context: Context) -> Any:
        with _counted(method, calls, context):
            return await answer(request, context)

    return call


def _stream(
    answer: Callable[[Any, Context], AsyncIterator[Any]], method: str, calls: Calls
) -> Callable[[Any, Context], AsyncIterator[Any]]:
    async def call(request: Any, context: Context) -> AsyncIterator[Any]:
        with _counted(method, calls, context):
            async for each in answer(request, context):
                yield each

    return call


@contextlib.contextmanager
def _counted(method: str, calls: Calls, context: Context) -> Iterator[None]:
    begun, code = time.monotonic(), "CANCELLED"
    try:
        yield
        code = "OK"
    except grpc.aio.AbortError:
        code = _code(context)
        raise
    finally:
        calls.ended(method, code, seconds=time.monotonic() - begun)


def _code(context: Context) -> str:
    """Return the status that a call was ended with."""
    code = context.code()
    return code.name if isinstance(code, grpc.StatusCode) else _CODES.get(code, "UNKNOWN")

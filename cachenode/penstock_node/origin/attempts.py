"""A call's attempts: again after a failure that another one may mend, within the bounds.

Responsible for: counting attempts and waiting between them, in one place for all origins.
Not responsible for: whether the origin is asked at all (`gate`), what a request is.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import stamina

from penstock import tracing
from penstock.deadline import Deadline
from penstock.errors import PenstockError
from penstock_node.origin.gate import Gate
from penstock_node.origin.interface import Operation, OriginCounters, OriginLimits
from penstock_node.origin.outages import Unanswered

T = TypeVar("T")


async def attempts(
    attempt: Callable[[], Awaitable[T]],
    path: str,
    *,
    operation: Operation,
    gate: Gate,
    limits: OriginLimits,
    deadline: Deadline | None,
    size_bytes: int = 0,
) -> T:
    """Run ``attempt`` until it succeeds, cannot succeed, or the bounds are reached.

    Args:
        attempt: Raises `Unanswered` where another attempt may help.
        path: What is asked for.
        operation: Which kind of request.
        gate: Before the origin.
        limits: How often, for how long.
        deadline: When to give up.
        size_bytes: Of payload that each attempt asks for.
    """
    async with gate.call(path, deadline=deadline) as call:
        async for each in stamina.retry_context(
            on=Unanswered,
            attempts=call.attempts_max,
            timeout=limits.attempts_s,
            wait_initial=limits.backoff_s,
            wait_max=limits.backoff_max_s,
            wait_jitter=limits.backoff_s,
        ):
            with each:
                await call.turn(size_bytes=size_bytes)
                span = tracing.here()
                if each.num > 1:
                    gate.counters.retries += 1
                    span.note(attempts=each.num)
                with counted(gate.counters, operation):
                    found = await attempt()
                span.add_bytes(size_bytes)
                return found
    raise AssertionError("unreachable: the last attempt returns or raises")


@contextlib.contextmanager
def counted(counters: OriginCounters, operation: Operation) -> Iterator[None]:
    """Time the request in the ``with``, and count how it fails if it does."""
    try:
        with counters.took(operation).timing():
            yield
    except Unanswered as failure:
        tracing.here().note(again=failure.reason)
        counters.failures.add(failure.kind)
        raise
    except PenstockError as error:
        counters.failures.add(error.name)
        raise
    except asyncio.CancelledError:  # Its caller's time was over, or its caller is gone.
        counters.failures.add("given_up")
        raise

"""A call's attempts: again after a failure that another one may mend, within the bounds.

Responsible for: counting attempts and waiting between them, in one place for all origins.
Not responsible for: whether the origin is asked at all (`gate`), what a request is.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import stamina

from penstock import tracing
from penstock.deadline import Deadline
from penstock_node.origin.gate import Gate
from penstock_node.origin.interface import OriginLimits
from penstock_node.origin.outages import Unanswered

T = TypeVar("T")


async def attempts(
    attempt: Callable[[], Awaitable[T]],
    path: str,
    *,
    gate: Gate,
    limits: OriginLimits,
    deadline: Deadline | None,
    size_bytes: int = 0,
) -> T:
    """Run ``attempt`` until it succeeds, cannot succeed, or the bounds are reached.

    Args:
        attempt: Raises `Unanswered` where another attempt may help.
        path: What is asked for.
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
                found = await _noted(attempt, each.num)
                tracing.here().add_bytes(size_bytes)
                return found
    raise AssertionError("unreachable: the last attempt returns or raises")


async def _noted(attempt: Callable[[], Awaitable[T]], number: int) -> T:
    """Make an attempt; what comes of it is noted where the call is traced."""
    span = tracing.here()
    if number > 1:
        span.note(attempts=number)
    try:
        return await attempt()
    except Unanswered as failure:
        span.note(again=failure.reason)
        raise

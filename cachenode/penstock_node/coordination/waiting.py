"""Waiting for an event, at most so long."""

import asyncio


async def is_set_within(event: asyncio.Event, *, seconds: float) -> bool:
    """Wait until ``event`` is set; tell whether it was, within ``seconds``.

    Not `asyncio.wait_for`: on Python 3.11 that loses a cancellation which comes in the moment
    in which the event is set, and then the caller's loop never ends.
    """
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True

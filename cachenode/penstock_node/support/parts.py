"""Putting together what a process tells: part by part, within bounds of size and time.

Responsible for: a part that fails or hangs costs itself alone; no part is longer than a bound.
Not responsible for: what parts there are (`process_parts`, `node_parts`).
"""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from penstock.errors import Overloaded

PART_CHARACTERS_MAX = 1_500_000
"""Of one part; a log of a mebibyte fits. There are some fifteen parts."""
GATHER_TIMEOUT_S = 5.0
"""Longest that a part is waited for which asks the kernel: a disk may hang."""
GATHERS_MAX = 4
"""At once, those among them that hang."""
RETRY_AFTER_S = 2.0

Makers: TypeAlias = Mapping[str, Callable[[], str]]
"""What makes each part, by its name; they raise what they like."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part of what a process tells."""

    name: str
    """Of the file that it becomes."""
    text: str
    is_cut: bool = False
    """It was longer; this is its beginning."""
    trouble: str = ""
    """Why it is not there; empty where it is."""


class Gathering:
    """Makes all parts anew each time it is asked; on the event loop."""

    def __init__(self, *, here: Makers, elsewhere: Makers) -> None:
        """Make nothing yet.

        Args:
            here: Parts that are made on the event loop, from what changes there; quick.
            elsewhere: Parts that may take a while or hang: each gathering has a thread for them.
        """
        self._here, self._elsewhere = here, elsewhere
        self._running = 0

    async def gather(self) -> list[Part]:
        """Return all parts.

        Raises:
            Overloaded: As many gatherings as there may be are running, or hang; or the process
                may have no more threads.
        """
        if self._running >= GATHERS_MAX:
            raise Overloaded(
                f"{GATHERS_MAX} are gathering what this process tells; come back later",
                retry_after_s=RETRY_AFTER_S,
            )
        made: queue.SimpleQueue[Part] = queue.SimpleQueue()
        ended = asyncio.Event()
        end = partial(self._end_on, asyncio.get_running_loop(), ended)
        self._begin(made, end)
        parts = [make_part(name, make) for name, make in self._here.items()]
        try:
            async with asyncio.timeout(GATHER_TIMEOUT_S):
                await ended.wait()
        except TimeoutError:
            pass  # What has come by now is told, and what has not is named.
        while not made.empty():
            parts.append(made.get())
        missing = [*self._elsewhere][len(parts) - len(self._here) :]
        late = f"not within {GATHER_TIMEOUT_S:.0f} s"
        return [*parts, *(Part(name, "", trouble=late) for name in missing)]

    def _begin(self, made: "queue.SimpleQueue[Part]", end: Callable[[], object]) -> None:
        # Of no pool: one that hangs must not hold up the process's end.
        thread = threading.Thread(
            target=self._make_elsewhere, args=(made, end), name="penstock-support", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:
            raise Overloaded(
                "this process may have no more threads; come back later",
                retry_after_s=RETRY_AFTER_S,
            ) from error
        self._running += 1  # Its end is counted on this loop: never before.

    def _make_elsewhere(self, made: "queue.SimpleQueue[Part]", end: Callable[[], object]) -> None:
        try:
            for name, make in self._elsewhere.items():
                made.put(make_part(name, make))
        finally:
            end()

    def _end_on(self, loop: asyncio.AbstractEventLoop, ended: asyncio.Event) -> None:
        with contextlib.suppress(RuntimeError):  # The process ended while it hung.
            loop.call_soon_threadsafe(self._end, ended)

    def _end(self, ended: asyncio.Event) -> None:
        self._running -= 1
        ended.set()


def make_part(name: str, make: Callable[[], str]) -> Part:
    """Return a part, or why there is none."""
    try:
        text = make()
    except Exception as error:  # noqa: BLE001 - all else is told all the same
        return Part(name, "", trouble=f"{type(error).__name__}: {error}")
    is_cut = len(text) > PART_CHARACTERS_MAX
    # Paths may be no text; a message has to be.
    text = text[:PART_CHARACTERS_MAX].encode(errors="replace").decode()
    return Part(name, text, is_cut=is_cut)

"""Imports that run in this catalog, each for as long as somebody follows it.

Responsible for: names of imports, how many there are, and ending those that nobody follows.
Not responsible for: importing (`penstock_node.catalog.importing`).
"""

import asyncio
import secrets
from dataclasses import dataclass

from penstock.errors import InvalidRequest, Overloaded
from penstock_node.catalog.import_report import ImportReport
from penstock_node.catalog.importing import Import
from penstock_node.durations import Tally
from penstock_node.tasks import cancel

IMPORTS_MAX = 16
FOLLOWED_S = 30.0
"""An import that nobody has asked for in so long is ended: whoever began it is gone. What it has
written stays, and the next one goes on from there."""
WAIT_S = 0.5
"""How long an answer waits for the import's end."""


@dataclass
class _Running:
    work: Import
    task: "asyncio.Task[ImportReport]"
    timer: asyncio.TimerHandle
    """Ends it, unless somebody follows it before."""


class Imports:
    """All imports of this process. On one event loop."""

    def __init__(self, *, followed_s: float = FOLLOWED_S) -> None:
        """Run none yet.

        Args:
            followed_s: One that nobody has followed for so long is ended.
        """
        self._followed_s = followed_s
        self._running: dict[str, _Running] = {}
        self.ended = Tally("done", "failed", "stopped")
        """Imports that are over: ``done``, ``failed`` or ``stopped``."""

    def start(self, work: Import) -> str:
        """Begin one, and return its name.

        Raises:
            Overloaded: So many are under way already.
        """
        if len(self._running) >= IMPORTS_MAX:
            raise Overloaded(f"{IMPORTS_MAX} imports are under way", retry_after_s=5.0)
        name = secrets.token_hex(8)
        task = asyncio.create_task(work.run(), name=f"import {name}")
        task.add_done_callback(self._note_end)
        self._running[name] = _Running(work, task, self._ends_later(name))
        return name

    @property
    def running_count(self) -> int:
        """How many are under way."""
        return sum(not each.task.done() for each in self._running.values())

    def _note_end(self, task: "asyncio.Task[ImportReport]") -> None:
        if task.cancelled():
            self.ended.add("stopped")
        else:
            self.ended.add("failed" if task.exception() else "done")

    def _ends_later(self, name: str) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(self._followed_s, self._forget, name)

    def _forget(self, name: str) -> _Running:
        running = self._running.pop(name)
        running.timer.cancel()
        running.task.cancel()
        return running

    async def follow(self, name: str) -> tuple[ImportReport, bool]:
        """Return how far an import is, and whether it is over; then it is forgotten.

        Raises:
            InvalidRequest: There is none of this name.
            PenstockError: Why it failed.
        """
        running = self._existing(name)
        running.timer.cancel()
        running.timer = self._ends_later(name)
        done, _ = await asyncio.wait({running.task}, timeout=WAIT_S)
        if not done:
            return running.work.progress, False
        if name in self._running:  # Else another follows it too.
            self._forget(name)
        return running.task.result(), True

    async def stop(self, name: str) -> None:
        """End one; what it has written stays.

        Raises:
            InvalidRequest: There is none of this name.
        """
        self._existing(name)
        await cancel(self._forget(name).task)

    def _existing(self, name: str) -> _Running:
        if name not in self._running:
            raise InvalidRequest(
                "the catalog does not know this import: it was restarted, or nobody had followed "
                "it; begin it again, and it goes on from what is there"
            )
        return self._running[name]

    async def close(self) -> None:
        """End all."""
        for name in list(self._running):
            await cancel(self._forget(name).task)

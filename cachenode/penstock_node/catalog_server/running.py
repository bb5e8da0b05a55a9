"""Imports that run in this catalog, each for as long as somebody follows it.

Responsible for: names of imports, how many there are, and ending those that nobody follows.
Not responsible for: importing (`penstock_node.catalog.importing`).
"""

import asyncio
import secrets
from dataclasses import dataclass, field

from penstock.errors import InvalidRequest, Overloaded
from penstock_node.catalog.import_report import ImportReport
from penstock_node.catalog.importing import Import
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
    followed: asyncio.Event = field(default_factory=asyncio.Event)


class Imports:
    """All imports of this process. On one event loop."""

    def __init__(self) -> None:
        self._running: dict[str, _Running] = {}
        self._watching: set[asyncio.Task[None]] = set()

    def start(self, work: Import) -> str:
        """Begin one, and return its name.

        Raises:
            Overloaded: So many are under way already.
        """
        if len(self._running) >= IMPORTS_MAX:
            raise Overloaded(f"{IMPORTS_MAX} imports are under way", retry_after_s=5.0)
        name = secrets.token_hex(8)
        running = _Running(work, asyncio.create_task(work.run(), name=f"import {name}"))
        self._running[name] = running
        watching = asyncio.create_task(self._watch(name, running))
        self._watching.add(watching)
        watching.add_done_callback(self._watching.discard)
        return name

    async def follow(self, name: str) -> tuple[ImportReport, bool]:
        """Return how far an import is, and whether it is over; then it is forgotten.

        Raises:
            InvalidRequest: There is none of this name.
            PenstockError: Why it failed.
        """
        running = self._existing(name)
        running.followed.set()
        done, _ = await asyncio.wait({running.task}, timeout=WAIT_S)
        if done:
            self._running.pop(name, None)
            return running.task.result(), True
        return running.work.progress, False

    async def stop(self, name: str) -> None:
        """End one; what it has written stays.

        Raises:
            InvalidRequest: There is none of this name.
        """
        running = self._existing(name)
        self._running.pop(name, None)
        await cancel(running.task)

    def _existing(self, name: str) -> _Running:
        if name not in self._running:
            raise InvalidRequest(
                "the catalog does not know this import: it was restarted, or nobody had followed "
                "it; begin it again, and it goes on from what is there"
            )
        return self._running[name]

    async def _watch(self, name: str, running: _Running) -> None:
        try:
            while True:
                running.followed.clear()
                async with asyncio.timeout(FOLLOWED_S):
                    await running.followed.wait()
                if name not in self._running:
                    return
        except TimeoutError:
            self._running.pop(name, None)
            await cancel(running.task)

    async def close(self) -> None:
        """End all."""
        for watching in list(self._watching):
            watching.cancel()
        running, self._running = list(self._running.values()), {}
        for each in running:
            await cancel(each.task)

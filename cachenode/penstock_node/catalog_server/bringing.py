"""Bringing new data into a mirror's region, while it is this process's turn.

Responsible for: one task for each volume that has rules, going on after failures, and telling them.
Not responsible for: what is brought (`bringing_volume`), whose turn it is (`registration`).
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import structlog

from penstock.errors import InvalidRequest, PenstockError
from penstock.membership.coordinator import Coordinator
from penstock.mirror_rules import MirrorRules
from penstock_node.catalog_server.bringing_volume import Region, VolumeBringing
from penstock_node.coordination.records import MIRRORS, mirror_rules_from_json
from penstock_node.tasks import cancel

T = TypeVar("T")

LOOK_S = 0.5
"""Between looks for new entries, and for new rules."""
PAUSE_S = 2.0
"""After a failure."""

_log = structlog.get_logger(__name__)


class Bringing:
    """Brings data into one region. On one event loop."""

    def __init__(self, region: Region, coordinator: Coordinator) -> None:
        """Bring nothing yet; ``coordinator`` has the rules."""
        self._region, self._coordinator = region, coordinator
        self._tasks: dict[tuple[str, MirrorRules], asyncio.Task[None]] = {}
        self._failing: dict[str, str] = {}
        self._passing: dict[str, str] = {}

    @property
    def trouble(self) -> dict[str, str]:
        """By volume, why it does not get on, or what is passed by; under no name, why none does."""
        return self._passing | self._failing

    @property
    def volumes(self) -> set[str]:
        """Those that something is to be brought of, while it is this process's turn."""
        return {volume for volume, _rules in self._tasks}

    async def rules(self) -> dict[str, MirrorRules]:
        """Return what is to be brought of which volume.

        Raises:
            ClusterUnavailable: The coordinator does not answer.
        """
        found: dict[str, MirrorRules] = {}
        for key, entry in (await self._coordinator.list(MIRRORS)).entries.items():
            try:
                found[key.removeprefix(MIRRORS)] = mirror_rules_from_json(entry.value)
            except (ValueError, InvalidRequest) as error:  # Those of other volumes hold.
                _log.warning("rules of a mirror are ignored", key=key, error=str(error))
        return found

    async def run(self, token: int) -> None:
        """Bring, for ever: it is this process's turn until this is cancelled."""
        try:
            await self._insist("", partial(self._take_over, token))
            while True:
                await self._insist("", partial(self._follow_rules, token))
                await asyncio.sleep(LOOK_S)
        finally:
            for key in list(self._tasks):
                await self._end(key)

    async def _take_over(self, token: int) -> None:
        revision = (await self._coordinator.list(MIRRORS)).revision
        take_over = partial(self._region.copies.take_over, token, revision=revision)
        await self._region.in_thread(take_over)

    async def _follow_rules(self, token: int) -> None:
        wanted = await self.rules()
        for key in self._tasks.keys() - wanted.items():
            await self._end(key)
        for volume, rules in wanted.items() - self._tasks.keys():
            work = self._bring(volume, rules, token)
            self._tasks[volume, rules] = asyncio.create_task(work, name=f"bring {volume}")

    async def _end(self, key: tuple[str, MirrorRules]) -> None:
        await cancel(self._tasks.pop(key))
        self._failing.pop(key[0], None)
        self._passing.pop(key[0], None)

    async def _bring(self, volume: str, rules: MirrorRules, token: int) -> None:
        async def begin() -> VolumeBringing:
            return VolumeBringing(volume, rules, token, region=self._region)

        work = await self._insist(volume, begin)
        while True:
            had_some = await self._insist(volume, work.settle_page)
            if work.trouble:
                self._passing[volume] = work.trouble
            else:
                self._passing.pop(volume, None)
            if not had_some:
                await asyncio.sleep(LOOK_S)

    async def _insist(self, volume: str, work: Callable[[], Awaitable[T]]) -> T:
        """Return what ``work`` does, however often it fails before."""
        while True:
            try:
                done = await work()
            except Exception as error:  # noqa: BLE001 - whatever it is, it is told and tried again
                if not self._failing.get(volume):
                    log = _log.warning if isinstance(error, PenstockError) else _log.exception
                    log("data is not brought here", volume=volume, error=str(error))
                self._failing[volume] = str(error)
                await asyncio.sleep(PAUSE_S)
            else:
                self._failing.pop(volume, None)
                return done

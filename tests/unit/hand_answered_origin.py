"""An origin whose questions the test answers, and a volume over several of them."""

import asyncio
from collections import defaultdict
from typing import cast

from penstock.deadline import Deadline
from penstock.errors import ObjectNotFound
from penstock.volumes import Volume
from penstock_node.origin import CataloguedOrigin, Origin, OriginCounters, OriginMeta
from penstock_node.origin.catalogued import Catalog

DEADLINE_S = 20.0


class HandAnsweredOrigin:
    """Its questions wait until the test answers them."""

    def __init__(self) -> None:
        self.asked: dict[str, list[asyncio.Future[OriginMeta]]] = defaultdict(list)
        self._changed = asyncio.Condition()

    async def head(self, path: str, *, deadline: Deadline | None = None) -> OriginMeta:
        assert deadline is not None
        answer: asyncio.Future[OriginMeta] = asyncio.get_running_loop().create_future()
        async with self._changed:
            self.asked[path].append(answer)
            self._changed.notify_all()
        return await answer

    @property
    def open_count(self) -> int:
        """How many questions are open."""
        return sum(map(len, self.asked.values()))

    async def wait_asked(self, path: str = "", *, count: int = 1) -> None:
        """Wait until so many questions are open, about one path or any."""
        async with asyncio.timeout(DEADLINE_S), self._changed:
            await self._changed.wait_for(
                lambda: (len(self.asked[path]) if path else self.open_count) >= count
            )

    async def answer(self, path: str, *, version: str = "", error: Exception | None = None) -> None:
        """Answer the oldest open question, once there is one."""
        await self.wait_asked(path)
        answer = self.asked[path].pop(0)
        if version:
            answer.set_result(OriginMeta(version, 5, 1))
        else:
            answer.set_exception(error or ObjectNotFound(path))


class Opened:
    """Opens the volume's origins: those of the test."""

    def __init__(self, origins: list[HandAnsweredOrigin]) -> None:
        self._origins = origins

    def get(self, volume: Volume) -> CataloguedOrigin:
        origins = [cast("Origin", each) for each in self._origins]
        unasked = cast("Catalog", None)
        return CataloguedOrigin(volume, unasked, origins, counters=OriginCounters())

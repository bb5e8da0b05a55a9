"""A program over asyncio that reads many things at once, gives some up midway, and compares.

Responsible for: the same as `work`, of `penstock.aio`.
"""

import asyncio
import random
import threading

from penstock import aio
from penstock_node.testbed.soak.contents import Contents, url_of
from penstock_node.testbed.soak.tally import Tally
from penstock_node.testbed.soak.work import PIECE_BYTES_MAX

AT_ONCE = 4
IMPATIENT_S = 0.02
PIECES = 5


class AsyncWork:
    """What a program's tasks do."""

    def __init__(
        self, contents: Contents, tally: Tally, *, rng: random.Random, stop: threading.Event
    ) -> None:
        """``stop`` is set when it is to end."""
        self._contents, self._tally, self._rng, self._stop = contents, tally, rng, stop

    async def run(self, address: str, *, pause_s: float) -> None:
        """Work until told to stop."""
        async with await aio.connect(address) as cache, asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(self._work_on(cache, pause_s))

    async def _work_on(self, cache: aio.AsyncCache, pause_s: float) -> None:
        works = {
            "read": self._read,
            "read, and give up": self._give_up,
            "read a file": self._read_file,
            "list": self._list,
        }
        while not self._stop.is_set():
            await asyncio.sleep(pause_s)
            (name,) = self._rng.choices(list(works), (6, 3, 3, 1))
            try:
                self._tally.did(f"asyncio: {name}", await works[name](cache))
            except Exception as error:  # noqa: BLE001 - told, whatever it is
                self._tally.failed(f"asyncio: {name}", error)

    def _check(self, path: str, data: bytes, start: int = 0) -> int:
        if not self._contents.is_right(path, data, start):
            self._tally.wrong(f"asyncio: {path}[{start}:{start + len(data)}]")
        return len(data)

    async def _read(self, cache: aio.AsyncCache) -> int:
        path = self._rng.choice(self._contents.fixed + self._contents.live)
        return self._check(path, await cache.read(url_of(path)))

    async def _give_up(self, cache: aio.AsyncCache) -> int:
        path = self._rng.choice(self._contents.fixed)
        try:
            async with asyncio.timeout(self._rng.uniform(0.0, IMPATIENT_S)):
                return self._check(path, await cache.read(url_of(path)))
        except TimeoutError:
            return 0

    async def _read_file(self, cache: aio.AsyncCache) -> int:
        path, done = self._rng.choice(self._contents.fixed), 0
        async with await cache.open(url_of(path)) as file:
            for _ in range(PIECES):  # From the front: it reads ahead, and most of that is left.
                data = await file.read(self._rng.randint(1, PIECE_BYTES_MAX))
                done += self._check(path, data, done)
        return done

    async def _list(self, cache: aio.AsyncCache) -> int:
        found = [info.url async for info in cache.list(url_of("fixed/"))]
        if len(found) != len(self._contents.fixed):
            self._tally.wrong(f"asyncio: a listing has {len(found)} objects")
        return 0

"""Imports run for as long as somebody follows them."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import pytest

from penstock.errors import InvalidRequest, OriginUnavailable, Overloaded
from penstock_node.catalog.database import Database
from penstock_node.catalog.files import Files
from penstock_node.catalog.importing import Import
from penstock_node.catalog_server.running import IMPORTS_MAX, Imports
from penstock_node.origin import ListPage, Origin

DEADLINE_S = 20.0


class HeldOrigin:
    """Lists nothing, once it is told to; or fails."""

    def __init__(self) -> None:
        self.is_asked = asyncio.Event()
        self.goes_on = asyncio.Event()
        self.is_cancelled = asyncio.Event()
        self.failure: Exception | None = None

    async def list(self, prefix: str, *, after: str = "", limit: int) -> ListPage:
        self.is_asked.set()
        try:
            await self.goes_on.wait()
        except asyncio.CancelledError:
            self.is_cancelled.set()
            raise
        if self.failure:
            raise self.failure
        return ListPage((), "")


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    database = Database(f"sqlite:///{tmp_path}/catalog.db")
    database.upgrade()
    yield Files(database)
    database.close()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


def work(files: Files, threads: ThreadPoolExecutor, origin: HeldOrigin) -> Import:
    lake, place = files.volume("lake"), cast("Origin", origin)
    return Import(lake, place, url="s3://bucket/", prefix="", to="", threads=threads)


async def test_one_that_is_followed_tells_how_far_it_is_and_its_end_once(
    files: Files, threads: ThreadPoolExecutor
) -> None:
    imports, origin = Imports(), HeldOrigin()
    name = imports.start(work(files, threads, origin))

    _, is_done = await imports.follow(name)
    assert not is_done
    origin.goes_on.set()
    report, is_done = await imports.follow(name)

    assert (report.listed, is_done) == (0, True)
    assert imports.ended.now() == {"done": 1, "failed": 0, "stopped": 0}
    with pytest.raises(InvalidRequest, match="begin it again"):
        await imports.follow(name)


async def test_one_that_nobody_follows_is_ended(files: Files, threads: ThreadPoolExecutor) -> None:
    imports, origin = Imports(followed_s=0.01), HeldOrigin()
    name = imports.start(work(files, threads, origin))

    async with asyncio.timeout(DEADLINE_S):
        await origin.is_cancelled.wait()

    with pytest.raises(InvalidRequest, match="begin it again"):
        await imports.follow(name)


async def test_one_that_is_stopped_or_whose_process_ends_is_ended(
    files: Files, threads: ThreadPoolExecutor
) -> None:
    imports, stopped, open_still = Imports(), HeldOrigin(), HeldOrigin()
    name = imports.start(work(files, threads, stopped))
    imports.start(work(files, threads, open_still))
    async with asyncio.timeout(DEADLINE_S):
        await stopped.is_asked.wait()
        await open_still.is_asked.wait()

    await imports.stop(name)
    assert stopped.is_cancelled.is_set()
    assert not open_still.is_cancelled.is_set()

    assert imports.running_count == 1

    await imports.close()
    assert open_still.is_cancelled.is_set()
    assert imports.ended.now() == {"done": 0, "failed": 0, "stopped": 2}


async def test_one_that_failed_says_why(files: Files, threads: ThreadPoolExecutor) -> None:
    imports, origin = Imports(), HeldOrigin()
    origin.failure = OriginUnavailable("the bucket does not answer")
    origin.goes_on.set()
    name = imports.start(work(files, threads, origin))

    with pytest.raises(OriginUnavailable, match="the bucket does not answer"):
        await imports.follow(name)
    assert imports.ended.now() == {"done": 0, "failed": 1, "stopped": 0}


async def test_there_are_only_so_many(files: Files, threads: ThreadPoolExecutor) -> None:
    imports = Imports()
    for _ in range(IMPORTS_MAX):
        imports.start(work(files, threads, HeldOrigin()))

    with pytest.raises(Overloaded):
        imports.start(work(files, threads, HeldOrigin()))
    await imports.close()

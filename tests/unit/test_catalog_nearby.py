"""Where a mirror has the bytes of a file in its own region. The test answers for the stores."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import pytest

from penstock.catalog_file import CatalogFile, FileCopy
from penstock.errors import OriginUnavailable
from penstock.volumes import Volume, new_uid
from penstock_node.catalog.copies import CopiedFile, Copies
from penstock_node.catalog.database import Database
from penstock_node.catalog.files import Files
from penstock_node.catalog_server.nearby import BELIEVED_S, Nearby
from penstock_node.catalog_server.places import Places
from penstock_node.origin import Origins
from tests.unit.hand_answered_origin import HandAnsweredOrigin, Opened

URLS = ("s3://own/", "s3://second/", "s3://source/")
FILE = CatalogFile("x", '"1"', 5, 7, "s3://source/there/x", '"1"')
"""Of the size that the origins of the tests tell."""


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class World:
    """A volume over two stores of the region, and the source."""

    def __init__(self, directory: Path, threads: ThreadPoolExecutor) -> None:
        self.database = Database(f"sqlite:///{directory}/catalog.db")
        self.database.upgrade()
        Files(self.database).volume("lake")
        self.copies, self.clock = Copies(self.database), Clock()
        self.copies.take_over(1, revision=1)
        self.own, self.second, self.source = (HandAnsweredOrigin() for _ in URLS)
        lake = Volume("lake", uid=new_uid(), origins=tuple(Volume("lake", url) for url in URLS))
        opened = cast("Origins", Opened([self.own, self.second, self.source]))
        places = Places(opened, coordinator=None, configured={"lake": lake})
        self.nearby = Nearby(places, self.copies, threads=threads, clock=self.clock)

    def ask(self, file: CatalogFile = FILE) -> "asyncio.Task[tuple[FileCopy, ...]]":
        return asyncio.create_task(self.nearby.of("lake", file))


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    with ThreadPoolExecutor(2) as threads:
        made = World(tmp_path, threads)
        yield made
        await made.nearby.close()
        made.database.close()


async def test_each_store_before_the_source_is_asked_once_however_many_want_to_know(
    world: World,
) -> None:
    asking = [world.ask() for _ in range(50)]
    await world.own.answer("x")
    await world.second.answer("x", version='"1"')

    assert set(await asyncio.gather(*asking)) == {(FileCopy("s3://second/x", '"1"'),)}
    assert (world.own.open_count, world.second.open_count, world.source.open_count) == (0, 0, 0)


@pytest.mark.parametrize("error", [None, OriginUnavailable("away")])
async def test_that_there_is_none_is_believed_for_a_while(
    world: World, error: Exception | None
) -> None:
    first = world.ask()
    for store in (world.own, world.second):
        await store.answer("x", error=error)
    assert await first == ()
    assert await world.ask() == ()

    world.clock.now += BELIEVED_S
    again = world.ask()
    await world.own.answer("x", version='"1"')
    await world.second.answer("x")

    assert await again == (FileCopy("s3://own/x", '"1"'),)


async def test_a_copy_that_was_made_here_is_known_without_asking_its_store(world: World) -> None:
    copy = CopiedFile("x", '"1"', 5, "s3://own/x", '"other"')
    world.copies.note("lake", copy, token=1)
    asking = world.ask()
    await world.second.answer("x")

    assert await asking == (FileCopy("s3://own/x", '"other"'),)


async def test_a_copy_of_another_version_is_none(world: World) -> None:
    world.copies.note("lake", CopiedFile("x", '"0"', 5, "s3://own/x", '"c"'), token=1)
    asking = world.ask()
    await world.own.answer("x", version='"c"')
    await world.second.answer("x", version='"0"')

    assert await asking == ()


async def test_objects_that_only_look_alike_are_no_copies(world: World) -> None:
    longer = world.ask(FILE._replace(size=6))
    await world.own.answer("x", version='"1"')
    await world.second.answer("x", version='"1"')
    assert await longer == ()

    timed = FILE._replace(version="lm:7-5", source_version="lm:7-5")
    assert await world.ask(timed) == ()  # A time says little of bytes: nobody is asked.


async def test_a_new_copy_is_known_at_once(world: World) -> None:
    first = world.ask()
    for store in (world.own, world.second):
        await store.answer("x")
    assert await first == ()
    world.copies.note("lake", CopiedFile("x", '"1"', 5, "s3://own/x", '"c"'), token=1)
    world.nearby.forget("lake", FILE)

    again = world.ask()
    await world.second.answer("x")

    assert await again == (FileCopy("s3://own/x", '"c"'),)


async def test_where_a_file_lies_nearest_already_nobody_is_asked(world: World) -> None:
    own = FILE._replace(source_url="s3://own/x")

    assert await world.ask(own) == ()

"""What the catalog notes when a file's origin is looked at. The test answers for the origin."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import pytest

from penstock.catalog_file import CatalogFile
from penstock.errors import InvalidRequest, OriginUnavailable, Overloaded
from penstock.volumes import Volume, new_uid
from penstock_node.catalog.database import Database
from penstock_node.catalog.files import Files
from penstock_node.catalog_server import looking
from penstock_node.catalog_server.looking import Looked, Looking
from penstock_node.catalog_server.places import Places
from penstock_node.origin import Origins
from tests.unit.hand_answered_origin import HandAnsweredOrigin, Opened

DEADLINE_S = 20.0
URLS = ("s3://near/", "s3://far/")


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    database = Database(f"sqlite:///{tmp_path}/catalog.db")
    database.upgrade()
    yield Files(database)
    database.close()


class World:
    """Looks at two buckets of one volume."""

    def __init__(self, files: Files, threads: ThreadPoolExecutor) -> None:
        self.files = files.volume("lake")
        self.feed = files
        self.near, self.far = HandAnsweredOrigin(), HandAnsweredOrigin()
        places = tuple(Volume("lake", url) for url in URLS)
        lake = Volume("lake", uid=new_uid(), origins=places)
        origins = cast("Origins", Opened([self.near, self.far]))
        configured = Places(origins, coordinator=None, configured={"lake": lake})
        self.looking = Looking(files, places=configured, threads=threads)

    def begin(self, path: str, *, url: str = "") -> asyncio.Task[Looked]:
        return asyncio.create_task(self.looking.look("lake", path, url or URLS[0] + path))

    def versions(self, path: str) -> list[str]:
        """Return what was noted of a path, the newest first; nothing for that it went."""
        return [each.file.version for each in self.files.versions(path)]


@pytest.fixture
async def world(files: Files) -> AsyncIterator[World]:
    with ThreadPoolExecutor(4) as threads:
        made = World(files, threads)
        yield made
        await made.looking.close()


async def test_what_is_found_is_noted_once(world: World) -> None:
    looks = []
    for version in ("v1", "v1", "v2", ""):
        task = world.begin("x")
        await world.near.answer("x", version=version)
        looks.append(await task)

    assert [each.is_noted for each in looks] == [True, False, True, True]
    assert [each.file.version if each.file else None for each in looks] == ["v1", "v1", "v2", None]
    assert world.versions("x") == ["", "v2", "v1"]


async def test_what_is_not_there_and_was_not_known_is_no_entry(world: World) -> None:
    task = world.begin("x")
    await world.near.answer("x")

    assert await task == Looked(None, is_noted=False)
    assert world.feed.newest() == 0


async def test_a_file_whose_bytes_are_elsewhere_is_not_removed(world: World) -> None:
    world.files.put([CatalogFile("x", "v1", 5, 1, "s3://near/x", "v1")])

    task = world.begin("x", url="s3://far/x")
    await world.far.answer("x")

    assert not (await task).is_noted
    assert world.files.stat("x") is not None


async def test_the_catalog_ends_with_what_was_seen_last_however_many_look(world: World) -> None:
    first = world.begin("x")
    await world.near.wait_asked("x")
    others = [world.begin("x") for _ in range(5)]  # They have heard of something newer.
    elsewhere = world.begin("y")
    await world.near.answer("y", version="v1")
    assert (await elsewhere).is_noted
    assert not any(task.done() for task in (first, *others))

    await world.near.answer("x", version="v1")
    await world.near.answer("x", version="v2")  # One look for all five.

    assert (await first).file != (await others[0]).file
    assert {(await task).file for task in others} == {world.files.stat("x")}
    assert world.versions("x") == ["v2", "v1"]


@pytest.mark.parametrize("seen", ["v1", ""], ids=["an older one", "nothing"])
async def test_what_an_import_writes_during_a_look_is_looked_at_again(
    world: World, seen: str
) -> None:
    world.files.put([CatalogFile("x", "v0", 5, 1, "s3://near/x", "v0")])
    task = world.begin("x")
    await world.near.wait_asked("x")
    world.files.put([CatalogFile("x", "v2", 5, 1, "s3://near/x", "v2")])
    await world.near.answer("x", version=seen)
    await world.near.answer("x", version="v2")

    assert not (await task).is_noted
    assert world.versions("x") == ["v2", "v0"]


async def test_a_look_that_others_overtake_each_time_leaves_what_they_wrote(world: World) -> None:
    task = world.begin("x")
    for n in range(looking.TRIES_MAX):
        await world.near.wait_asked("x")
        world.files.put([CatalogFile("x", f"v{n}", 5, 1, "s3://near/x", f"v{n}")])
        await world.near.answer("x", version="older")

    assert not (await task).is_noted
    assert world.versions("x")[0] == f"v{looking.TRIES_MAX - 1}"


async def test_an_origin_that_does_not_answer_changes_nothing_and_the_next_look_goes_on(
    world: World,
) -> None:
    world.files.put([CatalogFile("x", "v1", 5, 1, "s3://near/x", "v1")])
    failing = world.begin("x")
    await world.near.answer("x", error=OriginUnavailable("no"))
    with pytest.raises(OriginUnavailable):
        await failing
    assert world.versions("x") == ["v1"]

    task = world.begin("x")
    await world.near.answer("x", version="v2")

    assert (await task).is_noted


async def test_looks_are_bounded_at_once_and_in_all(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "WAITING_MAX", 40)
    tasks = [world.begin(f"{n}") for n in range(40)]
    await world.near.wait_asked(count=looking.LOOKS_MAX)

    with pytest.raises(Overloaded):
        await world.begin("one more")
    assert world.near.open_count == looking.LOOKS_MAX
    for n in range(40):
        await world.near.answer(f"{n}", version="v1")
    assert all([(await task).is_noted for task in tasks])


async def test_one_that_is_given_up_by_who_asked_is_noted_all_the_same(world: World) -> None:
    task = world.begin("x")
    await world.near.wait_asked("x")
    task.cancel()
    other = world.begin("x")
    await world.near.answer("x", version="v1")
    await world.near.answer("x", version="v1")

    assert not (await other).is_noted
    assert world.versions("x") == ["v1"]


async def test_a_volume_that_is_not_there_is_not_made(files: Files, world: World) -> None:
    with pytest.raises(InvalidRequest, match="no catalogued volume"):
        await world.looking.look("pond", "x", "s3://near/x")

    assert files.volume_names() == ["lake"]

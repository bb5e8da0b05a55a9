"""What a mirror brings into its region, entry by entry: over directories, as their own stores."""

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import pytest
from structlog.testing import capture_logs

from penstock.catalog_file import CatalogFile
from penstock.errors import (
    ClusterUnavailable,
    Conflict,
    InvalidRequest,
    NotPermitted,
    PenstockError,
)
from penstock.membership.coordinator import Coordinator
from penstock.membership.standalone import Standalone
from penstock.mirror_rules import MirrorRules
from penstock.volumes import Volume, new_uid
from penstock_node.catalog.copies import Copied, Copies
from penstock_node.catalog.database import Database
from penstock_node.catalog.files import Files
from penstock_node.catalog_server import bringing_volume, passed_by
from penstock_node.catalog_server.bringing import Bringing
from penstock_node.catalog_server.bringing_volume import Region, VolumeBringing
from penstock_node.catalog_server.mirrored import Mirrored
from penstock_node.catalog_server.mirroring import Mirror
from penstock_node.catalog_server.nearby import Nearby
from penstock_node.catalog_server.passed_by import AGAIN_S
from penstock_node.catalog_server.places import RECALLED_S, Places
from penstock_node.catalog_server.registration import Registration
from penstock_node.catalog_server.warming import Warmer
from penstock_node.coordination.records import (
    MIRRORS,
    VOLUMES,
    CatalogRecord,
    mirror_rules_to_json,
)
from penstock_node.origin import Origins

DEADLINE_S = 20.0
TOKEN = 7


class RecordingWarmer:
    """Knows what it was asked to warm, but for what it refuses."""

    def __init__(self) -> None:
        self.warmed: list[str] = []
        self.refused: dict[str, PenstockError] = {}

    async def warm(self, volume: str, files: Sequence[CatalogFile]) -> dict[str, PenstockError]:
        asked = {file.path for file in files}
        self.warmed += [file.path for file in files if file.path not in self.refused]
        return {path: error for path, error in self.refused.items() if path in asked}


class World:
    """A mirror's database, and directories: two of the source, and the region's own."""

    def __init__(self, directory: Path, threads: ThreadPoolExecutor) -> None:
        self.own, self.source, self.other = (directory / name for name in ("own", "a", "b"))
        for each in (self.own, self.source, self.other):
            each.mkdir()
        self.database = Database(f"sqlite:///{directory}/catalog.db")
        self.database.upgrade()
        self.files, self.copies = Files(self.database), Copies(self.database)
        self.lake = self.files.volume("lake")
        self.copies.take_over(TOKEN, revision=TOKEN)
        self.origins = Origins(allow_file_roots=[directory])
        places = [Volume("lake", f"file://{each}/") for each in (self.own, self.source, self.other)]
        volume = Volume("lake", uid=new_uid(), origins=tuple(places))
        self.places = Places(self.origins, coordinator=None, configured={"lake": volume})
        self.nearby = Nearby(self.places, self.copies, threads=threads)
        self.warmer, self.now = RecordingWarmer(), 100.0
        self.region = Region(
            self.files,
            self.copies,
            self.places,
            self.nearby,
            cast("Warmer", self.warmer),
            threads,
        )

    async def put(self, path: str, data: bytes, *, at: Path | None = None) -> None:
        """Have a file at the source, and in the catalog."""
        there = (at or self.source) / path
        there.write_bytes(data)
        url = f"file://{there}"
        _, origin, within = await self.places.locate("lake", url)
        meta = await origin.head(within)
        file = CatalogFile(path, meta.version, meta.size, 7, url, meta.version)
        self.lake.put([file])

    def bringing(self, rules: MirrorRules, *, token: int = TOKEN) -> VolumeBringing:
        return VolumeBringing("lake", rules, token, region=self.region, clock=lambda: self.now)

    async def bring(self, rules: MirrorRules) -> VolumeBringing:
        work = self.bringing(rules)
        while await work.settle_page():
            pass
        return work

    def settled(self, rules: MirrorRules) -> int:
        """Return up to which entry another process would find all settled."""
        return self.copies.brought("lake", rules=rules.selection_key)

    def copied(self) -> dict[str, bytes]:
        """Return what has a copy in the catalog, by path."""
        found = (self.copies.find("lake", name) for name in ("x", "y", "z"))
        return {
            each.path: Path(each.url.removeprefix("file://")).read_bytes() for each in found if each
        }


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with ThreadPoolExecutor(4) as threads:
        made = World(tmp_path, threads)
        yield made
        made.origins.close()
        made.database.close()


async def test_what_the_rules_cover_is_copied_and_warmed(world: World) -> None:
    for name in ("x", "y", "z"):
        await world.put(name, name.encode())

    await world.bring(MirrorRules(("x", "y"), ("y", "z")))

    assert world.copied() == {"x": b"x", "y": b"y"}
    assert world.warmer.warmed == ["y", "z"]
    assert world.copies.brought("lake", rules=MirrorRules(("x", "y"), ("y", "z")).selection_key)
    assert world.region.counters.copied_files == 2


async def test_what_has_a_copy_is_not_copied_again_under_other_rules(world: World) -> None:
    await world.put("x", b"first")
    await world.bring(MirrorRules(("x",)))
    before = (world.own / "x").stat().st_mtime_ns

    await world.bring(MirrorRules(("*",)))

    assert (world.own / "x").stat().st_mtime_ns == before


async def test_an_entry_that_was_overtaken_is_passed_by(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bringing_volume, "PAGE_MAX", 1)
    await world.put("x", b"old, and still there")
    await world.put("x", b"new", at=world.other)
    work = world.bringing(MirrorRules(("x",)))

    await work.settle_page()
    assert world.copied() == {}
    await work.settle_page()

    assert world.copied() == {"x": b"new"}


async def test_a_file_that_is_gone_has_no_copy_any_more(world: World) -> None:
    await world.put("x", b"x")
    await world.put("y", b"y")
    await world.bring(MirrorRules(("*",)))
    world.lake.remove(["x"])

    await world.bring(MirrorRules(("*",)))

    assert world.copies.find("lake", "x") is None
    assert world.copies.copied("lake") == Copied(1, 1)


async def test_a_file_that_came_back_has_one_again(world: World) -> None:
    await world.put("x", b"x")
    world.lake.remove(["x"])
    await world.put("x", b"again")

    await world.bring(MirrorRules(("*",)))

    assert world.copied() == {"x": b"again"}


async def test_files_wait_for_each_other_at_the_volumes_rate(world: World) -> None:
    for name in ("x", "y", "z"):
        await world.put(name, b"much")
    work = asyncio.create_task(world.bringing(MirrorRules(("*",), bytes_per_s=0.001)).settle_page())
    async with asyncio.timeout(DEADLINE_S):
        while not world.copied():
            await asyncio.wait({work}, timeout=0.05)

    assert len(world.copied()) == 1  # The next one's turn comes in an hour.
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)


async def test_a_page_is_settled_only_by_whose_turn_it_is(world: World) -> None:
    await world.put("x", b"x")
    work = world.bringing(MirrorRules(("*",)), token=TOKEN - 1)

    with pytest.raises(Conflict):
        await work.settle_page()

    assert world.copied() == {}
    assert world.copies.brought("lake", rules=MirrorRules(("*",)).selection_key) == 0


# What does not come.


async def test_a_file_that_cannot_be_copied_is_passed_by_told_and_tried_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bringing_volume, "PAGE_MAX", 1)
    rules = MirrorRules(("*",), ("*",))
    for name in ("x", "y", "z"):
        await world.put(name, name.encode())
    (world.own / "y").mkdir()  # Where a directory is no file can be put.

    work = await world.bring(rules)

    assert world.copied() == {"x": b"x", "z": b"z"}
    assert world.warmer.warmed == ["x", "z"]
    assert "minute: 1; the first is y: " in work.trouble
    assert world.settled(rules) == 1, "whoever goes on from here meets it again"
    (world.own / "y").rmdir()
    await work.settle_page()
    assert work.trouble
    world.now += AGAIN_S
    await work.settle_page()
    assert (world.copied(), work.trouble) == ({"x": b"x", "y": b"y", "z": b"z"}, "")
    assert world.warmer.warmed == ["x", "z", "y"]
    assert world.settled(rules) == 3


async def test_a_file_that_was_passed_by_is_done_with_when_it_is_gone(world: World) -> None:
    rules = MirrorRules(("*",))
    await world.put("x", b"x")
    (world.own / "x").mkdir()
    work = await world.bring(rules)
    assert work.trouble

    world.lake.remove(["x"])
    await work.settle_page()

    assert (work.trouble, world.settled(rules)) == ("", 2)


async def test_a_file_that_cannot_be_warmed_is_passed_by(world: World) -> None:
    rules = MirrorRules(warmed=("*",))
    await world.put("x", b"x")
    await world.put("y", b"y")
    world.warmer.refused["x"] = NotPermitted("not this one")

    work = await world.bring(rules)

    assert work.trouble.endswith("x: not this one")
    assert world.warmer.warmed == ["y"]
    world.warmer.refused.clear()
    world.now += AGAIN_S
    await work.settle_page()
    assert (world.warmer.warmed, work.trouble) == (["y", "x"], "")


async def test_where_many_files_fail_nothing_else_is_begun(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passed_by, "PASSED_MAX", 1)
    rules = MirrorRules(("*",))
    for name in ("x", "y"):
        await world.put(name, name.encode())
        (world.own / name).mkdir()
    work = world.bringing(rules)

    with pytest.raises(InvalidRequest):
        await work.settle_page()

    assert (world.settled(rules), work.trouble) == (0, "")
    for name in ("x", "y"):
        (world.own / name).rmdir()
    assert await work.settle_page()
    assert world.copied() == {"x": b"x", "y": b"y"}


async def test_what_is_passed_by_is_told_for_its_volume_while_it_gets_on(world: World) -> None:
    await world.put("x", b"x")
    await world.put("y", b"y")
    (world.own / "x").mkdir()
    coordinator = Standalone()
    rules = mirror_rules_to_json(MirrorRules(("*",)))
    await coordinator.commit(puts={f"{MIRRORS}lake": rules})
    bringing = Bringing(world.region, coordinator)

    running = asyncio.create_task(bringing.run((await coordinator.list(MIRRORS)).revision))
    async with asyncio.timeout(DEADLINE_S):
        while not (bringing.trouble and world.copied()):
            await asyncio.wait({running}, timeout=0.05)

    assert world.copied() == {"y": b"y"}
    assert "the first is x: " in bringing.trouble["lake"]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert bringing.trouble == {}
    await coordinator.close()


# Rules.


def mirrored(world: World, volume: Volume, coordinator: Coordinator) -> Mirrored:
    places = Places(world.origins, coordinator=None, configured={volume.name: volume})
    return Mirrored(
        cast("Mirror", None),
        nearby=world.nearby,
        copies=world.copies,
        places=places,
        threads=world.region.threads,
        coordinator=coordinator,
    )


@pytest.mark.parametrize(
    ("urls", "reason"),
    [
        (["s3://source/"], "volume add lake --catalogued --origin URL --origin s3://source/"),
        (["http://mirror/", "s3://source/"], "http origins cannot be written"),
    ],
)
async def test_data_is_copied_only_to_a_store_of_the_region_that_can_be_written(
    world: World, tmp_path: Path, urls: list[str], reason: str
) -> None:
    origins = tuple(
        Volume("lake", url, {"allow_http": True} if url.startswith("http:") else {}) for url in urls
    )
    lake, coordinator = Volume("lake", uid=new_uid(), origins=origins), Standalone()
    mirror = mirrored(world, lake, coordinator)

    with pytest.raises(InvalidRequest, match=reason):
        await mirror.set_rules("lake", MirrorRules(("*",)))
    await mirror.set_rules("lake", MirrorRules(warmed=("*",)))  # Needs no store.

    assert len((await coordinator.list("mirrors/")).entries) == 1
    await mirror.set_rules("lake", MirrorRules())
    assert not (await coordinator.list("mirrors/")).entries
    await coordinator.close()


# Whose turn it is.


async def test_a_turn_lasts_for_as_long_as_the_key_is_held() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()
    tokens: list[int] = []

    async def turn(token: int) -> None:
        tokens.append(token)
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    coordinator = Standalone()
    registration = Registration(coordinator, CatalogRecord("c1", "here:1"), turn=turn)
    running = asyncio.create_task(registration.run())
    async with asyncio.timeout(DEADLINE_S):
        await begun.wait()
        assert not ended.is_set()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await ended.wait()

    held = await coordinator.list("catalog")
    assert not held.entries
    assert tokens[0] <= held.revision
    await coordinator.close()


# Volumes, while the coordinator is away.


class AwayCoordinator:
    """Answers once, and then no more."""

    def __init__(self, within: Coordinator) -> None:
        self._within, self.is_away = within, False

    async def list(self, prefix: str) -> object:
        if self.is_away:
            raise ClusterUnavailable("away")
        return await self._within.list(prefix)


async def test_volumes_are_recalled_while_the_coordinator_is_away(world: World) -> None:
    now = 100.0
    lake = Volume("lake", uid=new_uid(), origins=(Volume("lake", f"file://{world.own}/"),))
    within = Standalone()
    await within.commit(puts={f"{VOLUMES}lake": lake.to_json()})
    coordinator = AwayCoordinator(within)
    places = Places(
        world.origins,
        coordinator=cast("Coordinator", coordinator),
        configured={},
        clock=lambda: now,
    )
    assert await places.recall("lake") is not None
    coordinator.is_away = True
    now += 2 * RECALLED_S

    found = await places.recall("lake")

    assert found is not None
    assert found.places == lake.origins
    assert await places.recall("pond") is None
    with pytest.raises(ClusterUnavailable):
        await places.origin("lake")
    await within.close()


async def test_a_volume_that_this_version_does_not_know_keeps_no_other_from_being_served(
    world: World,
) -> None:
    lake = Volume("lake", uid=new_uid(), origins=(Volume("lake", f"file://{world.own}/"),))
    coordinator = Standalone()
    newer = b'{"catalogued": true, "kind": "of tomorrow"}'
    await coordinator.commit(puts={f"{VOLUMES}lake": lake.to_json(), f"{VOLUMES}newer": newer})
    places = Places(world.origins, coordinator=coordinator, configured={})

    with capture_logs() as lines:
        assert (await places.origin("lake")).places == lake.origins
        assert await places.recall("lake") is not None
        await places.check("lake")
        with pytest.raises(InvalidRequest, match="volume 'newer'"):
            await places.check("newer")

    assert [line["volume"] for line in lines] == ["newer"], "told once"
    await coordinator.close()

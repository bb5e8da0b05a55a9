"""A node learns of copies that come after it has read from the source."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from penstock import tracing
from penstock.catalog_file import CatalogFile, FileCopy, LocatedFile
from penstock.errors import CatalogUnavailable, ObjectChanged
from penstock.tracing import Span, Trace
from penstock.volumes import Volume, new_uid
from penstock_node.origin import CataloguedOrigin, Origins
from penstock_node.origin.catalogued import Catalog
from penstock_node.origin.whereabouts import BELIEVED_S

DEADLINE_S = 20.0
DATA = b"the same bytes wherever they lie"


class TestsCatalog:
    """Answers as the test says."""

    __test__ = False

    def __init__(self) -> None:
        self.located: LocatedFile | None = None
        self.asked = 0
        self.was_asked = asyncio.Event()

    async def stat(self, volume: str, path: str, *, version: str = "") -> LocatedFile | None:
        self.asked += 1
        self.was_asked.set()
        if self.located is None:
            raise CatalogUnavailable("away")
        return self.located

    async def look(self, volume: str, path: str, *, source_url: str = "") -> CatalogFile | None:
        return None


class World:
    def __init__(self, directory: Path) -> None:
        self.now, self.catalog = 100.0, TestsCatalog()
        self.own, self.source = directory / "own", directory / "source"
        for each in (self.own, self.source):
            each.mkdir()
            (each / "x").write_bytes(DATA)
        places = tuple(Volume("lake", f"file://{each}/") for each in (self.own, self.source))
        self.origins = Origins(
            allow_file_roots=[directory],
            catalog=cast("Catalog", self.catalog),
            clock=lambda: self.now,
        )
        volume = Volume("lake", uid=new_uid(), origins=places)
        self.origin = cast("CataloguedOrigin", self.origins.get(volume))

    async def locate(self, *, has_copy: bool) -> LocatedFile:
        versions = {}
        for each in (self.own, self.source):
            url = f"file://{each}/x"
            _, origin, within = self.origin.place_of(url)
            versions[url] = (await origin.head(within)).version
        (copy, source) = versions.items()
        file = CatalogFile("x", "1", len(DATA), 7, *source)
        return LocatedFile(file, (FileCopy(*copy),) if has_copy else (), True)

    async def read(self) -> bytes:
        return bytes(await self.origin.read("x", "1", len(DATA), 0, len(DATA)))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.origins.close()


async def test_a_copy_that_has_come_since_is_read_and_nobody_waits_to_hear_of_it(
    world: World,
) -> None:
    world.catalog.located = await world.locate(has_copy=False)
    assert await world.read() == DATA
    world.catalog.located = await world.locate(has_copy=True)
    assert await world.read() == DATA
    assert world.catalog.asked == 1  # That there is none is believed for a while.
    world.now += BELIEVED_S
    world.catalog.was_asked.clear()

    assert await world.read() == DATA  # From the source still.
    async with asyncio.timeout(DEADLINE_S):
        await world.catalog.was_asked.wait()
    (world.source / "x").unlink()

    assert await world.read() == DATA
    assert world.catalog.asked == 2


async def test_while_the_catalog_is_away_what_is_known_is_read(world: World) -> None:
    world.catalog.located = await world.locate(has_copy=False)
    await world.read()
    world.catalog.located = None
    world.now += BELIEVED_S

    assert [await world.read() for _ in range(3)] == [DATA] * 3
    assert world.catalog.asked == 2


async def test_a_copy_that_was_overwritten_is_passed_over_and_the_source_decides(
    world: World,
) -> None:
    world.catalog.located = await world.locate(has_copy=True)
    (world.own / "x").write_bytes(DATA[::-1])
    assert await world.read() == DATA
    (world.source / "x").write_bytes(DATA[::-1])

    with pytest.raises(ObjectChanged):
        await world.read()


# What a trace tells of it.


async def traced(world: World) -> list[Span]:
    trace = Trace()
    with tracing.at(tracing.within(trace)), tracing.span("fill"):
        assert await world.read() == DATA
    return trace.spans


def places(spans: list[Span]) -> list[tuple[str, bool]]:
    """Return where it was tried, and whether in vain."""
    told = [span for span in spans if span.name == "source"]
    return [(span.notes["place"], "error" in span.notes) for span in told]


async def test_a_trace_tells_which_place_was_tried_in_vain_and_why(world: World) -> None:
    world.catalog.located = await world.locate(has_copy=True)
    own, source = f"file://{world.own}/", f"file://{world.source}/"
    (world.own / "x").unlink()

    first, second = await traced(world), await traced(world)

    assert places(first) == [(own, True), (source, False)]
    assert "no such file" in first[1].notes["error"]
    assert places(second) == [(source, False)]
    assert second[0].notes["passed_over"].startswith(f"{own}x: ObjectNotFound")


async def test_a_trace_tells_that_there_is_no_copy_yet(world: World) -> None:
    world.catalog.located = await world.locate(has_copy=False)

    spans = await traced(world)

    assert spans[0].notes["copies"] == "none in this region yet"

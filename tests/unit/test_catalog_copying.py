"""One file is copied from its source to another store."""

import asyncio
import contextlib
import os
import random
from pathlib import Path

import pytest

from penstock.catalog_file import CatalogFile
from penstock.deadline import Deadline
from penstock.errors import ObjectChanged, ObjectNotFound, OriginUnavailable
from penstock.volumes import Volume
from penstock_node.catalog_server.copying import PART_BYTES, PARTS_AHEAD, FileCopier
from penstock_node.origin import Origin, OriginMeta, Origins
from penstock_node.origin.interface import Buffer
from penstock_node.pace import Pace
from tests.unit.hand_answered_origin import HandAnsweredOrigin

DEADLINE_S = 20.0


class Store:
    """A directory as an origin, read as told."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.directory = directory
        volume = Volume("store", f"file://{directory}/")
        self.origin: Origin = Origins(allow_file_roots=[directory]).get(volume)
        self.reads = 0
        self.reads_at_once = self.most_at_once = 0
        self.holds: asyncio.Event | None = None
        self.is_held = asyncio.Event()
        self.spoils = False

    def __getattr__(self, name: str) -> object:
        return getattr(self.origin, name)

    async def head(self, path: str, *, deadline: Deadline | None = None) -> OriginMeta:
        return await self.origin.head(path, deadline=deadline)

    async def read(self, *where: object, deadline: Deadline | None = None) -> Buffer:
        self.reads += 1
        self.reads_at_once += 1
        self.most_at_once = max(self.most_at_once, self.reads_at_once)
        try:
            if self.holds is not None and self.reads > PARTS_AHEAD:
                self.is_held.set()
                await self.holds.wait()
            data = await self.origin.read(*where, deadline=deadline)  # type: ignore[arg-type]
        finally:
            self.reads_at_once -= 1
        return bytes(len(data)) if self.spoils else data

    async def file(self, path: str, data: bytes) -> CatalogFile:
        (self.directory / path).write_bytes(data)
        meta = await self.origin.head(path)
        return CatalogFile(path, meta.version, len(data), 7, "", meta.version)


def copier(file: CatalogFile, source: Store, target: Store, **keys: Pace) -> FileCopier:
    return FileCopier(
        file,
        source=source,  # type: ignore[arg-type]  # has all that it uses
        within=file.path,
        target=target,  # type: ignore[arg-type]
        pace=keys.get("pace"),
    )


@pytest.fixture
def source(tmp_path: Path) -> Store:
    return Store(tmp_path / "source")


@pytest.fixture
def target(tmp_path: Path) -> Store:
    return Store(tmp_path / "target")


@pytest.mark.parametrize("size", [0, 1, PART_BYTES, 5 * PART_BYTES + 1])
async def test_a_copy_has_all_bytes_and_few_of_them_are_in_memory(
    source: Store, target: Store, size: int
) -> None:
    data = random.Random(size).randbytes(size)
    file = await source.file("x", data)

    version = await copier(file, source, target).run()

    assert (target.directory / "x").read_bytes() == data
    assert version == (await target.head("x")).version
    assert source.most_at_once <= PARTS_AHEAD


async def test_what_the_target_has_already_is_not_sent_again(source: Store, tmp_path: Path) -> None:
    target = HandAnsweredOrigin()  # Takes no puts.
    file = CatalogFile("x", '"1"', 5, 7, "s3://source/x", '"1"')
    copier = FileCopier(
        file,
        source=source,  # type: ignore[arg-type]
        within="x",
        target=target,  # type: ignore[arg-type]
        pace=None,
    )
    copying = asyncio.create_task(copier.run())
    await target.answer("x", version='"1"')

    assert await copying == '"1"'
    assert source.reads == 0


async def test_bytes_that_the_store_did_not_keep_as_they_were_are_found(
    source: Store, target: Store
) -> None:
    file = await source.file("x", b"right" * 1000)
    target.spoils = True

    with pytest.raises(OriginUnavailable, match="other bytes"):
        await copier(file, source, target).run()


async def test_a_file_that_was_overwritten_or_removed_is_not_copied(
    source: Store, target: Store
) -> None:
    file = await source.file("x", b"old" * 1000)
    os.utime(source.directory / "x", ns=(5, 5))
    with pytest.raises(ObjectChanged):
        await copier(file, source, target).run()
    (source.directory / "x").unlink()
    with pytest.raises(ObjectNotFound):
        await copier(file, source, target).run()

    assert not list(target.directory.iterdir())


async def test_one_that_is_cancelled_leaves_nothing_behind(source: Store, target: Store) -> None:
    file = await source.file("x", random.Random(1).randbytes(6 * PART_BYTES))
    source.holds = asyncio.Event()
    work = asyncio.create_task(copier(file, source, target).run())
    async with asyncio.timeout(DEADLINE_S):
        await source.is_held.wait()

        work.cancel()
        source.holds.set()
        with contextlib.suppress(asyncio.CancelledError):
            await work

    assert work.cancelled()
    assert not list(target.directory.iterdir())


async def test_what_is_read_keeps_to_the_pace(source: Store, target: Store) -> None:
    file = await source.file("x", bytes(3 * PART_BYTES))
    taken: list[float] = []

    class Counted(Pace):
        async def wait(self, amount: float) -> None:
            taken.append(amount)

    await copier(file, source, target, pace=Counted(lambda: 1.0)).run()

    assert sum(taken) == file.size

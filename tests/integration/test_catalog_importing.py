"""Imports of a real directory and of a real S3 server into a catalog in SQLite."""

import asyncio
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import obstore
import pytest

from penstock.errors import InvalidRequest, NotPermitted
from penstock.volumes import Volume
from penstock_node.catalog import listing_parts
from penstock_node.catalog.database import Database
from penstock_node.catalog.files import Files, VolumeFiles
from penstock_node.catalog.importing import Import
from penstock_node.catalog.selection import Selection
from penstock_node.origin import Origins
from penstock_node.testbed.s3 import S3Server

BUCKET = "catalog-imports"


class Place:
    """A volume, and what the test has put there."""

    def __init__(self, volume: Volume) -> None:
        self.volume = volume
        self.paths: set[str] = set()

    async def have(self, paths: set[str]) -> None:
        """Have these files and no others."""
        await asyncio.gather(*(self._remove(path) for path in self.paths - paths))
        await asyncio.gather(*(self._write(path) for path in paths - self.paths))
        self.paths = set(paths)

    async def _write(self, path: str) -> None:
        raise AssertionError

    async def _remove(self, path: str) -> None:
        raise AssertionError


class Directory(Place):
    def __init__(self, root: Path) -> None:
        super().__init__(Volume("place", f"file://{root}/"))
        self.root = root

    async def _write(self, path: str) -> None:
        where = self.root / path
        where.parent.mkdir(parents=True, exist_ok=True)
        where.write_text(path)

    async def _remove(self, path: str) -> None:
        (self.root / path).unlink()


class Bucket(Place):
    def __init__(self, server: S3Server, folder: str) -> None:
        super().__init__(Volume("place", f"s3://{BUCKET}/{folder}/", server.options))
        server.create_bucket(BUCKET)
        self.server, self.folder = server, folder
        self.store = server.bucket(BUCKET)

    async def _write(self, path: str) -> None:
        await obstore.put_async(self.store, f"{self.folder}/{path}", path.encode())

    async def _remove(self, path: str) -> None:
        await obstore.delete_async(self.store, f"{self.folder}/{path}")


@pytest.fixture(params=["directory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "directory":
        (tmp_path / "place").mkdir()
        return Directory(tmp_path / "place")
    return Bucket(request.getfixturevalue("s3"), f"p{random.SystemRandom().randrange(10**12)}")


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    database = Database(f"sqlite:///{tmp_path}/catalog.db")
    database.upgrade()
    yield Files(database)
    database.close()


@pytest.fixture
def lake(files: Files) -> VolumeFiles:
    return files.volume("lake")


Importing = Callable[..., Import]


@pytest.fixture
def importing(lake: VolumeFiles, place: Place, origins: Origins) -> Iterator[Importing]:
    with ThreadPoolExecutor(4) as threads:

        def made(**options: Any) -> Import:
            origin, url = origins.get(place.volume), place.volume.url
            wanted = {"prefix": "", "to": "", "prunes": True, **options}
            return Import(lake, origin, url, threads=threads, **wanted)

        yield made


def paths(lake: VolumeFiles) -> set[str]:
    return {each.path for each in lake.page("", limit=10**6)}


async def test_a_place_is_imported_and_again_for_nothing(
    place: Place, files: Files, lake: VolumeFiles, importing: Importing, origins: Origins
) -> None:
    await place.have({"in/a", "in/d/b", "in/d/e/c", "out"})

    await importing(prefix="in", to="x/y").run()
    again = await importing(prefix="in", to="x/y").run()

    assert paths(lake) == {"x/y/a", "x/y/d/b", "x/y/d/e/c"}
    found = lake.stat("x/y/d/b")
    assert found is not None
    meta = await origins.get(place.volume).head("in/d/b")
    assert (found.version, found.source_version, found.size) == (meta.version, meta.version, 6)
    assert found.source_url == f"{place.volume.url}in/d/b"
    assert (again.unchanged, again.added, len(files.changes(0))) == (3, 0, 3)


async def test_globs_choose_what_is_imported(
    place: Place, lake: VolumeFiles, importing: Importing
) -> None:
    await place.have({"a.bin", "a.txt", "d/b.bin", "d/e/c.bin"})

    await importing(selection=Selection(["*.bin"], ["d/*"])).run()

    assert paths(lake) == {"a.bin", "d/e/c.bin"}


NAMES = ["a", "a!", "a-b", "a.b", "a0", "b", "ü", "u\u0308", "a b", "😀", "%2F", "a+b", "_", "~"]


def tree(chance: random.Random) -> set[str]:
    """Return files in directories of odd names; none is both."""
    found: set[str] = set()
    for _ in range(60):
        names = [chance.choice(NAMES) for _ in range(chance.randint(0, 3))]
        found.add("/".join([*names, f"{chance.choice(NAMES)}.f"]))
    return found


@pytest.mark.parametrize("seed", range(4))
async def test_odd_trees_are_followed_as_they_change(
    place: Place,
    lake: VolumeFiles,
    files: Files,
    importing: Importing,
    seed: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listing_parts, "KEYS_A_PAGE", 10)
    chance = random.Random(seed)
    for _ in range(3):
        before = set(place.paths)
        await place.have({path for path in sorted(before) if chance.random() < 0.7} | tree(chance))
        seen = len(files.changes(0, limit=10**6))

        report = await importing().run()

        assert paths(lake) == place.paths
        assert report.unchanged == len(before & place.paths)
        told = files.changes(seen, limit=10**6)
        assert len({change.file.path for change in told}) == len(told), "nothing goes and comes"


async def test_more_than_a_page_is_listed_by_several(
    place: Place, lake: VolumeFiles, importing: Importing
) -> None:
    await place.have({f"d{at % 3}/{at:04}" for at in range(3_600)})
    await importing().run()
    await place.have({path for path in place.paths if not path.startswith("d1")})

    report = await importing().run()

    assert paths(lake) == place.paths
    assert (report.removed, report.unchanged) == (1_200, 2_400)


async def test_an_empty_file_is_imported_and_a_marker_of_a_folder_is_not(
    s3: S3Server, origins: Origins, lake: VolumeFiles
) -> None:
    bucket = Bucket(s3, "markers")
    s3.put(BUCKET, "markers/d/empty", b"")
    s3.put(BUCKET, "markers/d/full", b"x")
    for folder in ("markers/d", "markers/e"):
        s3.make_folder(BUCKET, folder)

    with ThreadPoolExecutor(2) as threads:
        origin = origins.get(bucket.volume)
        await Import(lake, origin, bucket.volume.url, "", "", threads, prunes=True).run()

    assert paths(lake) == {"d/empty", "d/full"}


async def test_what_cannot_be_looked_into_is_not_taken_for_gone(
    tmp_path: Path, origins: Origins, lake: VolumeFiles
) -> None:
    (tmp_path / "place").mkdir()
    place = Directory(tmp_path / "place")
    await place.have({"d/a", "d/b", "e"})
    origin, url = origins.get(place.volume), place.volume.url
    with ThreadPoolExecutor(2) as threads:
        await Import(lake, origin, url, "", "", threads).run()
        (place.root / "d").rename(place.root / "real")
        (place.root / "d").symlink_to("real")

        report = await Import(lake, origin, url, "", "", threads, prunes=True).run()

    assert paths(lake) == {"d/a", "d/b", "e", "real/a", "real/b"}
    assert {key for key, _ in report.refused} == {"d/a", "d/b"}


async def test_a_place_that_may_not_be_listed_changes_nothing(
    origins: Origins, lake: VolumeFiles
) -> None:
    with pytest.raises(NotPermitted):
        origins.get(Volume("place", "file:///elsewhere/"))
    web = origins.get(Volume("web", "http://127.0.0.1:1/"))
    with ThreadPoolExecutor(1) as threads, pytest.raises(InvalidRequest, match="cannot be listed"):
        await Import(lake, web, "http://127.0.0.1:1/", "", "", threads, prunes=True).run()

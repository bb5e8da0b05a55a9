"""What an import leaves in the catalog, of places that list by bytes and that list trees."""

import asyncio
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from penstock.catalog_file import CatalogFile
from penstock.deadline import Deadline
from penstock.errors import InvalidRequest, ObjectNotFound, OriginUnavailable
from penstock_node.catalog import files as catalog_files
from penstock_node.catalog import listing_parts
from penstock_node.catalog.database import Database
from penstock_node.catalog.files import Files, VolumeFiles
from penstock_node.catalog.importing import Import
from penstock_node.catalog.key_order import BYTES, TREE, Order
from penstock_node.catalog.records import Difference, Span
from penstock_node.catalog.selection import Selection
from penstock_node.origin import ListedObject, ListPage, Origin, OriginMeta
from tests.commit import seeds_of_commit

URL = "s3://bucket/"


@dataclass
class Place:
    """An origin in memory, of which the test sees each question before it is answered."""

    order: Order = BYTES
    objects: dict[str, OriginMeta] = field(default_factory=dict)
    told: Callable[[ListedObject], ListedObject] = lambda listed: listed
    asked: Callable[[str, str], None] = lambda what, path: None
    answered: Callable[[], None] = lambda: None
    heads: int = 0
    lists: int = 0

    def put(self, *paths: str, version: str = "1", size: int = 1) -> None:
        for path in paths:
            self.objects[path] = OriginMeta(f'"{version}"', size, 7)

    async def head(self, path: str, *, deadline: Deadline | None = None) -> OriginMeta:
        self.heads += 1
        self.asked("head", path)
        await asyncio.sleep(0)
        if path not in self.objects:
            raise ObjectNotFound(path)
        return self.objects[path]

    async def list(
        self, prefix: str, *, after: str = "", limit: int, deadline: Deadline | None = None
    ) -> ListPage:
        self.lists += 1
        self.asked("list", after)
        top = f"{prefix}/" if prefix else ""
        behind = sorted(
            (
                path
                for path in self.objects
                if path.startswith(top) and self._is_behind(path, after)
            ),
            key=self.order.key,
        )
        found = [self._listed(path) for path in behind[:limit]]
        self.answered()
        await asyncio.sleep(0)
        return ListPage(tuple(found), found[-1].path if len(behind) > limit else "")

    def _is_behind(self, path: str, after: str) -> bool:
        if after and self.order is TREE and path.startswith(f"{after}/"):
            return False  # As SeaweedFS has it.
        return not after or self.order.key(path) > self.order.key(after)

    def _listed(self, path: str) -> ListedObject:
        meta = self.objects[path]
        return self.told(ListedObject(path, meta.size, meta.modified_us, meta.version))


@pytest.fixture(params=["bytes", "tree"])
def place(request: pytest.FixtureRequest) -> Place:
    return Place({"bytes": BYTES, "tree": TREE}[request.param])


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing_parts, "KEYS_A_PAGE", 6)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(f"sqlite:///{tmp_path}/catalog.db")
    made.upgrade()
    yield made
    made.close()


@pytest.fixture
def files(database: Database) -> Files:
    return Files(database)


@pytest.fixture
def lake(files: Files) -> VolumeFiles:
    return files.volume("lake")


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


Importing = Callable[..., Import]


@pytest.fixture
def importing(lake: VolumeFiles, place: Place, threads: ThreadPoolExecutor) -> Importing:
    def made(**options: Any) -> Import:
        wanted = {"url": URL, "prefix": "", "to": "", **options}
        return Import(lake, cast("Origin", place), threads=threads, **wanted)

    return made


def paths(lake: VolumeFiles) -> list[str]:
    found: list[str] = []
    while page := lake.page("", after=found[-1] if found else None):
        found += [each.path for each in page]
    return found


def counts(made: Import) -> tuple[int, int, int, int]:
    told = made.progress
    return told.added, told.changed, told.removed, told.unchanged


# What arrives.


async def test_everything_arrives_where_it_is_to_lie(
    place: Place, lake: VolumeFiles, importing: Importing
) -> None:
    place.put("in/a", "in/d/b", "in/d/c", "inner/x", "x", size=5)

    made = importing(prefix="in", to="my/data")
    report = await made.run()

    assert paths(lake) == ["my/data/a", "my/data/d/b", "my/data/d/c"]
    assert lake.stat("my/data/d/b") == CatalogFile(
        "my/data/d/b", '"1"', 5, 7, "s3://bucket/in/d/b", '"1"'
    )
    assert counts(made) == (3, 0, 0, 0)
    assert (report.listed, report.bytes) == (3, 15)


async def test_an_import_that_finds_nothing_new_writes_nothing(
    place: Place, files: Files, importing: Importing
) -> None:
    place.put(*(f"d{at % 7}/{at}" for at in range(50)))
    await importing(prunes=True).run()

    again = importing(prunes=True)
    await again.run()

    assert len(files.changes(0)) == 50
    assert counts(again) == (0, 0, 0, 50)
    assert place.heads == 0


async def test_what_changed_came_and_went_is_told(
    place: Place, lake: VolumeFiles, importing: Importing
) -> None:
    place.put("a", "b", "c", "d/x", "d/y")
    await importing().run()
    place.put("b", version="2")
    place.put("c", size=2)
    place.put("e")
    del place.objects["a"], place.objects["d/x"], place.objects["d/y"]

    dry, kept, pruned = importing(prunes=True, is_dry=True), importing(), importing(prunes=True)
    await dry.run()
    assert paths(lake) == ["a", "b", "c", "d/x", "d/y"]
    await kept.run()
    assert paths(lake) == ["a", "b", "c", "d/x", "d/y", "e"]
    await pruned.run()

    assert paths(lake) == ["b", "c", "e"]
    assert counts(dry) == (1, 2, 3, 0)
    assert counts(kept) == (1, 2, 0, 0)
    assert counts(pruned) == (0, 0, 3, 3)


async def test_all_of_a_directory_is_removed_where_nothing_is_left_of_it(
    place: Place, lake: VolumeFiles, importing: Importing
) -> None:
    place.put("x", *(f"{at % 3}/{at}" for at in range(60)))
    await importing().run()
    place.objects = {"x": place.objects["x"]}

    await importing(prunes=True).run()

    assert paths(lake) == ["x"]
    assert place.heads == 0, "a directory that is empty is asked for at once"


async def test_nothing_is_removed_where_there_is_nothing_at_all(
    place: Place, lake: VolumeFiles, importing: Importing
) -> None:
    place.put("a/x", "a/y", "b/x")
    await importing().run()
    del place.objects["a/x"], place.objects["a/y"]

    await importing(prefix="a", to="a", prunes=True).run()
    place.objects.clear()
    await importing(prunes=True).run()

    assert paths(lake) == ["a/x", "a/y", "b/x"]


async def test_only_what_comes_from_there_is_removed(
    place: Place, lake: VolumeFiles, importing: Importing
) -> None:
    others = ["to/elsewhere", "to/out", "too", "a", "to/there"]
    place.put("in/there")
    lake.put(
        [
            CatalogFile("to/elsewhere", "1", 1, 0, "s3://other/in/elsewhere", "1"),
            CatalogFile("to/out", "1", 1, 0, "s3://bucket/inner/out", "1"),
            CatalogFile("too", "1", 1, 0, "s3://bucket/in/o", "1"),
            CatalogFile("a", "1", 1, 0, "s3://bucket/in/a", "1"),
            CatalogFile("to/gone", "1", 1, 0, "s3://bucket/in/gone", "1"),
        ]
    )

    await importing(prefix="in", to="to", prunes=True).run()

    assert paths(lake) == sorted(others)


async def test_what_an_import_to_another_place_brought_is_not_removed(
    place: Place, lake: VolumeFiles, importing: Importing
) -> None:
    """It comes from below there, and yet is not where this import would ask for it."""
    place.put("a/x", "a/y", "b")
    await importing(prunes=True).run()
    await importing(prefix="a", to="c", prunes=True).run()

    await importing(prunes=True).run()
    assert paths(lake) == ["a/x", "a/y", "b", "c/x", "c/y"]
    del place.objects["a/x"]
    await importing(prunes=True).run()
    assert paths(lake) == ["a/y", "b", "c/x", "c/y"]
    await importing(prefix="a", to="c", prunes=True).run()

    assert paths(lake) == ["a/y", "b", "c/y"]


async def test_what_is_not_meant_is_left_alone(
    place: Place, lake: VolumeFiles, importing: Importing
) -> None:
    place.put("in/a.bin", "in/a.txt", "in/d/b.bin", "in/d/b.txt")
    await importing(prefix="in").run()
    for path in ("in/a.bin", "in/a.txt", "in/d/b.bin"):
        del place.objects[path]
    place.put("in/c.bin", "in/c.txt")

    selection = Selection(include=["*.bin"], exclude=["d/**"])
    await importing(prefix="in", prunes=True, selection=selection).run()

    assert paths(lake) == ["a.txt", "c.bin", "d/b.bin", "d/b.txt"]


async def test_versions_that_a_listing_does_not_tell_are_asked_for(
    place: Place, lake: VolumeFiles, importing: Importing
) -> None:
    place.put("a", "b", "c")
    place.told = lambda listed: ListedObject(listed.path, listed.size, 3, "")

    def goes(what: str, path: str) -> None:
        if what == "head":
            place.objects.pop("b", None)

    place.asked = goes

    made = importing()
    await made.run()

    assert paths(lake) == ["a", "c"]
    found = lake.stat("a")
    assert found is not None
    assert (found.version, found.modified_us) == ('"1"', 7)
    assert counts(made) == (2, 0, 0, 0)


@pytest.mark.parametrize("url", ["gs://bucket/", "az://container/", "https://host/"])
async def test_listings_of_other_stores_than_s3_tell_no_versions(
    place: Place, lake: VolumeFiles, importing: Importing, url: str
) -> None:
    place.put("a")
    place.told = lambda listed: ListedObject(listed.path, listed.size, 3, '"another"')

    await importing(url=url).run()

    found = lake.stat("a")
    assert found is not None
    assert found.version == '"1"'


async def test_keys_that_are_no_paths_are_told_and_not_written(
    place: Place, lake: VolumeFiles, importing: Importing
) -> None:
    bad = ["//", "a//b", "a/../b", "./a", "d/", "d/./e", "x\ny", "long/" + "k" * 1015]
    place.put("a/b", "d/e", *bad, "ok", "z/1", "z/2", "z/3", "z/4", "z/5")

    made = importing(to="below", prunes=True)
    report = await made.run()

    good = ["a/b", "d/e", "ok", "z/1", "z/2", "z/3", "z/4", "z/5"]
    assert paths(lake) == [f"below/{path}" for path in good]
    assert sorted(key for key, _ in report.refused) == sorted(bad)
    assert report.refused_count == len(bad)
    assert all(reason for _, reason in report.refused)


# What is never removed.


NAMES = ["a", "a!", "a-", "a-b", "a.b", "a/", "a0", "b", "A", "ü", "u\u0308", "😀", "\uffff", "a b"]


def random_path(chance: random.Random) -> str:
    names = [chance.choice(NAMES).strip("/") for _ in range(chance.randint(1, 4))]
    return "/".join(names)


@pytest.mark.parametrize("seed", seeds_of_commit(12))
async def test_the_catalog_becomes_what_the_origin_has(
    place: Place, lake: VolumeFiles, files: Files, importing: Importing, seed: int
) -> None:
    """Never is anything removed that is there, at any moment: the feed would tell."""
    chance = random.Random(seed)
    prefix, to = chance.choice([("", ""), ("a", "x/y"), ("a/a-b", ""), ("", "z")])
    top, base = (f"{part}/" if part else "" for part in (prefix, to))
    for _ in range(3):
        place.objects = {
            path: meta for path, meta in place.objects.items() if chance.random() < 0.7
        }
        place.put(*(random_path(chance) for _ in range(chance.randrange(120))))
        place.put(*(top + random_path(chance) for _ in range(40)), version=str(chance.random()))
        seen = len(files.changes(0, limit=10**6))
        made = importing(prefix=prefix, to=to, prunes=True)
        await made.run()

        below = {
            path[len(top) :]: meta for path, meta in place.objects.items() if path.startswith(top)
        }
        told = {each.path: each.version for each in lake.page("", limit=10**6)}
        assert told == {base + path: meta.version for path, meta in below.items()}
        changes = files.changes(seen, limit=10**6)
        removed = {each.file.path for each in changes if each.is_removed}
        assert not removed & told.keys(), f"removed, though it is there: seed {seed}"
        assert len({each.file.path for each in changes}) == len(changes), "nothing twice"
        assert made.progress.settled == len(below)


async def test_a_tree_beside_one_with_a_longer_name_is_not_asked_for_file_by_file(
    lake: VolumeFiles, threads: ThreadPoolExecutor
) -> None:
    place = Place(TREE)
    place.put(*(f"data/{at}" for at in range(40)), *(f"data-v2/{at}" for at in range(200)))
    first = Import(lake, cast("Origin", place), URL, "", "", threads)
    await first.run()

    # One: else another may list a page that tells before the first file is asked for.
    again = Import(lake, cast("Origin", place), URL, "", "", threads, prunes=True, workers=1)
    await again.run()

    assert counts(again) == (0, 0, 0, 240)
    assert place.heads <= 32, "the first that are there tell"


async def test_a_file_that_comes_while_it_is_listed_stays(
    place: Place, files: Files, lake: VolumeFiles, importing: Importing
) -> None:
    place.put("a", "z")

    def another_writes() -> None:
        place.put("b")
        lake.put([CatalogFile("b", '"1"', 1, 0, "s3://bucket/b", '"1"')])

    place.answered = another_writes
    await importing(prunes=True).run()

    assert paths(lake) == ["a", "b", "z"]
    assert not any(change.is_removed for change in files.changes(0))


async def test_what_another_has_noted_since_is_not_put_back(
    place: Place, lake: VolumeFiles, importing: Importing
) -> None:
    place.put("a", "b")
    await importing().run()

    def is_overwritten_and_told() -> None:
        if lake.stat("b") == before:
            place.put("b", version="2")
            meta = place.objects["b"]
            lake.put([CatalogFile("b", meta.version, meta.size, 0, f"{URL}b", meta.version)])

    before, place.answered = lake.stat("b"), is_overwritten_and_told
    await importing(prunes=True).run()

    now = lake.stat("b")
    assert now is not None
    assert now.version == place.objects["b"].version
    assert len(lake.versions("b")) == 2


@pytest.mark.parametrize("is_back", [False, True])
async def test_what_another_has_noted_as_removed_since_is_asked_for_and_not_put_back(
    place: Place, lake: VolumeFiles, importing: Importing, is_back: bool
) -> None:
    place.put("a", "b")
    await importing().run()

    def is_removed_and_told() -> None:
        if lake.stat("b") == before:
            lake.remove(["b"])
            if not is_back:
                del place.objects["b"]

    before, place.answered = lake.stat("b"), is_removed_and_told
    made = importing()
    await made.run()

    assert paths(lake) == sorted(place.objects)
    assert counts(made)[0] == is_back
    assert place.heads == 1


async def test_what_another_removes_between_a_look_and_a_write_is_looked_at_again(
    place: Place,
    lake: VolumeFiles,
    files: Files,
    importing: Importing,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place.put("a", "b", "c")
    write, others = lake.write, files.volume("lake")

    def written_after_another(found: Difference) -> Difference:
        monkeypatch.setattr(lake, "write", write)
        others.put([file for file in found.new if file.path != "c"])
        others.remove(["a", "b"])
        del place.objects["a"]
        return write(found)

    monkeypatch.setattr(lake, "write", written_after_another)
    made = importing()
    await made.run()

    assert paths(lake) == ["b", "c"]
    assert counts(made) == (2, 0, 0, 1)
    assert place.heads == 2


async def test_what_another_has_written_since_is_not_removed(lake: VolumeFiles) -> None:
    gone = CatalogFile("a", "1", 1, 0, "s3://bucket/a", "1")
    lake.put([gone])
    found, _ = lake.compare("", Span(), [], prunes=True)
    lake.put([gone._replace(version="2")])

    written = lake.write(found)

    assert (len(found.removed), len(written.removed), paths(lake)) == (1, 0, ["a"])


@pytest.mark.parametrize("before", [[], ["1"]])
async def test_what_another_has_written_since_it_was_compared_stays(
    lake: VolumeFiles, before: list[str]
) -> None:
    file, other = (CatalogFile(path, "1", 1, 0, f"s3://bucket/{path}", "1") for path in "ab")
    lake.put([file._replace(version=version) for version in before])
    older, newer = file._replace(version="2"), file._replace(version="3")
    found, _ = lake.compare("", Span(), [older, other], prunes=False)
    lake.put([newer])

    written = lake.write(found)

    assert (written.late, lake.stat("a"), lake.stat("b")) == ([older], newer, other)
    assert lake.write(found, is_newest=True).late == []
    assert lake.stat("a") == older


async def test_what_another_writes_between_a_look_and_a_write_is_looked_at_again(
    place: Place,
    lake: VolumeFiles,
    files: Files,
    importing: Importing,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place.put("a", "b")
    write, second = lake.write, CatalogFile("a", '"2"', 1, 7, f"{URL}a", '"2"')

    def written_after_another(found: Difference) -> Difference:
        monkeypatch.setattr(lake, "write", write)
        place.put("a", version="3")
        files.volume("lake").put([second])
        return write(found)

    monkeypatch.setattr(lake, "write", written_after_another)
    made = importing()
    await made.run()

    third = second._replace(version='"3"', source_version='"3"')
    assert [each.file for each in lake.versions("a")] == [third, second]
    assert counts(made) == (1, 1, 0, 0)


def test_what_is_put_stands_over_what_another_writes_meanwhile(
    lake: VolumeFiles, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = CatalogFile("a", "1", 1, 0, "s3://bucket/a", "1")
    compare = lake.compare_each

    def compared_before_another(seen: Sequence[CatalogFile]) -> Difference:
        found = compare(seen)
        files.volume("lake").put([mine._replace(version="2")])
        return found

    monkeypatch.setattr(lake, "compare_each", compared_before_another)
    lake.put([mine])

    assert lake.stat("a") == mine


def test_what_another_has_written_alike_is_as_it_is_to_be(lake: VolumeFiles) -> None:
    file = CatalogFile("a", "1", 1, 0, "s3://bucket/a", "1")
    found = lake.compare_each([file])
    lake.put([file])

    written = lake.write(found)

    assert (written.late, written.new, written.unchanged) == ([], [], 1)


async def test_nothing_is_written_any_more_once_it_is_over(
    place: Place, lake: VolumeFiles, importing: Importing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be older than what the next import has written by then."""
    place.put("a")
    write, begun, may_go_on = lake.write, threading.Event(), threading.Event()

    def held(found: Difference) -> Difference:
        begun.set()
        may_go_on.wait()
        return write(found)

    monkeypatch.setattr(lake, "write", held)
    running = asyncio.ensure_future(importing().run())
    await asyncio.to_thread(begun.wait)
    running.cancel()
    await asyncio.wait([running], timeout=0.1)
    was_over = running.done()
    may_go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert not was_over
    assert paths(lake) == ["a"]


async def test_more_than_is_compared_at_once_is_removed(
    place: Place, lake: VolumeFiles, importing: Importing, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.put(*(f"{at:02}" for at in range(60)))
    await importing().run()
    place.objects = {path: place.objects[path] for path in ("00", "33", "59")}
    monkeypatch.setattr(catalog_files, "COMPARED_MAX", 5)

    await importing(prunes=True).run()

    assert paths(lake) == ["00", "33", "59"]


async def test_one_that_is_listed_without_bytes_is_asked_for(
    place: Place, lake: VolumeFiles, importing: Importing
) -> None:
    """It may be a marker of a folder, beside a file of that name."""
    place.put("d", size=5)
    place.told = lambda listed: ListedObject(listed.path, 0, 3, '"marker"')

    await importing().run()

    found = lake.stat("d")
    assert found is not None
    assert (found.version, found.size) == ('"1"', 5)


async def test_a_place_without_an_order_is_not_pruned(
    lake: VolumeFiles, threads: ThreadPoolExecutor
) -> None:
    place = Place(Order("lengths", lambda path: (len(path), path), BYTES.spans))
    place.put("b/c", "d", "a/b/c", "aa")

    with pytest.raises(InvalidRequest, match="no known order"):
        await Import(lake, cast("Origin", place), URL, "", "", threads, prunes=True).run()
    await Import(lake, cast("Origin", place), URL, "", "", threads).run()

    assert len(paths(lake)) == 4


# Ends.


async def test_an_error_of_one_ends_all_and_is_raised_itself(
    place: Place, lake: VolumeFiles, importing: Importing
) -> None:
    place.put(*(f"{at % 10}/{at}" for at in range(300)))

    def fails(what: str, path: str) -> None:
        if place.lists == 20:
            raise OriginUnavailable("it is down")

    place.asked = fails
    with pytest.raises(OriginUnavailable, match="it is down"):
        await importing().run()
    asked = place.lists
    await asyncio.sleep(0)

    assert place.lists == asked < 40
    place.asked = lambda what, path: None
    await importing(prunes=True).run()
    assert paths(lake) == sorted(place.objects)


async def test_one_that_is_cancelled_keeps_what_it_has_and_goes_on_later(
    place: Place, lake: VolumeFiles, importing: Importing
) -> None:
    place.put(*(f"{at % 10}/{at:03}" for at in range(300)))
    made = importing()
    running = asyncio.ensure_future(made.run())

    def cancels(what: str, path: str) -> None:
        if made.progress.settled >= 20:
            running.cancel()

    place.asked = cancels
    with pytest.raises(asyncio.CancelledError):
        await running

    assert 20 <= len(paths(lake)) < 300
    place.asked = lambda what, path: None
    await importing(prunes=True).run()
    assert paths(lake) == sorted(place.objects)


async def test_two_at_once_end_as_one(
    place: Place, lake: VolumeFiles, files: Files, importing: Importing
) -> None:
    place.put(*(f"{at % 10}/{at}" for at in range(300)))
    lake.put([CatalogFile("0/gone", "1", 1, 0, "s3://bucket/0/gone", "1")])

    await asyncio.gather(importing(prunes=True).run(), importing(prunes=True).run())

    assert paths(lake) == sorted(place.objects)
    assert len(files.changes(0)) == 302, "each once"


async def test_several_list_at_once(place: Place, importing: Importing) -> None:
    """Also where there is one directory at the top, and all below it are hardly two pages."""
    place.put(*(f"top/{at % 50:02}/{at:04}" for at in range(50 * 10)))
    waiting, are_three = 0, asyncio.Event()
    listing = place.list

    async def held_until_three_begin(prefix: str, *, after: str = "", **options: Any) -> ListPage:
        nonlocal waiting
        if prefix.startswith("top/") and not after:
            waiting += 1
            if waiting == 3:
                are_three.set()
            await are_three.wait()
        return await listing(prefix, after=after, **options)

    place.list = held_until_three_begin  # type: ignore[method-assign]
    made = importing(workers=3)
    async with asyncio.timeout(30):
        await made.run()

    assert made.progress.added == 500

"""The places that a catalog remembers as watched, on SQLite and on a real PostgreSQL."""

from collections.abc import Iterator

import pytest

from penstock.errors import InvalidRequest
from penstock_node.catalog import watched
from penstock_node.catalog.database import Database
from penstock_node.catalog.files import Files
from penstock_node.catalog.selection import Selection
from penstock_node.catalog.watched import Watched, WatchedPlace


@pytest.fixture
def database(catalog_url: str) -> Iterator[Database]:
    made = Database(catalog_url)
    made.upgrade()
    for name in ("lake", "pond"):
        Files(made).volume(name)
    yield made
    made.close()


def test_a_place_is_remembered_with_its_newest_globs_and_once(database: Database) -> None:
    places, url = Watched(database), "s3://bucket/models/"
    places.begin(WatchedPlace("lake", url, "a", Selection(("*.bin",), ("tmp/**",))))
    places.begin(WatchedPlace("lake", url, "a", Selection((), ("*.md",))))
    places.begin(WatchedPlace("lake", url, "b"))
    places.begin(WatchedPlace("pond", url, "a"))
    places.begin(WatchedPlace("lake", "s3://other/", ""))

    found = Watched(database).of_volume("lake")

    assert [str(each) for each in found] == [f"{url} to a", f"{url} to b", "s3://other/"]
    assert (found[0].selection.include, found[0].selection.exclude) == ((), ("*.md",))
    assert {(each.volume, each.to) for each in places.in_buckets(["bucket", "none"])} == {
        ("lake", "a"),
        ("lake", "b"),
        ("pond", "a"),
    }


def test_a_place_is_forgotten_alone_and_once(database: Database) -> None:
    places = Watched(database)
    kept, gone = (WatchedPlace("lake", "s3://bucket/", to) for to in ("a", "b"))
    places.begin(kept)
    places.begin(gone)

    assert places.end(gone)
    assert not places.end(gone)
    assert places.of_volume("lake") == [kept]


def test_so_many_are_remembered_and_no_more(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched, "PLACES_MAX", 2)
    places = Watched(database)
    made = [WatchedPlace("lake", "s3://bucket/", to) for to in "abc"]
    for each in made[:2]:
        places.begin(each)

    with pytest.raises(InvalidRequest, match="2 places"):
        places.begin(made[2])
    places.begin(made[1])  # One that is watched already.


@pytest.mark.parametrize(
    ("key", "found"),
    [
        ("models/a/x.bin", ("to/a/x.bin", "s3://bucket/models/a/x.bin")),
        ("models/ü +%2F.bin", ("to/ü +%2F.bin", "s3://bucket/models/ü +%2F.bin")),
        ("models/x.txt", None),
        ("modelsx/x.bin", None),
        ("models", None),
        ("models/", None),
        ("models/a//x.bin", None),
        ("models/../x.bin", None),
        ("models/\udcff.bin", None),
        (f"models/{'x' * 5_000}.bin", None),
    ],
)
def test_a_key_is_a_file_where_it_lies_in_the_place_is_meant_and_can_be_a_path(
    key: str, found: tuple[str, str] | None
) -> None:
    place = WatchedPlace("lake", "s3://bucket/models/", "to", Selection(("*.bin",)))

    assert place.bucket == "bucket"
    assert place.file_of(key) == found

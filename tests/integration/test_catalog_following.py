"""A copy of a catalog's database, made from its feed."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.catalog_file import CatalogChange, CatalogFile
from penstock.errors import InvalidConfiguration
from penstock_node.catalog.database import Database
from penstock_node.catalog.files import Files
from penstock_node.catalog.following import Copy


def file(path: str, version: str) -> CatalogFile:
    return CatalogFile(path, version, len(version), 7, f"s3://bucket/{path}", version)


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Files]:
    database = Database(f"sqlite:///{tmp_path}/source.db")
    database.upgrade()
    yield Files(database)
    database.close()


@pytest.fixture
def database(catalog_url: str) -> Iterator[Database]:
    made = Database(catalog_url)
    made.upgrade()
    yield made
    made.close()


def write_at_random(source: Files, chance: random.Random, *, steps: int) -> None:
    for _ in range(steps):
        volume = source.volume(chance.choice(["lake", "pond"]))
        paths = chance.sample([f"{d}/{n}" for d in "ab" for n in range(20)], chance.randint(1, 15))
        if chance.random() < 0.3:
            volume.remove(paths)
        else:
            volume.put([file(path, str(chance.randrange(5))) for path in paths])


def all_of(files: Files) -> list[CatalogChange]:
    return files.changes(0, limit=10**6)


@pytest.mark.parametrize("seed", range(3))
def test_a_copy_is_the_same_however_the_feed_is_cut(
    source: Files, database: Database, seed: int
) -> None:
    chance, copy, files = random.Random(seed), Copy(database), Files(database)
    for _ in range(3):
        write_at_random(source, chance, steps=20)
        newest = files.newest()
        while changes := source.changes(newest, limit=chance.randint(1, 60)):
            newest = copy.take(changes)

    assert all_of(files) == all_of(source)
    assert files.newest() == source.newest()
    assert files.volume_names() == source.volume_names() == ["lake", "pond"]
    for name in ("lake", "pond"):
        one, other = files.existing(name), source.existing(name)
        assert one.uid == other.uid
        assert one.page("") == other.page("")
        assert one.versions("a/1") == other.versions("a/1")


def test_what_comes_again_is_passed_by(source: Files, database: Database) -> None:
    source.volume("lake").put([file("a", "1"), file("b", "1")])
    source.volume("lake").put([file("a", "2")])
    copy, changes = Copy(database), all_of(source)
    copy.take(changes[:2])

    assert copy.take(changes[:2]) == 2
    assert copy.take(changes) == 3
    assert copy.take([]) == 3

    assert all_of(Files(database)) == changes


def test_a_feed_with_a_gap_is_refused_and_nothing_of_it_written(
    source: Files, database: Database
) -> None:
    source.volume("lake").put([file(name, "1") for name in "abcd"])
    copy, changes = Copy(database), all_of(source)
    copy.take(changes[:1])

    for wrong in (changes[2:], [changes[1], changes[3]]):
        with pytest.raises(InvalidConfiguration, match="begin with an empty database"):
            copy.take(wrong)

    assert all_of(Files(database)) == changes[:1]

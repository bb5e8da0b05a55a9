"""The catalog's files on SQLite and on a real PostgreSQL: looked up, listed, written, in order."""

import contextlib
import random
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from penstock.catalog_file import CatalogFile
from penstock.errors import (
    CatalogUnavailable,
    InvalidConfiguration,
    NoSpace,
    ObjectNotFound,
)
from penstock_node.catalog.database import Database
from penstock_node.catalog.files import Files, Usage, VolumeFiles
from penstock_node.catalog.records import Span
from penstock_node.catalog.tables import METADATA
from penstock_node.testbed.postgres import PostgresServer

NOW_US = 1_800_000_000_000_000


def file(path: str, version: str = "1", size: int = 1) -> CatalogFile:
    return CatalogFile(path, version, size, 7, f"s3://bucket/{path}", version)


@pytest.fixture
def url(catalog_url: str) -> str:
    return catalog_url


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    made = Database(url)
    made.upgrade()
    yield made
    made.close()


@pytest.fixture
def files(database: Database) -> Files:
    return Files(database, clock_us=lambda: NOW_US)


@pytest.fixture
def lake(files: Files) -> VolumeFiles:
    return files.volume("lake")


def test_a_volume_is_made_once_and_keeps_its_uid(files: Files) -> None:
    uid = files.volume("lake").uid

    assert files.volume("lake").uid == files.existing("lake").uid == uid
    assert files.volume("other").uid != uid
    with pytest.raises(ObjectNotFound, match="import something"):
        files.existing("absent")


def test_what_was_put_is_looked_up(lake: VolumeFiles) -> None:
    found = lake.put([file("a"), file("dir/b", "2", 20)])

    assert len(found.new) == 2
    assert lake.stat("dir/b") == file("dir/b", "2", 20)
    assert lake.stat("dir") is None


def test_what_is_as_it_was_costs_no_entry(files: Files, lake: VolumeFiles) -> None:
    lake.put([file("a"), file("b")])

    again = lake.put([file("b"), file("a"), file("c")])

    assert (len(again.new), again.unchanged) == (1, 2)
    assert [change.file.path for change in files.changes(0)] == ["a", "b", "c"]


def test_the_feed_tells_each_change_once_and_in_order(files: Files, lake: VolumeFiles) -> None:
    lake.put([file("a"), file("b")])
    lake.put([file("a", "2")])
    lake.remove(["b", "never"])
    lake.put([file("b", "3")])

    told = files.changes(0)

    assert [change.seq for change in told] == [1, 2, 3, 4, 5]
    assert [(change.is_removed, change.file.path, change.file.version) for change in told] == [
        (False, "a", "1"),
        (False, "b", "1"),
        (False, "a", "2"),
        (True, "b", ""),
        (False, "b", "3"),
    ]
    assert {(change.volume, change.volume_uid) for change in told} == {("lake", lake.uid)}
    assert {change.committed_us for change in told} == {NOW_US}
    assert files.changes(3, limit=1) == told[3:4]
    assert files.changes(5) == []


def test_a_clock_that_goes_back_changes_neither_order_nor_what_is_current(
    database: Database,
) -> None:
    moments = iter([NOW_US, NOW_US - 3_600_000_000, 0])
    files = Files(database, clock_us=lambda: next(moments))
    lake = files.volume("lake")
    for version in ("1", "2", "3"):
        lake.put([file("x", version)])

    assert [change.seq for change in files.changes(0)] == [1, 2, 3]
    assert lake.stat("x") == file("x", "3")
    assert [change.file.version for change in lake.versions("x")] == ["3", "2", "1"]


def test_a_path_has_its_history_the_newest_first(lake: VolumeFiles) -> None:
    for number in range(3):
        lake.put([file("a", str(number)), file("ab", str(number))])
    lake.remove(["a"])

    told = lake.versions("a")

    assert [(change.is_removed, change.file.version) for change in told] == [
        (True, ""),
        (False, "2"),
        (False, "1"),
        (False, "0"),
    ]
    assert len(lake.versions("a", limit=2)) == 2


ODD = ["", " ", "%20", "a'b\"c", "a\\b", "ü", "u\u0308", "😀", "\uffff", "A", "~", "_", "%", "x\ny"]
"""Names that something might take for something else."""


def test_pages_have_the_order_of_bytes_and_end_with_the_prefix(lake: VolumeFiles) -> None:
    paths = [f"p{name}/q" for name in ODD] + ["p", "q", "p/"]
    lake.put([file(path) for path in paths])
    expected = sorted((path for path in paths if path.startswith("p")), key=str.encode)

    told: list[str] = []
    while page := lake.page("p", after=told[-1] if told else None, limit=4):
        assert len(page) <= 4
        told += [each.path for each in page]

    assert told == expected
    assert [each.path for each in lake.page("pA")] == ["pA/q"]


def test_a_directory_shows_its_names_and_not_what_is_below(lake: VolumeFiles) -> None:
    chance = random.Random(4)
    names = [f"d/{chance.choice(ODD)}{at}" for at in range(40)]
    deep = [f"{name}/{chance.randrange(10**6)}/{at}" for name in names[::2] for at in range(5)]
    lake.put([file(path) for path in (*names[1::2], *deep, "d", "da", "e/f")])
    expected = sorted({*names[1::2], *(f"{name}/" for name in names[::2])}, key=str.encode)

    told: list[str] = []
    while page := lake.directory("d/", after=told[-1] if told else None, limit=7):
        told += [each if isinstance(each, str) else each.path for each in page]

    assert told == expected
    assert lake.directory("") == [file("d"), "d/", file("da"), "e/"]
    assert lake.directory("absent/") == []


def test_a_file_and_a_directory_of_one_name_are_both_told(lake: VolumeFiles) -> None:
    lake.put([file("d"), file("d/x"), file("d!"), file("d0")])

    assert lake.directory("") == [file("d"), file("d!"), "d/", file("d0")]


def test_what_lies_below_a_prefix_is_added_up(lake: VolumeFiles) -> None:
    lake.put([file(f"d/{at}", size=2**40) for at in range(10)] + [file("e", size=5)])
    lake.put([file("d/0", "2", size=1)])

    assert lake.usage("d/") == Usage(10, 9 * 2**40 + 1)
    assert lake.usage("") == Usage(11, 9 * 2**40 + 6)
    assert lake.usage("absent") == Usage(0, 0)


def test_a_part_of_a_listing_is_compared_with_what_lies_in_it_and_nothing_else(
    lake: VolumeFiles,
) -> None:
    lake.put([file(f"p/{name}") for name in "abcdef"] + [file("o"), file("q")])

    seen = [file("p/b"), file("p/c", "2")]
    found, rest = lake.compare("p/", Span("p/a", "p/d"), seen, prunes=True)
    assert rest is None
    lake.write(found)

    assert [path for _, path in found.removed] == ["p/d"]
    assert [each.path for _, each in found.changed] == ["p/c"]
    assert [each.path for each in lake.page("")] == [
        "o", "p/a", "p/b", "p/c", "p/e", "p/f", "q",
    ]  # fmt: skip
    others, _ = lake.compare("p/", Span("p/d"), [], prunes=True, source="s3://other/")
    assert not others
    lake.write(lake.compare("p/", Span("p/d"), [], prunes=True)[0])
    assert [each.path for each in lake.page("p/")] == ["p/a", "p/b", "p/c"]


def test_what_was_removed_behind_an_entry_is_told_of_a_volumes_own_paths(
    files: Files, lake: VolumeFiles
) -> None:
    lake.put([file("a"), file("b"), file("c"), file("d")])
    files.volume("other").put([file("c")])
    lake.remove(["a"])
    seq = lake.newest()
    files.volume("other").remove(["c"])
    lake.remove(["b", "d"])
    lake.put([file("b", "2"), file("c", "2")])

    assert lake.removed_since(seq, ["a", "b", "c", "never"]) == ({"b"}, seq + 5)
    assert lake.removed_since(0, ["a", "b", "c", "d"])[0] == {"a", "b", "d"}
    assert lake.removed_since(seq, []) == (set(), seq + 5)


def test_two_writers_and_a_follower_who_misses_nothing(url: str, database: Database) -> None:
    """Numbers are given in the order of commits: else a follower would pass one by."""
    count, others = 60, Database(url)
    done = threading.Event()

    def write(who: str, over: Database) -> None:
        volume, chance = Files(over).volume("lake"), random.Random(who)
        for at in range(count):
            paths = [f"{chance.randrange(50):02}" for _ in range(5)]
            volume.put([file(path, f"{who}{at}") for path in dict.fromkeys(paths)])

    def follow() -> list[int]:
        told: list[int] = []
        files = Files(database)
        while True:
            is_last = done.is_set()
            page = files.changes(told[-1] if told else 0, limit=13)
            told += [change.seq for change in page]
            if is_last and not page:
                return told

    with ThreadPoolExecutor(3) as pool:
        follower = pool.submit(follow)
        writers = [pool.submit(write, "a", database), pool.submit(write, "b", others)]
        for writer in writers:
            writer.result()
        done.set()
        told = follower.result()
    others.close()

    assert told == list(range(1, len(told) + 1))
    assert len(told) > 5 * count


def test_a_transaction_that_fails_leaves_no_gap(database: Database, files: Files) -> None:
    lake = files.volume("lake")
    with contextlib.suppress(ZeroDivisionError), database.writing() as numbers:
        numbers.next()
        raise ZeroDivisionError

    lake.put([file("a")])

    assert [change.seq for change in files.changes(0)] == [1]


def test_the_schema_is_made_once_whoever_asks(url: str) -> None:
    databases = [Database(url) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(Database.upgrade, databases))

    Files(databases[0]).volume("lake")

    assert Files(databases[3]).existing("lake")
    for each in databases:
        each.close()


def test_a_newer_programs_schema_is_left_alone(database: Database) -> None:
    with database.engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))

    with pytest.raises(InvalidConfiguration, match=r"schema 9999.*a newer one"):
        database.upgrade()


def test_who_waits_too_long_for_another_writer_is_told(url: str, database: Database) -> None:
    impatient = Database(url, wait_s=0.2)
    with database.writing(), pytest.raises(CatalogUnavailable):
        Files(impatient).volume("late")
    impatient.close()

    assert Files(database).volume("late")


def test_readers_do_not_wait_for_who_writes(database: Database, lake: VolumeFiles) -> None:
    lake.put([file("a")])
    with database.writing():
        assert lake.stat("a") == file("a")
        assert lake.put([file("a")]).unchanged == 1


def test_the_migrations_make_the_tables_that_the_program_has(database: Database) -> None:
    with database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, METADATA) == []


@pytest.mark.parametrize("url", ["", "nonsense", "mysql://x/y", "sqlite://", "sqlite:///:memory:"])
def test_a_url_that_names_no_database_is_refused(url: str) -> None:
    with pytest.raises(InvalidConfiguration, match="want sqlite:///PATH or postgresql://"):
        Database(url)


def test_a_machine_without_the_driver_is_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)  # As where it is not installed.

    with pytest.raises(InvalidConfiguration, match=r"pip install 'penstock\[postgresql\]'"):
        Database("postgresql://127.0.0.1/x")


def test_passwords_are_not_shown() -> None:
    database = Database("postgresql://penstock:hush@127.0.0.1:1/x", wait_s=1)

    assert "hush" not in repr(database)
    with pytest.raises(CatalogUnavailable) as raised:
        database.upgrade()
    assert "hush" not in str(raised.value)
    database.close()
    for url in ("postgresql//penstock:hush@host/x", "mysql://penstock:hush@host/x"):
        with pytest.raises(InvalidConfiguration) as refused:
            Database(url)
        assert "hush" not in str(refused.value)


def test_a_postgresql_that_was_killed_is_used_again_when_it_is_back() -> None:
    with contextlib.closing(PostgresServer().start()) as server:
        database = Database(server.url(), wait_s=2)
        database.upgrade()
        lake = Files(database).volume("lake")
        lake.put([file("a")])
        server.kill()

        with pytest.raises(CatalogUnavailable):
            lake.stat("a")
        server.start()

        assert lake.stat("a") == file("a")
        database.close()


def test_a_full_database_is_told_and_keeps_what_it_has(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/catalog.db")
    database.upgrade()
    lake = Files(database).volume("lake")
    lake.put([file("a")])
    limit = sa.event.listens_for(database.engine, "begin")
    limit(lambda connection: connection.exec_driver_sql("PRAGMA max_page_count=40"))

    with pytest.raises(NoSpace, match="nothing was written"):
        lake.put([file(f"{at:0500}") for at in range(1_000)])

    assert [each.path for each in lake.page("")] == ["a"]
    assert lake.put([file("a")]).unchanged == 1
    database.close()


@pytest.mark.parametrize(
    ("code", "reason", "told"),
    [
        ("disk_full", "could not extend file: No space left on device", NoSpace),
        ("query_canceled", "canceling statement due to statement timeout", CatalogUnavailable),
    ],
)
def test_what_postgresql_refuses_while_rows_are_copied_into_it_is_told(
    postgres: PostgresServer, code: str, reason: str, told: type[Exception]
) -> None:
    database = Database(postgres.create_database(f"refuses_{code}"))
    database.upgrade()
    lake = Files(database).volume("lake")
    lake.put([file("a")])
    with database.engine.begin() as connection:
        body = f"BEGIN RAISE EXCEPTION '{reason}' USING ERRCODE = '{code}'; END"
        connection.exec_driver_sql(
            f"CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $${body}$$"
        )
        connection.exec_driver_sql(
            "CREATE TRIGGER refuses BEFORE INSERT ON entries EXECUTE FUNCTION refuse()"
        )

    with pytest.raises(told, match=reason):
        lake.put([file("b")])

    assert [each.path for each in lake.page("")] == ["a"]
    database.close()

"""Which places may be watched, and how one is ended."""

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from penstock.errors import InvalidRequest, NotPermitted
from penstock.volumes import Volume, new_uid
from penstock_node.catalog.database import Database
from penstock_node.catalog.files import Files
from penstock_node.catalog.selection import Selection
from penstock_node.catalog.watched import Watched, WatchedPlace
from penstock_node.catalog_server.places import Places
from penstock_node.catalog_server.watching import Watching
from penstock_node.origin import Origins

ALL = Selection()


@pytest.fixture
def database(tmp_path: Path) -> Database:
    made = Database(f"sqlite:///{tmp_path}/catalog.db")
    made.upgrade()
    return made


@pytest.fixture
async def watching(database: Database, tmp_path: Path) -> AsyncIterator[Watching]:
    places = ("s3://bucket/models/", f"file://{tmp_path}/")
    lake = Volume("lake", uid=new_uid(), origins=tuple(Volume("lake", each) for each in places))
    with (
        closing(database),
        closing(Origins(allow_file_roots=[tmp_path])) as origins,
        ThreadPoolExecutor(1) as threads,
    ):
        yield Watching(
            Watched(database),
            files=Files(database),
            places=Places(origins, coordinator=None, configured={"lake": lake}),
            threads=threads,
            events_url="http://catalog:7411/events",
        )


async def test_a_place_in_one_of_the_volumes_buckets_is_watched_however_it_is_written(
    watching: Watching, database: Database
) -> None:
    for url in ("s3://bucket/models/llama", "S3://bucket/models/llama/"):
        await watching.begin("lake", url, to="/a/b/", selection=ALL)

    assert Watched(database).of_volume("lake") == [
        WatchedPlace("lake", "s3://bucket/models/llama/", "a/b")
    ]


async def test_what_is_in_no_bucket_of_the_volume_is_not_watched(
    watching: Watching, database: Database, tmp_path: Path
) -> None:
    with pytest.raises(NotPermitted):
        await watching.begin("lake", "s3://bucket/other/", to="", selection=ALL)
    with pytest.raises(InvalidRequest, match="import it --every"):
        await watching.begin("lake", f"file://{tmp_path}/x", to="", selection=ALL)
    with pytest.raises(InvalidRequest, match="no catalogued volume 'pond'"):
        await watching.begin("pond", "s3://bucket/models/", to="", selection=ALL)
    with pytest.raises(InvalidRequest, match="segment"):
        await watching.begin("lake", "s3://bucket/models/", to="a/../b", selection=ALL)

    assert Watched(database).in_buckets(["bucket", ""]) == []


async def test_one_that_is_not_watched_is_not_ended_and_what_is_watched_is_said(
    watching: Watching, database: Database
) -> None:
    await watching.begin("lake", "s3://bucket/models/", to="a", selection=ALL)

    with pytest.raises(InvalidRequest, match="watched is: s3://bucket/models/ to a"):
        await watching.end("lake", "s3://bucket/models", to="")
    await watching.end("lake", "s3://bucket/models", to="a")

    assert Watched(database).of_volume("lake") == []

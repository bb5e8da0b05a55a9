"""What of a listing stands for asking about each object, and how much of it is remembered."""

import pytest

from penstock.volumes import Location, Volume, object_key
from penstock_node.listed_versions import REMEMBERED_MAX, ListedVersions
from penstock_node.origin import ListedObject, OriginMeta

S3 = Volume("models", "s3://models/")


def key(path: str, volume: Volume = S3) -> str:
    return object_key(Location(volume, path))


def test_what_a_listing_of_s3_told_is_taken_once() -> None:
    versions = ListedVersions()
    versions.learn(S3, [ListedObject("a", 7, 5, '"etag"')], asked_at=1.0)

    assert versions.take(key("a")) == (OriginMeta('"etag"', 7, 5), 1.0)
    assert versions.take(key("a")) is None


@pytest.mark.parametrize("url", ["file:///models/", "gs://models/"])
def test_listings_of_other_stores_are_not_believed(url: str) -> None:
    """Some write etags in another way there than in answers."""
    volume, versions = Volume("other", url), ListedVersions()
    versions.learn(volume, [ListedObject("a", 7, 5, '"etag"')], asked_at=1.0)

    assert versions.take(key("a", volume)) is None


@pytest.mark.parametrize("version", ["", "etag"])
def test_a_line_without_a_quoted_etag_is_not_believed(version: str) -> None:
    versions = ListedVersions()
    versions.learn(S3, [ListedObject("a", 7, 5, version)], asked_at=1.0)

    assert versions.take(key("a")) is None


def test_the_latest_lines_are_remembered_and_no_more() -> None:
    versions = ListedVersions()
    lines = [ListedObject(f"{at:06}", 7, 5, '"etag"') for at in range(REMEMBERED_MAX + 100)]
    versions.learn(S3, lines, asked_at=1.0)

    assert versions.take(key(lines[99].path)) is None
    assert versions.take(key(lines[100].path)) is not None

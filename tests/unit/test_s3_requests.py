"""What the gateway makes of requests: names, conditions, ranges, buckets, who may read."""

from collections.abc import Mapping
from datetime import UTC, datetime
from ipaddress import ip_network

import pytest

from penstock.errors import InvalidRequest
from penstock.object_info import OpenedObject
from penstock.objects import ObjectId
from penstock.volumes import Volume, Volumes
from penstock_node.serve.s3.access import Caller, TrustedNetworks
from penstock_node.serve.s3.addressing import parse_target
from penstock_node.serve.s3.buckets import bucket_names, find_bucket
from penstock_node.serve.s3.conditions import is_not_modified, parse_range, wanted_range
from penstock_node.serve.s3.errors import S3Error
from penstock_node.transport.http import HttpRequest

ANYONE = Caller()
ETAG = '"5d41402abc4b2a76b9719d911017c592"'
BEFORE, MODIFIED, AFTER = (
    "Mon, 02 Nov 2026 10:00:00 GMT",
    "Mon, 02 Nov 2026 10:00:01 GMT",
    "Mon, 02 Nov 2026 10:00:02 GMT",
)
STORE: dict[str, str | int | float | bool] = {
    "endpoint": "http://127.0.0.1:8333",
    "allow_http": True,
}


def opened(size: int = 100) -> OpenedObject:
    return OpenedObject(
        url="penstock://models/a",
        volume="models",
        id=ObjectId("s3://b/a", ETAG, size, 65536),
        modified=datetime(2026, 11, 2, 10, 0, 1, 500_000, tzinfo=UTC),
        ticket="",
        ticket_expires_at=0,
        fresh_for_s=10,
    )


def volumes(**urls: str) -> Volumes:
    return Volumes({name: Volume(name, url) for name, url in urls.items()})


# Names.


@pytest.mark.parametrize(
    ("target", "bucket", "key"),
    [
        ("/", "", ""),
        ("/models", "models", ""),
        ("/models/", "models", ""),
        ("/models/a/b", "models", "a/b"),
        ("/models/a+b%20c", "models", "a+b c"),
        ("/models/%2525", "models", "%25"),
        ("/models//a/../b//", "models", "/a/../b//"),
        ("/models/a%2F..%2Fb", "models", "a/../b"),
        ("/models/%C3%BC/%E6%97%A5", "models", "ü/日"),
        ("/models/\xc3\xbc", "models", "ü"),
        ("/models/a#b", "models", "a#b"),
        ("/mod%65ls/a", "models", "a"),
        ("/a%2Fb/c", "a/b", "c"),
        ("//models/a", "", "models/a"),
    ],
)
def test_a_path_is_a_bucket_and_a_key_decoded_once(target: str, bucket: str, key: str) -> None:
    found = parse_target(target)

    assert (found.bucket, found.key) == (bucket, key)


@pytest.mark.parametrize(
    ("host", "target", "bucket", "key"),
    [
        ("models.s3.internal", "/a/b", "models", "a/b"),
        ("models.s3.internal:7403", "/a%2Fb+c%20d/", "models", "a/b+c d/"),
        ("Models.S3.Internal.:7403", "/", "models", ""),
        ("my.models.s3.internal", "//a/../b", "my.models", "/a/../b"),
        ("models.s3.internal", "/models/a", "models", "models/a"),
        # Path style goes under every other name.
        ("s3.internal:7403", "/models/a", "models", "a"),
        (".s3.internal", "/models/a", "models", "a"),
        ("evils3.internal", "/models/a", "models", "a"),
        ("models.s3.internal.evil", "/models/a", "models", "a"),
        ("10.0.0.1:7403", "/models/a", "models", "a"),
        ("[fd00::1]:7403", "/models/a", "models", "a"),
        ("", "/models/a", "models", "a"),
    ],
)
def test_below_the_domain_the_host_is_named_for_the_bucket(
    host: str, target: str, bucket: str, key: str
) -> None:
    found = parse_target(target, host=host, domain="s3.internal")

    assert (found.bucket, found.key) == (bucket, key)


@pytest.mark.parametrize(
    ("target", "bucket", "key"),
    [
        ("http://h:7403/models/a%20b?x=1", "models", "a b"),
        ("HTTPS://H:7403/models/http://h:7403/a", "models", "http://h:7403/a"),
        ("http://h:7403", "", ""),
        ("http://h:7403?list-type=2", "", ""),
    ],
)
def test_a_whole_url_is_read_as_its_path(target: str, bucket: str, key: str) -> None:
    found = parse_target(target, host="h:7403")

    assert (found.bucket, found.key) == (bucket, key)
    assert found.path == (f"/{bucket}/{key}" if bucket else "/")


def test_a_whole_url_names_the_host_that_is_signed() -> None:
    with pytest.raises(S3Error, match="another host than the Host header"):
        parse_target("http://other.s3.internal/a", host="models.s3.internal", domain="s3.internal")


def test_without_a_domain_no_host_names_a_bucket() -> None:
    found = parse_target("/models/a", host="b.s3.internal:7403")

    assert (found.bucket, found.key) == ("models", "a")


def test_a_query_is_decoded_once_and_its_first_value_counts() -> None:
    found = parse_target("/b?prefix=a+b%2Bc%2525&location&prefix=x&&x=%3F?")

    assert found.get("prefix") == "a b+c%25"
    assert "location" in found
    assert "prefi" not in found
    assert (found.get("x"), found.get("y", "none")) == ("??", "none")


@pytest.mark.parametrize("target", ["*", "models/a", "http://h/a", "/a%", "/a%2", "/%zz", "/%ff"])
def test_what_is_no_path_is_refused(target: str) -> None:
    with pytest.raises(S3Error) as refused:
        parse_target(target)

    assert refused.value.code == "InvalidURI"


# Conditions.


@pytest.mark.parametrize(
    ("headers", "outcome"),
    [
        ({}, "sent"),
        ({"if-match": ETAG}, "sent"),
        ({"if-match": ETAG.strip('"')}, "sent"),
        ({"if-match": f'"other", {ETAG}'}, "sent"),
        ({"if-match": "*"}, "sent"),
        ({"if-match": '"other"'}, "PreconditionFailed"),
        ({"if-none-match": ETAG}, "not modified"),
        ({"if-none-match": "W/" + ETAG}, "not modified"),
        ({"if-none-match": "*"}, "not modified"),
        ({"if-none-match": '"other"'}, "sent"),
        ({"if-modified-since": BEFORE}, "sent"),
        ({"if-modified-since": MODIFIED}, "not modified"),
        ({"if-modified-since": AFTER}, "not modified"),
        ({"if-modified-since": "some day"}, "sent"),
        ({"if-modified-since": "Mon, 99 Nov 2026 10:00:01 GMT"}, "sent"),
        ({"if-unmodified-since": BEFORE}, "PreconditionFailed"),
        ({"if-unmodified-since": MODIFIED}, "sent"),
        ({"if-unmodified-since": "some day"}, "sent"),
        # An etag says more than a time: the time beside it is not looked at.
        ({"if-match": ETAG, "if-unmodified-since": BEFORE}, "sent"),
        ({"if-none-match": '"other"', "if-modified-since": AFTER}, "sent"),
        ({"if-match": '"other"', "if-none-match": ETAG}, "PreconditionFailed"),
    ],
)
def test_conditions_are_those_of_rfc_9110(headers: Mapping[str, str], outcome: str) -> None:
    try:
        met = "not modified" if is_not_modified(opened(), headers) else "sent"
    except S3Error as error:
        met = error.code

    assert met == outcome


@pytest.mark.parametrize(
    ("text", "size", "wanted"),
    [
        ("bytes=0-0", 100, (0, 1)),
        ("bytes=10-19", 100, (10, 20)),
        ("bytes=10-", 100, (10, 100)),
        ("bytes=-10", 100, (90, 100)),
        ("bytes=-1000", 100, (0, 100)),
        ("bytes=90-1000", 100, (90, 100)),
        ("Bytes=99-" + "9" * 60, 100, (99, 100)),
        ("bytes=100-", 100, "InvalidRange"),
        ("bytes=" + "9" * 60 + "-", 100, "InvalidRange"),
        ("bytes=-0", 100, "InvalidRange"),
        ("bytes=0-", 0, "InvalidRange"),
        ("bytes=-5", 0, "InvalidRange"),
        ("", 100, None),
        ("bytes=", 100, None),
        ("bytes=-", 100, None),
        ("bytes=5-2", 100, None),
        ("bytes=0-1,5-6", 100, None),
        ("bytes=a-b", 100, None),
        ("bytes=0x0-0x5", 100, None),
        ("bytes=+1-2", 100, None),
        ("bytes=\u0661-", 100, None),
        ("bytes=" + "9" * 5000 + "-", 100, None),
        ("chunks=0-1", 100, None),
    ],
)
def test_a_single_range_is_served_and_a_strange_one_ignored(
    text: str, size: int, wanted: tuple[int, int] | str | None
) -> None:
    try:
        got: tuple[int, int] | str | None = parse_range(text, size)
    except S3Error as error:
        got = error.code

    assert got == wanted


@pytest.mark.parametrize(
    ("condition", "wanted"),
    [
        (ETAG, (0, 10)),
        (MODIFIED, (0, 10)),
        ('"other"', None),
        (BEFORE, None),
        (AFTER, None),
    ],
)
def test_a_range_of_another_version_becomes_the_whole_object(
    condition: str, wanted: tuple[int, int] | None
) -> None:
    headers = {"range": "bytes=0-9", "if-range": condition}

    assert wanted_range(opened(), headers, part_number="") == wanted


def test_every_object_has_one_part() -> None:
    assert wanted_range(opened(), {}, part_number="1") == (0, 100)
    with pytest.raises(S3Error, match="one part"):
        wanted_range(opened(), {}, part_number="2")
    with pytest.raises(S3Error, match="want a number"):
        wanted_range(opened(), {}, part_number="one")


# Buckets.


def test_a_bucket_is_a_volume_or_the_bucket_of_its_origin() -> None:
    known = volumes(models="s3://prod-models/", data="gs://lake/sets/", local="file:///srv/x/")

    by_name = find_bucket(known, "models", ANYONE).locate("a/b")
    by_origin = find_bucket(known, "prod-models", ANYONE).locate("a/b")
    in_prefix = find_bucket(known, "lake", ANYONE).locate("sets/a/b")

    assert (by_name.volume.name, by_name.path) == ("models", "a/b")
    assert (by_origin.volume.name, by_origin.path) == ("models", "a/b")
    assert (in_prefix.volume.name, in_prefix.path) == ("data", "a/b")
    assert bucket_names(known, ANYONE) == ["data", "local", "models"]


def test_a_name_that_is_both_is_the_volume() -> None:
    known = volumes(models="s3://elsewhere/", other="s3://models/")

    assert find_bucket(known, "models", ANYONE).locate("a").volume.name == "models"


def test_of_volumes_in_one_bucket_the_longest_prefix_has_the_key() -> None:
    known = volumes(all="s3://b/", llama="s3://b/llama/", part="s3://b/llama/7b/")
    bucket = find_bucket(known, "b", ANYONE)

    assert bucket.locate("llama/7b/x").volume.name == "part"
    assert bucket.locate("llama/7bx").volume.name == "llama"
    assert bucket.locate("llamas").volume.name == "all"
    assert [shelf.volume.name for shelf in bucket.outermost("")] == ["all"]


def test_only_what_lies_in_a_volume_is_there() -> None:
    bucket = find_bucket(volumes(llama="s3://b/llama/", sd="s3://b/sd/"), "b", ANYONE)

    with pytest.raises(S3Error, match=r"'mistral/x' lies in no volume.*'llama/', 'sd/'") as other:
        bucket.locate("mistral/x")
    with pytest.raises(S3Error, match="penstock volume add") as beside:
        bucket.outermost("llamas")

    assert (other.value.code, beside.value.code) == ("AccessDenied", "AccessDenied")
    assert [shelf.prefix for shelf in bucket.outermost("")] == ["llama/", "sd/"]
    assert [shelf.prefix for shelf in bucket.outermost("l")] == ["llama/"]
    assert [shelf.prefix for shelf in bucket.outermost("llama/7b/")] == ["llama/"]


def test_buckets_of_one_name_in_two_stores_are_told_apart_by_the_volumes_names() -> None:
    known = Volumes(
        {"aws": Volume("aws", "s3://b/"), "own": Volume("own", "s3://b/", STORE)},
    )
    bucket = find_bucket(known, "b", ANYONE)

    with pytest.raises(InvalidRequest, match="penstock://aws/ or penstock://own/"):
        bucket.locate("a")
    with pytest.raises(InvalidRequest, match="alike"):
        bucket.outermost("")


@pytest.mark.parametrize("name", ["nowhere", "srv", "MODELS", "models.", "", "../models"])
def test_a_bucket_that_is_not_there_names_the_fix(name: str) -> None:
    known = volumes(models="s3://prod/", files="file:///srv/models/")

    with pytest.raises(S3Error, match="penstock volume add") as refused:
        find_bucket(known, name, ANYONE)

    assert refused.value.code == "NoSuchBucket"


@pytest.mark.parametrize("key", ["a/", "a//b", "/a", "..", "a/../b", "./a", "a\x00b", "a\nb"])
def test_keys_that_no_origin_is_asked_for_are_not_there(key: str) -> None:
    with pytest.raises(S3Error, match="no such key is read from origins") as refused:
        find_bucket(volumes(models="s3://b/"), "models", ANYONE).locate(key)

    assert refused.value.code == "NoSuchKey"


def test_a_key_that_is_too_long_is_refused() -> None:
    with pytest.raises(S3Error) as refused:
        find_bucket(volumes(models="s3://b/"), "models", ANYONE).locate("ü" * 513)

    assert refused.value.code == "KeyTooLongError"


# Who may read.


def test_a_key_that_is_limited_to_volumes_sees_no_others() -> None:
    known = volumes(models="s3://b/", secret="s3://b/secret/", other="s3://c/")
    caller = Caller("trainer", frozenset({"models"}))

    bucket = find_bucket(known, "b", caller)

    assert bucket_names(known, caller) == ["models"]
    assert [shelf.volume.name for shelf in bucket.shelves] == ["models"]
    with pytest.raises(S3Error, match=r"the volumes of \[s3_keys.trainer\]") as refused:
        find_bucket(known, "c", caller)
    assert refused.value.code == "AccessDenied"


@pytest.mark.parametrize(
    ("peer", "is_trusted"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("fd00::1", True),
        ("11.1.2.3", False),
        ("::1", False),
        ("127.0.0.1", False),
        ("", False),
        ("10.1.2.3.evil", False),
    ],
)
def test_signatures_are_ignored_only_for_trusted_networks(peer: str, is_trusted: bool) -> None:
    access = TrustedNetworks([ip_network("10.0.0.0/8"), ip_network("fd00::/8")])
    request = HttpRequest("GET", "/", {"authorization": "whatever"})

    if is_trusted:
        assert access.admit(request, parse_target("/"), peer=peer) == ANYONE
        return
    with pytest.raises(S3Error, match="s3_trusted_networks") as refused:
        access.admit(request, parse_target("/"), peer=peer)
    assert refused.value.code == "AccessDenied"

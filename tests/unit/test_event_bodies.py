"""Which keys of which buckets the bodies of object stores name."""

import json
import random
from typing import Any
from urllib.parse import quote_plus

import pytest

from penstock.errors import InvalidRequest
from penstock_node.catalog_server.event_bodies import Named, told_in


def record(name: str, bucket: str, key: str) -> dict[str, Any]:
    """Return what S3 tells of a key; much more stands in a real one."""
    return {
        "eventVersion": "2.0",
        "eventSource": "aws:s3",
        "eventName": name,
        "s3": {
            "s3SchemaVersion": "1.0",
            "bucket": {"name": bucket, "ownerIdentity": {"principalId": "x"}},
            "object": {"key": quote_plus(key), "size": 5, "eTag": "0" * 32},
        },
    }


def body(*records: object) -> bytes:
    return json.dumps({"EventName": "s3:x", "Key": "b/x", "Records": records}).encode()


def entry(name: str, *, is_directory: bool = False, is_version: bool = False) -> dict[str, Any]:
    found: dict[str, Any] = {"name": name, "chunks": [{"size": 5}], "attributes": {"mtime": 1}}
    if is_directory:
        found["is_directory"] = True
    if is_version:
        found["extended"] = {"Seaweed-X-Amz-Version-Id": "NjcxNA=="}
    return found


def filer(kind: str, path: str, **message: object) -> bytes:
    return json.dumps({"event_type": kind, "key": path, "message": message}).encode()


@pytest.mark.parametrize("key", ["a/b", "a b+c%2F/ü.bin", "..", "a//b", "dir/"])
def test_a_record_of_s3_names_its_key_as_it_is(key: str) -> None:
    for name in ("ObjectCreated:Put", "s3:ObjectRemoved:Delete"):
        assert told_in(body(record(name, "lake", key))).named == (Named("lake", key),)


def test_several_records_name_each_key_once() -> None:
    put = [record("ObjectCreated:Put", "lake", key) for key in ("a", "b", "a")]

    told = told_in(body(*put, record("ObjectRemoved:Delete", "pond", "a")))

    assert told.named == (Named("lake", "a"), Named("lake", "b"), Named("pond", "a"))


def test_that_an_object_was_read_is_ignored_as_looking_at_it_would_be_told_again() -> None:
    told = told_in(body(record("s3:ObjectAccessed:Head", "lake", "a")))

    assert (told.named, told.ignored) == ((), 1)


def test_a_key_that_is_no_text_becomes_one_that_no_path_has() -> None:
    broken = record("ObjectCreated:Put", "lake", "x")
    broken["s3"]["object"]["key"] = "%FF"

    ((_, key),) = told_in(body(broken)).named

    assert key == "\udcff"


def test_an_envelope_of_sns_is_opened_and_its_wish_to_send_is_told() -> None:
    inner = body(record("ObjectCreated:Put", "lake", "a")).decode()
    asks = {"Type": "SubscriptionConfirmation", "SubscribeURL": "https://sns/x", "Message": "m"}

    told = told_in(json.dumps({"Type": "Notification", "Message": inner}).encode())
    asked = told_in(json.dumps(asks).encode())

    assert told.named == (Named("lake", "a"),)
    assert (asked.named, asked.confirm_url) == ((), "https://sns/x")


def test_what_aws_sends_to_try_an_address_names_nothing() -> None:
    told = told_in(json.dumps({"Event": "s3:TestEvent", "Bucket": "lake"}).encode())

    assert (told.named, told.ignored) == ((), 1)


def test_seaweedfs_names_what_was_written_changed_and_deleted() -> None:
    path, one = "/buckets/lake/a b+%.txt", entry("a b+%.txt")
    parent = {"new_parent_path": "/buckets/lake"}
    bodies = [
        filer("create", path, new_entry=one, **parent),
        filer("update", path, old_entry=one, new_entry=one, **parent),
        filer("delete", path, old_entry=one),
    ]

    for each in bodies:
        assert told_in(each).named == (Named("lake", "a b+%.txt"),)


def test_a_rename_of_seaweedfs_names_both_keys() -> None:
    renamed = filer(
        "rename",
        "/buckets/lake/d/one",
        old_entry=entry("one"),
        new_entry=entry("two"),
        new_parent_path="/buckets/pond/e",
    )

    assert told_in(renamed).named == (Named("lake", "d/one"), Named("pond", "e/two"))


@pytest.mark.parametrize(
    ("path", "told_entry"),
    [
        ("/buckets/lake/d", entry("d", is_directory=True)),
        ("/buckets/lake", entry("lake", is_directory=True)),
        ("/buckets/lake/.uploads/1/0001.part", entry("0001.part")),
        ("/etc/iam/x", entry("x")),
        ("/buckets/lake/x.versions/v_1", entry("v_1", is_version=True)),
    ],
)
def test_what_is_no_object_of_a_bucket_of_seaweedfs_is_ignored(
    path: str, told_entry: dict[str, Any]
) -> None:
    told = told_in(filer("create", path, new_entry=told_entry))

    assert (told.named, told.ignored) == ((), 1)


def test_a_version_of_an_object_of_seaweedfs_is_told_by_the_directory_of_its_versions() -> None:
    versions = entry("x.versions", is_directory=True)

    told = told_in(filer("update", "/buckets/lake/d/x.versions", new_entry=versions))

    assert told.named == (Named("lake", "d/x"),)


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"\xff\xfe",
        b"{",
        b"[" * 100_000,
        b"9" * 10_000,
        b"null",
        b"[]",
        b"{}",
        b'{"Records": {}}',
        b'{"Records": [1]}',
        b'{"Records": [{"eventName": "x", "s3": {"bucket": {"name": "b"}, "object": {}}}]}',
        b'{"Records": [{"eventName": 1, "s3": {"bucket": {"name": "b"}, "object": {"key": ""}}}]}',
        b'{"Type": "Notification", "Message": "{"}',
        b'{"Type": "Notification", "Message": "{}"}',
        b'{"event_type": "create", "key": "/buckets/b/k", "message": {}}',
        b'{"event_type": "create", "key": "/buckets/b/k", "message": {"new_entry": 1}}',
        b'{"event_type": "create", "key": 1, "message": {"new_entry": {}}}',
    ],
)
def test_anything_else_is_refused_with_what_is_wanted(broken: bytes) -> None:
    with pytest.raises(InvalidRequest, match=r"want \{\"Records\""):
        told_in(broken)


def test_no_body_whatever_raises_anything_else() -> None:
    rng = random.Random(1)
    good = [
        body(record("ObjectCreated:Put", "lake", "a/b")),
        filer("rename", "/buckets/a/b", old_entry=entry("b"), new_entry=entry("c")),
        json.dumps({"Type": "Notification", "Message": body().decode()}).encode(),
    ]
    refused = 0
    for _ in range(3_000):
        changed = bytearray(rng.choice(good))
        for _ in range(rng.randint(1, 6)):
            changed[rng.randrange(len(changed))] = rng.choice(b'{}[]",:0 \xff\\ntf')
        try:
            told_in(bytes(changed))
        except InvalidRequest:
            refused += 1
    assert refused > 1_000

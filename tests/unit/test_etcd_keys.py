"""Keys of etcd that are none of ours: left out, and never an error."""

import logging

import pytest

from penstock.etcd_watch import KeySpace
from penstock.membership.coordinator import Changes, Entry
from penstock.v1 import etcd_pb2

PREFIX = b"/penstock/v1/test/"
ODD = PREFIX + b"volumes/mod\xe8les"


def put(key: bytes, *, revision: int) -> etcd_pb2.Event:
    return etcd_pb2.Event(
        type=etcd_pb2.Event.PUT, kv=etcd_pb2.KeyValue(key=key, value=b"v", mod_revision=revision)
    )


@pytest.fixture
def keys() -> KeySpace:
    return KeySpace(PREFIX.decode())


def test_a_key_that_is_no_utf_8_is_left_out_of_a_listing_and_named_in_the_log(
    keys: KeySpace, caplog: pytest.LogCaptureFixture
) -> None:
    ours = etcd_pb2.KeyValue(key=PREFIX + "volumes/modèles".encode(), value=b"v", mod_revision=3)
    odd = etcd_pb2.KeyValue(key=ODD, value=b"v", mod_revision=4)

    with caplog.at_level(logging.WARNING):
        listing = keys.listing(etcd_pb2.RangeResponse(kvs=[ours, odd]))

    assert listing.entries == {"volumes/modèles": Entry(b"v", 3)}
    assert repr(ODD) in caplog.text


def test_changes_of_keys_that_are_no_utf_8_move_the_revision_and_nothing_else(
    keys: KeySpace,
) -> None:
    ours = put(PREFIX + b"a", revision=5)

    assert keys.changes([ours, put(ODD, revision=6)]) == Changes((("a", Entry(b"v", 5)),), 6)
    assert keys.changes([put(ODD, revision=7)]) == Changes((), 7)

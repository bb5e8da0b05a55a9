"""What fuzzing has found: each was a crash, an endless loop, or far too much work."""

import json
from typing import Any

import pytest

from penstock.bulk_connection import Head
from penstock.data.tar_headers import BLOCK, EXTENDED_BYTES_MAX, members
from penstock.errors import InvalidRequest, NodeUnavailable, OriginUnavailable
from penstock.mount.messages import BadMessage, parse_forgets, parse_read
from penstock.origin_urls import VOLUME_URL_BYTES_MAX, canonical_url
from penstock.planes.bulk import _checksums
from penstock.reuse import sample_from_proto
from penstock.tensors.header import parse_header
from penstock.v1 import cache_pb2, placement_pb2, reuse_pb2
from penstock.volumes import Volume
from penstock.wire import listed_from_proto, object_from_proto, view_from_proto
from penstock_node.catalog_server.event_bodies import told_in
from penstock_node.coordination import records
from penstock_node.coordination.pin_records import pin_from_json
from penstock_node.origin.hub_answers import BadAnswer, files_of, next_page
from penstock_node.origin.hub_http import Answer
from penstock_node.origin.hub_requests import HubRequests
from penstock_node.origin.interface import OriginLimits
from penstock_node.serve.hub.errors import HubError
from penstock_node.serve.hub.requests import asked_paths
from penstock_node.serve.s3 import sigv4
from penstock_node.serve.s3.addressing import parse_target
from penstock_node.serve.s3.conditions import _date
from penstock_node.serve.s3.errors import S3Error
from penstock_node.transport.http import HttpRequest

DEEP = b"[" * 100_000


def summed(block: bytearray) -> bytes:
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def tar_of(*blocks: bytes) -> Any:
    data = b"".join(blocks) + bytes(2 * BLOCK)
    return members(lambda at, size: data[at : at + size], 0, len(data), "u")


def test_a_tar_member_of_negative_size_is_no_member() -> None:
    block = bytearray(BLOCK)
    block[0:1], block[124:135], block[156:157] = b"a", b"-0000001000", b"0"

    with pytest.raises(InvalidRequest, match="no tar header"):
        list(tar_of(summed(block)))


def test_what_stands_before_a_tar_member_is_bounded_as_a_whole() -> None:
    block = bytearray(BLOCK)
    block[124:135], block[156:157] = b"%011o" % (EXTENDED_BYTES_MAX // 2), b"x"
    extended = summed(block) + bytes(EXTENDED_BYTES_MAX // 2)

    with pytest.raises(InvalidRequest, match="the most that is read"):
        list(tar_of(extended, extended, extended))


def test_a_tar_size_of_thousands_of_digits_is_none() -> None:
    record = b"5020 size=" + b"9" * 5009 + b"\n"
    block = bytearray(BLOCK)
    block[124:135], block[156:157] = b"%011o" % len(record), b"x"
    member = bytearray(BLOCK)
    member[124:135], member[156:157] = b"%011o" % 0, b"0"
    padding = bytes(-len(record) % BLOCK)

    with pytest.raises(InvalidRequest, match="no tar header"):
        list(tar_of(summed(block), record, padding, summed(member)))


def test_tensors_of_huge_numbers_are_refused_without_counting_them_out() -> None:
    shape = [10**4000] * 50
    header = json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, 4]}}).encode()

    with pytest.raises(InvalidRequest, match="whole numbers"):
        parse_header(header, file_bytes=len(header) + 12)


def test_an_answer_whose_length_has_thousands_of_zeros_is_no_node_s() -> None:
    with pytest.raises(NodeUnavailable):
        _ = Head(200, {"content-length": "0" * 5000}).length


def test_checksums_that_are_no_ascii_are_no_node_s() -> None:
    with pytest.raises(NodeUnavailable):
        _checksums(Head(206, {"penstock-checksums": "\xdfAAA"}))


def test_a_date_that_no_calendar_has_is_no_condition() -> None:
    assert _date(f"Thu, 31 Dec {10**20} 12:00:00 GMT") is None


def test_a_header_is_signed_once() -> None:
    headers = {
        "host": "h",
        "x-amz-date": "20261231T120000Z",
        "authorization": "AWS4-HMAC-SHA256 Credential=A/20261231/r/s3/aws4_request,"
        f"SignedHeaders=host;x-amz-date{';host' * 5000},Signature=0",
    }

    with pytest.raises(S3Error, match="once"):
        sigv4.presented(parse_target("/b/k"), headers)


def test_a_hub_s_client_that_sends_deep_json_is_refused() -> None:
    body = b'{"paths": ' + DEEP
    request = HttpRequest("POST", "/hf", {"content-type": "application/json"}, body=body)

    with pytest.raises(HubError, match="not JSON"):
        asked_paths(request)


def test_a_hub_that_redirects_to_no_url_is_told_so() -> None:
    volume = Volume("hub", "hf://org/name")
    hub = HubRequests(volume, endpoint="https://h", token="", limits=OriginLimits())

    for location in ("//[", "https://h:99999/x", "https://h:0/x"):
        with pytest.raises(OriginUnavailable, match="nowhere"):
            hub._next("https://h/a", Answer(302, {"location": location}, bytearray()), "p")


def test_a_hub_s_page_is_read_whatever_is_in_it() -> None:
    assert next_page({"link": "<" * 1000 + '<http://h/a,b>; rel="next"'}) == "http://h/a,b"
    for page in (DEEP, b'[{"type": "file", "path": "a", "size": -1, "oid": "x"}]'):
        with pytest.raises(BadAnswer):
            files_of(page)


def test_a_url_that_gets_too_long_by_its_slash_is_refused_at_once() -> None:
    with pytest.raises(InvalidRequest, match="at most"):
        canonical_url("s3://b/" + "x/" * 508 + "x", where="v")
    assert len(canonical_url("s3://b/" + "x/" * 508, where="v")) == VOLUME_URL_BYTES_MAX - 1


def test_an_event_of_a_bucket_that_no_database_can_be_asked_for_is_ignored() -> None:
    event = {"eventName": "x", "s3": {"bucket": {"name": "\0"}, "object": {"key": "k"}}}

    told = told_in(json.dumps({"Records": [event]}).encode())

    assert (told.named, told.ignored) == ((), 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"points_per_100": "4096"},
        {"points_per_100": 10**9},
        {"history": [{"epoch": 1, "nodes": [], "points_per_100": 10**9}]},
        {"history": [{"epoch": 1, "nodes": [], "points_per_100": 4096}] * 9},
        {"nodes": [{"id": "n", "host": "h", "zone": "", "weight": 10**9}]},
    ],
)
def test_a_placement_of_which_no_ring_can_be_made_is_refused(changes: dict[str, Any]) -> None:
    placement = {
        "placement_version": 1,
        "cluster_uid": "ab" * 16,
        "epoch": 1,
        "points_per_100": 4096,
        "nodes": [],
        "history": [],
    }
    assert records.placement_from_json(json.dumps(placement).encode()).epoch == 1

    with pytest.raises(InvalidRequest):
        records.placement_from_json(json.dumps(placement | changes).encode())


def test_a_placement_that_is_sent_is_refused_likewise() -> None:
    node = placement_pb2.PlacedNode(id="n", weight=2**32 - 1)
    sent = placement_pb2.Placement(cluster_uid="ab" * 16, points_per_100=2**32 - 1, nodes=[node])

    with pytest.raises(InvalidRequest):
        view_from_proto(placement_pb2.GetPlacementResponse(placement=sent))


def test_a_pin_of_no_objects_is_refused_by_name() -> None:
    pin = {"url": "u", "objects": [], "cost_bytes": 1, "pinned_at": 1.0}
    identity = {"volume": "v", "key": 5, "version": "1", "size": 1.5, "chunk_size": 65536}

    for changes in ({"objects": [identity]}, {"objects": 5}, {"cost_bytes": 1e300}):
        with pytest.raises(InvalidRequest):
            pin_from_json("x", json.dumps(pin | changes).encode())


def test_a_sample_that_names_what_is_not_in_it_is_refused() -> None:
    columns: dict[str, Any] = {"read_after_us": [1], "read_bytes": [1], "read_counts": [1]}

    changed: list[dict[str, Any]] = [
        {"read_chunks": [7], "read_kinds": [0]},
        {"read_kinds": [300]},
    ]
    for changes in changed:
        with pytest.raises(InvalidRequest):
            sample_from_proto(reuse_pb2.SampleResponse(**columns, **changes))
    assert len(sample_from_proto(reuse_pb2.SampleResponse()).read_times) == 0


def test_a_time_that_no_calendar_has_is_not_known_and_options_are_an_object() -> None:
    assert listed_from_proto(cache_pb2.ListedObject(modified_us=2**62)).modified is None
    source = cache_pb2.Source(options_json="[")
    sent = cache_pb2.Object(key="k", version="1", chunk_size=65536, sources=[source])
    with pytest.raises(InvalidRequest):
        object_from_proto(sent)


def test_a_short_request_of_the_kernel_s_is_refused_by_name() -> None:
    for parse, body in ((parse_read, b"123"), (parse_forgets, b"\x02" + bytes(20))):
        with pytest.raises(BadMessage):
            parse(body)

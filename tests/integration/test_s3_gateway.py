"""S3's own clients read a real cluster through its nodes' gateways."""

import contextlib
import http.client
import io
import random
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import boto3
import obstore
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError, ResponseStreamingError
from obstore.store import S3Store

from penstock_node.testbed.cluster import LocalCluster, NodeSpec, TierSpec
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.processes import free_ports, wait_until
from penstock_node.testbed.s3 import S3Server

BUCKET, SHARED, CHANGING = "gateway-models", "gateway-shared", "gateway-changing"
CHUNK_BYTES = 64 * 1024
BIG = random.Random(5).randbytes(20 * CHUNK_BYTES + 777)
ODD_KEYS = [
    *("sp ace", "ü/ö", "a+b", "100%", "a%20b", "q?x=1&y", "h#h", "~'()*!", "日本/モ", "<&>\"'"),
]
KEY_ID, SECRET = "trainer.1", "a secret/with+signs"
LIMITED_ID, LIMITED_SECRET = "limited", "another"
MANY = 2300
"""More keys than two answers, or two questions to an origin, have."""
NAMESPACE = {"s3": "http://s3.amazonaws.com/doc/2006-03-01/"}
_MIB = 1024 * 1024
_TIERS = (TierSpec("owned", 64 * _MIB),)


@dataclass(frozen=True, slots=True)
class Site:
    """A cluster over an object store."""

    cluster: LocalCluster
    s3: S3Server

    def endpoint(self, node: str = "open") -> str:
        return f"http://{self.cluster[node].file.s3_address}"

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.cluster["open"].file.s3_address.partition(":")
        return host, int(port)


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, etcd: EtcdServer, s3: S3Server
) -> Iterator[Site]:
    """Three nodes, each with another s3_auth; chunks of 64 KiB, so that all own some."""
    directory = tmp_path_factory.mktemp("gateway")
    _fill(s3)
    files = directory / "files"
    _fill_directory(files)
    own: dict[str, Any] = {"s3_port": 0, "allow_file_roots": [str(files)]}
    options: dict[str, str | bool] = s3.options
    (free,) = free_ports(1)
    nodes = [
        NodeSpec("open", _TIERS, own),
        NodeSpec("keys", _TIERS, {**own, "s3_auth": "keys", "s3_keys": _keys(directory)}),
        NodeSpec(
            "closed",
            _TIERS,
            {**own, "s3_auth": "ignore", "s3_trusted_networks": ["10.0.0.0/8"]},
        ),
    ]
    cluster = LocalCluster(
        directory,
        nodes,
        etcd=etcd.endpoint,
        name="gateway",
        settings={"chunk_size": CHUNK_BYTES},
        volumes={
            "models": {"url": f"s3://{BUCKET}/", "options": options},
            "llama": {"url": f"s3://{SHARED}/llama/", "options": options},
            "sd": {"url": f"s3://{SHARED}/sd/", "options": options},
            "changing": {"url": f"s3://{CHANGING}/", "options": options},
            "files": {"url": f"file://{files}/"},
            "gone": {
                "url": "s3://gateway-gone/",
                "options": {**options, "endpoint": f"http://127.0.0.1:{free}"},
            },
        },
    )
    with cluster:
        yield Site(cluster, s3)


def _keys(directory: Path) -> dict[str, Any]:
    for name, secret in (("trainer", SECRET), ("limited", LIMITED_SECRET)):
        (directory / name).write_text(secret + "\n")
    return {
        "trainer": {
            "access_key_id": KEY_ID,
            "secret_access_key": {"file": str(directory / "trainer")},
        },
        "limited": {
            "access_key_id": LIMITED_ID,
            "secret_access_key": {"file": str(directory / "limited")},
            "volumes": ["llama"],
        },
    }


def _fill(s3: S3Server) -> None:
    for bucket in (BUCKET, SHARED, CHANGING):
        s3.create_bucket(bucket)
    s3.put(BUCKET, "big", BIG)
    s3.put(BUCKET, "empty", b"")
    for key in ODD_KEYS:
        s3.put(BUCKET, f"odd/{key}", key.encode())
    for key in ("a-1", "a.txt", "a/1", "a/b/2", "ab", "b/3"):
        s3.put(BUCKET, f"tree/{key}", key.encode())
    for key in ("llama/7b/model", "llama/readme", "sd/model", "other/secret", "llamas"):
        s3.put(SHARED, key, key.encode())


def _fill_directory(directory: Path) -> None:
    (directory / "many").mkdir(parents=True)
    for number in range(MANY):
        (directory / "many" / f"{number:04}").write_bytes(b"x")
    (directory / "zu letzt").write_bytes(b"z")


def client(endpoint: str, *, key: tuple[str, str] | None = None, **config: Any) -> Any:
    """Return boto3's client as it is by default, with nothing of the environment."""
    if key is None:
        config["signature_version"] = UNSIGNED
    access_key_id, secret = key or (None, None)
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=access_key_id,
        aws_secret_access_key=secret,
        config=Config(retries={"total_max_attempts": 1}, **config),
    )


@pytest.fixture(scope="module")
def boto(site: Site) -> Any:
    """boto3 at the gateway that lets everyone in."""
    return client(site.endpoint())


def store(site: Site, bucket: str) -> S3Store:
    return S3Store(
        bucket,
        config={"endpoint": site.endpoint(), "region": "us-east-1", "skip_signature": True},
        client_options={"allow_http": True},
        retry_config={"max_retries": 0},
    )


def error_of(call: Any, **parameters: Any) -> tuple[int, str, str]:
    """Return how a call is refused: its status, S3's code and the message."""
    with pytest.raises(ClientError) as refused:
        call(**parameters)
    told = refused.value.response
    return (
        told["ResponseMetadata"]["HTTPStatusCode"],
        told["Error"]["Code"],
        told["Error"].get("Message", ""),
    )


def ask(
    site: Site,
    target: str,
    *,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    address: str = "",
) -> tuple[http.client.HTTPResponse, bytes]:
    """Ask the gateway at ``address``, by default the one that lets everyone in."""
    host, _, port = (address or site.cluster["open"].file.s3_address).partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    with contextlib.closing(connection):
        connection.request(method, target, headers=headers or {})
        answer = connection.getresponse()
        return answer, answer.read()


def say(site: Site, data: bytes) -> bytes:
    """Send bytes as they are and return all that comes until the gateway ends the connection."""
    with socket.create_connection(site.address, timeout=30) as connection:
        connection.sendall(data)
        with contextlib.suppress(ConnectionResetError):
            return b"".join(iter(lambda: connection.recv(65536), b""))
        return b""


def code_in(body: bytes) -> str:
    return ElementTree.fromstring(body).findtext("Code") or ""  # noqa: S314 - our own node's


def keys_of(listing: dict[str, Any]) -> list[str]:
    return [line["Key"] for line in listing.get("Contents", [])]


def prefixes_of(listing: dict[str, Any]) -> list[str]:
    return [line["Prefix"] for line in listing.get("CommonPrefixes", [])]


# Objects.


def test_boto3_reads_an_object_whole_and_by_ranges(site: Site, boto: Any) -> None:
    told = client(site.s3.endpoint).head_object(Bucket=BUCKET, Key="big")

    head = boto.head_object(Bucket=BUCKET, Key="big")
    whole = boto.get_object(Bucket="models", Key="big")
    part = boto.get_object(Bucket="models", Key="big", Range="bytes=65530-131080")

    assert (head["ETag"], head["ContentLength"]) == (told["ETag"], len(BIG))
    assert head["LastModified"] == told["LastModified"]
    assert head["AcceptRanges"] == "bytes"
    assert whole["Body"].read() == BIG
    assert (whole["ETag"], whole["ContentType"]) == (told["ETag"], "application/octet-stream")
    assert not [name for name in whole if name.startswith("Checksum")]
    assert part["ResponseMetadata"]["HTTPStatusCode"] == 206
    assert part["ContentRange"] == f"bytes 65530-131080/{len(BIG)}"
    assert part["Body"].read() == BIG[65530:131081]


def test_boto3s_transfers_read_by_many_ranges_at_once(boto: Any) -> None:
    target = io.BytesIO()
    settings = boto3.s3.transfer.TransferConfig(
        multipart_threshold=CHUNK_BYTES, multipart_chunksize=100_000, max_concurrency=8
    )

    boto.download_fileobj("models", "big", target, Config=settings)

    assert target.getvalue() == BIG


def test_obstore_reads_as_from_s3_itself(site: Site) -> None:
    through, directly = store(site, "models"), site.s3.bucket(BUCKET)

    assert bytes(obstore.get(through, "big").bytes()) == BIG
    parts = obstore.get_ranges(through, "big", starts=[0, 70_000], lengths=[10, 65_536])
    assert [bytes(part) for part in parts] == [BIG[:10], BIG[70_000:135_536]]
    assert obstore.head(through, "big") == obstore.head(directly, "big")
    assert bytes(obstore.get(through, "empty").bytes()) == b""


@pytest.mark.parametrize("key", ODD_KEYS)
def test_keys_of_any_characters_are_listed_and_read(site: Site, boto: Any, key: str) -> None:
    listed = boto.list_objects_v2(Bucket="models", Prefix=f"odd/{key}")

    assert keys_of(listed) == [f"odd/{key}"]
    body = boto.get_object(Bucket="models", Key=f"odd/{key}")["Body"].read()
    assert body == key.encode()
    assert bytes(obstore.get(store(site, BUCKET), f"odd/{key}").bytes()) == key.encode()


def test_an_object_without_bytes_has_none(site: Site, boto: Any) -> None:
    assert boto.get_object(Bucket="models", Key="empty")["Body"].read() == b""
    assert error_of(boto.get_object, Bucket="models", Key="empty", Range="bytes=0-")[:2] == (
        416,
        "InvalidRange",
    )
    answer, body = ask(site, "/models/empty?partNumber=1")
    assert (answer.status, answer.headers["Content-Length"], body) == (200, "0", b"")


def test_a_range_beyond_the_end_says_how_long_the_object_is(site: Site, boto: Any) -> None:
    told = error_of(boto.get_object, Bucket="models", Key="big", Range=f"bytes={len(BIG)}-")

    answer, _ = ask(site, "/models/big", headers={"Range": f"bytes={len(BIG)}-"})

    assert told == (416, "InvalidRange", f"bytes={len(BIG)}-: the object has {len(BIG)} bytes")
    assert answer.headers["Content-Range"] == f"bytes */{len(BIG)}"


def test_several_ranges_are_answered_with_the_whole(site: Site) -> None:
    answer, body = ask(site, "/models/big", headers={"Range": "bytes=0-1,5-6"})

    assert (answer.status, body) == (200, BIG)


def test_conditions_are_kept(boto: Any) -> None:
    head = boto.head_object(Bucket="models", Key="big")
    later = head["LastModified"] + timedelta(seconds=1)

    def get(**conditions: Any) -> tuple[int, str]:
        return error_of(boto.get_object, Bucket="models", Key="big", **conditions)[:2]

    assert get(IfMatch='"other"') == (412, "PreconditionFailed")
    assert get(IfNoneMatch=head["ETag"])[0] == 304
    assert get(IfModifiedSince=later)[0] == 304
    assert get(IfUnmodifiedSince=head["LastModified"] - timedelta(seconds=1))[0] == 412
    found = boto.get_object(Bucket="models", Key="big", IfMatch=head["ETag"], Range="bytes=0-4")
    assert found["Body"].read() == BIG[:5]


def test_an_answer_to_head_has_no_body_also_when_it_is_an_error(site: Site) -> None:
    lines = [
        f"HEAD /models/tree/{key} HTTP/1.1\r\nHost: localhost\r\n" for key in ("ab", "nope", "ab")
    ]
    lines[-1] += "Connection: close\r\n"

    answer = say(site, "".join(f"{line}\r\n" for line in lines).encode())

    heads = answer.split(b"\r\n\r\n")
    assert [head.split()[1] for head in heads[:-1]] == [b"200", b"404", b"200"]
    assert [head.endswith(b"Content-Length: 2") for head in heads[:-1]] == [True, False, True]
    assert heads[-1] == b""


def test_an_overwritten_object_is_read_anew_as_long_as_nothing_was_sent(
    site: Site, boto: Any
) -> None:
    site.s3.put(CHANGING, "model", b"old" * 100)
    old = boto.head_object(Bucket="changing", Key="model")
    site.s3.put(CHANGING, "model", b"newer" * 100)

    refused = error_of(boto.get_object, Bucket="changing", Key="model", IfMatch=old["ETag"])
    new = boto.get_object(Bucket="changing", Key="model")

    assert refused[:2] == (412, "PreconditionFailed")
    assert new["Body"].read() == b"newer" * 100
    assert new["ETag"] != old["ETag"]


def test_what_was_sent_is_counted(site: Site, boto: Any) -> None:
    def served() -> float:
        return site.cluster["open"].metrics()['penstock_served_bytes_total{plane="s3"}']

    boto.get_object(Bucket="models", Key="big")["Body"].read()
    before = served()
    boto.get_object(Bucket="models", Key="big")["Body"].read()
    boto.get_object(Bucket="models", Key="big", Range="bytes=65530-65540")["Body"].read()
    boto.head_object(Bucket="models", Key="big")

    assert served() - before == len(BIG) + 11


def test_chunks_of_other_nodes_are_read_through_any_node(site: Site) -> None:
    with site.cluster.connect() as cache:
        owners = {chunk.owners[0] for chunk in cache.locate("penstock://models/big").chunks}

    assert len(owners) > 1
    through = client(site.endpoint("keys"), key=(KEY_ID, SECRET))
    assert through.get_object(Bucket="models", Key="big")["Body"].read() == BIG


# Buckets and listings.


def test_buckets_are_the_volumes(site: Site, boto: Any) -> None:
    listed = boto.list_buckets()

    names = [bucket["Name"] for bucket in listed["Buckets"]]
    assert names == ["changing", "files", "gone", "llama", "models", "sd"]
    (only,) = boto.list_buckets(Prefix="mod")["Buckets"]
    assert only["Name"] == "models"
    assert boto.head_bucket(Bucket="models")["BucketRegion"] == "us-east-1"
    assert boto.get_bucket_location(Bucket=BUCKET)["LocationConstraint"] is None
    assert error_of(boto.head_bucket, Bucket="nowhere")[0] == 404


def test_a_bucket_of_an_origin_has_only_what_lies_in_volumes(site: Site, boto: Any) -> None:
    assert boto.get_object(Bucket=SHARED, Key="llama/7b/model")["Body"].read() == b"llama/7b/model"
    assert boto.get_object(Bucket="llama", Key="7b/model")["Body"].read() == b"llama/7b/model"

    listed = boto.list_objects_v2(Bucket=SHARED)
    folded = boto.list_objects_v2(Bucket=SHARED, Delimiter="/")
    below = boto.list_objects_v2(Bucket=SHARED, Prefix="llama/7")

    assert keys_of(listed) == ["llama/7b/model", "llama/readme", "sd/model"]
    assert (keys_of(folded), prefixes_of(folded)) == ([], ["llama/", "sd/"])
    assert keys_of(below) == ["llama/7b/model"]
    status, code, message = error_of(boto.get_object, Bucket=SHARED, Key="other/secret")
    assert (status, code) == (403, "AccessDenied")
    assert "penstock volume add" in message
    assert error_of(boto.list_objects_v2, Bucket=SHARED, Prefix="other/")[:2] == (
        403,
        "AccessDenied",
    )


@pytest.mark.parametrize("delimiter", ["", "/", "b"])
@pytest.mark.parametrize("prefix", ["", "tree/", "tree/a", "tree/a/", "tree/a/b", "none"])
def test_listings_are_those_of_the_origin(
    site: Site, boto: Any, prefix: str, delimiter: str
) -> None:
    asked = {"Prefix": prefix, "Delimiter": delimiter}
    direct = client(site.s3.endpoint).list_objects_v2(Bucket=BUCKET, **asked)

    pages = boto.get_paginator("list_objects_v2").paginate(
        Bucket="models", **asked, PaginationConfig={"PageSize": 3}
    )
    listed = [page for page in pages if page["KeyCount"]]

    keys = [key for page in listed for key in keys_of(page)]
    folded = [name for page in listed for name in prefixes_of(page)]
    assert sorted(keys) == sorted(keys_of(direct))
    if delimiter != "b":  # SeaweedFS folds at slashes alone.
        assert folded == prefixes_of(direct)
    assert all(page["KeyCount"] <= 3 for page in listed)


def test_a_line_of_a_listing_says_what_head_says(boto: Any) -> None:
    (line,) = boto.list_objects_v2(Bucket="models", Prefix="big")["Contents"]
    head = boto.head_object(Bucket="models", Key="big")

    assert line["LastModified"].replace(microsecond=0) == head["LastModified"]
    assert (line["Size"], line["ETag"], line["StorageClass"]) == (
        len(BIG),
        head["ETag"],
        "STANDARD",
    )


def test_a_listing_begins_behind_a_key(boto: Any) -> None:
    def after(key: str) -> list[str]:
        return keys_of(boto.list_objects_v2(Bucket="models", Prefix="tree/", StartAfter=key))

    everything = after("")
    assert sorted(after("tree/a")) == sorted(everything)
    assert after("tree/ab") == ["tree/b/3"]
    assert after("zzz") == []
    # No origin can be asked with these: the keys behind them are found all the same.
    assert after("tree/b//") == ["tree/b/3"]
    assert sorted(after("tree/a\x01")) == sorted(everything)
    assert sorted(after("../x")) == sorted(everything)


def test_more_keys_than_an_answer_has_come_in_pages(site: Site, boto: Any) -> None:
    pages = list(boto.get_paginator("list_objects_v2").paginate(Bucket="files"))
    folded = boto.list_objects_v2(Bucket="files", Delimiter="/")

    keys = [key for page in pages for key in keys_of(page)]
    assert keys == [f"many/{number:04}" for number in range(MANY)] + ["zu letzt"]
    assert [page["KeyCount"] for page in pages] == [1000, 1000, MANY + 1 - 2000]
    assert (prefixes_of(folded), keys_of(folded)) == (["many/"], ["zu letzt"])
    assert len(list(obstore.list(store(site, "files"), chunk_size=5000).collect())) == MANY + 1


def test_the_first_version_of_listing_pages_by_markers(boto: Any) -> None:
    pages = boto.get_paginator("list_objects").paginate(
        Bucket="models", Prefix="tree/", Delimiter="/", PaginationConfig={"PageSize": 1}
    )

    lines = [keys_of(page) + prefixes_of(page) for page in pages]

    assert sorted(line for (line,) in lines) == [
        "tree/a-1",
        "tree/a.txt",
        "tree/a/",
        "tree/ab",
        "tree/b/",
    ]


def test_a_listing_is_written_as_it_is_asked_for(site: Site) -> None:
    _, plain = ask(site, "/models?list-type=2&prefix=odd/%3C&max-keys=5000&fetch-owner=true")
    _, encoded = ask(site, "/models/?list-type=2&prefix=odd/sp+a&encoding-type=url")

    root = ElementTree.fromstring(plain)  # noqa: S314 - our own node's
    assert root.tag == f"{{{NAMESPACE['s3']}}}ListBucketResult"
    assert root.findtext("s3:Contents/s3:Key", namespaces=NAMESPACE) == "odd/<&>\"'"
    assert root.findtext("s3:MaxKeys", namespaces=NAMESPACE) == "1000"
    assert b"<Key>odd/sp%20ace</Key>" in encoded
    assert b"<EncodingType>url</EncodingType>" in encoded


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("list-type=2&max-keys=-1", "InvalidArgument"),
        ("list-type=2&max-keys=many", "InvalidArgument"),
        ("list-type=2&continuation-token=%C3%BC", "InvalidArgument"),
        ("list-type=2&continuation-token=a", "InvalidArgument"),
        ("encoding-type=base64", "InvalidArgument"),
        ("list-type=2&prefix=a%01", "InvalidArgument"),
        ("versions", "NotImplemented"),
        ("acl=", "NotImplemented"),
        ("uploads", "NotImplemented"),
        ("prefix=%zz", "InvalidURI"),
    ],
)
def test_a_listing_that_cannot_be_is_refused(site: Site, query: str, code: str) -> None:
    answer, body = ask(site, f"/models?{query}")

    assert answer.status >= 400
    assert code_in(body) == code


def test_a_listing_of_nothing_is_empty(boto: Any) -> None:
    for prefix in ("no/such", "a//b/", "../", "tree/a//"):
        assert boto.list_objects_v2(Bucket="models", Prefix=prefix)["KeyCount"] == 0
    nothing = boto.list_objects_v2(Bucket="models", MaxKeys=0)
    assert (nothing["KeyCount"], nothing["IsTruncated"]) == (0, False)


# What is refused.


@pytest.mark.parametrize(
    "key", ["nope", "tree/", "tree", "big/", "tree//ab", "../models/big", "tree/../big", "a\x7fb"]
)
def test_a_key_that_is_not_there_is_not_found(site: Site, boto: Any, key: str) -> None:
    assert error_of(boto.get_object, Bucket="models", Key=key)[:2] == (404, "NoSuchKey")
    assert error_of(boto.head_object, Bucket="models", Key=key)[0] == 404


def test_writing_is_refused_and_says_why(boto: Any) -> None:
    told = [
        error_of(boto.put_object, Bucket="models", Key="x", Body=b"data"),
        error_of(boto.delete_object, Bucket="models", Key="big"),
        error_of(boto.create_multipart_upload, Bucket="models", Key="x"),
        error_of(boto.create_bucket, Bucket="new"),
        error_of(boto.copy_object, Bucket="models", Key="x", CopySource="models/big"),
    ]

    assert {(status, code) for status, code, _ in told} == {(405, "MethodNotAllowed")}
    assert all("only reads" in message for _, _, message in told)
    assert boto.head_object(Bucket="models", Key="big")["ContentLength"] == len(BIG)


def test_who_sends_all_of_an_upload_first_reads_why_it_is_refused(site: Site) -> None:
    connection = http.client.HTTPConnection(*site.address, timeout=30)
    with contextlib.closing(connection):
        connection.request("PUT", "/models/x", body=b"x" * 16 * _MIB)
        answer = connection.getresponse()

        assert (answer.status, code_in(answer.read())) == (405, "MethodNotAllowed")


def test_an_origin_that_does_not_answer_is_a_503(boto: Any) -> None:
    status, code, message = error_of(boto.get_object, Bucket="gone", Key="x")

    assert (status, code) == (503, "ServiceUnavailable")
    assert "'gone'" in message or "gateway-gone" in message


def test_an_error_says_what_and_where(site: Site) -> None:
    answer, body = ask(site, "/models/no%20key?x=1")
    head, nothing = ask(site, "/models/no%20key?x=1", method="HEAD")

    root = ElementTree.fromstring(body)  # noqa: S314 - our own node's
    assert (answer.status, root.tag, root.findtext("Code")) == (404, "Error", "NoSuchKey")
    assert root.findtext("Resource") == "/models/no%20key"
    assert root.findtext("RequestId") == answer.headers["x-amz-request-id"]
    assert answer.headers["Content-Type"] == "application/xml"
    assert parsedate_to_datetime(answer.headers["Date"])
    assert (head.status, nothing) == (404, b"")


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 100 + b"\r\n", 431, "InvalidRequest"),
        (b"GET /" + b"a" * 40_000, 431, "InvalidRequest"),
        (
            b"GET nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            400,
            "InvalidRequest",
        ),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400, "InvalidRequest"),
        (b"GET / HTTP/2.0\r\n\r\n", 505, "NotImplemented"),
        (b"PUT /models/x HTTP/1.1\r\nContent-Length: 9\r\n\r\n", 405, "MethodNotAllowed"),
        (
            b"PUT /models/x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            405,
            "MethodNotAllowed",
        ),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "InvalidRequest"),
        (b"GET /%ff HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 400, "InvalidURI"),
        (b"GET //models/a HTTP/1.1\r\nConnection: close\r\n\r\n", 400, "InvalidBucketName"),
    ],
)
def test_what_is_no_request_is_refused_in_s3s_words(
    site: Site, data: bytes, status: int, code: str
) -> None:
    answer = say(site, data)

    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert f"<Code>{code}</Code>".encode() in answer


def test_requests_that_are_sent_without_waiting_are_answered_in_order(site: Site) -> None:
    keys = ["a-1", "nope", "ab", "b/3"]
    lines = [f"GET /models/tree/{key} HTTP/1.1\r\nHost: localhost\r\n" for key in keys]
    lines[-1] += "Connection: close\r\n"

    answer = say(site, "".join(f"{line}\r\n" for line in lines).encode())

    statuses = [part.split(maxsplit=1)[0] for part in answer.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [b"200", b"404", b"200", b"200"]
    assert answer.endswith(b"b/3")


# Who may read.


def test_only_who_signs_with_a_key_is_let_in(site: Site) -> None:
    endpoint = site.endpoint("keys")
    known = client(endpoint, key=(KEY_ID, SECRET))

    assert known.get_object(Bucket="models", Key="odd/sp ace")["Body"].read() == b"sp ace"
    assert keys_of(known.list_objects_v2(Bucket="models", Prefix="odd/a+")) == ["odd/a+b"]
    for key, code in (
        (None, "AccessDenied"),
        ((KEY_ID, "guessed"), "SignatureDoesNotMatch"),
        (("somebody", SECRET), "InvalidAccessKeyId"),
    ):
        refused = error_of(client(endpoint, key=key).get_object, Bucket="models", Key="big")
        assert refused[:2] == (403, code)


def test_a_presigned_url_is_enough_to_read_one_object(site: Site) -> None:
    signer = client(site.endpoint("keys"), key=(KEY_ID, SECRET), signature_version="s3v4")
    url = signer.generate_presigned_url(
        "get_object", Params={"Bucket": "models", "Key": "odd/日本/モ"}, ExpiresIn=60
    )

    host, _, target = url.removeprefix("http://").partition("/")
    good, body = ask(site, f"/{target}", address=host)
    bad, told = ask(site, f"/{target}".replace("odd", "oddly"), address=host)

    assert (good.status, body.decode()) == (200, "日本/モ")
    assert (bad.status, code_in(told)) == (403, "SignatureDoesNotMatch")


def test_a_presigned_url_ends_when_it_says(site: Site) -> None:
    signer = client(site.endpoint("keys"), key=(KEY_ID, SECRET), signature_version="s3v4")
    url = signer.generate_presigned_url("list_objects_v2", {"Bucket": "models"}, ExpiresIn=1)
    host, _, target = url.removeprefix("http://").partition("/")

    def told() -> bytes:
        return ask(site, f"/{target}", address=host)[1]

    wait_until(lambda: b"<Code>AccessDenied<" in told(), deadline_s=10, what="it ends")
    assert b"has expired" in told()


def test_a_limited_key_reads_its_volumes_alone(site: Site) -> None:
    limited = client(site.endpoint("keys"), key=(LIMITED_ID, LIMITED_SECRET))

    assert [bucket["Name"] for bucket in limited.list_buckets()["Buckets"]] == ["llama"]
    assert keys_of(limited.list_objects_v2(Bucket=SHARED)) == ["llama/7b/model", "llama/readme"]
    assert error_of(limited.get_object, Bucket="models", Key="big")[:2] == (403, "AccessDenied")
    assert error_of(limited.get_object, Bucket=SHARED, Key="sd/model")[:2] == (403, "AccessDenied")


def test_signatures_are_ignored_only_for_trusted_networks(site: Site) -> None:
    status, code, message = error_of(
        client(site.endpoint("closed"), key=("any", "thing")).list_objects_v2, Bucket="models"
    )

    assert (status, code) == (403, "AccessDenied")
    assert "requests from 127.0.0.1 are not trusted" in message


def test_signed_requests_are_welcome_where_anyone_is(site: Site) -> None:
    signed = client(site.endpoint(), key=("any", "thing"))

    assert signed.get_object(Bucket="models", Key="tree/ab")["Body"].read() == b"ab"


# A node that dies.


def test_a_body_is_never_short_and_whole_alike(tmp_path: Path, s3: S3Server) -> None:
    s3.create_bucket(CHANGING)
    s3.put(CHANGING, "large", BIG * 16)
    volumes = {"models": {"url": f"s3://{CHANGING}/", "options": s3.options}}
    spec = NodeSpec("alone", _TIERS, {"s3_port": 0})
    with LocalCluster(tmp_path, [spec], etcd=None, volumes=volumes) as cluster:
        through = client(f"http://{cluster['alone'].file.s3_address}")
        body = through.get_object(Bucket="models", Key="large")["Body"]
        assert body.read(1000) == BIG[:1000]
        cluster["alone"].kill()

        with pytest.raises(ResponseStreamingError, match=r"IncompleteRead|reset"):
            body.read()

"""The S3 gateway, read by real clients: obstore, boto3 and plain HTTP."""

import http.client
import random
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import obstore
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from obstore.store import S3Store

from penstock_node.testbed.cluster import LocalCluster, NodeProcess, NodeSpec
from penstock_node.testbed.s3 import S3Server

CHUNK_BYTES = 1024 * 1024
OBJECT = random.Random(1).randbytes(5 * CHUNK_BYTES + 777)
KEYS = {
    "models/llama/model.safetensors": OBJECT,
    "models/llama/config.json": b"{}",
    "models/sd/unet.bin": b"u" * 100,
    "a b+c%20d.txt": b"spaces and signs",
    "ünïcode/ключ": b"other letters",
    "empty": b"",
}
BUCKET = "gateway-origin"


@dataclass(frozen=True, slots=True)
class Rig:
    """One node over a real S3 server."""

    node: NodeProcess
    origin: S3Server

    @property
    def endpoint(self) -> str:
        return f"http://{self.node.file.s3_address}"

    def boto(self, **options: Any) -> Any:
        keys = {"aws_access_key_id": "engines", "aws_secret_access_key": "secret"} | options
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            config=Config(
                signature_version="s3v4",  # Else its presigned urls are of version 2.
                s3={"addressing_style": "path"},
                retries={"max_attempts": 0},
            ),
            **keys,
        )

    def ask(
        self, method: str, target: str, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.node.file.s3_address, timeout=20)
        connection.request(method, target, headers=headers or {})
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, body


def cluster_over(s3: S3Server, directory: Path, **config: object) -> LocalCluster:
    return LocalCluster(
        directory,
        [NodeSpec("node", config={"s3_port": 0, **config})],
        etcd=None,
        settings={"chunk_size": CHUNK_BYTES},
        volumes={"models": {"url": f"s3://{BUCKET}/", "options": s3.options}},
    )


@pytest.fixture(scope="module")
def origin(s3: S3Server) -> S3Server:
    s3.create_bucket(BUCKET)
    for key, data in KEYS.items():
        s3.put(BUCKET, key, data)
    return s3


@pytest.fixture(scope="module")
def rig(origin: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with cluster_over(origin, tmp_path_factory.mktemp("gateway")) as cluster:
        yield Rig(cluster["node"], origin)


@pytest.mark.parametrize("bucket", ["models", BUCKET])
def test_obstore_reads_lists_and_heads_by_volume_and_by_origin_bucket(
    rig: Rig, bucket: str
) -> None:
    store = S3Store(
        bucket,
        endpoint=rig.endpoint,
        region="us-east-1",
        skip_signature=True,
        client_options={"allow_http": True},
    )

    assert {m["path"] for batch in obstore.list(store) for m in batch} == set(KEYS)
    for key, data in KEYS.items():
        assert bytes(obstore.get(store, key).bytes()) == data
        assert obstore.head(store, key)["size"] == len(data)
    model = "models/llama/model.safetensors"
    part = obstore.get_range(store, model, start=CHUNK_BYTES - 5, end=3 * CHUNK_BYTES + 5)
    assert bytes(part) == OBJECT[CHUNK_BYTES - 5 : 3 * CHUNK_BYTES + 5]
    assert obstore.list_with_delimiter(store, "models")["common_prefixes"] == [
        "models/llama",
        "models/sd",
    ]


def test_boto3_reads_with_its_own_defaults(rig: Rig) -> None:
    client = rig.boto()

    for key, data in KEYS.items():
        assert client.get_object(Bucket="models", Key=key)["Body"].read() == data
        head = client.head_object(Bucket="models", Key=key)
        assert head["ContentLength"] == len(data)
    assert [bucket["Name"] for bucket in client.list_buckets()["Buckets"]] == ["models"]
    assert client.head_bucket(Bucket="models")["ResponseMetadata"]["HTTPStatusCode"] == 200
    client.get_bucket_location(Bucket="models")


def test_boto3_lists_page_by_page_with_any_prefix(rig: Rig) -> None:
    client = rig.boto()
    pages = client.get_paginator("list_objects_v2").paginate(
        Bucket="models", PaginationConfig={"PageSize": 2}
    )
    keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
    folded = client.list_objects_v2(Bucket="models", Prefix="mod", Delimiter="/")
    within = client.list_objects_v2(Bucket="models", Prefix="models/llama/mo")
    behind = client.list_objects_v2(Bucket="models", StartAfter="models/llama/config.json")

    assert keys == sorted(KEYS)
    assert [entry["Prefix"] for entry in folded["CommonPrefixes"]] == ["models/"]
    assert [entry["Key"] for entry in within["Contents"]] == ["models/llama/model.safetensors"]
    assert "models/llama/config.json" not in [entry["Key"] for entry in behind["Contents"]]
    assert client.list_objects_v2(Bucket="models", Prefix="nothing")["KeyCount"] == 0


@pytest.mark.parametrize(
    ("span", "first", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-", 10, None),
        ("bytes=-777", -777, None),
        (f"bytes={CHUNK_BYTES - 1}-{CHUNK_BYTES}", CHUNK_BYTES - 1, CHUNK_BYTES + 1),
        ("bytes=5-99999999999", 5, None),
    ],
)
def test_a_range_is_206_with_its_place(rig: Rig, span: str, first: int, stop: int | None) -> None:
    status, headers, body = rig.ask(
        "GET", "/models/models/llama/model.safetensors", {"Range": span}
    )

    assert (status, body) == (206, OBJECT[first:stop])
    assert headers["content-range"].endswith(f"/{len(OBJECT)}")


def test_ranges_that_cannot_be_met_or_read(rig: Rig) -> None:
    target = "/models/models/llama/model.safetensors"

    beyond = rig.ask("GET", target, {"Range": f"bytes={len(OBJECT)}-"})
    several = rig.ask("GET", target, {"Range": "bytes=0-1,5-6"})
    nonsense = rig.ask("GET", target, {"Range": "bytes=x"})

    assert beyond[0] == 416
    assert b"InvalidRange" in beyond[2]
    assert [answer[0] for answer in (several, nonsense)] == [200, 200]
    assert several[2] == OBJECT


def test_conditions_are_honoured(rig: Rig) -> None:
    target = "/models/models/llama/config.json"
    etag = rig.ask("HEAD", target)[1]["etag"]

    statuses = [
        rig.ask("GET", target, {name: value})[0]
        for name, value in (
            ("If-Match", etag),
            ("If-Match", '"other"'),
            ("If-None-Match", etag),
            ("If-None-Match", '"other"'),
            ("If-Modified-Since", "Fri, 01 Jan 2100 00:00:00 GMT"),
            ("If-Unmodified-Since", "Thu, 01 Jan 1970 00:00:10 GMT"),
        )
    ]

    assert statuses == [200, 412, 304, 200, 304, 412]


def test_a_head_has_no_body_and_an_error_is_xml(rig: Rig) -> None:
    assert rig.ask("HEAD", "/models/empty")[2] == b""
    assert rig.ask("HEAD", "/models/absent")[::2] == (404, b"")
    status, headers, body = rig.ask("GET", "/models/absent")

    assert (status, headers["content-type"]) == (404, "application/xml")
    assert b"<Code>NoSuchKey</Code>" in body


@pytest.mark.parametrize("name", ["absent-bucket", "Nonsense..", "penstock"])
def test_a_bucket_that_is_no_volume_is_told_with_the_fix(rig: Rig, name: str) -> None:
    status, _, body = rig.ask("GET", f"/{name}/key")

    assert status in (403, 404)
    assert b"volume add" in body


def test_writing_is_refused(rig: Rig) -> None:
    client = rig.boto()

    with pytest.raises(ClientError, match="MethodNotAllowed"):
        client.put_object(Bucket="models", Key="new", Body=b"x")
    with pytest.raises(ClientError, match="MethodNotAllowed"):
        client.delete_object(Bucket="models", Key="empty")


def test_the_origin_is_asked_once_for_what_many_read(rig: Rig) -> None:
    rig.origin.put(BUCKET, "asked/once", OBJECT)
    before = rig.node.metrics()
    for _ in range(3):
        assert rig.ask("GET", "/models/asked/once")[2] == OBJECT
    after = rig.node.metrics()

    name = 'penstock_origin_bytes_total{volume="models"}'
    served = 'penstock_served_bytes_total{plane="s3"}'
    assert after[name] - before.get(name, 0.0) == len(OBJECT)
    assert after[served] - before.get(served, 0.0) == 3 * len(OBJECT)


def test_a_reader_that_stops_leaves_others_alone(rig: Rig) -> None:
    host, _, port = rig.node.file.s3_address.rpartition(":")
    stuck = [socket.create_connection((host, int(port)), timeout=20) for _ in range(32)]
    for sock in stuck:
        sock.sendall(b"GET /models/models/llama/model.safetensors HTTP/1.1\r\nHost: x\r\n\r\n")

    assert rig.ask("GET", "/models/models/sd/unet.bin")[2] == b"u" * 100

    for sock in stuck:
        sock.close()


def test_keys_are_checked_when_they_are_asked_for(origin: S3Server, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("the real secret\n")
    keys = {
        "engines": {"access_key_id": "engines", "secret_access_key": {"file": str(secret)}},
        "others": {
            "access_key_id": "others",
            "secret_access_key": {"file": str(secret)},
            "volumes": ["elsewhere"],
        },
    }
    with cluster_over(origin, tmp_path / "keys", s3_auth="keys", s3_keys=keys) as cluster:
        rig = Rig(cluster["node"], origin)
        good = rig.boto(aws_secret_access_key="the real secret")
        odd_key = "a b+c%20d.txt"

        assert good.get_object(Bucket="models", Key=odd_key)["Body"].read() == KEYS[odd_key]
        url = good.generate_presigned_url(
            "get_object", Params={"Bucket": "models", "Key": odd_key}, ExpiresIn=60
        )
        assert rig.ask("GET", url.partition(rig.node.file.s3_address)[2])[2] == KEYS[odd_key]
        for client, code in (
            (rig.boto(), "SignatureDoesNotMatch"),
            (rig.boto(aws_access_key_id="nobody"), "InvalidAccessKeyId"),
            (
                rig.boto(aws_access_key_id="others", aws_secret_access_key="the real secret"),
                "AccessDenied",
            ),
        ):
            with pytest.raises(ClientError, match=code):
                client.get_object(Bucket="models", Key="empty")
        assert rig.ask("GET", "/models/empty")[0] == 403

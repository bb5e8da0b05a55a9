"""What buckets and keys are called: in paths, in hosts, and thousands of them in listings."""

import asyncio
import contextlib
import http.client
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any
from urllib.parse import urlsplit
from xml.etree import ElementTree

import boto3
import obstore
import pytest
from botocore import UNSIGNED
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from obstore.store import S3Store

from penstock_node.testbed.cluster import LocalCluster, NodeSpec, TierSpec
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.s3 import S3Server

BUCKET, CROWDED = "names-models", "names-crowded"
DOMAIN = "s3.penstock.internal"
KEYS = [
    "big",
    "hf/key",
    "odd/a+b",
    "odd/sp ace",
    "odd/ü/ö",
    "odd/a%20b",
    "tree/a/1",
    "tree/a/b/2",
    "tree/ab",
]
MANY = 2300
"""More keys than two answers, or two questions to an origin, have."""
KEY = Credentials("trainer.1", "a secret/with+signs")


@dataclass(frozen=True, slots=True)
class Site:
    """A node that anyone may ask, and one that wants signatures; both know the domain."""

    cluster: LocalCluster
    s3: S3Server

    def ask(self, target: str, node: str = "open", **headers: str) -> tuple[int, bytes]:
        """Return the status and the body of an answer."""
        address = urlsplit(f"http://{self.cluster[node].file.s3_address}")
        connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=30)
        with contextlib.closing(connection):
            connection.request("GET", target, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read()


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, etcd: EtcdServer, s3: S3Server
) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("names")
    (directory / "secret").write_text(KEY.secret_key)
    key = {
        "access_key_id": KEY.access_key,
        "secret_access_key": {"file": str(directory / "secret")},
    }
    for bucket in (BUCKET, CROWDED):
        s3.create_bucket(bucket)
    for name in KEYS:
        s3.put(BUCKET, name, name.encode())
    asyncio.run(crowd(s3.bucket(CROWDED)))
    own: dict[str, Any] = {
        "s3_port": 0,
        "s3_domain": DOMAIN,
        "admin_hosts": ["gpu-17.internal", "models.elsewhere.internal"],
    }
    tiers = (TierSpec("owned", 64 * 1024 * 1024),)
    cluster = LocalCluster(
        directory,
        [
            NodeSpec("open", tiers, own),
            NodeSpec("keys", tiers, {**own, "s3_auth": "keys", "s3_keys": {"trainer": key}}),
        ],
        etcd=etcd.endpoint,
        name="names",
        volumes={
            "models": {"url": f"s3://{BUCKET}/", "options": s3.options},
            "crowded": {"url": f"s3://{CROWDED}/", "options": s3.options},
        },
    )
    with cluster:
        yield Site(cluster, s3)


async def crowd(bucket: S3Store) -> None:
    numbers = list(range(MANY))
    for few in (numbers[start : start + 200] for start in range(0, MANY, 200)):
        keys = [f"shards/{number // 100:02}/{number:04} of many" for number in few]
        await asyncio.gather(*(obstore.put_async(bucket, key, b"x") for key in keys))


def signed(url: str) -> dict[str, str]:
    """Return the headers that boto3 signs a request for ``url`` with, Host among them."""
    request = AWSRequest("GET", url, headers={"Host": urlsplit(url).netloc})
    S3SigV4Auth(KEY, "s3", "us-east-1").add_auth(request)
    return dict(request.headers)


def code_in(body: bytes) -> str:
    return ElementTree.fromstring(body).findtext("Code") or ""  # noqa: S314 - our own node's


# Keys.


@pytest.mark.parametrize(
    ("target", "status", "told"),
    [
        ("/models/odd/a+b", 200, b"odd/a+b"),
        ("/models/odd/a%2Bb", 200, b"odd/a+b"),
        ("/models/odd%2Fsp%20ace", 200, b"odd/sp ace"),
        ("/models/odd/%C3%BC%2F%C3%B6", 200, "odd/ü/ö".encode()),
        ("/models/odd/a%2520b", 200, b"odd/a%20b"),
        ("/models/?prefix=odd%2Fa%2Bb", 200, b"<Key>odd/a+b</Key>"),
        ("/models?prefix=odd/sp+ace", 200, b"<Key>odd/sp ace</Key>"),
        ("/models%2Fodd/sp%20ace", 404, b"<Code>NoSuchBucket<"),
        ("/models/odd/sp+ace", 404, b"<Code>NoSuchKey<"),
        ("/models/odd/../big", 404, b"<Code>NoSuchKey<"),
        ("/models/odd/%2E%2E/big", 404, b"<Code>NoSuchKey<"),
        ("/models/odd%2F..%2Fbig", 404, b"<Code>NoSuchKey<"),
        ("/models/big/", 404, b"<Code>NoSuchKey<"),
        ("/models//big", 404, b"<Code>NoSuchKey<"),
        ("/models/big%00", 404, b"<Code>NoSuchKey<"),
        ("/models/" + "k" * 1025, 400, b"<Code>KeyTooLongError<"),
    ],
)
def test_a_key_is_decoded_once_and_means_nothing_else(
    site: Site, target: str, status: int, told: bytes
) -> None:
    answer = site.ask(target)

    assert answer[0] == status
    assert told in answer[1]


def test_thousands_of_keys_are_listed_as_their_store_lists_them(site: Site) -> None:
    def pages(endpoint: str, bucket: str, **asked: Any) -> list[dict[str, Any]]:
        config = Config(signature_version=UNSIGNED)
        client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", config=config)
        return list(client.get_paginator("list_objects_v2").paginate(Bucket=bucket, **asked))

    def keys(pages: list[dict[str, Any]]) -> list[str]:
        return [line["Key"] for page in pages for line in page["Contents"]]

    node = f"http://{site.cluster['open'].file.s3_address}"
    direct = keys(pages(site.s3.endpoint, CROWDED))
    through = pages(node, "crowded")
    below = pages(node, "crowded", Prefix="shards/2")
    by_seven = {"PageSize": 7}
    folded = pages(node, "crowded", Prefix="shards/", Delimiter="/", PaginationConfig=by_seven)

    assert len(direct) == MANY
    assert [page["KeyCount"] for page in through] == [1000, 1000, MANY - 2000]
    assert keys(through) == direct
    assert keys(below) == direct[2000:]
    prefixes = chain.from_iterable(page["CommonPrefixes"] for page in folded)
    shards = sorted({f"{key.rpartition('/')[0]}/" for key in direct})
    assert [line["Prefix"] for line in prefixes] == shards


# Buckets in hosts.


@pytest.mark.parametrize("bucket", ["models", BUCKET])
@pytest.mark.parametrize("node", ["open", "keys"])
def test_below_the_domain_a_host_is_a_bucket(site: Site, bucket: str, node: str) -> None:
    def told(target: str) -> bytes:
        return site.ask(target, node, **signed(f"http://{bucket}.{DOMAIN}:7403{target}"))[1]

    listed = told("/?list-type=2&prefix=tree%2Fa%2F")

    assert told("/odd/sp%20ace") == b"odd/sp ace"
    assert told("/hf/key") == b"hf/key", "a key, and not the hub's"
    assert re.findall(rb"<Key>(.*?)</Key>", listed) == [b"tree/a/1", b"tree/a/b/2"]
    assert f"<Name>{bucket}</Name>".encode() in listed
    assert code_in(told(f"/{bucket}/tree/ab")) == "NoSuchKey"


def test_another_bucket_than_the_signed_one_is_refused(site: Site) -> None:
    headers = {**signed(f"http://crowded.{DOMAIN}/big"), "Host": f"models.{DOMAIN}"}

    status, told = site.ask("/big", "keys", **headers)

    assert (status, code_in(told)) == (403, "SignatureDoesNotMatch")


def test_path_style_goes_beside(site: Site) -> None:
    for host in (DOMAIN, f"{DOMAIN}:7403", "gpu-17.internal", "127.0.0.1"):
        assert site.ask("/models/odd/a+b", Host=host) == (200, b"odd/a+b")


def test_a_target_may_be_a_whole_url_of_the_host_that_is_named(site: Site) -> None:
    paths = {"127.0.0.1:7403": "/models/odd/a%2Bb", f"models.{DOMAIN}": "/odd/a%2Bb"}
    for host, path in paths.items():
        url = f"http://{host}{path}"
        assert site.ask(url, "keys", **signed(url)) == (200, b"odd/a+b")

    status, told = site.ask(f"http://models.{DOMAIN}/big", Host=f"crowded.{DOMAIN}")

    assert (status, code_in(told)) == (400, "InvalidURI")


@pytest.mark.parametrize(
    "target", ["/?list-type=2&prefix=a", "/?location", "/?delimiter=/", "/big", "/tree/ab"]
)
def test_a_bucket_in_another_host_is_refused_and_told_of_the_setting(
    site: Site, target: str
) -> None:
    status, told = site.ask(target, Host="models.elsewhere.internal:7403")

    assert (status, code_in(told)) in [(400, "InvalidBucketName"), (404, "NoSuchBucket")]
    assert b"set s3_domain of this node" in told

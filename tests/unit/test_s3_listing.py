"""Listings of very many keys: page after page, through memory that does not grow.

The origin is a fake that makes its keys up as it is asked, so that it may have a million.
"""

import gc
from bisect import bisect_right
from dataclasses import replace
from typing import Any, cast
from xml.etree import ElementTree

import pytest

from penstock.membership.coordinator import Entry, Listing
from penstock.object_info import ObjectInfo
from penstock.placement import PlacedNode, Placement
from penstock.volumes import Volume
from penstock_node import listing
from penstock_node.cluster import Cluster
from penstock_node.coordination import ClusterState, records
from penstock_node.listing import Listings
from penstock_node.origin import ListedObject, ListPage
from penstock_node.serve.s3.access import Caller
from penstock_node.serve.s3.addressing import parse_target
from penstock_node.serve.s3.buckets import find_bucket
from penstock_node.serve.s3.exchange import NAMESPACE, Exchange
from penstock_node.serve.s3.listing import BucketListing
from penstock_node.transport.http import HttpRequest
from penstock_node.transport.reply import Octets

KEYS = 1_000_000
LINES_REMEMBERED = 3_000


def key_of(number: int) -> str:
    return f"shards/{number // 1000:03}/model-{number % 1000:03}.safetensors"


class MillionKeys:
    """Stands for the origins of a node, and for each of them."""

    def __init__(self) -> None:
        self.asked = 0

    def get(self, _volume: Volume) -> "MillionKeys":
        return self

    async def list(self, prefix: str, *, after: str, limit: int) -> ListPage:
        self.asked += 1
        assert limit <= 1000
        assert key_of(0).startswith(prefix)
        first = bisect_right(range(KEYS), after, key=key_of)
        numbers = range(first, min(first + limit, KEYS))
        objects = tuple(ListedObject(key_of(number), 7, 10**15, '"etag"') for number in numbers)
        return ListPage(objects, objects[-1].path if numbers.stop < KEYS else "")


class Gateway:
    def __init__(self, cluster: Cluster) -> None:
        self.origin = MillionKeys()
        self._bucket = find_bucket(cluster.volumes, "models", Caller())
        self._listing = BucketListing(Listings(cluster=cluster, origins=cast("Any", self.origin)))

    async def list(self, query: str) -> ElementTree.Element:
        target = f"/models?list-type=2&{query}"
        request = HttpRequest("GET", target, {})
        exchange = Exchange(request, parse_target(target), Caller())
        reply = await self._listing.answer(exchange, self._bucket)
        (part,) = reply.parts
        assert isinstance(part, Octets)
        _, _, body = bytes(part._rest).partition(b"\r\n\r\n")
        return ElementTree.fromstring(body)  # noqa: S314 - our own

    async def pages(self, count: int, *, token: str, query: str = "") -> str:
        """Take ``count`` full pages; return the token of the next."""
        for _ in range(count):
            root = await self.list(f"{query}&continuation-token={token}" if token else query)
            assert len(texts(root, "Contents/Key")) == 1000
            token = texts(root, "NextContinuationToken")[0]
        return token


def texts(root: ElementTree.Element, path: str) -> list[str]:
    full = "/".join(f"{{{NAMESPACE}}}{name}" for name in path.split("/"))
    return [element.text or "" for element in root.findall(full)]


def lines_in_memory() -> int:
    gc.collect()
    return sum(type(one) is ObjectInfo for one in gc.get_objects())


@pytest.fixture
async def gateway() -> Gateway:
    cluster = Cluster(node_id="node", name="test")
    entries = {"volumes/models": Entry(records.volume_to_json({"url": "s3://b/"}), 1)}
    state = ClusterState.from_listing(Listing(entries, revision=1, store_id=1))
    placement = Placement("uid", 1, (PlacedNode("node", "host", "", 100),), 4096)
    await cluster.take(replace(state, placement=placement))
    return Gateway(cluster)


async def test_as_many_lines_stay_however_many_go_by(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "LINES_REMEMBERED_MAX", LINES_REMEMBERED)
    pages, others = 3 * LINES_REMEMBERED // 1000, lines_in_memory()

    token = await gateway.pages(pages, token="")
    before = lines_in_memory()
    await gateway.pages(pages, token=token)

    assert before - others <= LINES_REMEMBERED
    assert lines_in_memory() - others <= LINES_REMEMBERED
    assert gateway.origin.asked <= 4 * pages


async def test_the_last_page_of_a_million_keys_costs_what_the_first_does(gateway: Gateway) -> None:
    root = await gateway.list(f"start-after={key_of(KEYS - 501)}")

    assert texts(root, "Contents/Key") == [key_of(number) for number in range(KEYS - 500, KEYS)]
    assert texts(root, "IsTruncated") == ["false"]
    assert gateway.origin.asked == 1


async def test_folding_a_thousand_directories_asks_for_each_at_most_once(gateway: Gateway) -> None:
    root = await gateway.list("prefix=shards/&delimiter=/")

    folded = texts(root, "CommonPrefixes/Prefix")
    assert folded == [f"shards/{number:03}/" for number in range(len(folded))]
    assert texts(root, "IsTruncated") == ["true"]
    assert gateway.origin.asked <= len(folded) + 1


async def test_a_page_without_lines_is_not_the_end(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = gateway.origin

    async def of_folders_first(_prefix: str, *, after: str, limit: int) -> ListPage:
        assert origin.asked < 5, "it asks for the same again"
        if after == "":
            origin.asked += 1
            return ListPage((), "shards/000/ ")
        return await MillionKeys.list(origin, _prefix, after=after, limit=limit)

    monkeypatch.setattr(origin, "list", of_folders_first)

    root = await gateway.list("max-keys=2")

    assert texts(root, "Contents/Key") == [key_of(0), key_of(1)]

"""Opening ahead: who follows a listing's order asks seldom, and nobody else asks for more."""

import random
from typing import Any, cast

import pytest

from penstock.errors import ObjectNotFound
from penstock.open_ahead import AHEAD_MAX, LISTED_MAX, OpenAhead
from penstock.opens import Opens
from penstock.v1 import cache_pb2
from penstock.wire import error_to_proto


class Nodes:
    """Stands for the nodes of a cluster: knows every object but those that are gone."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.gone: set[str] = set()

    def call(self, _method: object, request: cache_pb2.OpenRequest, **_: object) -> Any:
        self.asked.append(list(request.urls))
        return cache_pb2.OpenResponse(results=[self._result(url) for url in request.urls])

    def _result(self, url: str) -> cache_pb2.OpenResult:
        if url in self.gone:
            return cache_pb2.OpenResult(error=error_to_proto(ObjectNotFound(url)))
        made = cache_pb2.Object(
            url=url, volume="data", key=url, version='"v"', size=1, chunk_size=65536,
            ticket="t", ticket_expires_at=2**40, fresh_for_ms=3_600_000, replicas=1,
        )  # fmt: skip
        return cache_pb2.OpenResult(object=made)


@pytest.fixture
def nodes() -> Nodes:
    return Nodes()


@pytest.fixture
def opens(nodes: Nodes) -> Opens:
    made = Opens(cast("Any", nodes))
    made.ahead.listed(urls(1_000))
    return made


def urls(count: int) -> list[str]:
    return [f"penstock://data/{at:05}" for at in range(count)]


def test_a_thousand_opened_in_their_order_cost_few_requests(nodes: Nodes, opens: Opens) -> None:
    for url in urls(1_000):
        assert opens.open(url).opened.url == url

    assert sum(map(len, nodes.asked)) == 1_000
    assert [len(asked) for asked in nodes.asked[:8]] == [1, 2, 4, 8, 16, 32, 64, 64]
    assert max(map(len, nodes.asked)) == AHEAD_MAX


def test_who_opens_here_and_there_asks_for_no_more_than_that(nodes: Nodes, opens: Opens) -> None:
    wanted = random.Random(4).sample(urls(1_000)[::3], 200)

    for url in wanted:
        opens.open(url)

    assert nodes.asked == [[url] for url in wanted]


def test_what_was_never_listed_is_asked_for_alone(nodes: Nodes, opens: Opens) -> None:
    for at in range(5):
        opens.open(f"penstock://data/other-{at}")

    assert all(len(asked) == 1 for asked in nodes.asked)


def test_what_is_gone_meanwhile_fails_when_it_is_opened_and_not_before(
    nodes: Nodes, opens: Opens
) -> None:
    nodes.gone.add(urls(10)[5])

    for url in urls(5):
        opens.open(url)
    with pytest.raises(ObjectNotFound):
        opens.open(urls(10)[5])


def test_who_refreshes_asks_for_that_object(nodes: Nodes, opens: Opens) -> None:
    for url in urls(20):
        opens.open(url, refresh=True)

    assert nodes.asked == [[url] for url in urls(20)]


def test_the_order_of_the_latest_listings_is_remembered() -> None:
    ahead = OpenAhead()
    for page in range(LISTED_MAX // 1_000 + 2):
        ahead.listed([f"{page}-{at}" for at in range(1_000)])

    assert len(ahead._places) == LISTED_MAX
    assert ahead.from_here("0-0") == ["0-0"]

"""How much of what is hot is held: exact where there are few chunks, sampled where there are many.

Nodes answer by hand.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from penstock.errors import InvalidRequest, NodeUnavailable
from penstock.membership.view import Member
from penstock.objects import ObjectId
from penstock.overview import NodeTold
from penstock.overview_messages import HELD, OBJECTS_BELOW
from penstock.v1 import overview_pb2
from penstock.volumes import Volume, Volumes
from penstock_node.overview import held as held_module
from penstock_node.overview.asking import Asker
from penstock_node.overview.gathering import Gathering, Told
from penstock_node.overview.held import asked_of, bits_of, held, object_from_proto, object_to_proto
from penstock_node.overview.history import History, Samples
from penstock_node.overview.hot_models import CHUNKS_OF_MODEL, HotModels, directory_url
from penstock_node.store.store import Store

CHUNK = 64 * 1024
VOLUMES = Volumes({"models": Volume("models", "s3://prod/models/", {})})


def model(directory: str, *, files: int, chunks: int) -> list[ObjectId]:
    return [
        ObjectId(f"s3://prod/models/{directory}/{at}", "v", chunks * CHUNK - 1, CHUNK)
        for at in range(files)
    ]


SMALL = model("small", files=3, chunks=4)
LARGE = model("large", files=2, chunks=10_000)


@dataclass
class Wire:
    """Two nodes; see `_HeldBy` for what each of them has."""

    objects: list[ObjectId] = field(default_factory=lambda: [*SMALL, *LARGE])
    silent: set[str] = field(default_factory=set)
    looked_for: int = 0

    def call(self, address: str, method: Any, request: Any, *, timeout_s: float = 0) -> Any:
        if address in self.silent:
            raise NodeUnavailable(f"{address} does not answer")
        if method is OBJECTS_BELOW:
            below = [o for o in self.objects if o.key.rpartition("/")[0] in request.keys]
            return overview_pb2.ObjectsBelowResponse(objects=map(object_to_proto, below))
        assert method is HELD
        self.looked_for = sum(
            len(asked_of(object_from_proto(each.object).chunk_count, each.stride))
            for each in request.chunks
        )
        store: Any = _HeldBy(address)
        return overview_pb2.HeldResponse(held=held(store, request.chunks))


@dataclass
class _HeldBy:
    """A node's store: of small files one holds every second chunk, the other all of the first;
    of large ones one holds the first quarter."""

    node: str

    def holds(self, of: ObjectId, index: int) -> bool:
        if of.chunk_count > LARGE[0].chunk_count // 2:
            return self.node == "n1" and index < of.chunk_count // 4
        return index % 2 == 0 if self.node == "n1" else of.key.endswith("/0")


class Self:
    """The node that gathers: it tells of what is hot."""

    node_id = "n1"

    def __init__(self, hottest: dict[str, float]) -> None:
        self._hottest = hottest

    def told(self) -> NodeTold:
        return NodeTold("n1", hottest=self._hottest)

    def samples_after(self, number: int) -> Samples:
        return History().since(number)


SMALL_KEY, LARGE_KEY = "s3://prod/models/small", "s3://prod/models/large"


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def models(wire: Wire) -> Iterator[HotModels]:
    members = [Member(name, "", grpc_address=name) for name in ("n1", "n2")]
    asker = Asker(wire)
    own = Self({SMALL_KEY: 10.0, LARGE_KEY: 90.0})
    yield HotModels(
        gathering=Gathering(own=own, members=lambda: members, asker=asker),
        members=lambda: members,
        volumes=lambda: VOLUMES,
        asker=asker,
    )
    asker.close()


def told(node: str, **hottest: float) -> Told:
    keys = {f"s3://prod/models/{name}": rate for name, rate in hottest.items()}
    return Told(NodeTold(node, hottest=keys), 1.0, 0)


async def test_what_is_held_of_a_small_model_is_exact_and_of_a_large_one_sampled(
    models: HotModels, wire: Wire
) -> None:
    await models.ask()

    large, small = models.lines([NodeTold("n1", hottest={SMALL_KEY: 10.0, LARGE_KEY: 90.0})])

    assert wire.looked_for <= 3 * 4 + CHUNKS_OF_MODEL + len(LARGE)
    assert (large.url, small.url) == ("penstock://models/large/", "penstock://models/small/")
    assert small.bytes == sum(each.size for each in SMALL)
    # All of the first file, and half of the two others; two copies of half of the first.
    assert small.held_bytes == round(small.bytes * (4 + 2 + 2) / 12)
    assert small.copies == (6 + 4) / 8
    assert large.bytes == sum(each.size for each in LARGE)
    assert large.held_bytes == pytest.approx(large.bytes / 4, rel=0.01)
    assert large.copies == 1.0


async def test_of_models_that_several_nodes_serve_rates_are_added_up(models: HotModels) -> None:
    nodes = [told("n1", a=1.0, b=5.0).told, told("n2", a=9.0).told]

    lines = models.lines(nodes)

    assert [(line.url, line.read_bytes_per_s) for line in lines] == [
        ("penstock://models/a/", 10.0),
        ("penstock://models/b/", 5.0),
    ]
    assert {line.bytes for line in lines} == {0}, "nobody was asked yet"


async def test_a_model_that_is_read_no_more_stays_behind_those_that_are(models: HotModels) -> None:
    await models.ask()

    lines = models.lines([NodeTold("n1", hottest={"s3://prod/models/new": 1.0})])

    assert lines[0].url == "penstock://models/new/"
    assert [line.read_bytes_per_s for line in lines] == [1.0, 0.0, 0.0]


async def test_nodes_that_do_not_answer_hold_nothing(models: HotModels, wire: Wire) -> None:
    wire.silent = {"n1"}
    await models.ask()

    (small,) = models.lines([NodeTold("n1", hottest={SMALL_KEY: 10.0})])[:1]

    assert small.held_bytes == round(small.bytes * 4 / 12)
    assert small.copies == 1.0


def test_one_question_is_for_a_bounded_number_of_chunks_and_objects() -> None:
    store: Store = _HeldBy("n1")  # type: ignore[assignment]
    line = object_to_proto(LARGE[0])
    many = [overview_pb2.ChunksOfObject(object=line)] * 3
    thin = [overview_pb2.ChunksOfObject(object=line, stride=10_000)] * 2_001

    for wanted in (many, thin):
        with pytest.raises(InvalidRequest, match="at most 2000 objects and 24000 chunks"):
            held(store, wanted)
    assert held_module.CHUNKS_MAX > 20 * CHUNKS_OF_MODEL


def test_bits_of_a_node_that_tells_fewer_are_of_what_it_does_not_hold() -> None:
    assert bits_of(b"\x05", 3).tolist() == [True, False, True]
    assert bits_of(b"", 2).tolist() == [False, False]


def test_a_directory_outside_every_volume_is_told_by_its_key() -> None:
    assert directory_url(VOLUMES, "s3://prod/models") == "penstock://models/"
    assert directory_url(VOLUMES, "s3://prod/models/a/b") == "penstock://models/a/b/"
    assert directory_url(VOLUMES, "s3://other/a") == "s3://other/a"

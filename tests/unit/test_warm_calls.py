"""What nodes are asked when chunks are to be warm, and what is learnt from their answers."""

import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from penstock.core import Core
from penstock.errors import (
    InvalidRequest,
    NodeUnavailable,
    NotOwner,
    Overloaded,
    PenstockError,
    TicketExpired,
)
from penstock.membership.nodes import Endpoint, Nodes
from penstock.membership.view import Member, View
from penstock.object_info import OpenedObject
from penstock.objects import ObjectId
from penstock.opens import Handle
from penstock.placement import PlacedNode, Placement
from penstock.routing import Routing
from penstock.rpc import GET_PLACEMENT, RENEW, WARM, Method
from penstock.v1 import cache_pb2, placement_pb2, warmup_pb2
from penstock.warm_calls import WarmCalls
from penstock.warm_lines import WarmChunk, WarmObject
from penstock.wire import error_to_proto, members_to_proto, placement_to_proto

UID = "ab" * 16
CHUNK = 1 << 16
NEVER = 4e9
"""Seconds since 1970, far from now."""
MEMBERS = {name: Member(name, name, grpc_address=f"{name}:1") for name in ("a", "b")}
Told = warmup_pb2.WarmedChunk


def placement(epoch: int) -> Placement:
    nodes = tuple(PlacedNode(name, name, "", 100) for name in ("a", "b"))
    return Placement(UID, epoch, nodes, points_per_100=64)


class HandAnswered:
    """All nodes: they answer `WARM` as the test says, and tell the placement of an epoch."""

    def __init__(self) -> None:
        self.epoch = 3
        self.answer: Callable[[warmup_pb2.WarmRequest], Any] = lambda _request: None
        self.asked: list[tuple[str, warmup_pb2.WarmRequest]] = []
        self.calls: list[str] = []

    def call(
        self, address: str, method: Method[Any, Any], request: Any, *, timeout_s: float = 1.0
    ) -> Any:
        self.calls.append(method.path.rpartition("/")[2])
        if method is GET_PLACEMENT:
            return placement_pb2.GetPlacementResponse(
                placement=placement_to_proto(placement(self.epoch)),
                members=members_to_proto(MEMBERS.values()),
            )
        if method is RENEW:
            return cache_pb2.RenewResponse(ticket="new", ticket_expires_at=int(NEVER))
        assert method is WARM
        self.asked.append((address, request))
        answer = self.answer(request)
        if isinstance(answer, PenstockError):
            raise answer
        return warmup_pb2.WarmResponse(chunks=answer)


class Rig:
    """The library's parts around two nodes that answer by hand."""

    def __init__(self) -> None:
        self.wire = HandAnswered()
        self.routing = Routing(rng=random.Random(1))
        self.routing.update(View("c", placement(3), MEMBERS))
        self.nodes = Nodes(
            [Endpoint(self.wire, "a:1")], channels=self.wire, bulk=None, routing=self.routing
        )
        core = type("Parts", (), {"nodes": self.nodes, "routing": self.routing})()
        core.channels = self.wire
        self.calls = WarmCalls(cast("Core", core), for_host=False, dry_run=False)

    def object(self, name: str, *, expires_at: float = NEVER) -> WarmObject:
        identity = ObjectId(f"s3://b/{name}", "v1", 10 * CHUNK, CHUNK)
        url, ticket = f"penstock://models/{name}", f"ticket of {name}"
        opened = OpenedObject(url, "models", identity, datetime.now(UTC), ticket, expires_at, 0.0)
        return WarmObject(Handle(opened, self.nodes))


@pytest.fixture
def rig() -> Rig:
    return Rig()


def states(*wanted: "Told.State.ValueType") -> list[Told]:
    return [Told(state=state) for state in wanted]


def test_chunks_of_one_object_go_together_and_answers_come_back_in_order(rig: Rig) -> None:
    x, y = rig.object("x"), rig.object("y")
    chunks = [WarmChunk(x, 4), WarmChunk(y, 0), WarmChunk(x, 7, suspects=("b",))]
    rig.wire.answer = lambda _: states(Told.HELD, Told.FILLING, Told.FILLED)

    outcomes = rig.calls.ask("a", chunks)

    assert outcomes == ["held", "filled", "filling"]
    ((address, asked),) = rig.wire.asked
    told = [(part.ticket, list(part.indexes)) for part in asked.parts]
    assert told == [("ticket of x", [4, 7]), ("ticket of y", [0])]
    assert (address, asked.epoch, list(asked.suspects)) == ("a:1", 3, ["b"])


def test_why_a_chunk_failed_is_told_for_it_alone(rig: Rig) -> None:
    busy = Told(state=Told.FAILED, error=error_to_proto(Overloaded("busy", retry_after_s=2.0)))
    rig.wire.answer = lambda _: [*states(Told.HELD), busy]
    of = rig.object("x")

    held, failed = rig.calls.ask("a", [WarmChunk(of, 0), WarmChunk(of, 1)])

    assert held == "held"
    assert isinstance(failed, Overloaded)
    assert failed.retry_after_s == 2.0


def test_a_node_that_does_not_answer_is_passed_over_until_it_does(rig: Rig) -> None:
    chunk = WarmChunk(rig.object("x"), 0)
    rig.wire.answer = lambda _: NodeUnavailable("silent")

    (failed,) = rig.calls.ask("a", [chunk])

    assert isinstance(failed, NodeUnavailable)
    assert rig.routing.is_suspected("a")
    rig.wire.answer = lambda _: states(Told.HELD)
    assert rig.calls.ask("a", [chunk]) == ["held"]
    assert not rig.routing.is_suspected("a")


def test_one_that_left_is_not_asked(rig: Rig) -> None:
    (failed,) = rig.calls.ask("gone", [WarmChunk(rig.object("x"), 0)])

    assert isinstance(failed, NodeUnavailable)
    assert rig.wire.asked == []


def test_a_newer_placement_is_asked_for_when_a_node_owns_a_chunk_no_more(rig: Rig) -> None:
    rig.wire.epoch = 4
    told = Told(state=Told.FAILED, error=error_to_proto(NotOwner("not mine", epoch=4)))
    rig.wire.answer = lambda _: [told]
    rig.routing.suspect("b")

    rig.calls.ask("a", [WarmChunk(rig.object("x"), 0, suspects=("b",))])

    assert rig.routing.view is not None
    assert rig.routing.view.placement.epoch == 4
    assert not rig.routing.is_suspected("b"), "the node that was asked sees it"


def test_a_ticket_that_has_expired_is_renewed(rig: Rig) -> None:
    of = rig.object("x")
    rig.wire.answer = lambda _: TicketExpired("old")

    rig.calls.ask("a", [WarmChunk(of, 0)])
    rig.wire.answer = lambda _: states(Told.HELD)
    rig.calls.ask("a", [WarmChunk(of, 0)])

    assert [asked.parts[0].ticket for _, asked in rig.wire.asked] == ["ticket of x", "new"]


def test_hosts_are_the_nodes_with_tiers_for_their_machines(rig: Rig) -> None:
    def answer(request: warmup_pb2.WarmRequest) -> Any:
        assert (request.for_host, len(request.parts)) == (True, 0)
        return [] if rig.wire.asked[-1][0] == "b:1" else InvalidRequest("no tier")

    rig.wire.answer = answer
    pool = type("Pool", (), {"map": staticmethod(map)})()
    rig.calls._core.pool = pool

    assert rig.calls.hosts() == (("b",), ("a",))

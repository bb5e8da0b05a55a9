"""What a read learns of an owner that was away when the reader's view was told, and is back."""

import random
import threading
import time
from typing import cast

from penstock.attempt import Attempt
from penstock.errors import NotOwner
from penstock.hedging import HedgeBudget
from penstock.load import Load
from penstock.membership.nodes import Endpoint, Nodes
from penstock.membership.view import Member, View
from penstock.object_info import OpenedObject
from penstock.objects import ObjectId
from penstock.opens import Handle
from penstock.placement import PlacedNode, Placement
from penstock.planes.plane import PieceRequest
from penstock.routing import Candidate, Routing
from penstock.rpc import CALL_TIMEOUT_S, Method, Request, Response
from penstock.v1 import placement_pb2
from penstock.wire import members_to_proto, placement_to_proto

NAMES = ("a", "b", "c")
NODES = tuple(PlacedNode(name, host=name, zone="", weight=100) for name in NAMES)
PLACEMENT = Placement("ab" * 16, 1, NODES, points_per_100=64)
FILE = ObjectId("file:///o", "1", size=10, chunk_size=65_536)


def view(*there: str) -> View:
    members = {name: Member(name, name, grpc_address=f"{name}:1") for name in there}
    return View("test", PLACEMENT, members)


class EveryoneIsBack:
    """Nodes that are all there, and say so."""

    def call(
        self,
        address: str,
        method: Method[Request, Response],
        request: Request,
        *,
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> Response:
        answer = placement_pb2.GetPlacementResponse(
            cluster="test",
            placement=placement_to_proto(PLACEMENT),
            members=members_to_proto(view(*NAMES).members.values()),
            members_digest=1,
            replicas=1,
        )
        return cast("Response", answer)


def test_an_owner_that_is_back_is_asked_though_the_epoch_has_not_moved() -> None:
    routing = Routing()
    routing.update(view(*NAMES))
    owner = routing.ring.owners(FILE.chunk_id(0), 1)[0]
    routing = Routing()
    routing.update(view(*(set(NAMES) - {owner})))
    nodes = Nodes(
        [Endpoint(EveryoneIsBack(), "a:1")], channels=EveryoneIsBack(), bulk=None, routing=routing
    )
    opened = OpenedObject("penstock://v/o", "v", FILE, None, "t", time.time() + 900, 0.0)
    piece = PieceRequest(0, 0, 10, memoryview(bytearray(10)))
    load: Load[Candidate | None] = Load(
        Handle(opened, nodes), [piece], workers=1, stop=threading.Event(), group_of=lambda _: None
    )
    attempt = Attempt(
        nodes, routing, load, piece, local=None, hedges=HedgeBudget(), rng=random.Random(1)
    )

    stands_in = attempt.candidate()
    assert stands_in is not None
    assert stands_in.suspects == (owner,)
    error = NotOwner("it answers here", epoch=1)
    assert not attempt.settle(stands_in, attempt.context(stands_in), error)

    asked = attempt.candidate()
    assert asked is not None
    assert asked.member.id == owner

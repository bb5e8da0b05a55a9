"""Which node is called, over what, and what is learnt from the answers."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest

from penstock.certificates import Certificates
from penstock.core import Core, Options
from penstock.errors import ClusterUnavailable, NodeUnavailable, ObjectNotFound, PenstockError
from penstock.host_calls import HostCalls
from penstock.membership.nodes import NODES_TRIED_MAX, READING, Endpoint, Nodes
from penstock.membership.view import Member, View
from penstock.placement import PlacedNode, Placement
from penstock.routing import Routing
from penstock.rpc import (
    CALL_TIMEOUT_S,
    GET_PLACEMENT,
    GET_TRACE,
    LIST,
    OPEN,
    RENEW,
    STATUS,
    Method,
    Request,
    Response,
)
from penstock.v1 import cache_pb2, operator_pb2, placement_pb2
from penstock.wire import placement_to_proto

UID = "ab" * 16
NAMES = ("a", "b", "c")
SOON_S = 10.0


def placement(epoch: int, names: tuple[str, ...] = NAMES) -> Placement:
    nodes = tuple(PlacedNode(name, host=name, zone="", weight=100) for name in names)
    return Placement(UID, epoch, nodes, points_per_100=64)


def member(name: str, *, has_bulk: bool = True) -> Member:
    bulk = f"{name}:bulk" if has_bulk else ""
    return Member(name, name, grpc_address=f"{name}:grpc", bulk_address=bulk)


def view(epoch: int = 1, *, without_bulk: tuple[str, ...] = ()) -> View:
    members = {name: member(name, has_bulk=name not in without_bulk) for name in NAMES}
    return View("c", placement(epoch), members)


class Cluster:
    """What answers: addresses may be dead or tell of an error; the placement is the newest."""

    def __init__(self, epoch: int = 1) -> None:
        self.epoch, self.digest = epoch, 1
        self.dead: set[str] = set()
        self.errors: dict[str, PenstockError] = {}
        self.called: list[tuple[str, str]] = []
        """Address and method, in order."""
        self.requests: list[Any] = []

    def call(
        self,
        address: str,
        method: Method[Request, Response],
        request: Request,
        *,
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> Response:
        self.called.append((address, method.path.rpartition("/")[2]))
        self.requests.append(request)
        if address in self.dead:
            raise NodeUnavailable(f"{address} is dead")
        if address in self.errors:
            raise self.errors[address]
        if method is GET_PLACEMENT:
            return cast("Response", self._placement(cast("Any", request)))
        return method.response()

    def _placement(
        self, request: placement_pb2.GetPlacementRequest
    ) -> placement_pb2.GetPlacementResponse:
        if (request.epoch, request.members_digest) == (self.epoch, self.digest):
            return placement_pb2.GetPlacementResponse(unchanged=True)
        return placement_pb2.GetPlacementResponse(
            cluster="c",
            placement=placement_to_proto(placement(self.epoch)),
            members_digest=self.digest,
            members=[
                placement_pb2.Member(id=name, grpc_address=f"{name}:grpc", bulk_address="")
                for name in NAMES
            ],
            replicas=1,
        )

    @property
    def addresses(self) -> list[str]:
        return [address for address, _ in self.called]


class Other:
    """A way to call that is not gRPC: the same cluster by other means."""

    def __init__(self, cluster: Cluster) -> None:
        self.call = cluster.call


class Rig:
    """The nodes of a cluster, as a client knows them."""

    def __init__(
        self, known: View | None = None, *, calls_bulk: bool = True, by_socket: bool = False
    ) -> None:
        self.cluster = Cluster()
        self.routing = Routing()
        bulk = Other(self.cluster) if calls_bulk else None
        if known is not None:
            self.routing.update(known)
        seed = (
            Endpoint(Other(self.cluster), "/run/node.sock")
            if by_socket
            else Endpoint(self.cluster, "seed:grpc")
        )
        self.nodes = Nodes(
            [seed], channels=self.cluster, bulk=bulk, routing=self.routing, rng=random.Random(1)
        )

    def open(self) -> cache_pb2.OpenResponse:
        return self.nodes.call(OPEN, cache_pb2.OpenRequest())

    def status(self) -> operator_pb2.StatusResponse:
        return self.nodes.call(STATUS, operator_pb2.StatusRequest())


# Over what ----------------------------------------------------------------------------------


def test_what_readers_ask_goes_over_bulk_and_the_rest_over_grpc() -> None:
    rig = Rig(view())

    rig.open()
    rig.status()

    (read, _), (operated, _) = rig.cluster.called
    assert read.endswith(":bulk")
    assert operated.endswith(":grpc")


def test_a_reader_calls_five_methods() -> None:
    assert {OPEN, RENEW, LIST, GET_PLACEMENT, GET_TRACE} == READING


def test_a_node_without_a_bulk_port_is_called_over_grpc() -> None:
    rig = Rig(view(without_bulk=NAMES))

    rig.open()

    assert rig.cluster.addresses[0] in {f"{name}:grpc" for name in NAMES}


def test_a_client_with_credentials_never_calls_over_bulk() -> None:
    rig = Rig(view(), calls_bulk=False)
    rig.cluster.dead = {f"{name}:grpc" for name in NAMES} | {"seed:grpc"}

    with pytest.raises(ClusterUnavailable):
        rig.open()

    assert not [address for address in rig.cluster.addresses if "bulk" in address]


@pytest.mark.parametrize(
    ("options", "has_bulk"),
    [
        (Options(["n:1"]), True),
        (Options(["n:1"], token="secret"), False),
        (Options(["n:1"], token=""), False),
        (Options(["n:1"], credentials=Certificates()), False),
        (Options(["n:1"], plane="grpc"), False),
        (Options(["n:1"], plane="bulk"), True),
        (Options(["n:1"], plane="bulk", token="secret"), False),
    ],
)
def test_the_library_calls_over_bulk_only_without_credentials(
    options: Options, has_bulk: bool
) -> None:
    core = Core(options)
    core.routing.update(view())

    callers = {endpoint.caller for endpoint in core.nodes._endpoints(OPEN)}
    core.close()

    assert callers == ({core.nodes._bulk, core.channels} if has_bulk else {core.channels})


def test_a_socket_is_a_place_to_begin() -> None:
    core = Core(Options(["unix:/run/node.sock"]))
    (endpoint,) = core.nodes._endpoints(OPEN)
    core.close()

    assert isinstance(endpoint.caller, HostCalls)
    assert endpoint.address == "/run/node.sock"


def test_who_knows_a_socket_alone_asks_it_for_the_nodes_that_an_operator_calls() -> None:
    rig = Rig(by_socket=True)

    rig.status()

    assert rig.cluster.called[0] == ("/run/node.sock", "Get")
    address, method = rig.cluster.called[-1]
    assert (address.endswith(":grpc"), method) == (True, "Status")


# Which node ---------------------------------------------------------------------------------


def test_the_node_that_answered_last_is_called_again() -> None:
    rig = Rig(view())

    for _ in range(20):
        rig.open()

    assert len(set(rig.cluster.addresses)) == 1


def test_a_node_that_does_not_answer_is_followed_by_the_next() -> None:
    rig = Rig(view())
    rig.cluster.dead = {"a:bulk", "b:bulk"}

    rig.open()
    tried = len(rig.cluster.called)
    rig.open()

    assert rig.cluster.addresses[-1] == "c:bulk"
    assert len(rig.cluster.called) == tried + 1


def test_suspects_are_called_last() -> None:
    for seed in range(10):
        rig = Rig(view())
        rig.nodes._rng = random.Random(seed)
        rig.routing.suspect("a")
        rig.routing.suspect("b")

        rig.open()

        assert rig.cluster.addresses == ["c:bulk"]


def test_readers_are_spread_over_the_nodes() -> None:
    first = set()
    for seed in range(30):
        rig = Rig(view())
        rig.nodes._rng = random.Random(seed)
        rig.open()
        first.update(rig.cluster.addresses)

    assert first == {"a:bulk", "b:bulk", "c:bulk"}


def test_an_error_that_a_node_tells_is_final() -> None:
    rig = Rig(view())
    rig.cluster.errors = {f"{name}:bulk": ObjectNotFound("no such object") for name in NAMES}

    with pytest.raises(ObjectNotFound):
        rig.open()

    assert len(rig.cluster.called) == 1


def test_when_all_members_are_dead_the_seeds_are_tried() -> None:
    rig = Rig(view())
    rig.cluster.dead = {f"{name}:bulk" for name in NAMES}

    rig.open()

    assert rig.cluster.addresses[-1] == "seed:grpc"
    assert sorted(rig.cluster.addresses[:-1]) == ["a:bulk", "b:bulk", "c:bulk"]


def test_when_nobody_answers_the_error_names_all_that_were_tried_and_they_are_few() -> None:
    names = tuple(f"n{at}" for at in range(100))
    rig = Rig(View("c", placement(1, names), {name: member(name) for name in names}))
    rig.cluster.dead = {f"{name}:bulk" for name in names} | {"seed:grpc"}

    with pytest.raises(ClusterUnavailable) as raised:
        rig.open()

    assert len(rig.cluster.called) == NODES_TRIED_MAX
    assert all(f"{address} is dead" in str(raised.value) for address in rig.cluster.addresses)


# Views --------------------------------------------------------------------------------------


def test_the_first_view_is_asked_for_and_the_next_ones_only_now_and_then() -> None:
    rig = Rig()

    for _ in range(5):
        assert rig.nodes.view().placement == placement(1)
    assert rig.cluster.called == [("seed:grpc", "Get")]
    rig.nodes._poll_at = 0.0
    rig.nodes.view()

    assert len(rig.cluster.called) == 2


def test_who_only_reads_looks_for_a_newer_view_now_and_then() -> None:
    rig = Rig()
    assert not rig.nodes.poll_is_due()  # There is none yet: whoever reads asks for the first.
    rig.nodes.view()
    assert not rig.nodes.poll_is_due()

    rig.nodes._poll_at = 0.0
    assert [rig.nodes.poll_is_due() for _ in range(3)] == [True, False, False]
    rig.nodes.poll()

    assert len(rig.cluster.called) == 2
    rig.cluster.dead = set(rig.cluster.addresses) | {"seed:grpc"} | {f"{n}:bulk" for n in NAMES}
    rig.nodes.poll()  # Nobody answers: what is known goes on.
    assert rig.routing.view is not None


def test_what_is_known_is_told_so_that_it_is_not_sent_again() -> None:
    rig = Rig()
    rig.nodes.view()
    before = rig.routing.view

    rig.nodes.refresh(beyond_epoch=None)

    request = rig.cluster.requests[-1]
    assert (request.cluster_uid, request.epoch, request.members_digest) == (UID, 1, 1)
    assert rig.routing.view is before


def test_a_newer_placement_is_asked_for_only_if_it_is_not_known() -> None:
    rig = Rig()
    rig.nodes.view()
    rig.cluster.epoch = 5

    rig.nodes.refresh(beyond_epoch=0)
    assert len(rig.cluster.called) == 1
    rig.nodes.refresh(beyond_epoch=4)

    assert rig.routing.view is not None
    assert rig.routing.view.placement.epoch == 5


def test_without_an_answer_the_view_at_hand_goes_on() -> None:
    rig = Rig(view())
    rig.cluster.dead = {f"{name}:bulk" for name in NAMES} | {"seed:grpc"}

    assert rig.nodes.view() == view()
    with pytest.raises(ClusterUnavailable):
        rig.nodes.refresh(beyond_epoch=None)


def test_without_an_answer_ever_there_is_no_view() -> None:
    rig = Rig()
    rig.cluster.dead = {"seed:grpc"}

    with pytest.raises(ClusterUnavailable):
        rig.nodes.view()


def test_of_many_readers_that_are_behind_one_asks() -> None:
    rig, readers = Rig(), 8
    rig.nodes.view()
    rig.cluster.epoch = 2
    together = threading.Barrier(readers)

    def catch_up(_at: int) -> None:
        together.wait(SOON_S)
        rig.nodes.refresh(beyond_epoch=1)

    with ThreadPoolExecutor(readers) as threads:
        list(threads.map(catch_up, range(readers)))

    assert len(rig.cluster.called) == 2

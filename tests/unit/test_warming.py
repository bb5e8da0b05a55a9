"""Going through all chunks: bounds, ends and failures. Two nodes answer by hand."""

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest

from penstock import warm_trouble
from penstock import warming as module
from penstock.core import Core
from penstock.errors import (
    InvalidRequest,
    NodeUnavailable,
    NotCached,
    OriginUnavailable,
    PenstockError,
)
from penstock.membership.nodes import Endpoint, Nodes
from penstock.membership.view import Member, View
from penstock.opens import Opens
from penstock.placement import PlacedNode, Placement
from penstock.routing import Routing
from penstock.rpc import GET_PLACEMENT, LIST, OPEN, WARM, Method
from penstock.v1 import cache_pb2, placement_pb2, warmup_pb2
from penstock.warming import IN_FLIGHT_MAX, PENDING_MAX, Warming
from penstock.warmup import WarmupFailure, WarmupReport
from penstock.wire import error_to_proto
from penstock_node.testbed.processes import wait_until

CHUNK = 1 << 16
NAMES = ("a", "b")
MEMBERS = {name: Member(name, name, grpc_address=name) for name in NAMES}
PLACED = tuple(PlacedNode(name, name, "", 100) for name in NAMES)
VIEW = View("c", Placement("ab" * 16, 1, PLACED, points_per_100=64), MEMBERS)
NEVER = 4_000_000_000
SOON_S = 30.0
Told = warmup_pb2.WarmedChunk
Asked = tuple[str, str, int]
"""A node, an object's ticket, a chunk."""


def filled(_asked: Asked) -> Told:
    return Told(state=Told.FILLED)


def filling(_asked: Asked) -> Told:
    return Told(state=Told.FILLING)


def failing(error: PenstockError) -> Callable[[Asked], Told]:
    return lambda _asked: Told(state=Told.FAILED, error=error_to_proto(error))


class Wire:
    """Both nodes: any object is there with ``chunks`` chunks; the test says what is told of one."""

    def __init__(self) -> None:
        self.chunks = 10
        self.tell: Callable[[Asked], Told] = filled
        self.asked: list[Asked] = []
        self.most_at_once = 0
        self._lock = threading.Lock()

    def call(
        self, address: str, method: Method[Any, Any], request: Any, *, timeout_s: float = 1.0
    ) -> Any:
        match method:
            case _ if method is OPEN:
                return cache_pb2.OpenResponse(results=map(self._opened, request.urls))
            case _ if method is WARM:
                return self._warmed(address, request)
            case _ if method is GET_PLACEMENT:
                return placement_pb2.GetPlacementResponse(unchanged=True)
            case _:
                assert method is LIST
                return cache_pb2.ListResponse()

    def _opened(self, url: str) -> cache_pb2.OpenResult:
        told = cache_pb2.Object(url=url, volume="models", key=url, version="v1", ticket=url)
        told.size, told.chunk_size, told.ticket_expires_at = self.chunks * CHUNK, CHUNK, NEVER
        return cache_pb2.OpenResult(object=told)

    def _warmed(self, address: str, request: warmup_pb2.WarmRequest) -> warmup_pb2.WarmResponse:
        asked = [(address, part.ticket, index) for part in request.parts for index in part.indexes]
        with self._lock:
            self.asked += asked
            self.most_at_once = max(self.most_at_once, len(asked))
            return warmup_pb2.WarmResponse(chunks=map(self.tell, asked))


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def core(wire: Wire) -> Iterator[Core]:
    routing = Routing(rng=random.Random(1))
    routing.update(VIEW)
    nodes = Nodes([Endpoint(wire, "a")], channels=wire, bulk=None, routing=routing)
    with ThreadPoolExecutor(2) as pool:
        parts = {
            "nodes": nodes,
            "routing": routing,
            "opens": Opens(nodes),
            "channels": wire,
            "pool": pool,
        }
        yield cast("Core", type("Parts", (), parts))


def warming(core: Core, **options: Any) -> Warming:
    defaults: dict[str, Any] = {
        "target": "owners",
        "dry_run": False,
        "on_progress": lambda _progress: None,
        "stop": threading.Event(),
    }
    return Warming(core, **{**defaults, **options})


def warm(core: Core, *names: str, **options: Any) -> WarmupReport:
    return warming(core, **options).run(f"penstock://models/{name}" for name in names)


def test_each_chunk_is_asked_for_once_of_its_owner(core: Core, wire: Wire) -> None:
    wire.chunks = 200

    report = warm(core, "x", "y")

    assert (report.objects, report.chunks, report.cold_bytes) == (2, 400, 400 * CHUNK)
    assert report.is_complete
    assert set(Counter(wire.asked).values()) == {1}
    assert wire.most_at_once <= IN_FLIGHT_MAX
    assert {node for node, _, _ in wire.asked} == set(NAMES)


def test_however_large_an_object_is_a_bounded_number_of_chunks_is_thought_of(
    core: Core, wire: Wire
) -> None:
    wire.chunks, wire.tell = 1 << 30, filling  # 64 TiB that never come.
    stop = threading.Event()
    endless = warming(core, stop=stop)

    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(endless.run, ["penstock://models/x"])
        try:
            wait_until(
                lambda: endless.pending == PENDING_MAX, deadline_s=SOON_S, what="as many as may be"
            )
        finally:
            stop.set()
        report = running.result(SOON_S)

    assert (report.chunks, report.bytes, report.is_complete) == (0, (1 << 30) * CHUNK, False)
    assert len(set(wire.asked)) <= 2 * IN_FLIGHT_MAX


def test_however_many_objects_there_are_a_bounded_number_is_opened(core: Core, wire: Wire) -> None:
    wire.tell = filling
    stop, opened = threading.Event(), 0

    def urls() -> Iterator[str]:
        nonlocal opened
        while True:
            opened += 1
            yield f"penstock://models/{opened}"

    endless = warming(core, stop=stop)
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(endless.run, urls())
        try:
            wait_until(
                lambda: endless.pending == PENDING_MAX, deadline_s=SOON_S, what="as many as may be"
            )
        finally:
            stop.set()
        running.result(SOON_S)

    assert opened <= PENDING_MAX // wire.chunks + module.OBJECTS_AHEAD_MAX + 200


def test_an_object_of_which_a_chunk_cannot_be_kept_fails_and_the_others_do_not(
    core: Core, wire: Wire
) -> None:
    wire.chunks = 1000

    def tell(asked: Asked) -> Told:
        return failing(NotCached("full"))(asked) if asked[1].endswith("bad") else filled(asked)

    wire.tell = tell

    report = warm(core, "bad", "good")

    url = "penstock://models/bad"
    assert report.failed == (WarmupFailure(url, "NotCached", "full"),)
    assert (report.cold_bytes, report.failed_bytes) == (1000 * CHUNK, 1000 * CHUNK)
    assert sum(ticket == url for _, ticket, _ in wire.asked) <= 2 * IN_FLIGHT_MAX


def test_an_origin_that_fails_is_tried_a_few_times_and_told(
    core: Core, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warm_trouble, "BACKOFF_S", 0.0)
    wire.chunks, wire.tell = 1, failing(OriginUnavailable("down since noon"))

    report = warm(core, "x")

    assert len(wire.asked) == warm_trouble.ORIGIN_TRIES
    assert [each.message for each in report.failed] == ["down since noon"]


def test_what_is_busy_is_asked_again_until_it_is_not(
    core: Core, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warm_trouble, "BACKOFF_S", 0.0)
    busy = iter([NodeUnavailable("x")] * 12)

    def tell(asked: Asked) -> Told:
        error = next(busy, None)
        return failing(error)(asked) if error else filled(asked)

    wire.tell = tell

    report = warm(core, "x")

    assert (report.failed, report.cold_bytes) == ((), 10 * CHUNK)
    assert len(wire.asked) == 22


def test_every_host_is_asked_for_all_and_begins_elsewhere(core: Core, wire: Wire) -> None:
    report = warm(core, "x", target="hosts")

    by_node = {name: [index for node, _, index in wire.asked if node == name] for name in NAMES}
    assert by_node == {"a": list(range(10)), "b": [5, 6, 7, 8, 9, 0, 1, 2, 3, 4]}
    assert (report.bytes, report.cold_bytes) == (20 * CHUNK, 20 * CHUNK)


def test_what_goes_wrong_with_the_list_or_the_progress_ends_it(core: Core, wire: Wire) -> None:
    wire.chunks, wire.tell = 1 << 30, filling

    def urls() -> Iterator[str]:
        yield "penstock://models/x"
        raise InvalidRequest("line 2")

    def tell(_progress: object) -> None:
        raise LookupError("nobody looks")

    with pytest.raises(LookupError):
        warming(core, on_progress=tell).run(["penstock://models/x"])
    wire.chunks, wire.tell = 10, filled
    with pytest.raises(InvalidRequest, match="line 2"):
        warming(core).run(urls())


def test_what_goes_wrong_inside_ends_it_too(core: Core, wire: Wire) -> None:
    def tell(_asked: Asked) -> Told:
        raise AssertionError("a bug")

    wire.tell = tell

    with pytest.raises(AssertionError, match="a bug"):
        warm(core, "x")

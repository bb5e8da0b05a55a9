"""One suite over all planes: the same bytes, the same words on where they came from, the same
errors. Three real nodes that keep two copies of each chunk, over an origin that obeys the test.
"""

import base64
import itertools
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import grpc
import pytest

from penstock import errors, operator
from penstock.checksums import BLOCK_BYTES
from penstock.core import Core, Options
from penstock.deadline import Deadline
from penstock.errors import PenstockError
from penstock.object_info import OpenedObject
from penstock.objects import ObjectId
from penstock.planes.bulk import BulkPlane
from penstock.planes.grpc import GrpcPlane
from penstock.planes.host import HostPlane
from penstock.planes.plane import Landed, Outcome, PieceRequest, Plane, ReadContext
from penstock.rpc import GET_CHUNK
from penstock.ticket import LEEWAY_S, Ticket, TicketKeys
from penstock.v1 import cache_pb2, cache_pb2_grpc
from penstock_node.coordination import view_file
from penstock_node.coordination.state import ClusterState
from penstock_node.store.chunk_file import ChunkFile
from penstock_node.testbed.cluster import LocalCluster, NodeProcess, NodeSpec, TierSpec
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.odd_origin import OddObject, OddOrigin
from penstock_node.testbed.processes import wait_until
from penstock_node.testbed.wire import Wire, chunk_request

PLANES: dict[str, Callable[[Core, str], Plane]] = {
    "grpc": lambda core, _socket: GrpcPlane(core.channels),
    "bulk": lambda core, _socket: BulkPlane(core.connections),
    "host": lambda core, socket: HostPlane(
        socket, connections=core.host_connections, bulk=BulkPlane(core.connections)
    ),
}
"""Each made for a node with its socket at a path."""
BETWEEN_MACHINES = ("grpc", "bulk")
"""Planes by which a node is asked only for what it owns or holds."""

MIB = 1024 * 1024
CHUNK_BYTES = 4 * BLOCK_BYTES
LAST_BYTES = BLOCK_BYTES + 12_345
CHUNKS = 24
"""Enough for each pair of nodes to own some."""
DATA = random.Random(41).randbytes((CHUNKS - 1) * CHUNK_BYTES + LAST_BYTES)
LAST = CHUNKS - 1
COPIES = 2
KEPT_ONCE = "once/"
DEADLINE_S = 20.0
OWNED = (TierSpec("owned", 256 * MIB),)
TIERS = {"n1": OWNED, "n2": OWNED, "n3": (*OWNED, TierSpec("memory", 128 * MIB))}
CACHED = {"n1": "disk", "n2": "disk", "n3": "memory"}
"""Where each node has a chunk that it has read once."""


class Parts:
    """A cluster over an origin."""

    def __init__(self, origin: OddOrigin, cluster: LocalCluster) -> None:
        self.origin, self.cluster = origin, cluster
        self._numbers = itertools.count()

    def put(self, data: bytes = DATA, *, held_until: threading.Event | None = None) -> str:
        """Make an object that nobody has read; return its name."""
        name = f"object-{next(self._numbers)}"
        self.origin.put(name, OddObject(data, etag=f'"{name}"', held_until=held_until))
        return name


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory, etcd: EtcdServer) -> Iterator[Parts]:
    # A socket's path is short.
    with OddOrigin() as origin, tempfile.TemporaryDirectory(prefix="penstock-") as sockets:
        nodes = [
            NodeSpec(name, tiers, config={"socket": f"{sockets}/{name}"})
            for name, tiers in TIERS.items()
        ]
        once = f"{origin.url}/{KEPT_ONCE}"  # Nobody copies a chunk that a test makes bad.
        cluster = LocalCluster(
            tmp_path_factory.mktemp("planes"),
            nodes,
            etcd=etcd.endpoint,
            name="planes",
            settings={"chunk_size": CHUNK_BYTES, "replicas": COPIES, "open_ttl_s": 0},
            volumes={"data": {"url": origin.url}, "once": {"url": once, "replicas": 1}},
        )
        with cluster:
            yield Parts(origin, cluster)


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one piece, and what lies in its memory."""

    outcome: Outcome
    data: bytes = field(repr=False)

    @property
    def landed(self) -> Landed:
        """The outcome of a piece that came."""
        assert isinstance(self.outcome, Landed), repr(self.outcome)
        return self.outcome

    @property
    def source(self) -> str:
        """Where the node had it from."""
        return self.landed.source


@dataclass(frozen=True, slots=True)
class Client:
    """Asks one node at a time over one plane, and leaves nothing to the reader."""

    name: str
    core: Core
    parts: Parts

    def open(self, name: str) -> OpenedObject:
        """Return the object at the origin's ``name``, with a ticket."""
        self.core.nodes.view()
        return self.core.opens.open(f"penstock://data/{name}").opened

    def open_new(
        self, data: bytes = DATA, *, held_until: threading.Event | None = None
    ) -> OpenedObject:
        """Return an object that no node has read."""
        return self.open(self.parts.put(data, held_until=held_until))

    @property
    def epoch(self) -> int:
        """The newest that is known here."""
        return self.core.nodes.view().placement.epoch

    def owners(self, opened: OpenedObject, index: int) -> list[str]:
        """Return all nodes, in the order in which they own a chunk."""
        return list(self.core.routing.ring.owners(opened.id.chunk_id(index), len(TIERS)))

    def owned_by(self, opened: OpenedObject, first: str) -> int:
        """Return a chunk whose first owner is ``first``."""
        return next(i for i in range(opened.id.chunk_count) if self.owners(opened, i)[0] == first)

    def plane(self, socket: str) -> Plane:
        """Return a plane that knows nothing yet, for a node whose socket is at a path."""
        return PLANES[self.name](self.core, socket)

    def ask(
        self,
        node: str,
        opened: OpenedObject,
        index: int = 0,
        start: int = 0,
        stop: int | None = None,
        **context: Any,
    ) -> Answer:
        """Ask ``node`` for one piece, by default the whole chunk; ``context`` as `ReadContext`."""
        stop = opened.id.chunk_length(index) if stop is None else stop
        (answer,) = self.ask_many(node, opened, [(index, start, stop)], **context)
        return answer

    def ask_kept(self, node: str, opened: OpenedObject, index: int) -> Answer:
        """Ask until the chunk comes from where the node keeps it: one tier may have it before."""
        deadline = Deadline.after(DEADLINE_S)
        while (answer := self.ask(node, opened, index)).source != CACHED[node]:
            assert deadline.remaining_s > 0, f"it comes from {answer.source}"
        return answer

    def ask_many(
        self,
        node: str,
        opened: OpenedObject,
        spans: list[tuple[int, int, int]],
        *,
        deadline: Deadline | None = None,
        **context: Any,
    ) -> list[Answer]:
        """Ask ``node`` for pieces, as many at a time as the plane takes."""
        member = self.core.nodes.view().members[node]
        wanted = replace(ReadContext(opened.ticket, opened.id, self.epoch), **context)
        pieces = [PieceRequest(*span, memoryview(bytearray(span[2] - span[1]))) for span in spans]
        deadline = deadline or Deadline.after(DEADLINE_S)
        outcomes: list[Outcome] = []
        with closing(self.plane(member.socket)) as plane:
            for at in range(0, len(pieces), plane.pieces_max):
                some = pieces[at : at + plane.pieces_max]
                outcomes += plane.read(member, wanted, some, deadline=deadline)
        return [
            Answer(outcome, bytes(piece.into))
            for outcome, piece in zip(outcomes, pieces, strict=True)
        ]


def make_client(plane: str, parts: Parts, node: NodeProcess) -> Client:
    return Client(plane, Core(Options(seeds=[node.address], plane="grpc")), parts)


@pytest.fixture(params=PLANES)
def client(request: pytest.FixtureRequest, parts: Parts) -> Iterator[Client]:
    """Asks over each plane in turn."""
    made = make_client(request.param, parts, parts.cluster["n1"])
    with closing(made.core):
        yield made


@pytest.fixture(params=BETWEEN_MACHINES)
def peer(request: pytest.FixtureRequest, parts: Parts) -> Iterator[Client]:
    """Asks over each plane that reaches other machines."""
    made = make_client(request.param, parts, parts.cluster["n1"])
    with closing(made.core):
        yield made


def chunk_of(data: bytes, index: int) -> bytes:
    return data[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]


# Bytes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("node", TIERS)
def test_a_chunk_comes_from_the_origin_once_and_then_from_where_the_node_keeps_it(
    client: Client, node: str
) -> None:
    opened = client.open_new()
    index = client.owned_by(opened, node)

    cold, warm = client.ask(node, opened, index), client.ask_kept(node, opened, index)

    assert cold.data == warm.data == chunk_of(DATA, index)
    assert cold.source == "origin"
    assert cold.landed.epoch == warm.landed.epoch == client.epoch


def test_the_second_owner_fills_from_the_first(client: Client) -> None:
    opened = client.open_new()
    index = client.owned_by(opened, "n1")
    second = client.owners(opened, index)[1]
    asked = client.parts.cluster.total("penstock_origin_bytes_total")

    filled, kept = client.ask(second, opened, index), client.ask_kept(second, opened, index)

    assert client.parts.cluster.total("penstock_origin_bytes_total") - asked == CHUNK_BYTES
    assert (filled.source, filled.data, kept.data) == ("peer", *2 * [chunk_of(DATA, index)])


@pytest.mark.parametrize(
    ("start", "stop"),
    [
        (0, 1),
        (0, BLOCK_BYTES),
        (BLOCK_BYTES - 1, BLOCK_BYTES),
        (BLOCK_BYTES, BLOCK_BYTES + 1),
        (BLOCK_BYTES - 1, BLOCK_BYTES + 1),
        (1, CHUNK_BYTES - 1),
        (BLOCK_BYTES + 1, 3 * BLOCK_BYTES - 1),
        (CHUNK_BYTES - 1, CHUNK_BYTES),
        (3 * BLOCK_BYTES, CHUNK_BYTES),
        (12_345, 54_321),
    ],
)
def test_any_part_of_a_chunk_is_its_slice(client: Client, start: int, stop: int) -> None:
    opened = client.open_new()

    for _ in ("cold", "warm"):
        answer = client.ask(client.owners(opened, 5)[0], opened, 5, start, stop)
        assert answer.landed
        assert answer.data == chunk_of(DATA, 5)[start:stop]


@pytest.mark.parametrize(
    ("start", "stop"),
    [
        (0, LAST_BYTES),
        (BLOCK_BYTES, LAST_BYTES),
        (LAST_BYTES - 1, LAST_BYTES),
        (1, LAST_BYTES - 1),
        (BLOCK_BYTES - 1, BLOCK_BYTES + 1),
    ],
)
def test_the_last_chunk_is_as_short_as_it_is(client: Client, start: int, stop: int) -> None:
    opened = client.open_new()

    answer = client.ask(client.owners(opened, LAST)[0], opened, LAST, start, stop)

    assert answer.landed
    assert answer.data == chunk_of(DATA, LAST)[start:stop]


def test_of_many_pieces_each_has_its_own_outcome_in_the_order_asked(client: Client) -> None:
    opened = client.open_new()
    rng = random.Random(7)
    firsts = [client.owners(opened, i)[0] for i in range(CHUNKS)]
    node = max(CACHED, key=firsts.count)  # A third of them at least.
    mine = [i for i in range(CHUNKS) if firsts[i] == node]
    cached = set(rng.sample(mine, len(mine) // 2))
    for index in cached:
        client.ask_kept(node, opened, index)
    spans = [(i, 100 * i, 100 * i + 70_000) for i in rng.sample(mine, len(mine))]

    answers = client.ask_many(node, opened, spans, only_if_cached=True)

    assert len(answers) >= CHUNKS // len(TIERS)
    for (index, start, stop), answer in zip(spans, answers, strict=True):
        if index in cached:
            assert answer.source == CACHED[node]
            assert answer.data == chunk_of(DATA, index)[start:stop]
        else:
            assert type(answer.outcome) is errors.NotCached


def test_pieces_that_are_all_cold_come_in_one_request_too(client: Client) -> None:
    opened = client.open_new()
    mine = [i for i in range(CHUNKS) if client.owners(opened, i)[0] == "n2"]

    answers = client.ask_many("n2", opened, [(i, 0, CHUNK_BYTES) for i in mine if i != LAST])

    # Of those that one has to ask for again, some have come in by then.
    assert "origin" in {answer.source for answer in answers} <= {"origin", CACHED["n2"]}
    assert [answer.data for answer in answers] == [chunk_of(DATA, i) for i in mine if i != LAST]


# Tickets -----------------------------------------------------------------------------------


def known_state(node: NodeProcess, cluster: str) -> ClusterState:
    """Return what the node wrote down of its cluster, ticket keys and all."""
    path = node.state_dir / "view.json"

    def written() -> ClusterState | None:
        state = view_file.load(path, cluster=cluster)
        return state if state is not None and state.ticket_keys else None

    wait_until(lambda: written() is not None, deadline_s=DEADLINE_S, what="its keys are written")
    state = written()
    assert state is not None
    return state


def signed(
    client: Client, subject: ObjectId, *, cluster_uid: str = "", expires_at: float = 0.0
) -> str:
    """Return a ticket signed with the cluster's own keys."""
    state = known_state(client.parts.cluster["n1"], "planes")
    assert state.placement is not None
    uid = cluster_uid or state.placement.cluster_uid
    ticket = Ticket(uid, "data", subject, round(expires_at or time.time() + 100))
    return TicketKeys(state.ticket_keys.values()).sign(ticket, now=time.time())


def forged(ticket: str) -> str:
    """Return a ticket whose signature has one bit flipped."""
    raw = bytearray(base64.urlsafe_b64decode(ticket + "=" * (-len(ticket) % 4)))
    raw[-1] ^= 1
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@pytest.mark.parametrize("is_warm", [True, False])
def test_tickets_are_judged_before_anything_is_served(client: Client, is_warm: bool) -> None:
    opened = client.open_new()
    owner = client.owners(opened, 3)[0]
    if is_warm:
        assert client.ask(owner, opened, 3).landed
    late = time.time() - LEEWAY_S - 5
    in_leeway = time.time() - LEEWAY_S + 30
    ticket_to_error = {
        signed(client, opened.id, expires_at=late): errors.TicketExpired,
        signed(client, opened.id, cluster_uid="0" * 32): errors.NotPermitted,
        forged(opened.ticket): errors.NotPermitted,
        "junk": errors.NotPermitted,
        "A" * 12_000: errors.NotPermitted,
    }

    for ticket, error in ticket_to_error.items():
        assert type(client.ask(owner, opened, 3, ticket=ticket).outcome) is error
    good = signed(client, opened.id, expires_at=in_leeway)
    assert client.ask(owner, opened, 3, ticket=good).data == chunk_of(DATA, 3)


def test_a_ticket_of_a_shorter_object_gives_none_of_this_one(client: Client) -> None:
    opened, short = client.open_new(), client.open_new(b"abc")
    owner = client.owners(opened, 3)[0]

    beyond = client.ask(owner, opened, 3, ticket=short.ticket)
    longer = client.ask(client.owners(opened, 0)[0], opened, 0, ticket=short.ticket)

    assert type(beyond.outcome) is errors.InvalidRequest
    assert isinstance(longer.outcome, PenstockError)
    assert chunk_of(DATA, 0)[:3] not in longer.data


# Whose chunk it is -------------------------------------------------------------------------


def test_only_if_cached_asks_nobody_else(client: Client) -> None:
    opened = client.open_new()
    owner = client.owners(opened, 2)[0]
    asked = len(client.parts.origin.requests)

    missed = client.ask(owner, opened, 2, only_if_cached=True)
    assert len(client.parts.origin.requests) == asked
    client.ask_kept(owner, opened, 2)
    hit = client.ask(owner, opened, 2, only_if_cached=True)

    assert type(missed.outcome) is errors.NotCached
    assert hit.source == CACHED[owner]
    assert hit.data == chunk_of(DATA, 2)


def test_a_node_that_keeps_no_copy_says_so_and_its_epoch(peer: Client) -> None:
    opened = peer.open_new()
    stranger = peer.owners(opened, 4)[COPIES]

    answer = peer.ask(stranger, opened, 4, epoch=0)

    assert isinstance(answer.outcome, errors.NotOwner)
    assert answer.outcome.epoch == peer.epoch


def test_a_request_on_behalf_of_a_node_never_goes_on_to_a_third_one(peer: Client) -> None:
    opened = peer.open_new()
    first, second, _ = peer.owners(opened, 6)
    asked = len(peer.parts.origin.requests)

    refused = peer.ask(second, opened, 6, on_behalf=True)
    asked_for_it = len(peer.parts.origin.requests) - asked
    filled = peer.ask(first, opened, 6, on_behalf=True)

    assert isinstance(refused.outcome, errors.NotOwner)
    assert asked_for_it == 0
    assert filled.source == "origin"


def test_an_owner_believes_its_own_eyes_on_who_is_away(peer: Client) -> None:
    opened = peer.open_new()
    first, second, stranger = peer.owners(opened, 7)

    refused = peer.ask(stranger, opened, 7, suspects=(first, second))
    filled = peer.ask(second, opened, 7, suspects=(first, "nobody"))

    assert isinstance(refused.outcome, errors.NotOwner)
    assert filled.source == "peer"


def test_a_sender_that_is_ahead_by_mistake_gets_its_answer_and_the_true_epoch(
    peer: Client,
) -> None:
    opened = peer.open_new()
    first, _, stranger = peer.owners(opened, 8)

    filled = peer.ask(first, opened, 8, epoch=peer.epoch + 1)
    refused = peer.ask(stranger, opened, 8, epoch=peer.epoch + 1)

    assert filled.landed.epoch == peer.epoch
    assert isinstance(refused.outcome, errors.NotOwner)
    assert refused.outcome.epoch == peer.epoch


def test_a_node_that_is_behind_catches_up_before_it_answers(peer: Client) -> None:
    opened = peer.open_new()
    with operator.connect(peer.parts.cluster["n1"].address) as connected:
        weight = {"n1": 100 + peer.epoch}  # Each time another, and hardly more.
        epoch = connected.set_weights(weight).epoch

    told = [peer.ask(node, opened, 9, epoch=epoch).outcome for node in TIERS]

    assert epoch > peer.epoch or epoch == peer.core.nodes.view().placement.epoch
    for outcome in told:
        assert isinstance(outcome, Landed | errors.NotOwner)
        assert outcome.epoch >= epoch


# Trouble -----------------------------------------------------------------------------------


def test_an_object_that_changed_at_the_origin_is_an_error_and_never_other_bytes(
    client: Client,
) -> None:
    name = client.parts.put()
    opened = client.open(name)
    owner = client.owners(opened, 1)[0]
    kept = client.ask(owner, opened, 1)
    client.parts.origin.put(name, OddObject(bytes(len(DATA)), etag='"other"'))

    cold = client.owned_by(opened, owner) if client.owned_by(opened, owner) != 1 else LAST
    changed = client.ask(client.owners(opened, cold)[0], opened, cold)
    again = client.ask(owner, opened, 1)

    assert type(changed.outcome) is errors.ObjectChanged
    assert kept.data == again.data == chunk_of(DATA, 1)


def test_an_object_that_is_gone_from_the_origin_is_not_found(client: Client) -> None:
    name = client.parts.put()
    opened = client.open(name)
    client.parts.origin.put(name, OddObject(b"", status=404))

    answer = client.ask(client.owners(opened, 0)[0], opened, 0)

    assert type(answer.outcome) is errors.ObjectNotFound


def test_an_origin_that_is_down_is_told_from_a_node_that_is(client: Client) -> None:
    name = client.parts.put()
    opened = client.open(name)
    client.parts.origin.put(name, OddObject(b"", status=503))

    answer = client.ask(client.owners(opened, 0)[0], opened, 0)

    assert type(answer.outcome) is errors.OriginUnavailable


def flip_a_bit(node: NodeProcess, subject: ObjectId, index: int) -> None:
    in_memory, what = "penstock_inflight_bytes", "the node has it in its file alone"
    wait_until(lambda: not node.metrics()[in_memory], deadline_s=DEADLINE_S, what=what)
    path = node.tier_paths[0] / "chunks" / ChunkFile(subject, index).relative_path
    path.chmod(0o600)
    content = bytearray(path.read_bytes())
    content[70_000] ^= 1
    path.write_bytes(content)
    path.chmod(0o400)


def test_a_bit_flipped_on_disk_is_never_believed_and_healed_when_the_node_is_told(
    client: Client,
) -> None:
    client.parts.origin.put(f"{KEPT_ONCE}{client.name}", OddObject(DATA, etag='"once"'))
    opened = client.open(f"{KEPT_ONCE}{client.name}")
    index = client.owned_by(opened, "n2")
    assert client.ask("n2", opened, index).landed
    flip_a_bit(client.parts.cluster["n2"], opened.id, index)

    whole, other_block, good_block = (
        client.ask("n2", opened, index, *span)
        for span in ((0, CHUNK_BYTES), (BLOCK_BYTES + 7, BLOCK_BYTES + 8), (0, BLOCK_BYTES))
    )
    healed = client.ask("n2", opened, index, recheck=True)
    after = client.ask("n2", opened, index)

    assert type(whole.outcome) is type(other_block.outcome) is errors.CorruptData
    assert good_block.data == chunk_of(DATA, index)[:BLOCK_BYTES]
    assert (healed.source, after.source) == ("origin", "disk")
    assert healed.data == after.data == chunk_of(DATA, index)


def test_a_recheck_of_a_good_chunk_serves_it(client: Client) -> None:
    opened = client.open_new()
    index = client.owned_by(opened, "n1")
    client.ask("n1", opened, index)

    assert client.ask("n1", opened, index, recheck=True).source == "disk"


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Holds the origin's bodies back until it is set."""
    made = threading.Event()
    yield made
    made.set()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


def says_filling(client: Client, node: str, opened: OpenedObject, index: int) -> bool:
    request = cache_pb2.GetChunkRequest(ticket=opened.ticket, index=index, stop=BLOCK_BYTES)
    return client.core.channels.call(client.parts.cluster[node].address, GET_CHUNK, request).filling


def test_a_chunk_that_is_on_its_way_is_waited_for(
    client: Client, gate: threading.Event, threads: ThreadPoolExecutor
) -> None:
    opened = client.open_new(held_until=gate)
    owner = client.owners(opened, 2)[0]

    reading: Future[Answer] = threads.submit(client.ask, owner, opened, 2)
    for _ in range(3):  # 200 ms each.
        assert says_filling(client, owner, opened, 2)
    was_done = reading.done()
    gate.set()

    assert not was_done
    assert reading.result().data == chunk_of(DATA, 2)
    # Who asks again after it has come in is told where it lies by then.
    assert reading.result().source in ("origin", CACHED[owner])


def test_a_deadline_ends_the_wait_for_a_fill_and_not_the_fill(
    client: Client, gate: threading.Event
) -> None:
    opened = client.open_new(held_until=gate)
    owner = client.owners(opened, 2)[0]

    late = client.ask_many(owner, opened, [(2, 0, CHUNK_BYTES)], deadline=Deadline.after(0.3))
    gate.set()
    wait_until(
        lambda: isinstance(client.ask(owner, opened, 2, only_if_cached=True).outcome, Landed),
        deadline_s=DEADLINE_S,
        what="the chunk has come in",
    )

    assert [type(answer.outcome) for answer in late] == [errors.NodeUnavailable]


def test_a_cancelled_read_ends_soon_and_leaves_the_buffer_alone(
    client: Client, gate: threading.Event, threads: ThreadPoolExecutor
) -> None:
    opened = client.open_new(held_until=gate)
    owner = client.owners(opened, 2)[0]
    is_over = threading.Event()
    buffer = bytearray(b"\x5a" * CHUNK_BYTES)
    member = client.core.nodes.view().members[owner]
    context = ReadContext(opened.ticket, opened.id, client.epoch)
    piece = PieceRequest(2, 0, CHUNK_BYTES, memoryview(buffer))

    with closing(client.plane(member.socket)) as plane:
        deadline = Deadline.after(DEADLINE_S, is_over=is_over.is_set)
        reading = threads.submit(plane.read, member, context, [piece], deadline=deadline)
        assert says_filling(client, owner, opened, 2)
        is_over.set()
        (outcome,) = reading.result(DEADLINE_S / 2)
    gate.set()
    arrived = client.ask(owner, opened, 2)

    assert isinstance(outcome, errors.NodeUnavailable)
    assert arrived.data == chunk_of(DATA, 2)
    assert buffer == b"\x5a" * CHUNK_BYTES


def test_a_node_that_is_not_there_is_unavailable(client: Client) -> None:
    opened = client.open_new()
    member = client.core.nodes.view().members["n1"]
    nobody = replace(member, grpc_address="127.0.0.1:1", bulk_address="127.0.0.1:1")
    context, deadline = ReadContext(opened.ticket, opened.id, 1), Deadline.after(DEADLINE_S)

    with closing(client.plane("/nowhere")) as plane:
        count = plane.pieces_max
        pieces = [PieceRequest(i, 0, 1, memoryview(bytearray(1))) for i in range(count)]
        outcomes = plane.read(nobody, context, pieces, deadline=deadline)

    assert [type(outcome) for outcome in outcomes] == [errors.NodeUnavailable] * count


# What only raw requests can ask -------------------------------------------------------------


def test_the_bulk_port_says_each_error_by_its_status_and_name(parts: Parts) -> None:
    client = make_client("bulk", parts, parts.cluster["n1"])
    with closing(client.core):
        opened = client.open_new()
        first, _, stranger = client.owners(opened, 0)
        late = signed(client, opened.id, expires_at=time.time() - LEEWAY_S - 5)
        foreign = signed(client, opened.id, cluster_uid="0" * 32)
        asked = [
            (first, chunk_request(0, late), 401, "TicketExpired"),
            (first, chunk_request(0, foreign), 403, "NotPermitted"),
            (first, chunk_request(0, forged(opened.ticket)), 403, "NotPermitted"),
            (first, chunk_request(0, opened.ticket, "Penstock-If: cached"), 404, "NotCached"),
            (first, chunk_request(0, opened.ticket, "Penstock-Epoch: x"), 400, "InvalidRequest"),
            (stranger, chunk_request(0, opened.ticket), 421, "NotOwner"),
        ]

        for node, request, status, error in asked:
            with Wire(parts.cluster[node].file.bulk_address) as wire:
                answer = wire.ask(request)
            assert (answer.status, answer.error) == (status, error)
            assert int(answer.headers["penstock-epoch"]) == client.epoch


@pytest.mark.parametrize(
    ("start", "stop"),
    [(1, BLOCK_BYTES), (0, BLOCK_BYTES + 1), (0, 0), (0, 2 * CHUNK_BYTES), (BLOCK_BYTES, 0)],
)
def test_ranges_that_are_not_whole_blocks_are_out_of_range_for_grpc(
    parts: Parts, start: int, stop: int
) -> None:
    client = make_client("grpc", parts, parts.cluster["n1"])
    with closing(client.core), grpc.insecure_channel(parts.cluster["n1"].address) as channel:
        ticket = client.open_new().ticket
        request = cache_pb2.GetChunkRequest(ticket=ticket, start=start, stop=stop)

        with pytest.raises(grpc.RpcError) as refused:
            cache_pb2_grpc.ChunksStub(channel).Get(request, timeout=DEADLINE_S)

    assert refused.value.code() is grpc.StatusCode.OUT_OF_RANGE

"""What the node says on its socket: which chunks, to whom, and for how long they count as used."""

import asyncio
import fcntl
import os
import random
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType

import pytest

from penstock.checksums import block_checksums
from penstock.deadline import Deadline
from penstock.errors import InvalidRequest, NotPermitted, OriginUnavailable, PenstockError
from penstock.host_connection import Answer, HostConnection
from penstock.host_frames import INDEXES_MAX, REQUEST_BYTES_MAX, frame
from penstock.membership.nodes import Endpoint, Nodes
from penstock.objects import ObjectId
from penstock.placement import PlacedNode, Placement
from penstock.rpc import Channels
from penstock.ticket import Ticket, TicketKey, TicketKeys
from penstock.v1 import host_pb2
from penstock_node.access.gate import Gate
from penstock_node.chunk import Chunk, Payload
from penstock_node.chunks import ChunkAnswer
from penstock_node.cluster import Cluster
from penstock_node.coordination.state import ClusterState
from penstock_node.inflight import Inflight
from penstock_node.listing import Listings
from penstock_node.metrics import NodeMetrics
from penstock_node.opening import Opener
from penstock_node.origin import Origins
from penstock_node.serve.calls import Calls
from penstock_node.serve.host import HostService
from penstock_node.serve.host_chunks import HostChunks
from penstock_node.store.store import Store
from penstock_node.store.tier import Tier
from penstock_node.testbed.processes import wait_until
from penstock_node.traces import Traces
from penstock_node.transport.engine import Engine, _overdue

MIB = 1024 * 1024
CHUNK_BYTES = 128 * 1024
DATA = random.Random(1).randbytes(8 * CHUNK_BYTES)
OBJECT = ObjectId("file:///object", "1", size=len(DATA), chunk_size=CHUNK_BYTES)
UID, KEY = "ab" * 16, TicketKey("k", b"secret" * 8, created_at=0.0)
DONE = host_pb2.HostRequest(done=host_pb2.HostDone())


def bytes_of(index: int) -> memoryview:
    return memoryview(DATA)[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]


class HandFilled:
    """Where chunks come from: the store, and what the test delivers or refuses by hand."""

    def __init__(self, store: Store, inflight: Inflight, loop: asyncio.AbstractEventLoop) -> None:
        self._store, self._inflight, self._loop = store, inflight, loop
        self._delivered: dict[int, bool | PenstockError] = {}
        self._arrived: defaultdict[int, asyncio.Event] = defaultdict(asyncio.Event)
        self.asked: list[int] = []
        self.rechecked: list[int] = []
        self.read: list[tuple[int, int]] = []
        """Indexes and lengths."""

    def deliver(self, index: int, outcome: bool | PenstockError) -> None:
        """Let a chunk come: True is kept by the store, False by nobody."""
        self._delivered[index] = outcome
        self._loop.call_soon_threadsafe(self._arrived[index].set)

    def at_hand(self, chunk: Chunk, *, recheck: bool = False) -> ChunkAnswer | None:
        if recheck:
            self.rechecked.append(chunk.index)
        stored = self._store.get(chunk.object, chunk.index)
        return ChunkAnswer(chunk, stored, stored.source) if stored else None

    def were_read(self, obj: ObjectId, pieces: Sequence[tuple[int, int]]) -> None:
        self.read += pieces

    async def answer(self, chunk: Chunk, *, only_if_cached: bool = False) -> ChunkAnswer | None:
        self.asked.append(chunk.index)
        try:
            async with asyncio.timeout(0.2):
                await self._arrived[chunk.index].wait()
        except TimeoutError:
            return None
        delivered = self._delivered[chunk.index]
        if isinstance(delivered, PenstockError):
            raise delivered
        if delivered:
            put(self._store, chunk.index)
            return self.at_hand(chunk)
        loan = await self._inflight.origin.acquire(CHUNK_BYTES)
        data = bytes_of(chunk.index)
        return ChunkAnswer(chunk, Payload(data, block_checksums(data), loan), "origin")


def put(store: Store, index: int) -> None:
    data = bytes_of(index)
    assert store.put(OBJECT, index, data, owned=True, reason="read")


class Rig:
    """A node's socket over a real store and engine; its event loop runs on a thread."""

    def __init__(self, directory: Path, stack: ExitStack, *, has_memory: bool) -> None:
        self._loop = asyncio.new_event_loop()
        running = threading.Thread(target=self._loop.run_forever)
        running.start()
        stack.callback(self._loop.close)
        stack.callback(running.join)
        stack.callback(self._loop.call_soon_threadsafe, self._loop.stop)
        self._directory = directory
        tiers = [Tier(directory / "owned", 64 * MIB, "owned")]
        if has_memory:
            tiers.append(Tier(directory / "memory", 64 * MIB, "memory"))
        self.store = Store(tiers)
        stack.callback(self.store.close)
        self.inflight = Inflight()
        self.fills = HandFilled(self.store, self.inflight, self._loop)
        self.service = self._service(directory, stack)
        self.path = str(directory / "node.sock")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.path)
        self.engine = Engine()
        self.engine.listen(listener, self.service.open_session)
        self.engine.start()
        stack.callback(self.engine.stop, grace_s=0.1)
        self._stack = stack

    def _service(self, directory: Path, stack: ExitStack) -> HostService:
        cluster = Cluster(node_id="node", name="test")
        placement = Placement(UID, 1, (PlacedNode("node", "host", "", 100),), 4096)
        state = ClusterState(placement=placement, ticket_keys=MappingProxyType({"k": KEY}))
        asyncio.run_coroutine_threadsafe(cluster.take(state), self._loop).result(30)
        threads = stack.enter_context(ThreadPoolExecutor(4))
        origins = Origins(allow_file_roots=[directory])
        stack.callback(origins.close)
        nodes = Nodes(
            [Endpoint(Channels(), "127.0.0.1:1")],
            channels=Channels(),
            bulk=None,
            routing=cluster.routing,
        )
        opener = Opener(cluster=cluster, origins=origins, nodes=nodes, threads=threads)
        traces = Traces("test")
        return HostService(
            chunks=HostChunks(
                reads=self.fills,
                memory=self.store,
                copies=self.inflight.sends,
                threads=threads,
            ),
            calls=Calls(
                cluster=cluster,
                opener=opener,
                listings=Listings(cluster=cluster, origins=origins),
                traces=traces,
                gate=Gate(None),
            ),
            gate=None,
            cluster=cluster,
            metrics=NodeMetrics(version="test", inflight=self.inflight),
            traces=traces,
            loop=self._loop,
            bulk_address="127.0.0.1:1",
            gives_to_all=False,
            keeps_copies=False,
        )

    def connect(self) -> HostConnection:
        connection = HostConnection(self.path)
        self._stack.callback(connection.close)
        return connection

    def open_chunks(self) -> int:
        """Return how many files of this store this process, node and reader, has open."""
        links = []
        for entry in Path("/proc/self/fd").iterdir():
            try:
                links.append(os.readlink(entry))  # noqa: PTH115 - may say "(deleted)"
            except FileNotFoundError:
                continue
        ours = [link for link in links if link.startswith(f"{self._directory}/")]
        copies = sum("penstock-chunk" in link for link in links)
        return sum("/chunks/" in link for link in ours) + copies


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with ExitStack() as stack:
        yield Rig(tmp_path, stack, has_memory=False)


def ticket(uid: str = UID, *, expires_in_s: float = 600) -> str:
    now = time.time()
    return TicketKeys([KEY]).sign(Ticket(uid, "data", OBJECT, round(now + expires_in_s)), now=now)


def read(
    *indexes: int, token: str | None = None, recheck: bool = False, into_memory: bool = False
) -> host_pb2.HostRequest:
    return host_pb2.HostRequest(
        read=host_pb2.HostRead(
            ticket=ticket() if token is None else token,
            indexes=indexes,
            recheck=recheck,
            into_memory=into_memory,
        )
    )


def ask(connection: HostConnection, request: host_pb2.HostRequest) -> Answer:
    return connection.ask(request, Deadline.after(30))


def states(answer: Answer) -> list[str | None]:
    return [chunk.WhichOneof("state") for chunk in answer.message.chunks.chunks]


# Files and holds ---------------------------------------------------------------------------


def test_what_is_here_is_given_at_once_as_files(rig: Rig) -> None:
    for index in (0, 5):
        put(rig.store, index)

    with ask(rig.connect(), read(5, 0)) as answer:
        for chunk, file in zip(answer.message.chunks.chunks, answer.files, strict=True):
            given = os.pread(file, chunk.file.length, chunk.file.offset)
            assert given == bytes_of(chunk.index)
            assert chunk.file.checksums == block_checksums(given)
        assert [chunk.index for chunk in answer.message.chunks.chunks] == [5, 0]


def test_given_chunks_count_as_used_until_the_reader_is_done(rig: Rig) -> None:
    put(rig.store, 0)
    put(rig.store, 1)
    connection = rig.connect()
    ask(connection, read(0)).__exit__(None, None, None)
    ask(connection, read(1)).__exit__(None, None, None)
    wait_until(lambda: rig.service.held == 2, deadline_s=10, what="two chunks are held")
    used = rig.store.tier_usage()[0].used_bytes
    rig.store.evict(OBJECT)
    assert rig.store.tier_usage()[0].used_bytes == used, "unlinked, and in use"

    connection.tell(DONE)

    wait_until(lambda: rig.service.held == 0, deadline_s=10, what="nothing is held")
    assert rig.store.tier_usage()[0].used_bytes == 0


def test_a_connection_that_ends_gives_back_what_it_held(rig: Rig) -> None:
    put(rig.store, 0)
    connection = rig.connect()
    with ask(connection, read(0, 0, 0)):
        wait_until(lambda: rig.service.held == 3, deadline_s=10, what="three are held")

    connection.close()

    wait_until(lambda: rig.service.held == 0, deadline_s=10, what="nothing is held")
    assert rig.open_chunks() == 0


def test_a_reader_that_maps_chunks_may_be_silent_for_days(rig: Rig) -> None:
    put(rig.store, 0)
    connection = rig.connect()
    with ask(connection, read(0)):
        wait_until(lambda: rig.service.held == 1, deadline_s=10, what="it is held")
        connections = list(rig.engine._connections.values())

        assert len(connections) == 1
        assert not list(_overdue(connections, time.monotonic() + 7 * 24 * 3600))


def test_a_held_chunk_costs_the_node_no_descriptor(rig: Rig) -> None:
    put(rig.store, 0)
    connection = rig.connect()

    with ask(connection, read(0)):
        wait_until(lambda: rig.open_chunks() == 1, deadline_s=10, what="only the reader's is open")
        assert rig.service.held == 1


def test_a_reader_that_stops_reading_and_goes_leaves_nothing_open(rig: Rig) -> None:
    put(rig.store, 0)
    connection = rig.connect()
    for _ in range(2000):  # Far more answers than a socket holds; none is read.
        try:
            connection._socket.send(frame(read(*[0] * 100)), socket.MSG_DONTWAIT)
        except BlockingIOError:
            break
    connection.close()

    wait_until(lambda: rig.service.held == 0, deadline_s=20, what="nothing is held")
    wait_until(lambda: rig.open_chunks() == 0, deadline_s=20, what="nothing is open")


def test_many_chunks_are_told_in_parts_so_that_the_first_is_read_meanwhile(rig: Rig) -> None:
    for index in range(8):
        put(rig.store, index)
    request = read(*range(8), *range(8))
    request.read.in_parts = True
    connection, told = rig.connect(), list[list[int]]()

    answer = ask(connection, request)
    while True:
        with answer:
            told.append([chunk.index for chunk in answer.message.chunks.chunks])
            assert len(answer.files) == len(told[-1])
        if not answer.message.chunks.more:
            break
        answer = connection.receive(Deadline.after(30))

    assert told == [[0], [1, 2, 3, 4, 5, 6, 7, 0], [1, 2, 3, 4, 5, 6, 7]]


def test_what_follows_a_missing_chunk_is_told_with_it(rig: Rig) -> None:
    for index in (0, 2):
        put(rig.store, index)
    request = read(1, 0, 2)
    request.read.in_parts = True

    with ask(rig.connect(), request) as answer:
        assert states(answer) == ["filling", "file", "file"]
        assert not answer.message.chunks.more


# What is not here --------------------------------------------------------------------------


def test_what_is_here_does_not_wait_for_what_is_not(rig: Rig) -> None:
    put(rig.store, 0)
    connection = rig.connect()

    with ask(connection, read(0, 1)) as answer:
        assert states(answer) == ["file", "filling"]
    rig.fills.deliver(1, True)
    with ask(connection, read(1)) as answer:
        assert states(answer) == ["file"]


def test_a_reader_of_what_does_not_come_is_told_so_again_and_again(rig: Rig) -> None:
    connection = rig.connect()
    for _ in range(2):
        with ask(connection, read(3)) as answer:
            assert states(answer) == ["filling"]

    assert rig.fills.asked == [3, 3]


def test_each_chunk_has_an_error_of_its_own(rig: Rig) -> None:
    put(rig.store, 0)
    rig.fills.deliver(1, OriginUnavailable("down"))
    connection = rig.connect()

    def told() -> list[str | None]:
        with ask(connection, read(0, 1, 99)) as answer:
            return states(answer)

    wait_until(lambda: told() == ["file", "error", "error"], deadline_s=10, what="errors are told")


def test_what_comes_too_late_is_closed(rig: Rig) -> None:
    put(rig.store, 0)
    connection = rig.connect()
    with ask(connection, read(0, *range(1, 8))) as answer:
        assert states(answer).count("filling") == 7

    for index in range(1, 8):
        rig.fills.deliver(index, True)

    wait_until(lambda: rig.store.holds(OBJECT, 7), deadline_s=10, what="they have come")
    wait_until(lambda: rig.open_chunks() == 0, deadline_s=10, what="and are closed")


def test_a_chunk_that_nobody_keeps_is_given_as_memory_that_nobody_can_change(rig: Rig) -> None:
    rig.fills.deliver(2, False)
    connection = rig.connect()

    with ask(connection, read(2)) as answer:
        (file,) = answer.files
        assert os.pread(file, CHUNK_BYTES, 0) == bytes_of(2)
        assert fcntl.fcntl(file, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE
        again = os.open(f"/proc/self/fd/{file}", os.O_RDWR)
        with pytest.raises(PermissionError):
            os.pwrite(again, b"x", 0)
        with pytest.raises(PermissionError):
            os.ftruncate(again, 0)
        os.close(again)
        assert rig.inflight.sends.used_bytes == CHUNK_BYTES
    connection.tell(DONE)

    wait_until(lambda: rig.inflight.sends.used_bytes == 0, deadline_s=10, what="it is given back")


def test_chunks_about_to_be_mapped_come_into_memory_first(tmp_path: Path) -> None:
    with ExitStack() as stack:
        rig = Rig(tmp_path, stack, has_memory=True)
        put(rig.store, 0)
        # It is in both tiers now: take it out of memory.
        memory = next(tier for tier in rig.store._tiers if tier.role == "memory")
        for path in (tmp_path / "memory" / "chunks").glob("*/*"):
            path.unlink()
        connection = rig.connect()
        with ask(connection, read(0)) as answer:
            assert answer.message.chunks.chunks[0].file.source == "disk"
        assert memory.chunk_count == 0

        rig.fills.deliver(0, True)
        with ask(connection, read(0, into_memory=True)) as answer:
            assert answer.message.chunks.chunks[0].file.source == "memory"


def test_a_reader_of_wrong_bytes_has_the_copies_looked_at(rig: Rig) -> None:
    put(rig.store, 0)

    with ask(rig.connect(), read(0, recheck=True)):
        assert rig.fills.rechecked == [0]


# Bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (read(), InvalidRequest),
        (read(*range(INDEXES_MAX + 1)), InvalidRequest),
        (read(0, token="nonsense"), NotPermitted),
        (read(0, token=ticket("cd" * 16)), NotPermitted),
        (
            host_pb2.HostRequest(
                read=host_pb2.HostRead(ticket=ticket(), indexes=[0, 1], lengths=[5])
            ),
            InvalidRequest,
        ),
        (host_pb2.HostRequest(read=host_pb2.HostRead(url="x://y", indexes=[0])), NotPermitted),
        (
            host_pb2.HostRequest(call=host_pb2.HostCall(method="/penstock.v1.Operator/Evict")),
            InvalidRequest,
        ),
    ],
)
def test_a_bad_request_is_refused_by_name_and_the_next_one_is_answered(
    rig: Rig, request_: host_pb2.HostRequest, error: type[PenstockError]
) -> None:
    put(rig.store, 0)
    connection = rig.connect()
    with pytest.raises(error):
        ask(connection, request_)

    with ask(connection, read(0)) as answer:
        assert states(answer) == ["file"]


def test_an_expired_ticket_is_told_by_name(rig: Rig) -> None:
    with pytest.raises(PenstockError) as raised:
        ask(rig.connect(), read(0, token=ticket(expires_in_s=-120)))

    assert raised.value.name == "TicketExpired"


@pytest.mark.parametrize(
    "sent",
    [
        (REQUEST_BYTES_MAX + 1).to_bytes(4, "little"),
        b"\x05\x00\x00\x00\xff\xff\xff\xff\xff",
        frame(host_pb2.HostRequest()),
        b"GET / HTTP/1.1\r\n\r\n",
        frame(read(0)),
    ],
    ids=["long", "garbage", "empty", "http", "no hello"],
)
def test_what_is_no_request_ends_its_connection_with_a_reason(rig: Rig, sent: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(30)
        sock.connect(rig.path)
        sock.sendall(sent)
        answered = b""
        while data := sock.recv(65536):
            answered += data

    response = host_pb2.HostResponse.FromString(answered[4:])
    assert response.error.name == "InvalidRequest"


def test_requests_sent_without_waiting_are_answered_in_order(rig: Rig) -> None:
    for index in range(3):
        put(rig.store, index)
    connection = rig.connect()
    connection._socket.sendall(b"".join(frame(read(i)) + frame(DONE) for i in range(3)))

    # The answers may come together, which a client that asks one at a time would refuse.
    received, files = b"", list[int]()
    while received.count(b"disk") < 3:
        data, descriptors, _, _ = socket.recv_fds(connection._socket, 65536, 16)
        received, files = received + data, files + descriptors

    assert [os.pread(file, 100, 0) for file in files] == [
        bytes(bytes_of(i)[:100]) for i in range(3)
    ]
    for file in files:
        os.close(file)
    wait_until(lambda: rig.service.held == 0, deadline_s=10, what="all are done")

"""What a program makes of a node that is silent, broken, or no node at all."""

import os
import resource
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from penstock.bulk_connection import BulkConnections
from penstock.checksums import BLOCK_BYTES, block_checksums
from penstock.chunk_files import ChunkFiles
from penstock.connection_pool import ConnectionPool
from penstock.deadline import Deadline
from penstock.errors import NodeUnavailable, NotOwner, PenstockError
from penstock.host_calls import HostCalls
from penstock.host_connection import HostConnection, HostConnections
from penstock.host_frames import (
    AGAIN_MAX,
    HEAD_BYTES,
    INDEXES_MAX,
    RESPONSE_BYTES_MAX,
    frame,
    frame_bytes,
)
from penstock.membership.view import Member
from penstock.objects import ObjectId
from penstock.planes.bulk import BulkPlane
from penstock.planes.host import HostPlane
from penstock.planes.plane import Landed, PieceRequest, ReadContext
from penstock.rpc import GET_PLACEMENT
from penstock.v1 import host_pb2, placement_pb2
from penstock.wire import error_to_proto
from penstock_node.testbed.processes import wait_until

REQUEST = host_pb2.HostRequest(read=host_pb2.HostRead(ticket="t", indexes=[0]))
WELCOME = host_pb2.HostResponse(welcome=host_pb2.HostWelcome(node="node", gives_files=True))
CHUNKS = host_pb2.HostResponse(chunks=host_pb2.HostChunks(epoch=7))

SOON_S = 20.0
"""The node closes its end of a connection in a thread of its own."""

Script = Callable[[socket.socket], None]


class ScriptedNode:
    """What stands at the other end: greets, takes a request, does as the test says, and ends."""

    def __init__(self, directory: Path) -> None:
        self.path = str(directory / "node.sock")
        self.scripts: list[Script] = []
        """One for each connection, in order; then the last again."""
        self.greeting = frame(WELCOME)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:  # The test is over.
                return
            with sock:
                sock.settimeout(30)
                if sock.recv(4096):
                    sock.sendall(self.greeting)
                if self.scripts and sock.recv(4096):
                    (self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0])(sock)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[ScriptedNode]:
    made = ScriptedNode(tmp_path)
    yield made
    made.close()


def sends(data: bytes, *files: int) -> Script:
    def send(sock: socket.socket) -> None:
        if files:
            socket.send_fds(sock, [data], list(files))
        else:
            sock.sendall(data)

    return send


def waits(sock: socket.socket) -> None:
    sock.recv(1)


@contextmanager
def connected(node: ScriptedNode, script: Script) -> Iterator[HostConnection]:
    node.scripts = [script]
    connection = HostConnection(node.path)
    try:
        yield connection
    finally:
        connection.close()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_an_answer_comes_with_its_open_files(node: ScriptedNode, tmp_path: Path) -> None:
    (tmp_path / "chunk").write_bytes(b"payload")
    with (tmp_path / "chunk").open("rb") as file:
        script = sends(frame(CHUNKS), file.fileno())
        with (
            connected(node, script) as connection,
            connection.ask(REQUEST, Deadline.after(20)) as answer,
        ):
            taken = answer.take_file()
            assert not os.get_inheritable(taken)
            assert os.pread(taken, 7, 0) == b"payload"
            os.close(taken)

            assert answer.message.chunks.epoch == 7


def test_an_error_is_raised_by_its_own_class(node: ScriptedNode) -> None:
    error = error_to_proto(NotOwner("not mine", epoch=9))
    with (
        connected(node, sends(frame(host_pb2.HostResponse(error=error)))) as connection,
        pytest.raises(NotOwner, match="not mine") as raised,
    ):
        connection.ask(REQUEST, Deadline.after(20))

    assert raised.value.epoch == 9


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\x05\x00\x00\x00\xff\xff\xff\xff\xff", "what is no message"),
        ((RESPONSE_BYTES_MAX + 1).to_bytes(4, "little"), "a message of"),
        (frame(CHUNKS)[:-1], "closed the connection"),
        (b"\x01", "closed the connection"),
        (b"", "closed the connection"),
    ],
)
def test_what_is_no_answer_is_no_node_and_leaves_no_file_open(
    node: ScriptedNode, data: bytes, said: str
) -> None:
    before = descriptors()
    with Path(__file__).open("rb") as file:
        script = sends(data, file.fileno()) if data else sends(data)
        with (
            connected(node, script) as connection,
            pytest.raises(NodeUnavailable, match=said),
        ):
            connection.ask(REQUEST, Deadline.after(20))

    wait_until(lambda: descriptors() <= before, deadline_s=SOON_S, what="all files are closed")


@contextmanager
def all_sent(node: ScriptedNode, *steps: tuple[bytes, int | None]) -> Iterator[HostConnection]:
    """Give a connection with one message after another in it, with a file where one is named."""
    sent = threading.Event()

    def say(sock: socket.socket) -> None:
        for data, file in steps:
            sends(data, *(() if file is None else (file,)))(sock)
        sent.set()
        waits(sock)

    with connected(node, say) as connection:
        connection.tell(REQUEST)
        assert sent.wait(20)
        yield connection


WORKING = frame(host_pb2.HostResponse(working=host_pb2.HostWorking()))


@pytest.mark.parametrize("words", [1, 2, 50])
def test_a_reader_that_is_late_finds_that_the_node_works_and_the_answer_together(
    node: ScriptedNode, words: int
) -> None:
    before = descriptors()
    with Path(__file__).open("rb") as file:
        steps = [(WORKING, None)] * words + [(frame(CHUNKS), file.fileno())]
        with (
            all_sent(node, *steps) as connection,
            connection.receive(Deadline.after(20)) as answer,
        ):
            assert answer.message.chunks.epoch == 7
            assert len(answer.files) == 1

    wait_until(lambda: descriptors() <= before, deadline_s=SOON_S, what="all files are closed")


def test_parts_that_came_together_keep_their_own_files(node: ScriptedNode) -> None:
    parts = [frame(host_pb2.HostResponse(chunks=host_pb2.HostChunks(epoch=i))) for i in range(4)]
    found = []
    with Path(__file__).open("rb") as file:
        steps = [(part, file.fileno() if at % 2 else None) for at, part in enumerate(parts)]
        with all_sent(node, *steps) as connection:
            for _ in parts:
                with connection.receive(Deadline.after(20)) as answer:
                    found.append((answer.message.chunks.epoch, len(answer.files)))

    assert found == [(0, 0), (1, 1), (2, 0), (3, 1)]


def test_what_is_sent_beyond_the_answer_spoils_the_connection(node: ScriptedNode) -> None:
    before = descriptors()
    with Path(__file__).open("rb") as file:
        steps = [(frame(CHUNKS), None), (frame(CHUNKS), file.fileno())]
        with all_sent(node, *steps) as connection:
            with connection.receive(Deadline.after(20)):
                pass
            with pytest.raises(NodeUnavailable, match="more than it was asked"):
                connection.ask(REQUEST, Deadline.after(20))

    wait_until(lambda: descriptors() <= before, deadline_s=SOON_S, what="all files are closed")


def test_files_that_nobody_takes_are_closed(node: ScriptedNode) -> None:
    before = descriptors()
    with Path(__file__).open("rb") as file:
        script = sends(frame(CHUNKS), *[file.fileno()] * 5)
        with (
            connected(node, script) as connection,
            connection.ask(REQUEST, Deadline.after(20)) as answer,
        ):
            assert len(answer.files) == 5

    wait_until(lambda: descriptors() <= before, deadline_s=SOON_S, what="all files are closed")


def test_a_process_without_room_for_files_knows_that_some_are_missing(
    node: ScriptedNode,
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with Path(__file__).open("rb") as file:
        script = sends(frame(CHUNKS), *[file.fileno()] * 100)
        with connected(node, script) as connection:
            resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors() + 20, hard))
            try:
                with connection.ask(REQUEST, Deadline.after(20)) as answer:
                    assert answer.are_cut
                    assert 0 < len(answer.files) < 100
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(
    "told",
    [
        host_pb2.HostChunks(),
        host_pb2.HostChunks(more=True),
        host_pb2.HostChunks(chunks=[host_pb2.HostChunk(index=0)]),
        host_pb2.HostChunks(chunks=[host_pb2.HostChunk(index=1), host_pb2.HostChunk(index=0)]),
        host_pb2.HostChunks(
            chunks=[host_pb2.HostChunk(index=0), host_pb2.HostChunk(index=1)], more=True
        ),
    ],
    ids=["none", "endless", "too few", "others", "more than all"],
)
def test_answers_for_other_chunks_than_asked_are_no_answers(
    node: ScriptedNode, told: host_pb2.HostChunks
) -> None:
    node.scripts = [sends(frame(host_pb2.HostResponse(chunks=told)))]
    connections, obj = HostConnections(), ObjectId("key", "1", 2 * 65536, 65536)
    plane = HostPlane(node.path, connections=connections, bulk=BulkPlane(BulkConnections()))
    pieces = [PieceRequest(i, 0, 65536, memoryview(bytearray(65536))) for i in range(2)]

    outcomes = plane.read(
        Member("node", "host"),
        ReadContext("ticket", obj, epoch=1),
        pieces,
        deadline=Deadline.after(20),
    )

    assert [str(outcome).endswith("for other chunks") for outcome in outcomes] == [True, True]
    connections.close()


class BringsOneByOne:
    """Has a chunk's file for each question but the first: for the first chunk of it."""

    def __init__(self, count: int, path: Path, *, first: PenstockError | None = None) -> None:
        self.object = ObjectId("key", "1", count * BLOCK_BYTES, BLOCK_BYTES)
        self._first = first
        """What it says of each chunk when it is asked for the first time."""
        self.asked: list[list[int]] = []
        """Which chunks, by question; the first was for all."""
        self._path = path
        path.write_bytes(bytes(BLOCK_BYTES))

    def __call__(self, sock: socket.socket) -> None:
        say = self._refusing if self._first else self._filling
        sock.sendall(self._frame([say(index) for index in range(self.object.chunk_count)]))
        inbox = bytearray()
        while received := sock.recv(65_536):
            inbox += received
            while len(inbox) >= HEAD_BYTES and len(inbox) >= (size := frame_bytes(inbox)):
                self._answer(sock, host_pb2.HostRequest.FromString(bytes(inbox[HEAD_BYTES:size])))
                del inbox[:size]

    def _answer(self, sock: socket.socket, request: host_pb2.HostRequest) -> None:
        if request.WhichOneof("request") != "read":
            return  # It is done with files.
        first, *others = request.read.indexes
        self.asked.append([first, *others])
        checksums = block_checksums(bytes(BLOCK_BYTES))
        there = host_pb2.HostFile(length=BLOCK_BYTES, checksums=checksums)
        chunks = [host_pb2.HostChunk(index=first, file=there), *map(self._filling, others)]
        with self._path.open("rb") as file:
            socket.send_fds(sock, [self._frame(chunks)], [file.fileno()])

    def _refusing(self, index: int) -> host_pb2.HostChunk:
        assert self._first is not None
        return host_pb2.HostChunk(index=index, error=error_to_proto(self._first))

    @staticmethod
    def _filling(index: int) -> host_pb2.HostChunk:
        return host_pb2.HostChunk(index=index, filling=host_pb2.HostFilling())

    @staticmethod
    def _frame(chunks: list[host_pb2.HostChunk]) -> bytes:
        return frame(host_pb2.HostResponse(chunks=host_pb2.HostChunks(chunks=chunks)))


@pytest.mark.parametrize("reads", [False, True], ids=["files", "read"])
def test_of_chunks_on_their_way_a_few_are_asked_for_again_at_once(
    node: ScriptedNode, tmp_path: Path, reads: bool
) -> None:
    script = BringsOneByOne(INDEXES_MAX, tmp_path / "chunk")
    node.scripts, came = [script], list[int]()
    connections = HostConnections()
    if reads:
        plane = HostPlane(node.path, connections=connections, bulk=BulkPlane(BulkConnections()))
        context, memory = ReadContext("ticket", script.object, epoch=1), bytearray(BLOCK_BYTES)
        pieces = [
            PieceRequest(index, 0, BLOCK_BYTES, memoryview(memory)) for index in range(INDEXES_MAX)
        ]
        outcomes = plane.read(
            Member("node", "host"), context, pieces, deadline=Deadline.after(SOON_S)
        )
        came = [at for at, outcome in enumerate(outcomes) if isinstance(outcome, Landed)]
    else:
        files = ChunkFiles(lambda: HostConnection(node.path), lambda: "ticket", script.object)
        for file in files.each(range(INDEXES_MAX)):
            came.append(file.index)
            os.close(file.descriptor)
        files.close()
    connections.close()

    assert came == list(range(INDEXES_MAX))
    assert [asked[0] for asked in script.asked] == came
    assert max(map(len, script.asked)) == AGAIN_MAX


def test_a_chunk_whose_owners_disagree_for_a_moment_is_asked_for_again(
    node: ScriptedNode, tmp_path: Path
) -> None:
    script = BringsOneByOne(1, tmp_path / "chunk", first=NotOwner("n3 comes first", epoch=4))
    node.scripts = [script]
    files = ChunkFiles(lambda: HostConnection(node.path), lambda: "ticket", script.object)

    for file in files.each([0]):
        os.close(file.descriptor)
    files.close()

    assert script.asked == [[0]]


def test_a_silent_node_is_given_up_at_the_deadline(node: ScriptedNode) -> None:
    with (
        connected(node, waits) as connection,
        pytest.raises(NodeUnavailable, match="within the deadline"),
    ):
        connection.ask(REQUEST, Deadline.after(0.1))


def test_a_silent_node_is_given_up_before_a_far_deadline(node: ScriptedNode) -> None:
    with (
        connected(node, waits) as connection,
        pytest.raises(NodeUnavailable, match="silent"),
    ):
        connection.ask(REQUEST, Deadline.after(1000))


def test_a_read_that_nobody_wants_any_more_ends(node: ScriptedNode) -> None:
    over = threading.Event()
    with connected(node, waits) as connection:
        threading.Timer(0.05, over.set).start()

        with pytest.raises(NodeUnavailable):
            connection.ask(REQUEST, Deadline.after(1000, is_over=over.is_set))


def test_where_nobody_listens_there_is_no_node(tmp_path: Path) -> None:
    before = descriptors()
    with pytest.raises(NodeUnavailable, match="no node answers"):
        HostConnection(str(tmp_path / "absent"))

    wait_until(lambda: descriptors() <= before, deadline_s=SOON_S, what="all files are closed")


def test_who_does_not_greet_is_no_node(node: ScriptedNode) -> None:
    node.greeting, before = frame(CHUNKS), descriptors()

    with pytest.raises(NodeUnavailable, match="who it is"):
        HostConnection(node.path)

    wait_until(lambda: descriptors() <= before, deadline_s=SOON_S, what="all files are closed")


def test_closing_a_pool_ends_whoever_waits(node: ScriptedNode) -> None:
    pool, begun = HostConnections(), threading.Event()
    failures: list[PenstockError] = []

    def begin_and_wait(sock: socket.socket) -> None:
        begun.set()
        waits(sock)

    node.scripts = [begin_and_wait]

    def ask() -> None:
        try:
            with pool.borrow(node.path) as connection:
                connection.ask(REQUEST, Deadline.after(1000))
        except PenstockError as error:
            failures.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    assert begun.wait(30)
    pool.close()
    asking.join(timeout=30)

    assert ["closed the connection" in str(error) for error in failures] == [True]


def test_a_call_is_made_again_where_the_node_was_restarted(node: ScriptedNode) -> None:
    told = placement_pb2.GetPlacementResponse(cluster="c")
    called = frame(host_pb2.HostResponse(called=told.SerializeToString()))
    node.scripts = [sends(called)]  # Each connection answers once and ends.
    connections = HostConnections()

    for _ in range(3):
        answer = HostCalls(connections).call(
            node.path, GET_PLACEMENT, placement_pb2.GetPlacementRequest()
        )
        assert answer.cluster == "c"
    connections.close()


def test_a_pool_is_of_any_kind_of_connection_and_forgets_in_a_child(node: ScriptedNode) -> None:
    pool: ConnectionPool[HostConnection] = ConnectionPool(HostConnection)
    with pool.borrow(node.path) as first:
        pass
    with pool.borrow(node.path) as second:
        assert second is first
        assert second.is_reused

    pool.abandon()

    with pool.borrow(node.path) as third:
        assert third is not first
    pool.close()

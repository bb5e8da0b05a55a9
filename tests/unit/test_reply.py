"""What is sent arrives byte for byte, however little the socket takes, and is let go of."""

import contextlib
import errno
import os
import random
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from penstock_node.transport.reply import DESCRIPTORS_MAX, Descriptors, FileSpan, Octets, Part

DATA = random.Random(1).randbytes(300_001)
KINDS = ("tcp", "unix")


class ChunkFile:
    """A file as the store opens it, that counts what is done to it."""

    def __init__(self, path: Path, data: bytes = DATA) -> None:
        path.write_bytes(data)
        self._file = path.open("rb")
        self.closed = 0
        self.errors: list[OSError] = []

    def fileno(self) -> int:
        return self._file.fileno()

    def working(self) -> AbstractContextManager[None]:
        return contextlib.nullcontext()

    def failed(self, error: OSError) -> None:
        self.errors.append(error)

    def close(self) -> None:
        self.closed += 1
        self._file.close()


class Wire:
    """Two ends of a connection. Ours never waits and takes little at a time."""

    def __init__(self, ours: socket.socket, theirs: socket.socket) -> None:
        self.ours, self.theirs = ours, theirs
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # The kernel's least.
        ours.setblocking(False)
        theirs.settimeout(10)
        self.received, self.files = bytearray(), list[int]()
        self.stops = 0
        """How often a part could not be sent at once."""

    def take(self, part: Part) -> None:
        """Send ``part`` while the other end reads a little at a time; close it."""
        while not part.send_to(self.ours):
            self.stops += 1
            self.read()
        part.close()

    def read(self) -> None:
        data, files, _flags, _address = socket.recv_fds(self.theirs, 50_000, DESCRIPTORS_MAX)
        self.received += data
        self.files += files

    def close(self) -> None:
        self.ours.close()
        while True:
            before = len(self.received)
            self.read()
            if len(self.received) == before:
                break
        self.theirs.close()


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.socket()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        theirs.connect(listener.getsockname())
        ours, _address = listener.accept()
        return ours, theirs


@pytest.fixture(params=KINDS)
def wire(request: pytest.FixtureRequest) -> Iterator[Wire]:
    made = Wire(*(tcp_pair() if request.param == "tcp" else socket.socketpair()))
    yield made
    made.ours.close()
    made.theirs.close()
    for number in made.files:
        os.close(number)


# Bytes --------------------------------------------------------------------------------------


def test_octets_arrive_whole_through_a_socket_that_takes_little(wire: Wire) -> None:
    wire.take(Octets(DATA))
    wire.close()

    assert wire.received == DATA
    assert wire.stops > 2


def test_a_span_of_a_file_arrives_whole_and_nothing_around_it(wire: Wire, tmp_path: Path) -> None:
    file = ChunkFile(tmp_path / "chunk")

    wire.take(FileSpan(file, 12_345, 290_001))
    wire.close()

    assert wire.received == DATA[12_345:290_001]
    assert wire.stops > 2
    assert file.closed == 1


def test_parts_arrive_one_after_another(wire: Wire, tmp_path: Path) -> None:
    for part in (
        Octets(b"head", more=True),
        FileSpan(ChunkFile(tmp_path / "chunk"), 0, 100_000),
        Octets(b"", more=True),
        Octets(memoryview(DATA)[:7]),
    ):
        wire.take(part)
    wire.close()

    assert wire.received == b"head" + DATA[:100_000] + DATA[:7]


def test_octets_let_go_of_what_counts_their_memory() -> None:
    class Loan:
        released = False

        def __del__(self) -> None:
            Loan.released = True

    part = Octets(b"data", holds=Loan())
    assert not Loan.released

    part.close()

    assert Loan.released


# Files that cannot be read ------------------------------------------------------------------


def test_a_file_that_was_cut_breaks_the_connection_off(wire: Wire, tmp_path: Path) -> None:
    file = ChunkFile(tmp_path / "chunk", DATA[:1000])
    part = FileSpan(file, 0, 2000)

    with pytest.raises(ConnectionAbortedError, match="ends at 1000"):
        wire.take(part)

    assert not file.errors
    part.close()


class BadDisk(ChunkFile):
    """A file whose disk cannot read it: the kernel is not asked."""

    def __init__(self, path: Path, number: int) -> None:
        super().__init__(path)
        self._number = number

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        raise OSError(self._number, os.strerror(self._number))
        yield


@pytest.mark.parametrize(
    ("number", "is_the_disks"), [(errno.EIO, True), (errno.EPIPE, False), (errno.ECONNRESET, False)]
)
def test_the_disk_is_told_of_its_own_errors_alone(
    wire: Wire, tmp_path: Path, number: int, is_the_disks: bool
) -> None:
    file = BadDisk(tmp_path / "chunk", number)

    with pytest.raises(OSError, match=os.strerror(number)):
        wire.take(FileSpan(file, 0, 10))

    assert bool(file.errors) is is_the_disks
    file.close()


# Descriptors --------------------------------------------------------------------------------


@pytest.fixture
def unix() -> Iterator[Wire]:
    made = Wire(*socket.socketpair())
    yield made
    made.theirs.close()
    made.ours.close()
    for number in made.files:
        os.close(number)


def files_in(directory: Path, count: int) -> list[ChunkFile]:
    return [ChunkFile(directory / str(at), f"file {at}".encode()) for at in range(count)]


@pytest.mark.parametrize("count", [0, 1, DESCRIPTORS_MAX])
def test_descriptors_arrive_with_their_bytes_and_are_closed_here(
    unix: Wire, tmp_path: Path, count: int
) -> None:
    files = files_in(tmp_path, count)

    unix.take(Descriptors(DATA, list(files)))
    unix.close()

    assert unix.received == DATA
    assert [os.pread(number, 100, 0) for number in unix.files] == [
        f"file {at}".encode() for at in range(count)
    ]
    assert [file.closed for file in files] == [1] * count


def test_descriptors_wait_for_room_and_go_once(unix: Wire, tmp_path: Path) -> None:
    (file,) = files_in(tmp_path, 1)
    with contextlib.suppress(BlockingIOError):
        while True:
            unix.ours.send(b"x" * 1000)
    part = Descriptors(DATA, [file])

    assert not part.send_to(unix.ours)
    assert file.closed == 0
    unix.read()
    unix.take(part)
    unix.close()

    assert unix.received.endswith(b"x" + DATA)
    assert len(unix.files) == 1
    assert file.closed == 1


def span_of(file: ChunkFile) -> Part:
    return FileSpan(file, 0, len(DATA))


def descriptor_of(file: ChunkFile) -> Part:
    return Descriptors(DATA, [file])


@pytest.mark.parametrize("is_begun", [False, True])
@pytest.mark.parametrize("make", [span_of, descriptor_of])
def test_what_is_not_sent_is_closed_once_all_the_same(
    unix: Wire, tmp_path: Path, make: Callable[[ChunkFile], Part], is_begun: bool
) -> None:
    file = ChunkFile(tmp_path / "chunk")
    part = make(file)
    if is_begun:
        assert not part.send_to(unix.ours)

    part.close()

    assert file.closed == 1

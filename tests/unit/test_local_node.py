"""Finding this machine's node by its socket, and doing without it while it does not answer."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.errors import NotPermitted
from penstock.host_connection import HostConnections, Welcome
from penstock.host_frames import frame
from penstock.local_node import LOOK_S, SUSPECT_S, LocalNode, LocalNodes
from penstock.membership.view import Member
from penstock.v1 import host_pb2
from penstock.wire import error_to_proto
from penstock_node.testbed.hand_clock import HandClock

SOON_S = 10.0


def welcome(node: str, *, keeps_copies: bool = True) -> host_pb2.HostResponse:
    told = host_pb2.HostWelcome(
        node=node, cluster_uid="u", gives_files=True, keeps_copies=keeps_copies
    )
    return host_pb2.HostResponse(welcome=told)


class Greeter:
    """A node's socket at which everyone is told the same."""

    def __init__(self, path: Path, greeting: host_pb2.HostResponse) -> None:
        self.path, self.greeting = str(path), greeting
        self.greeted = 0
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen()
        self._thread = threading.Thread(target=self._greet)
        self._thread.start()

    def _greet(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:  # The test is over.
                return
            with sock:
                sock.settimeout(SOON_S)
                if sock.recv(4096):
                    self.greeted += 1
                    sock.sendall(frame(self.greeting))

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()


class Rig:
    """What a program knows of its machine."""

    def __init__(self, directory: Path, stack: contextlib.ExitStack) -> None:
        self.directory, self._stack = directory, stack
        self.clock = HandClock()
        self.members: list[Member] = []
        self._connections = HostConnections()
        stack.callback(self._connections.close)

    def start(self, name: str, greeting: host_pb2.HostResponse) -> Greeter:
        made = Greeter(self.directory / name, greeting)
        self._stack.callback(made.close)
        return made

    def finder(self, path: str = "") -> LocalNodes:
        return LocalNodes(
            self._connections, path=path, members=lambda: self.members, clock=self.clock
        )


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with contextlib.ExitStack() as stack:
        yield Rig(tmp_path, stack)


def found(finder: LocalNodes) -> str | None:
    node = finder.find()
    return node.member.id if node else None


# The node that was found --------------------------------------------------------------------


def test_it_is_the_first_to_ask_but_while_it_does_not_answer() -> None:
    clock = HandClock()
    node = LocalNode("/run/node.sock", Welcome("n", "u", True, True), clock=clock)

    candidate = node.candidate()
    assert candidate is not None
    assert (candidate.member.id, candidate.member.socket) == ("n", "/run/node.sock")
    assert candidate.suspects == ()
    node.suspect()
    assert node.is_suspected
    assert node.candidate() is None
    clock.now += SUSPECT_S
    assert node.candidate() == candidate


def test_a_node_that_keeps_no_chunks_of_others_is_not_asked_for_them() -> None:
    """It would fetch each from its owner and forget it."""
    assert LocalNode("/run/node.sock", Welcome("n", "u", True, False)).candidate() is None


# Finding it ---------------------------------------------------------------------------------


def test_the_socket_that_was_named_is_believed(rig: Rig) -> None:
    node = rig.start("node.sock", welcome("n"))

    assert found(rig.finder(node.path)) == "n"


@pytest.mark.parametrize("is_there", [False, True])
def test_where_nobody_listens_there_is_none(rig: Rig, is_there: bool) -> None:
    path = rig.directory / "left over.sock"
    if is_there:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(path))

    assert found(rig.finder(str(path))) is None


def test_a_node_that_lets_this_program_not_in_is_none(rig: Rig) -> None:
    refused = host_pb2.HostResponse(error=error_to_proto(NotPermitted("show a token")))
    node = rig.start("node.sock", refused)

    assert found(rig.finder(node.path)) is None


def test_of_all_members_the_one_whose_socket_is_here_is_found(rig: Rig) -> None:
    node = rig.start("here.sock", welcome("b"))
    rig.members = [
        Member("a", "other", socket=str(rig.directory / "elsewhere.sock")),
        Member("b", "this", socket=node.path),
        Member("c", "another"),
    ]

    assert found(rig.finder()) == "b"


def test_where_all_machines_use_one_path_the_node_says_which_it_is(rig: Rig) -> None:
    node = rig.start("node.sock", welcome("b"))
    rig.members = [Member(name, name, socket=node.path) for name in ("a", "b", "c")]

    assert found(rig.finder()) == "b"


def test_another_clusters_node_at_a_members_path_is_none(rig: Rig) -> None:
    node = rig.start("node.sock", welcome("stranger"))
    rig.members = [Member("a", "a", socket=node.path)]

    assert found(rig.finder()) is None


# Looking again ------------------------------------------------------------------------------


def test_it_is_looked_for_now_and_then_and_not_at_each_read(rig: Rig) -> None:
    finder = rig.finder(str(rig.directory / "node.sock"))
    assert found(finder) is None
    node = rig.start("node.sock", welcome("n"))
    assert found(finder) is None

    rig.clock.now += LOOK_S
    assert [found(finder) for _ in range(100)] == ["n"] * 100
    assert node.greeted == 1


def test_before_any_member_is_known_it_is_looked_for_at_once(rig: Rig) -> None:
    node, finder = rig.start("node.sock", welcome("n")), rig.finder()
    assert found(finder) is None

    rig.members = [Member("n", "n", socket=node.path)]

    assert found(finder) == "n"


def test_a_node_that_is_suspected_stays_so_when_it_is_found_again(rig: Rig) -> None:
    node = rig.start("node.sock", welcome("n"))
    finder = rig.finder(node.path)
    before = finder.find()
    assert before is not None

    rig.clock.now += LOOK_S
    before.suspect()

    assert finder.find() is before
    assert before.candidate() is None
    assert node.greeted == 2


def test_a_node_that_came_in_its_place_is_found(rig: Rig) -> None:
    node = rig.start("node.sock", welcome("n"))
    finder = rig.finder(node.path)
    assert found(finder) == "n"

    node.greeting = welcome("m", keeps_copies=False)
    rig.clock.now += LOOK_S

    assert found(finder) == "m"


def test_a_node_that_went_is_forgotten(rig: Rig) -> None:
    with contextlib.closing(Greeter(rig.directory / "gone.sock", welcome("n"))) as node:
        finder = rig.finder(node.path)
        assert found(finder) == "n"

    rig.clock.now += LOOK_S

    assert found(finder) is None

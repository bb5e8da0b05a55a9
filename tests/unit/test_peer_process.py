"""Who could open our files: told by the kernel, not by a uid. Some of it takes root to try."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from penstock_node.serve.peer_process import peer_process, sees_our_files

NOBODY = 65534
CONNECT = """
import socket, sys
with socket.socket(socket.AF_UNIX) as sock:
    sock.connect("\\0" + sys.argv[1])
    sock.recv(1)
"""


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A socket without a file, so that every user and root may reach it."""
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(f"\0penstock-test-{os.getpid()}")
        made.listen()
        made.settimeout(30)
        yield made


@contextmanager
def program(listener: socket.socket, *before: str) -> Iterator[socket.socket]:
    """Run a program that connects, started by ``before``; yield our end."""
    name = listener.getsockname()[1:].decode()
    with subprocess.Popen([*before, sys.executable, "-c", CONNECT, name]) as process:
        ours, _ = listener.accept()
        with ours:
            yield ours
        assert process.wait(timeout=30) == 0


@contextmanager
def child(
    listener: socket.socket,
    *,
    first: Callable[[], None] = lambda: None,
    then: Callable[[], None] = lambda: None,
) -> Iterator[socket.socket]:
    """Fork a process that does ``first``, connects, and does ``then``; yield our end."""
    pid = os.fork()
    if pid == 0:
        with suppress(BaseException):
            _connect(listener.getsockname(), first, then)
        os._exit(1)
    ours, _ = listener.accept()
    with ours:
        assert ours.recv(1) == b"x", "it could not do what it was to do: are we root?"
        yield ours
        ours.send(b"x")
    os.waitpid(pid, 0)


def _connect(address: bytes, first: Callable[[], None], then: Callable[[], None]) -> None:
    sock = socket.socket(socket.AF_UNIX)
    first()
    sock.connect(address)
    then()
    sock.send(b"x")
    sock.recv(1)  # Until the other end has looked.


def test_a_process_of_our_user_and_file_system_sees_our_files(listener: socket.socket) -> None:
    with program(listener) as ours:
        assert peer_process(ours).uid == os.geteuid()
        assert sees_our_files(ours)


def test_root_of_another_container_does_not(listener: socket.socket) -> None:
    with program(listener, "unshare", "--user", "--map-root-user", "--mount") as ours:
        assert peer_process(ours).uid == os.geteuid(), "a uid says nothing"
        assert not sees_our_files(ours)


def test_a_process_with_a_root_of_its_own_does_not(listener: socket.socket, tmp_path: Path) -> None:
    with child(listener, then=lambda: os.chroot(tmp_path)) as ours:
        assert not sees_our_files(ours)


def test_a_process_of_another_user_does_not(listener: socket.socket) -> None:
    with child(listener, first=lambda: os.setresuid(NOBODY, NOBODY, NOBODY)) as ours:
        assert peer_process(ours).uid == NOBODY
        assert not sees_our_files(ours)


def test_a_process_that_has_ended_does_not(listener: socket.socket) -> None:
    with child(listener) as ours:
        kept = ours.dup()
    with kept:
        assert not sees_our_files(kept)

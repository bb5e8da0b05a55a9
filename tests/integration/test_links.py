"""Links that are cut, silent, late and slow, by who connects. Real sockets, real processes."""

import contextlib
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from penstock_node.testbed.links import LINK_HOST, OUTSIDE, Links
from penstock_node.testbed.processes import Process, free_port

DEADLINE_S = 10.0
SHORT_S = 0.05
"""Long enough to see, by far, that nothing comes: what would come is on its way at once."""


class Echo:
    """A server of 127.0.0.1 that sends back what it gets."""

    def __init__(self) -> None:
        self.port = free_port()
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._threads.append(threading.Thread(target=self._serve, args=(client,)))
                self._threads[-1].start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            while data := client.recv(65_536):
                client.sendall(data)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def echo() -> Iterator[Echo]:
    with closing(Echo()) as server:
        yield server


@pytest.fixture
def links(echo: Echo) -> Iterator[Links]:
    with Links() as made:
        made.serve("echo", echo.port)
        yield made


def connected(echo: Echo) -> socket.socket:
    return socket.create_connection((LINK_HOST, echo.port), DEADLINE_S)


def answers(client: socket.socket, text: bytes) -> bool:
    client.sendall(text)
    return client.recv(100) == text


def test_what_is_sent_comes_back_and_is_counted(links: Links, echo: Echo) -> None:
    with connected(echo) as client:
        assert answers(client, b"water")

    assert links.carried_bytes("echo") == links.carried_bytes("echo", OUTSIDE) == 5
    assert links.carried_bytes("echo", "n1") == 0


def test_a_link_that_is_cut_resets_what_is_connected_and_what_connects(
    links: Links, echo: Echo
) -> None:
    with connected(echo) as before:
        assert answers(before, b"water")

        links.become(OUTSIDE, "echo", "cut")

        with pytest.raises(ConnectionResetError):
            before.recv(100)
    with pytest.raises(ConnectionResetError), connected(echo) as during:
        during.recv(100)
    links.heal()
    with connected(echo) as after:
        assert answers(after, b"water")


def test_a_silent_link_loses_nothing_and_says_nothing_until_it_is_well(
    links: Links, echo: Echo
) -> None:
    with connected(echo) as before:
        assert answers(before, b"water")
        links.become(OUTSIDE, "echo", "silent")
        with connected(echo) as during:
            for client in (before, during):
                client.sendall(b"anyone?")
                client.settimeout(SHORT_S)
                with pytest.raises(TimeoutError):
                    client.recv(100)
                client.settimeout(DEADLINE_S)

            links.become(OUTSIDE, "echo", "well")

            assert [client.recv(100) for client in (before, during)] == [b"anyone?"] * 2


def test_whatever_is_large_arrives_whole_over_a_slow_and_late_link(
    links: Links, echo: Echo
) -> None:
    links.become(OUTSIDE, "echo", "well", delay_s=0.001, bytes_per_s=50e6)
    sent = bytes(range(256)) * 4096
    with connected(echo) as client:
        sending = threading.Thread(target=client.sendall, args=(sent,))
        sending.start()
        received = bytearray()
        while len(received) < len(sent):
            received += client.recv(65_536)
        sending.join()
    assert received == sent


def test_a_server_that_is_not_there_is_told_by_a_reset(links: Links) -> None:
    port = free_port()
    links.serve("nobody", port)

    with (
        pytest.raises(ConnectionResetError),
        socket.create_connection((LINK_HOST, port), DEADLINE_S) as client,
    ):
        client.recv(100)


CLIENT = """
import socket, sys
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), 10) as client:
        client.sendall(b"water")
        print(client.recv(100), flush=True)
except (ConnectionResetError, BrokenPipeError):
    print("reset", flush=True)
"""


def test_parts_are_told_apart_by_the_process_that_connects(
    links: Links, echo: Echo, tmp_path: Path
) -> None:
    words = [sys.executable, "-c", CLIENT, LINK_HOST, str(echo.port)]
    parts = {name: Process(words, log=tmp_path / name) for name in ("n1", "n2")}
    for name, part in parts.items():
        links.know(name, part)
    links.part("n1", "echo")

    for part in parts.values():
        assert part.start().wait(timeout_s=DEADLINE_S) == 0

    assert parts["n1"].log_tail() == "reset\n"
    assert parts["n2"].log_tail() == "b'water'\n"
    assert links.carried_bytes("echo", "n2") == 5

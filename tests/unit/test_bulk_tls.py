"""Connections to bulk ports that speak TLS: whom they believe, and patience that ends."""

import random
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from penstock import certificates
from penstock.bulk_connection import BulkConnection, BulkConnections
from penstock.certificates import Certificates
from penstock.connection_pool import Stale
from penstock.deadline import Deadline
from penstock.errors import NodeUnavailable, NotPermitted
from penstock.membership.view import Member
from penstock.patience import Slow
from penstock_node.testbed.tls_files import TlsFiles

SOON_S = 10.0
BODY = random.Random(7).randbytes(300_000)
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY

Script = Callable[[ssl.SSLSocket], None]


class Node:
    """Does on each connection as the script says, and then closes it when told."""

    def __init__(self, files: TlsFiles, script: Script) -> None:
        self._context = Certificates(ca=files.ca, cert=files.cert, key=files.key).server_context()
        self._script = script
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"tls:127.0.0.1:{self._listener.getsockname()[1]}"
        self.over = threading.Event()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._serve, args=[sock]))
            self._threads[-1].start()

    def _serve(self, sock: socket.socket) -> None:
        try:
            with self._context.wrap_socket(sock, server_side=True) as tls:
                self._script(tls)
        except OSError:
            pass

    def close(self) -> None:
        self.over.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    return TlsFiles(tmp_path)


@pytest.fixture
def run(files: TlsFiles) -> Iterator[Callable[[Script], Node]]:
    made: list[Node] = []

    def start(script: Script) -> Node:
        made.append(Node(files, script))
        return made[-1]

    yield start
    for node in made:
        node.close()


Run = Callable[[Script], Node]


def answers(tls: ssl.SSLSocket) -> None:
    while tls.recv(65_536):
        tls.sendall(ANSWER)


def exchange(connection: BulkConnection, deadline: Deadline | None = None) -> bytes:
    deadline = deadline or Deadline.after(SOON_S)
    connection.send(b"GET / HTTP/1.1\r\n\r\n")
    head = connection.receive_head(deadline)
    return connection.receive_body(head.length, deadline)


def test_bytes_come_and_the_connection_is_kept(files: TlsFiles, run: Run) -> None:
    node = run(answers)

    with closing(BulkConnections(credentials=files.tls.credentials())) as pool:
        for _ in range(3):
            with pool.borrow(node.address) as connection:
                assert exchange(connection) == BODY
                kept = connection
        with pool.borrow(node.address) as connection:
            assert connection is kept


def test_a_member_says_how_it_is_reached() -> None:
    plain = Member("n", "h", bulk_address="h:1", tls_ports=("grpc", "admin"))
    secure = Member("n", "h", bulk_address="h:1", tls_ports=("grpc", "bulk"))

    assert (plain.bulk_target, secure.bulk_target) == ("h:1", "tls:h:1")
    assert Member("n", "h", tls_ports=("bulk",)).bulk_target == ""


def test_without_anybody_to_trust_nothing_is_tried(run: Run) -> None:
    with pytest.raises(NotPermitted, match="set PENSTOCK_CA"):
        BulkConnection(run(answers).address)


def test_who_is_not_believed_is_unavailable_and_the_error_says_why(
    files: TlsFiles, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificates, "LOOK_S", 0.0)
    node = run(answers)
    other_name = node.address.replace("127.0.0.1", "localhost")
    trusting = files.tls.credentials()
    with pytest.raises(NodeUnavailable, match="not valid for 'localhost'"):
        BulkConnection(other_name, credentials=trusting)

    files.trust(files.new_authority())

    with pytest.raises(NodeUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        BulkConnection(node.address, credentials=trusting)


def test_who_speaks_plain_text_is_unavailable(files: TlsFiles) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def speak() -> None:
            sock, _ = listener.accept()
            with sock:
                sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")

        speaker = threading.Thread(target=speak)
        speaker.start()
        with pytest.raises(NodeUnavailable, match="does not answer"):
            BulkConnection(
                f"tls:127.0.0.1:{listener.getsockname()[1]}", credentials=files.tls.credentials()
            )
        speaker.join()


def test_silence_ends_and_slowness_may_give_way(files: TlsFiles, run: Run) -> None:
    ended = threading.Event()

    def is_silent(tls: ssl.SSLSocket) -> None:
        tls.recv(65_536)
        ended.wait()

    node, credentials = run(is_silent), files.tls.credentials()
    try:
        for gives_up, error in ((None, NodeUnavailable), (lambda: True, Slow)):
            with closing(BulkConnection(node.address, credentials=credentials)) as connection:
                connection.send(b"GET / HTTP/1.1\r\n\r\n")
                with pytest.raises(error):
                    connection.receive_head(Deadline.after(SOON_S), gives_up=gives_up)
    finally:
        ended.set()


def test_a_body_that_trickles_ends_with_the_deadline(files: TlsFiles, run: Run) -> None:
    over = threading.Event()

    def trickles(tls: ssl.SSLSocket) -> None:
        tls.recv(65_536)
        tls.sendall(ANSWER[:100])
        while not over.wait(0.02):
            tls.sendall(b"x")

    node = run(trickles)
    connected = BulkConnection(node.address, credentials=files.tls.credentials())
    try:
        with closing(connected) as connection, pytest.raises(NodeUnavailable, match="deadline"):
            exchange(connection, Deadline.after(0.5))
    finally:
        over.set()


def test_a_kept_connection_that_was_closed_is_stale(files: TlsFiles, run: Run) -> None:
    def answers_once(tls: ssl.SSLSocket) -> None:
        tls.recv(65_536)
        tls.sendall(ANSWER)

    node = run(answers_once)
    with closing(BulkConnections(credentials=files.tls.credentials())) as pool:
        with pool.borrow(node.address) as connection:
            exchange(connection)
        with pytest.raises(Stale), pool.borrow(node.address) as connection:
            exchange(connection)


def test_another_thread_ends_a_wait(files: TlsFiles, run: Run) -> None:
    asked, ended = threading.Event(), threading.Event()

    def is_silent(tls: ssl.SSLSocket) -> None:
        tls.recv(65_536)
        asked.set()
        ended.wait()

    node = run(is_silent)
    connection = BulkConnection(node.address, credentials=files.tls.credentials())

    def end() -> None:
        asked.wait()
        connection.shut_down()

    ender = threading.Thread(target=end)
    ender.start()
    try:
        with closing(connection), pytest.raises(NodeUnavailable, match=r"closed|broke"):
            exchange(connection)
    finally:
        ended.set()
        ender.join()

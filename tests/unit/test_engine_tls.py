"""Connections that speak TLS, over the engine's workers: all that holds in plain text holds too."""

import contextlib
import random
import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager
from http import HTTPStatus
from pathlib import Path

import pytest

from penstock.certificates import Certificates
from penstock_node.testbed.processes import wait_until
from penstock_node.testbed.tls_files import TlsFiles
from penstock_node.transport import engine as module
from penstock_node.transport.connection import Wants
from penstock_node.transport.engine import WORKERS, Engine
from penstock_node.transport.http import HttpRequest, HttpSession, reply, reply_with
from penstock_node.transport.listening import bind
from penstock_node.transport.reply import FileSpan, Octets, Outcome, Reply

SOON_S = 20.0
BIG = random.Random(8).randbytes(3 * 1024 * 1024 + 17)
WORKING = b"HTTP/1.1 102 Processing\r\n\r\n"


class OpenedFile:
    """A file that is sent, as the store opens it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self.failures: list[OSError] = []

    def fileno(self) -> int:
        return self._file.fileno()

    def working(self) -> AbstractContextManager[None]:
        return contextlib.nullcontext()

    def failed(self, error: OSError) -> None:
        self.failures.append(error)

    def close(self) -> None:
        self._file.close()


class Serving:
    """An engine that speaks HTTP over TLS on loopback."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "big"
        self._path.write_bytes(BIG)
        self.files = TlsFiles(directory / "tls")
        self.certificates = Certificates(ca=self.files.ca, cert=self.files.cert, key=self.files.key)
        self.later: list[Future[Reply]] = []
        self.engine = Engine()
        listener = bind("127.0.0.1", [0], key="port")
        self.address: tuple[str, int] = listener.getsockname()
        self.engine.listen(
            listener,
            lambda _: HttpSession(self, interim=WORKING),
            tls=self.certificates.server_context,
        )
        self.engine.start()

    def __call__(self, request: HttpRequest) -> Outcome:
        match request.target:
            case "/big":
                span = FileSpan(OpenedFile(self._path), 0, len(BIG))
                return reply_with(HTTPStatus.OK, [], len(BIG), [span])
            case "/memory":
                return reply_with(HTTPStatus.OK, [], len(BIG), [Octets(BIG)])
            case "/later":
                self.later.append(Future())
                return self.later[-1]
            case "/short":
                span = FileSpan(OpenedFile(self._path), 0, len(BIG) + 1)
                return reply_with(HTTPStatus.OK, [], len(BIG) + 1, [span])
        return reply(HTTPStatus.OK, body=request.target.encode())

    def plain(self, *, window_bytes: int = 4096) -> socket.socket:
        """Return a connection on which nothing is said yet."""
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window_bytes)
        sock.settimeout(SOON_S)
        sock.connect(self.address)
        return sock

    def connect(self, *, window_bytes: int = 4096) -> "Client":
        return Client(self.plain(window_bytes=window_bytes), self.files.context)

    def counts(self, count: int) -> None:
        wait_until(
            lambda: self.engine.connection_count == count,
            deadline_s=SOON_S,
            what=f"{count} connections",
        )

    def wait_stuck(self, count: int) -> None:
        wait_until(
            lambda: (
                [c.wants for c in list(self.engine._connections.values())].count(Wants.OUTPUT)
                == count
            ),
            deadline_s=SOON_S,
            what=f"{count} readers are stuck",
        )


class Client:
    """A reader that speaks TLS."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self.tls = context.wrap_socket(sock, server_hostname="127.0.0.1")
        self._received = b""

    def send(self, *paths: str) -> None:
        self.tls.sendall("".join(f"GET {path} HTTP/1.1\r\n\r\n" for path in paths).encode())

    def head(self) -> bytes:
        while b"\r\n\r\n" not in self._received:
            self._more()
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        return head

    def receive(self) -> bytes:
        head = self.head()
        while head.startswith(b"HTTP/1.1 102"):
            head = self.head()
        length = int(head.partition(b"Content-Length: ")[2].split(b"\r\n")[0])
        while len(self._received) < length:
            self._more()
        body, self._received = self._received[:length], self._received[length:]
        return body

    def _more(self) -> None:
        data = self.tls.recv(1 << 16)
        if not data:
            raise ConnectionError("the connection ended")
        self._received += data

    def ask(self, path: str) -> bytes:
        self.send(path)
        return self.receive()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_error: object) -> None:
        self.tls.close()


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    made = Serving(tmp_path)
    yield made
    made.engine.stop(grace_s=0)


@pytest.mark.parametrize("path", ["/big", "/memory"])
def test_a_reader_that_stops_now_and_then_gets_every_byte(serving: Serving, path: str) -> None:
    with serving.connect() as client:
        client.send(path)
        serving.wait_stuck(1)

        assert client.receive() == BIG
        assert client.ask("/small") == b"/small"


def test_requests_that_come_at_once_are_answered_in_order(serving: Serving) -> None:
    with serving.connect(window_bytes=1 << 20) as client:
        client.send("/1", "/big", "/2")

        assert [client.receive() for _ in range(3)] == [b"/1", BIG, b"/2"]


def test_readers_that_stop_reading_hold_no_worker(serving: Serving) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(4 * WORKERS):
            stack.enter_context(serving.connect()).send("/big")
        serving.wait_stuck(4 * WORKERS)

        with serving.connect() as client:
            assert client.ask("/small") == b"/small"


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01\x02\x00\x01"], ids=["nothing", "half"])
def test_who_does_not_get_on_with_the_handshake_holds_no_worker_and_is_ended(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(serving.plain()) for _ in range(4 * WORKERS)]
        for each in slow:
            each.sendall(said)
        serving.counts(4 * WORKERS)
        client = stack.enter_context(serving.connect())
        assert client.ask("/small") == b"/small"

        monkeypatch.setattr(module, "GREET_S", 0.0)

        serving.counts(1)
        assert all(each.recv(1) == b"" for each in slow)
        assert client.ask("/small") == b"/small"  # Its own is long done.


def test_who_speaks_plain_text_gets_no_answer(serving: Serving) -> None:
    with serving.plain() as sock:
        sock.sendall(b"GET /small HTTP/1.1\r\n\r\n")

        with contextlib.suppress(ConnectionError):
            assert b"small" not in sock.recv(1 << 16)
    serving.counts(0)


def test_a_connection_that_is_shut_down_goes_on_in_no_plain_text(serving: Serving) -> None:
    with serving.connect() as client:
        client.send("/big")
        serving.wait_stuck(1)
        (connection,) = serving.engine._connections.values()

        connection.socket.shutdown(socket.SHUT_RD)  # As another thread may at any moment.

        assert client.receive() == BIG


def test_a_reader_that_takes_nothing_for_too_long_is_ended(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving.connect() as client:
        client.send("/big")
        serving.wait_stuck(1)
        monkeypatch.setattr(module, "SEND_S", 0.0)

        serving.counts(0)

        with pytest.raises((ConnectionError, ssl.SSLError)):
            client.receive()


def test_a_request_that_is_worked_on_is_told_so(serving: Serving) -> None:
    with serving.connect() as client:
        client.send("/later")
        assert client.head() == b"HTTP/1.1 102 Processing"
        assert client.head() == b"HTTP/1.1 102 Processing"

        serving.later[0].set_result(reply(HTTPStatus.OK, body=b"there"))

        assert client.receive() == b"there"


def test_who_is_refused_can_read_why(serving: Serving) -> None:
    with serving.connect() as client:
        client.tls.sendall(b"PUT / HTTP/1.1\r\nContent-Length: 90\r\n\r\n" + b"x" * 90)

        assert client.receive() == b"a body of 90 bytes is not taken here\n"
        assert client.tls.recv(1) == b""


def test_a_file_that_is_shorter_than_it_was_breaks_the_connection(serving: Serving) -> None:
    with serving.connect(window_bytes=1 << 20) as client:
        client.send("/short")

        with pytest.raises(ConnectionError):
            client.receive()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_versions_from_1_2_on_are_spoken(serving: Serving, version: ssl.TLSVersion) -> None:
    context = serving.files.context
    context.minimum_version = context.maximum_version = version

    with Client(serving.plain(), context) as client:
        assert client.ask("/small") == b"/small"
        assert client.tls.version() == version.name.replace("v1_", "v1.")


def test_earlier_versions_are_refused(serving: Serving) -> None:
    context = serving.files.context
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1

    with serving.plain() as sock, pytest.raises((ssl.SSLError, ConnectionError)):
        context.wrap_socket(sock, server_hostname="127.0.0.1")

"""An HTTP server that misbehaves as real origins do, for tests of what reads them.

Responsible for: weak, absent or ignored etags, errors for a while, redirects, bodies that end
early. It is a process edge of its own: a real socket, real HTTP, on 127.0.0.1.
Not responsible for: being S3. Its threads end with the context manager.
"""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import unquote

HELD_MAX_S = 50.0
PIECES = 8


@dataclass(frozen=True, slots=True)
class OddObject:
    """What the server answers for one path."""

    data: bytes
    etag: str | None = None
    """As sent: ``"abc"`` with its quotes, or ``W/"abc"``; None sends none."""
    modified_s: int | None = None
    """Seconds since 1970; None sends no ``Last-Modified``."""
    honours_if_match: bool = True
    honours_ranges: bool = True
    redirect_to: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    """More of them, on any answer."""
    body_bytes_max: int | None = None
    """Bodies end after this many bytes, though more were announced."""
    announces_whole_body: bool = True
    """False: ``Content-Length`` tells of the cut body, and only ``Content-Range`` of the whole."""
    truncated_answers: int = 0
    """How many bodies end so; then they are whole."""
    status: int | None = None
    """Answer with this status instead."""
    failing_answers: int = 0
    """How many answers have that status; 0 for all."""
    held_until: threading.Event | None = None
    """Bodies are sent once it is set."""
    piece_every_s: float = 0.0
    """Bodies come in eight pieces, each so long after the one before; 0 sends them whole."""


@dataclass(slots=True)
class SeenRequest:
    """A request that arrived."""

    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)


class OddOrigin:
    """The server: a context manager. Objects are set and changed while it runs."""

    def __init__(self) -> None:
        self._objects: dict[str, OddObject] = {}
        self._lock = threading.Lock()
        self.requests: list[SeenRequest] = []
        """All that arrived, in order."""
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """Its root, ``http://127.0.0.1:PORT``."""
        return f"http://127.0.0.1:{self.port}"

    def put(self, path: str, served: OddObject) -> None:
        """Serve ``served`` at ``path`` from now on."""
        with self._lock:
            self._objects[path] = served

    def take(self, path: str) -> OddObject | None:
        """Return what to answer now, and count down what is answered only a few times."""
        with self._lock:
            served = self._objects.get(path)
            if served is not None:
                self._objects[path] = _counted_down(served)
            return served

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _counted_down(served: OddObject) -> OddObject:
    if served.status is not None and served.failing_answers:
        left = served.failing_answers - 1
        return replace(served, failing_answers=left, status=served.status if left else None)
    if served.truncated_answers:
        left = served.truncated_answers - 1
        return replace(
            served,
            truncated_answers=left,
            body_bytes_max=served.body_bytes_max if left else None,
        )
    return served


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Idle connections of clients would be waited for.
    block_on_close = False

    def __init__(self, origin: OddOrigin) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.origin = origin


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        path = unquote(self.path.lstrip("/"))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.origin.requests.append(SeenRequest(self.command, path, headers))
        served = self.server.origin.take(path)
        if served is None:
            self._send_empty(HTTPStatus.NOT_FOUND)
        elif served.status is not None:
            self._send_empty(served.status, more=served.headers)
        elif served.redirect_to is not None:
            self._send_empty(HTTPStatus.FOUND, location=served.redirect_to, more=served.headers)
        elif self._condition_broken(served):
            self._send_empty(HTTPStatus.PRECONDITION_FAILED)
        else:
            self._send_object(served)

    do_HEAD = do_GET  # noqa: N815 - the base class's name

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Say nothing: the test looks at `OddOrigin.requests`."""

    def _condition_broken(self, served: OddObject) -> bool:
        wanted = self.headers.get("If-Match")
        if wanted is None or not served.honours_if_match:
            return False
        # A weak etag never matches: If-Match compares strongly.
        return served.etag is None or served.etag.startswith("W/") or wanted != served.etag

    def _send_empty(
        self, status: int, *, location: str | None = None, more: Mapping[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (more or {}).items():
            self.send_header(name, value)
        if location is not None:
            self.send_header("Location", location)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send_object(self, served: OddObject) -> None:
        size = len(served.data)
        start, stop = self._range(size) if served.honours_ranges else (0, size)
        partial = served.honours_ranges and "Range" in self.headers
        if partial and start >= size:
            self._send_empty(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
            return
        self.send_response(HTTPStatus.PARTIAL_CONTENT if partial else HTTPStatus.OK)
        if partial:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
        for name, value in _version_headers(served):
            self.send_header(name, value)
        sent = min(stop - start, served.body_bytes_max or stop - start)
        self.send_header(
            "Content-Length", str(stop - start if served.announces_whole_body else sent)
        )
        self.end_headers()
        if self.command == "GET":
            if served.held_until is not None:
                served.held_until.wait(HELD_MAX_S)
            self._send_body(served.data[start : start + sent], every_s=served.piece_every_s)
        # A body that ends early can only be told by the connection's end.
        self.close_connection = self.close_connection or sent < stop - start

    def _send_body(self, body: bytes, *, every_s: float) -> None:
        step = -(-len(body) // PIECES) if every_s else len(body)
        for start in range(0, len(body), step or 1):
            time.sleep(every_s)
            self.wfile.write(body[start : start + step])

    def _range(self, size: int) -> tuple[int, int]:
        text = self.headers.get("Range", "")
        if not text.startswith("bytes="):
            return 0, size
        first, _, last = text.removeprefix("bytes=").partition("-")
        return int(first), min(size, int(last) + 1 if last else size)


def _version_headers(served: OddObject) -> list[tuple[str, str]]:
    headers = list(served.headers.items())
    if served.etag is not None:
        headers.append(("ETag", served.etag))
    if served.modified_s is not None:
        headers.append(("Last-Modified", formatdate(served.modified_s, usegmt=True)))
    return headers

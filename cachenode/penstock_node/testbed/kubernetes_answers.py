"""What Kubernetes' API server answers a node, byte for byte.

No API server can be installed where this project is built (none is in PyPI, npm or Debian), so
this one speaks the protocol as it is documented and as real ones were seen to speak it: HTTPS,
bearer tokens, lists and watches of Nodes with versions, bookmarks, ``410 Gone`` in the stream and
as a status, a JSON object a line in chunks, TokenReview, and its ``Status`` for each refusal.
Not responsible for: what a Node says (`kubernetes_api`).
"""

import contextlib
import json
import ssl
import threading
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

Json = dict[str, Any]
HELD_MAX_S = 60.0
"""No answer of this one takes longer."""
TOKEN = "of-the-pod"  # noqa: S105 - nobody's


@dataclass(frozen=True, slots=True)
class Account:
    """Whose a token is that may be reviewed."""

    username: str
    audiences: tuple[str, ...]
    is_valid: bool = True


@dataclass(slots=True)
class Behaviour:
    """What it does beside answering well. Set by tests, at any time."""

    forbidden: frozenset[str] = frozenset()
    """``list nodes``, ``watch nodes``, ``create tokenreviews``: what the role has no rule for."""
    fails_with: int | None = None
    """Every answer has this status, and no JSON: as of a proxy before it."""
    gone_as: str = "event"
    """How a version is refused that is too old: an ``event`` in the stream, or a ``status``."""
    bookmark_every_s: float | None = None
    never_ends: bool = False
    """Watches say nothing, and do not end: as when a machine between is gone."""
    is_slow: bool = False
    """A line of a watch comes in pieces of a few bytes."""


@dataclass(slots=True)
class Happened:
    """A change of a Node."""

    version: int
    kind: str
    object: Json


@dataclass(slots=True)
class State:
    """What the server knows; guarded by ``news``."""

    news: threading.Condition = field(default_factory=threading.Condition)
    version: int = 1000
    oldest: int = 1000
    """Changes before this one are forgotten."""
    nodes: dict[str, Json] = field(default_factory=dict)
    happened: list[Happened] = field(default_factory=list)
    accounts: dict[str, Account] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=lambda: {TOKEN})
    generation: int = 0
    """Watches of an earlier one are cut off."""
    requests: list[str] = field(default_factory=list)


class Server(ThreadingHTTPServer):
    """Listens, and answers from what a state says, as a behaviour has it."""

    daemon_threads = True

    def __init__(
        self, state: State, behaviour: Behaviour, *, port: int, issued: tuple[Path, Path]
    ) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.state, self.behaviour = state, behaviour
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(*issued)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Speak TLS, in the connection's own thread."""
        with contextlib.suppress(OSError):  # A client that has left, or believes nobody.
            request.settimeout(HELD_MAX_S)
            wrapped = self._tls.wrap_socket(request, server_side=True)
            with contextlib.closing(wrapped):
                super().finish_request(wrapped, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_args: object) -> None:
        """Say nothing."""

    def setup(self) -> None:
        """Know what to answer from."""
        super().setup()
        self._state, self._behaviour = self.server.state, self.server.behaviour
        self._generation = 0

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
        verb = "watch" if asked.get("watch") == "true" else "list"
        if parts.path != "/api/v1/nodes" or not self._is_allowed(f"{verb} nodes"):
            return
        name = asked["fieldSelector"].removeprefix("metadata.name=")
        if verb == "list":
            self._list(name)
        else:
            self._watch(name, asked)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/apis/authentication.k8s.io/v1/tokenreviews" and self._is_allowed(
            "create tokenreviews"
        ):
            status = self._reviewed(body["spec"])
            self._answer(HTTPStatus.CREATED, body | {"status": status})

    def _is_allowed(self, what: str) -> bool:
        """Answer what is to be refused."""
        with self._state.news:
            self._state.requests.append(what)
            self._generation = self._state.generation
            tokens = self._state.tokens
        if self._behaviour.fails_with is not None:
            self._answer_text(self._behaviour.fails_with, "<html>no</html>")
        elif self.headers["Authorization"].removeprefix("Bearer ") not in tokens:
            self._refuse(401, "Unauthorized", "Unauthorized")
        elif what in self._behaviour.forbidden:
            verb, _, resource = what.partition(" ")
            user = 'User "system:serviceaccount:penstock:penstock"'
            message = f'{resource} is forbidden: {user} cannot {verb} resource "{resource}" in API group "" at the cluster scope'  # noqa: E501
            self._refuse(403, "Forbidden", message)
        else:
            return True
        return False

    def _reviewed(self, spec: Json) -> Json:
        account = self._state.accounts.get(spec["token"])
        if account is None or not account.is_valid:
            return {"user": {}, "error": "[invalid bearer token, unknown]"}
        audiences = sorted(set(spec.get("audiences", [])) & set(account.audiences))
        if not audiences:
            return {"user": {}, "error": "[invalid bearer token, token audiences differ]"}
        user = {"username": account.username, "uid": "7", "groups": ["system:authenticated"]}
        return {"authenticated": True, "user": user, "audiences": audiences}

    # Nodes ---------------------------------------------------------------------------------

    def _list(self, name: str) -> None:
        with self._state.news:
            found = [node for each, node in self._state.nodes.items() if each == name]
            version = str(self._state.version)
        metadata = {"resourceVersion": version}
        listed = {"kind": "NodeList", "apiVersion": "v1", "metadata": metadata, "items": found}
        self._answer(HTTPStatus.OK, listed)

    def _watch(self, name: str, asked: Json) -> None:
        state, since = self._state, int(asked["resourceVersion"])
        with state.news:
            is_gone = since < state.oldest
            gone = _status(410, "Expired", f"too old resource version: {since} ({state.oldest})")
        if is_gone and self._behaviour.gone_as == "status":
            self._answer(HTTPStatus.GONE, gone)
            return
        self._begin_stream()
        if is_gone:
            self._send_event("ERROR", gone)
            self._end_stream()
            return
        ends_at = time.monotonic() + min(HELD_MAX_S, float(asked["timeoutSeconds"]))
        has_bookmarks = asked.get("allowWatchBookmarks") == "true"
        while time.monotonic() < ends_at:
            with state.news:
                state.news.wait(self._behaviour.bookmark_every_s or 0.05)
                if state.generation != self._generation:
                    self.close_connection = True  # In the middle: no last chunk.
                    return
                news = [each for each in state.happened if each.version > since]
                since = state.version
            if self._behaviour.never_ends:
                ends_at = time.monotonic() + HELD_MAX_S
                continue
            for each in news:
                if each.object["metadata"]["name"] == name:
                    self._send_event(each.kind, _whole(each.object))
            if not news and has_bookmarks and self._behaviour.bookmark_every_s:
                self._send_event("BOOKMARK", _bookmark(since))
        self._end_stream()

    def _begin_stream(self) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _send_event(self, kind: str, body: Json) -> None:
        line = json.dumps({"type": kind, "object": body}).encode() + b"\n"
        step = 7 if self._behaviour.is_slow else len(line)
        for at in range(0, len(line), step):
            piece = line[at : at + step]
            self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            self.wfile.flush()

    def _end_stream(self) -> None:
        self.wfile.write(b"0\r\n\r\n")

    # Answers -------------------------------------------------------------------------------

    def _refuse(self, code: int, reason: str, message: str) -> None:
        self._answer(code, _status(code, reason, message))

    def _answer(self, code: int, body: Json) -> None:
        self._answer_text(code, json.dumps(body), content_type="application/json")

    def _answer_text(self, code: int, text: str, *, content_type: str = "text/html") -> None:
        data = text.encode()
        self.send_response(code)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _whole(node: Json) -> Json:
    """Return a Node as it stands alone: in a list it has no kind."""
    return {"kind": "Node", "apiVersion": "v1", **node}


def _bookmark(version: int) -> Json:
    """Return what a bookmark has: a Node with nothing but a version, and what Go fills in."""
    empty = {"creationTimestamp": None, "resourceVersion": str(version)}
    endpoints = {"kubeletEndpoint": {"Port": 0}}
    return _whole({"metadata": empty, "spec": {}, "status": {"daemonEndpoints": endpoints}})


def _status(code: int, reason: str, message: str) -> Json:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }

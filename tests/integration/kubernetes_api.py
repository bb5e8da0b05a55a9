"""The edge of Kubernetes' API server, as far as a node asks it: what it answers, byte for byte.

No API server can be installed where these tests run (none is in PyPI, npm or Debian), so this one
speaks the protocol as it is documented and as real ones were seen to speak it: HTTPS, bearer
tokens, lists and watches of Nodes with versions, bookmarks, ``410 Gone`` in the stream and as a
status, a JSON object a line in chunks, TokenReview, and its ``Status`` for each refusal. It
decides nothing else: what a Node says is set by tests.
"""

import contextlib
import copy
import json
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from penstock_node.testbed.certificates import Authority

Json = dict[str, Any]
HELD_MAX_S = 60.0
"""No answer of this one takes longer."""
TOKEN = "token-of-the-pod"


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
    is_silent: bool = False
    """Watches say nothing more, and do not end: as when a machine between is gone."""
    is_slow: bool = False
    """A line of a watch comes in pieces of a few bytes."""


@dataclass(slots=True)
class _Happened:
    version: int
    kind: str
    object: Json


@dataclass(slots=True)
class _State:
    """What the server knows; guarded by ``news``."""

    news: threading.Condition = field(default_factory=threading.Condition)
    version: int = 1000
    oldest: int = 1000
    """Changes before this one are forgotten."""
    nodes: dict[str, Json] = field(default_factory=dict)
    happened: list[_Happened] = field(default_factory=list)
    accounts: dict[str, Account] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=lambda: {TOKEN})
    generation: int = 0
    """Watches of an earlier one are cut off."""
    requests: list[str] = field(default_factory=list)


class KubernetesApi:
    """The edge, and the files of a pod that asks it. A context manager."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._authority = Authority(directory)
        self._authority.create()
        self._issued = self._authority.issue("kube-apiserver")
        self.behaviour = Behaviour()
        self.state = _State()
        self.service_account = directory / "serviceaccount"
        self.service_account.mkdir()
        self._write("ca.crt", self._authority.ca.read_text())
        self._write("namespace", "penstock")
        self._write("token", TOKEN)
        self._server: _Server | None = None
        self.port = 0

    def _write(self, name: str, text: str) -> None:
        (self.service_account / name).write_text(text)

    # Life ----------------------------------------------------------------------------------

    def __enter__(self) -> "KubernetesApi":
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def start(self) -> None:
        """Answer, at the same port as before."""
        self._server = _Server(self, self.port, self._issued)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,)).start()

    def stop(self) -> None:
        """Answer no more; watches are cut off."""
        assert self._server is not None, "not started"
        self.cut()
        self._server.shutdown()
        self._server.server_close()

    def cut(self) -> None:
        """Cut off all watches in the middle."""
        with self.state.news:
            self.state.generation += 1
            self.state.news.notify_all()

    def renew_certificates(self) -> None:
        """Answer with a certificate of another authority from now on, and mount that one's."""
        self.stop()
        self._authority.create()
        self._issued = self._authority.issue("kube-apiserver")
        self._write("ca.crt", self._authority.ca.read_text())
        self.start()

    def renew_token(self, token: str) -> None:
        """Mount another token; the one before is not taken any more."""
        with self.state.news:
            self.state.tokens = {token}
        self._write("token", token)

    @property
    def environment(self) -> dict[str, str]:
        """What stands in the environment of a pod."""
        return {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(self.port)}

    def kubeconfig(self) -> Path:
        """Return a file that leads here, as `kubectl` has it."""
        account = self.service_account
        path = account.parent / "kubeconfig"
        path.write_text(
            json.dumps(  # Which is YAML.
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "here",
                    "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
                    "clusters": [
                        {
                            "name": "c",
                            "cluster": {
                                "server": f"https://127.0.0.1:{self.port}",
                                "certificate-authority": str(account / "ca.crt"),
                            },
                        }
                    ],
                    "users": [{"name": "u", "user": {"tokenFile": str(account / "token")}}],
                }
            )
        )
        return path

    # What is there -------------------------------------------------------------------------

    def add_node(self, name: str, *, labels: dict[str, str] | None = None) -> None:
        """Have a Node."""
        with self.state.news:
            self._happen("ADDED", {"metadata": {"name": name, "labels": labels or {}}, "spec": {}})

    def cordon(self, name: str, *, is_cordoned: bool = True) -> None:
        """Do as ``kubectl cordon`` and ``kubectl uncordon``, the taint that follows included."""
        with self._changed(name) as spec:
            spec.pop("unschedulable", None)
            if is_cordoned:
                spec["unschedulable"] = True
        taint = "node.kubernetes.io/unschedulable"
        if is_cordoned:
            self.taint(name, taint)
        else:
            self.untaint(name, taint)

    def taint(self, name: str, key: str, *, value: str = "", effect: str = "NoSchedule") -> None:
        """Do as ``kubectl taint node``."""
        with self._changed(name) as spec:
            added = {"key": key, "effect": effect} | ({"value": value} if value else {})
            spec["taints"] = [*spec.get("taints", []), added]

    def untaint(self, name: str, key: str) -> None:
        """Do as ``kubectl taint node KEY-``."""
        with self._changed(name) as spec:
            spec["taints"] = [taint for taint in spec.get("taints", []) if taint["key"] != key]

    def touch(self, name: str) -> None:
        """Change nothing that matters: as the kubelet's heartbeats do."""
        with self._changed(name):
            pass

    def remove_node(self, name: str) -> None:
        """Delete a Node."""
        with self.state.news:
            self._happen("DELETED", copy.deepcopy(self.state.nodes[name]))

    def forget_changes(self) -> None:
        """Know of no change up to now any more: who watches from before is told so."""
        with self.state.news:
            self.state.version += 1
            self.state.oldest = self.state.version

    @contextlib.contextmanager
    def _changed(self, name: str) -> Iterator[Json]:
        with self.state.news:
            node = copy.deepcopy(self.state.nodes[name])
            yield node["spec"]
            self._happen("MODIFIED", node)

    def _happen(self, kind: str, node: Json) -> None:
        state = self.state
        state.version += 1
        name = node["metadata"]["name"]
        node["metadata"]["resourceVersion"] = str(state.version)
        if kind == "DELETED":
            del state.nodes[name]
        else:
            state.nodes[name] = node
        state.happened.append(_Happened(state.version, kind, node))
        state.news.notify_all()

    def count(self, request: str) -> int:
        """Return how many requests of a kind came: ``list nodes``, ``watch nodes``, …"""
        with self.state.news:
            return self.state.requests.count(request)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, api: KubernetesApi, port: int, issued: tuple[Path, Path]) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.api = api
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(*issued)

    def finish_request(self, request: Any, client_address: Any) -> None:
        with contextlib.suppress(OSError):  # A client that has left, or believes nobody.
            request.settimeout(HELD_MAX_S)
            wrapped = self._tls.wrap_socket(request, server_side=True)
            with contextlib.closing(wrapped):
                super().finish_request(wrapped, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_args: object) -> None:
        """Say nothing."""

    @property
    def _api(self) -> KubernetesApi:
        return self.server.api

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
        api = self._api
        with api.state.news:
            api.state.requests.append(what)
            tokens = api.state.tokens
        if api.behaviour.fails_with is not None:
            self._answer_text(api.behaviour.fails_with, "<html>no</html>")
        elif self.headers["Authorization"].removeprefix("Bearer ") not in tokens:
            self._refuse(401, "Unauthorized", "Unauthorized")
        elif what in api.behaviour.forbidden:
            verb, _, resource = what.partition(" ")
            user = 'User "system:serviceaccount:penstock:penstock"'
            message = f'{resource} is forbidden: {user} cannot {verb} resource "{resource}" in API group "" at the cluster scope'  # noqa: E501
            self._refuse(403, "Forbidden", message)
        else:
            return True
        return False

    def _reviewed(self, spec: Json) -> Json:
        account = self._api.state.accounts.get(spec["token"])
        if account is None or not account.is_valid:
            return {"user": {}, "error": "[invalid bearer token, unknown]"}
        audiences = sorted(set(spec.get("audiences", [])) & set(account.audiences))
        if not audiences:
            return {"user": {}, "error": "[invalid bearer token, token audiences differ]"}
        user = {"username": account.username, "uid": "7", "groups": ["system:authenticated"]}
        return {"authenticated": True, "user": user, "audiences": audiences}

    # Nodes ---------------------------------------------------------------------------------

    def _list(self, name: str) -> None:
        with self._api.state.news:
            found = [node for each, node in self._api.state.nodes.items() if each == name]
            version = str(self._api.state.version)
        metadata = {"resourceVersion": version}
        listed = {"kind": "NodeList", "apiVersion": "v1", "metadata": metadata, "items": found}
        self._answer(HTTPStatus.OK, listed)

    def _watch(self, name: str, asked: Json) -> None:
        state, since = self._api.state, int(asked["resourceVersion"])
        with state.news:
            is_gone, generation = since < state.oldest, state.generation
            gone = _status(410, "Expired", f"too old resource version: {since} ({state.oldest})")
        if is_gone and self._api.behaviour.gone_as == "status":
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
                state.news.wait(self._api.behaviour.bookmark_every_s or 0.05)
                if state.generation != generation:
                    return  # In the middle: no last chunk.
                news = [each for each in state.happened if each.version > since]
                since = state.version
            if self._api.behaviour.is_silent:
                continue
            for each in news:
                if each.object["metadata"]["name"] == name:
                    self._send_event(each.kind, _whole(each.object))
            if not news and has_bookmarks and self._api.behaviour.bookmark_every_s:
                self._send_event("BOOKMARK", _bookmark(since))
        self._end_stream()

    def _begin_stream(self) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _send_event(self, kind: str, body: Json) -> None:
        line = json.dumps({"type": kind, "object": body}).encode() + b"\n"
        step = 7 if self._api.behaviour.is_slow else len(line)
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

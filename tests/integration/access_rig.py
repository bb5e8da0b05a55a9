"""What the access table is made from: processes, callers with every kind of credential, and calls.

Calls are found where they are defined: methods in the stubs' descriptors, routes in the
applications, S3's operations in the gateway. A new one is tried without being named here.
"""

import asyncio
import contextlib
import datetime
import hashlib
import http.client
import importlib
import json
import pkgutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import grpc
from botocore.auth import SIGV4_TIMESTAMP, S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from google.protobuf.descriptor import Descriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from prometheus_client import CollectorRegistry
from starlette.routing import Route

import penstock.v1
from penstock import bulk_http
from penstock.errors import NotPermitted, PenstockError, Unauthenticated, from_name
from penstock.etcd import Etcd
from penstock.objects import ObjectId
from penstock.rpc import OPEN
from penstock.ticket import Ticket, TicketKey, TicketKeys
from penstock.wire import error_from_rpc
from penstock_node.access.gate import Gate
from penstock_node.access.node_tokens import NodeTokens
from penstock_node.catalog_server.admin import catalog_app
from penstock_node.coordination.records import TICKET_KEYS, ticket_key_from_json
from penstock_node.serve.admin import node_app
from penstock_node.serve.door import Door
from penstock_node.serve.hub.access import token_of
from penstock_node.serve.s3.access import Key
from penstock_node.testbed.catalog import CatalogServer
from penstock_node.testbed.cluster import LocalCluster, NodeProcess, NodeSpec, TierSpec
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.processes import wait_until

VOLUME, OTHER, REPO, FILE = "models", "other", "org/name", "config.json"
URL = f"penstock://{VOLUME}/{REPO}/{FILE}"
CALLERS = ("nobody", "wrong", "expired", "other volume", "reader", "writer", "operator", "node")
TIMEOUT_S = 30.0
DAY = datetime.timedelta(days=1)
S3_SECRET = "a-secret-of-the-access-table"
EVENTS_TOKEN = "events-of-the-access-table"
_ROLES = {"other volume": "operator", "expired": "operator"}


@dataclass(frozen=True, slots=True)
class Rig:
    """Processes that ask for credentials, and a credential for each of `CALLERS`."""

    directory: Path
    node: NodeProcess
    catalog: CatalogServer
    tokens: Mapping[str, str]
    keys: Sequence[TicketKey]
    cluster_uid: str

    def header(self, caller: str) -> str:
        """The header ``authorization``; empty: none."""
        return f"Bearer {self.tokens[caller]}" if caller in self.tokens else ""

    def ticket(self, *, kind: str = "good") -> str:
        """A ticket for the object, or one that has something wrong with it."""
        now = time.time()
        uid = "0" * 32 if kind == "another cluster's" else self.cluster_uid
        expires_at = round(now) + (-3600 if kind == "expired" else 600)
        subject = ObjectId(f"file:///{VOLUME}", "1", 10, 65536)
        signed = TicketKeys(self.keys).sign(Ticket(uid, VOLUME, subject, expires_at), now=now)
        return f"{signed[:-4]}AAAA" if kind == "forged" else signed


def token_for(caller: str) -> str:
    """A token that nobody else has."""
    return f"pst_of-the-access-table-{caller.replace(' ', '-')}"


def _entry(caller: str) -> str:
    digest = hashlib.sha256(token_for(caller).encode()).hexdigest()
    lines = [f'[tokens."{caller.replace(" ", "-")}"]', f'sha256 = "{digest}"']
    lines.append(f'role = "{_ROLES.get(caller, caller)}"')
    lines += [f'volumes = ["{OTHER}"]'] if caller == "other volume" else []
    lines += ["expires = 2020-01-01T00:00:00Z"] if caller == "expired" else []
    return "\n".join(lines)


@contextlib.contextmanager
def rig_of(directory: Path, etcd: EtcdServer) -> Iterator[Rig]:
    """Start a node and a catalog; they end with the block."""
    origin, tokens_file = directory / "origin", directory / "tokens.toml"
    (origin / REPO).mkdir(parents=True)
    (origin / REPO / FILE).write_bytes(b"{}" + b" " * 8)
    known = [caller for caller in CALLERS if caller not in ("nobody", "wrong", "node")]
    tokens_file.write_text("\n\n".join(map(_entry, known)) + "\n")
    auth = {"tokens_file": str(tokens_file), "audit_file": str(directory / "audit.jsonl")}
    volume = {"url": f"file://{origin}", "writable": True}
    with contextlib.ExitStack() as stack:
        sockets = stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-"))
        config = {
            "auth": auth,
            "log_level": "debug",
            "allow_file_roots": [str(origin)],
            "socket": f"{sockets}/node",
            "socket_auth": "token",
            "s3_port": 0,
            "s3_auth": "keys",
            "s3_keys": {
                "all": _s3_key("KEYOFALL"),
                "other": {**_s3_key("KEYOFOTHER"), "volumes": [OTHER]},
            },
        }
        node = NodeSpec("n1", (TierSpec("owned", 64 << 20),), config, {"S3_SECRET": S3_SECRET})
        name = "access-table"
        cluster = LocalCluster(
            directory,
            [node],
            etcd=etcd.endpoint,
            name=name,
            volumes={VOLUME: volume, OTHER: {"url": f"file://{origin}/{REPO}"}},
        )
        running = cluster.nodes["n1"]
        running.launch()
        stack.callback(cluster.stop)
        secret = directory / "events-token"
        secret.write_text(EVENTS_TOKEN)
        catalog = stack.enter_context(
            CatalogServer(
                directory / "catalog",
                etcd=etcd.endpoint,
                cluster=name,
                auth={**auth, "audit_file": str(directory / "audit-of-catalog.jsonl")},
                log_level="debug",
                events_token={"file": str(secret)},
            )
        )
        running.wait_ready()
        keys, uid = _known_to(etcd, name)
        tokens = {caller: token_for(caller) for caller in CALLERS if caller != "nobody"}
        own = NodeTokens("n9", keys=lambda: TicketKeys(keys))
        tokens["node"] = own.authorization().removeprefix("Bearer ")
        yield Rig(directory, running, catalog, tokens, keys, uid)


def _s3_key(access_key_id: str) -> dict[str, Any]:
    return {"access_key_id": access_key_id, "secret_access_key": {"env": "S3_SECRET"}}


def values_of(etcd: EtcdServer, cluster: str) -> dict[str, bytes]:
    """Return everything that etcd has of a cluster."""

    async def look() -> dict[str, bytes]:
        client = Etcd([etcd.endpoint], prefix=f"/penstock/v1/{cluster}/")
        try:
            entries = (await client.list("")).entries
        finally:
            await client.close()
        return {name: entry.value for name, entry in entries.items()}

    return asyncio.run(look())


def _known_to(etcd: EtcdServer, cluster: str) -> tuple[list[TicketKey], str]:
    """Return the cluster's ticket keys and its uid, once it has formed."""
    found: dict[str, bytes] = {}

    def has_formed() -> bool:
        found.update(values_of(etcd, cluster))
        return "placement" in found and any(name.startswith(TICKET_KEYS) for name in found)

    wait_until(has_formed, deadline_s=30.0, what="the cluster has formed")
    keys = [
        ticket_key_from_json(name.removeprefix(TICKET_KEYS), value)
        for name, value in found.items()
        if name.startswith(TICKET_KEYS)
    ]
    return keys, str(json.loads(found["placement"])["cluster_uid"])


# gRPC --------------------------------------------------------------------------------------


def services() -> dict[str, ServiceDescriptor]:
    """Every service that is defined, by its full name: ours, health and reflection."""
    modules: list[ModuleType] = [
        importlib.import_module(f"penstock.v1.{each.name}")
        for each in pkgutil.iter_modules(penstock.v1.__path__)
        if each.name.endswith("_pb2")
    ]
    modules += [health_pb2, reflection_pb2]
    return {
        service.full_name: service
        for module in modules
        for service in module.DESCRIPTOR.services_by_name.values()
    }


def served(address: str, header: str) -> list[str]:
    """Return the services that a process says it has."""
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    method = services()["grpc.reflection.v1alpha.ServerReflection"].methods[0]
    with grpc.insecure_channel(address) as channel:
        (answer,) = _ask(channel, method, request, header)
    return sorted(each.name for each in answer.list_services_response.service)


def minimal(descriptor: Descriptor, ticket: str) -> Message:
    """Return a small request that is about the volume `VOLUME`, where requests are about one."""
    message: Message = GetMessageClass(descriptor)()
    simple: dict[str, Any] = {"url": URL, "volume": VOLUME, "ticket": ticket, "service": ""}
    for field in descriptor.fields:
        value = getattr(message, field.name)
        if field.name == "urls":
            value.append(URL)
        elif field.name == "parts" and field.message_type is not None:
            value.add().ticket = ticket
        elif field.name == "volume" and field.message_type is not None:
            value.name, value.url = VOLUME, "file:///nowhere"
        elif field.name in simple and field.type == field.TYPE_STRING:
            setattr(message, field.name, simple[field.name])
        elif field.name == "list_services":
            message.list_services = ""  # type: ignore[attr-defined]  # of reflection
    return message


def grpc_outcome(
    channel: grpc.Channel, method: MethodDescriptor, request: Message, header: str
) -> str:
    """Call it and return whether the caller is let through."""
    try:
        answers = _ask(channel, method, request, header)
    except grpc.RpcError as error:
        return told_by(error_from_rpc(error, target="it"))
    name = f"/{method.containing_service.full_name}/{method.name}"
    return let_in(name, answers[0]) if answers else "yes"


def let_in(path: str, answer: Any) -> str:
    """Return the cell of an answer: of an `Open`, each url has its own."""
    if path != OPEN.path:
        return "yes"
    return told_by(from_name(answer.results[0].error.name, ""))


def _ask(
    channel: grpc.Channel, method: MethodDescriptor, request: Message, header: str
) -> list[Any]:
    """Return the answer, of a stream the first."""
    kind = "stream" if method.client_streaming else "unary"
    kind += "_stream" if method.server_streaming else "_unary"
    call = getattr(channel, kind)(
        f"/{method.containing_service.full_name}/{method.name}",
        request_serializer=type(request).SerializeToString,
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )
    metadata = (("authorization", header),) if header else ()
    asked = iter([request]) if method.client_streaming else request
    answer = call(asked, metadata=metadata, timeout=TIMEOUT_S)
    if not method.server_streaming:
        return [answer]
    first = next(iter(answer), None)
    answer.cancel()
    return [] if first is None else [first]


def told_by(error: PenstockError) -> str:
    """Return the cell of an error: whatever else is wrong with a call, its caller was let in."""
    if isinstance(error, Unauthenticated):
        return "401"
    return "403" if isinstance(error, NotPermitted) else "yes"


# HTTP --------------------------------------------------------------------------------------


def bulk_paths() -> list[str]:
    """Return what the bulk port's paths begin with."""
    return sorted(value for name, value in vars(bulk_http).items() if name.endswith("_PATH"))


def admin_routes() -> dict[str, list[str]]:
    """Return ``METHOD path`` of all routes, of a node and of a catalog."""
    nothing, registry = cast("Any", None), CollectorRegistry()
    door = Door(Gate(None), is_open=True, is_loopback=True)
    apps = {
        "node": node_app(registry, is_ready=nothing, cluster=nothing, overviews=nothing, door=door),
        "catalog": catalog_app(registry, door=door, events=nothing),
    }
    return {
        name: sorted(
            f"{'POST' if 'POST' in (route.methods or ()) else 'GET'} {route.path}"
            for route in app.routes
            if isinstance(route, Route)
        )
        for name, app in apps.items()
    }


def http_answer(
    address: str, line: str, headers: Mapping[str, str], body: bytes = b""
) -> tuple[int, str, bytes]:
    """Ask, and return the status, the error's name, and the body."""
    method, _, path = line.partition(" ")
    connection = http.client.HTTPConnection(address, timeout=TIMEOUT_S)
    connection.request(method, path, body=body or None, headers=dict(headers))
    answer = connection.getresponse()
    told = answer.status, answer.getheader("Penstock-Error", ""), answer.read()
    connection.close()
    return told


def cell(status: int) -> str:
    """Return the cell of an answer."""
    return str(status) if status in (401, 403, 404, 405) else "yes"


class _At(S3SigV4Auth):  # type: ignore[misc]  # botocore has no types
    """Signs as of another time."""

    def __init__(self, *args: Any, at: datetime.datetime) -> None:
        super().__init__(*args)
        self._at = at

    def add_auth(self, request: AWSRequest) -> None:
        request.context["timestamp"] = self._at.strftime(SIGV4_TIMESTAMP)
        self._modify_request_before_signing(request)
        canonical = self.canonical_request(request)
        signature = self.signature(self.string_to_sign(request, canonical), request)
        self._inject_signature_to_request(request, signature)


def s3_headers(address: str, line: str, caller: str) -> dict[str, str]:
    """Return the headers that sign a request, as `caller` would; nobody signs nothing."""
    if caller == "nobody":
        return {}
    method, _, path = line.partition(" ")
    secret = "not-it" if caller == "wrong" else S3_SECRET
    key_id = "KEYOFOTHER" if caller == "other volume" else "KEYOFALL"
    at = datetime.datetime.now(datetime.UTC) - (DAY if caller == "expired" else DAY * 0)
    request = AWSRequest(method, f"http://{address}{path}", headers={"Host": address})
    _At(Credentials(key_id, secret), "s3", "us-east-1", at=at).add_auth(request)
    return dict(request.headers.items())


def hub_headers(caller: str) -> dict[str, str]:
    """Return what a hub's client of `caller` shows."""
    if caller == "nobody":
        return {}
    key_id = "KEYOFOTHER" if caller == "other volume" else "KEYOFALL"
    secret = "not-it" if caller == "wrong" else S3_SECRET
    return {"Authorization": f"Bearer {token_of(Key('k', key_id, secret))}"}


def row(name: str, cells: Sequence[str]) -> str:
    """Return a line of the table."""
    return f"| {name} | {' | '.join(cells)} |"

"""Who may do what at nodes that ask for tokens: real processes, over a real etcd.

One cluster serves all tests, so each leaves it as it was.
"""

import base64
import hashlib
import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from penstock import errors, operator, rpc
from penstock.bulk_calls import BulkCalls
from penstock.bulk_connection import BulkConnections
from penstock.catalog import ImportWanted
from penstock.catalog_rpc import LIST_CHANGES, LIST_FILES
from penstock.credentials import Bearer
from penstock.overview_messages import GET_OVERVIEW, NODE_OVERVIEW
from penstock.rpc import Channels, Method
from penstock.v1 import (
    cache_pb2,
    catalog_pb2,
    handover_pb2,
    operator_pb2,
    overview_pb2,
    put_pb2,
    support_pb2,
)
from penstock_node.testbed.catalog import CatalogServer
from penstock_node.testbed.cluster import LocalCluster, NodeSpec
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.processes import wait_until

MIB = 1024 * 1024
CHUNK = 4 * MIB
OBJECT_BYTES = 5 * CHUNK
REVOKED_WITHIN_S = 10.0
"""It takes one; a machine that has much else to do takes longer."""
ASKED = ("nobody", "wrong", "expired", "elsewhere", "reader", "writer", "operator")
"""Who shows what; ``elsewhere`` is an operator of another volume."""


@dataclass
class World:
    """A cluster that asks for tokens, with a catalog."""

    cluster: LocalCluster
    catalog: CatalogServer
    directory: Path
    tokens_file: Path

    def shown(self, who: str) -> str | None:
        return None if who == "nobody" else f"{who}-token"

    def write(self, tokens: Mapping[str, str]) -> None:
        """Write the tokens file: names of tokens to what is said of each."""
        told = ""
        for name, more in tokens.items():
            digest = hashlib.sha256(f"{name}-token".encode()).hexdigest()
            told += f'[tokens.{name}]\nsha256 = "{digest}"\n{more}\n'
        self.tokens_file.write_text(told)

    def record(self) -> list[dict[str, Any]]:
        """Return the lines of the record of the first node."""
        path = self.directory / "n1.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()]


KNOWN = {
    "reader": 'role = "reader"',
    "writer": 'role = "writer"',
    "operator": 'role = "operator"',
    "expired": 'role = "operator"\nexpires = 2020-01-01T00:00:00Z',
    "elsewhere": 'role = "operator"\nvolumes = ["other"]',
    "leaver": 'role = "reader"',
}


@pytest.fixture(scope="module")
def world(etcd: EtcdServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("access")
    origin = directory / "origin"
    for volume in ("models", "other"):
        (origin / volume).mkdir(parents=True)
        (origin / volume / "a.bin").write_bytes(bytes(OBJECT_BYTES))
    tokens_file = directory / "tokens.toml"
    own = [
        {
            "auth": {
                "tokens_file": str(tokens_file),
                "audit_file": str(directory / f"n{at}.jsonl"),
            },
            "allow_file_roots": [str(origin)],
        }
        for at in (1, 2, 3)
    ]
    volumes = {
        name: {"url": f"file://{origin}/{name}/", "writable": True} for name in ("models", "other")
    }
    volumes["lake"] = {"catalogued": True, "origins": [{"url": f"file://{origin}/models/"}]}
    cluster = LocalCluster(
        directory / "nodes",
        [NodeSpec(f"n{at}", config=keys) for at, keys in enumerate(own, 1)],
        etcd=etcd.endpoint,
        name="access",
        settings={"chunk_size": CHUNK},
        volumes=volumes,
        token="operator-token",
    )
    catalog = CatalogServer(
        directory / "catalog",
        etcd=etcd.endpoint,
        cluster="access",
        auth={"tokens_file": str(tokens_file)},
        allow_file_roots=[str(origin)],
    )
    made = World(cluster, catalog, directory, tokens_file)
    made.write(KNOWN)
    with cluster, catalog:
        catalog.wait_found(cluster["n1"].address, token="operator-token")
        yield made


def bearer(token: str | None) -> Bearer | None:
    return Bearer(token) if token else None


def outcome(call: Any) -> str:
    """Return the name of the error that a call ends with, or ``done``."""
    try:
        call()
    except errors.PenstockError as error:
        return error.name
    return "done"


def ask(address: str, method: Method[Any, Any], request: Any, token: str | None) -> Any:
    with closing(Channels(authorization=bearer(token))) as channels:
        return channels.call(address, method, request)


U, P, D = "Unauthenticated", "NotPermitted", "done"
# Who asks, in the order of `ASKED`.
READS = (U, U, U, P, D, D, D)
READS_ALL = (U, U, U, D, D, D, D)
WRITES = (U, U, U, P, P, D, D)
OPERATES = (U, U, U, P, P, P, D)
URL = "penstock://models/a.bin"

CALLS: list[tuple[Method[Any, Any], Any, tuple[str, ...]]] = [
    (rpc.LIST, cache_pb2.ListRequest(url="penstock://models/"), READS),
    (rpc.GET_PLACEMENT, rpc.GET_PLACEMENT.request(), READS_ALL),
    (rpc.STATUS, operator_pb2.StatusRequest(), READS_ALL),
    (rpc.LIST_VOLUMES, operator_pb2.ListVolumesRequest(), READS_ALL),
    (GET_OVERVIEW, overview_pb2.GetOverviewRequest(), READS_ALL),
    (NODE_OVERVIEW, overview_pb2.NodeOverviewRequest(), OPERATES),
    (rpc.START_WARMUP, rpc.START_WARMUP.request(urls=[URL], target="owners"), READS),
    (rpc.START_PUT, put_pb2.StartPutRequest(url="penstock://models/new", part_bytes=8), WRITES),
    (rpc.PIN, operator_pb2.PinRequest(urls=[URL]), OPERATES),
    (rpc.UNPIN, operator_pb2.UnpinRequest(urls=[URL]), OPERATES),
    (rpc.EVICT, operator_pb2.EvictRequest(urls=[URL]), OPERATES),
    (rpc.SET_SETTINGS, operator_pb2.SetSettingsRequest(changes_json="{}"), OPERATES),
    (rpc.GATHER, support_pb2.GatherRequest(), OPERATES),
    (rpc.OFFER, handover_pb2.OfferRequest(node="n2", epoch=1), OPERATES),
]


@pytest.mark.parametrize("method", CALLS, ids=lambda call: call[0].path.removeprefix("/penstock."))
def test_each_call_is_answered_to_those_who_may(
    method: tuple[Method[Any, Any], Any, tuple[str, ...]], world: World
) -> None:
    called, request, expected = method
    address = world.cluster["n1"].address

    found = {
        who: outcome(lambda who=who: ask(address, called, request, world.shown(who)))
        for who in ASKED
    }

    assert found == dict(zip(ASKED, expected, strict=True))


@pytest.mark.parametrize("plane", ["grpc", "bulk"])
def test_each_url_of_an_open_is_answered_by_itself(plane: str, world: World) -> None:
    node, token = world.cluster["n1"], bearer("elsewhere-token")
    urls = [URL, "penstock://other/a.bin", "penstock://nosuch/a.bin"]
    request = cache_pb2.OpenRequest(urls=urls)
    with closing(Channels(authorization=token)) as channels, closing(BulkConnections()) as made:
        caller = channels if plane == "grpc" else BulkCalls(made, authorization=token)
        address = node.address if plane == "grpc" else node.file.bulk_address

        refused, opened, unknown = caller.call(address, rpc.OPEN, request).results

    assert refused.error.name == P
    assert refused.error.message.replace("models", "nosuch") == unknown.error.message
    assert "limited to other" in refused.error.message
    assert opened.object.ticket


def test_the_bulk_port_asks_for_the_same_token(world: World) -> None:
    address = world.cluster["n1"].file.bulk_address
    with closing(BulkConnections()) as connections:

        def called(who: str) -> str:
            calls = BulkCalls(connections, authorization=bearer(world.shown(who)))
            request = cache_pb2.ListRequest(url="penstock://models/")
            return outcome(lambda: calls.call(address, rpc.LIST, request))

        assert {who: called(who) for who in ASKED} == dict(zip(ASKED, READS, strict=True))


def test_a_limited_token_sees_its_own_volumes(world: World) -> None:
    address = world.cluster["n2"].address
    with world.cluster.connect(token="elsewhere-token") as cache:
        assert [each.url for each in cache.list_directory("penstock://")] == ["penstock://other/"]
        assert cache.read("penstock://other/a.bin", length=4) == bytes(4)
        with pytest.raises(errors.NotPermitted):
            cache.read(URL)
    told = ask(address, rpc.LIST_VOLUMES, operator_pb2.ListVolumesRequest(), "elsewhere-token")
    assert [volume.name for volume in told.volumes] == ["other"]
    with world.cluster.connect() as cache:
        assert cache.read(URL, length=4) == bytes(4)
    overview = ask(address, GET_OVERVIEW, overview_pb2.GetOverviewRequest(), "elsewhere-token")
    assert all(line.url.startswith("penstock://other/") for line in overview.models)
    assert not any(node.told.hottest for node in overview.nodes)
    models = ask(address, rpc.LIST_MODELS, operator_pb2.ListModelsRequest(), "elsewhere-token")
    assert [model.url for model in models.models] == ["penstock://other/a.bin"]


def test_health_is_open_and_reflection_is_for_readers(world: World) -> None:
    with grpc.insecure_channel(world.cluster["n1"].address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        assert health.Check(health_pb2.HealthCheckRequest()).status == 1
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        wanted = reflection_pb2.ServerReflectionRequest(list_services="")
        with pytest.raises(grpc.RpcError) as refused:
            next(stub.ServerReflectionInfo(iter([wanted])))
        shown = (("authorization", "Bearer reader-token"),)
        told = next(stub.ServerReflectionInfo(iter([wanted]), metadata=shown))
    assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert "penstock.v1.Cache" in {one.name for one in told.list_services_response.service}


# The admin port.


def fetched(address: str, path: str, authorization: str | None) -> tuple[int, str]:
    """Return the status, and which credentials are asked for."""
    headers = {"Authorization": authorization} if authorization else {}
    asked = urllib.request.Request(f"http://{address}{path}", headers=headers)
    try:
        with urllib.request.urlopen(asked, timeout=30) as answer:  # noqa: S310 - http
            return answer.status, answer.headers.get("WWW-Authenticate", "")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers.get("WWW-Authenticate", "")


@pytest.mark.parametrize(
    ("path", "open_to_all"),
    [
        ("/healthz", True),
        ("/readyz", True),
        ("/", False),
        ("/page/main.js", False),
        ("/metrics", False),
        ("/api/cluster", False),
        ("/api/overview", False),
    ],
)
def test_the_admin_port_shows_probes_to_all_and_the_rest_to_readers(
    path: str, open_to_all: bool, world: World
) -> None:
    address = world.cluster["n1"].file.admin_address
    by_name = base64.b64encode(b"me:reader-token").decode()

    status, asks = fetched(address, path, None)
    assert status == (200 if open_to_all else 401)
    assert open_to_all or "Basic realm=" in asks
    assert fetched(address, path, "Bearer wrong")[0] == (200 if open_to_all else 401)
    for shown in ("Bearer reader-token", f"Basic {by_name}"):
        assert fetched(address, path, shown)[0] == 200


# Nodes among themselves.


def test_nodes_fill_from_each_other_hand_over_and_warm(world: World) -> None:
    """With tokens of their own: without, each would ask the origin, and no weight could move."""
    cluster = world.cluster
    with cluster.connect() as cache:
        cache.warmup([URL])
    by_origin = cluster.total("penstock_origin_bytes_total")
    with cluster.connect(cluster["n1"], plane="grpc") as cache:
        assert cache.read(URL) == bytes(OBJECT_BYTES)
        with operator.connect(cluster["n1"].address, token="operator-token") as operators:
            refused = cluster.total("penstock_access_refused_total")
            operators.set_weights({"n1": 0})
            cluster.wait_settled(deadline_s=60)
            held = {n.id: n.cached_bytes for n in operators.status().nodes}
            assert cache.read(URL) == bytes(OBJECT_BYTES)
            operators.set_weights({"n1": None})
            cluster.wait_settled(deadline_s=60)
    assert held["n2"] + held["n3"] >= OBJECT_BYTES
    assert cluster.total("penstock_origin_bytes_total") == by_origin
    assert cluster.total("penstock_access_refused_total") == refused


# Changes of the tokens file.


def test_a_revoked_token_is_refused_and_a_new_one_known_without_a_restart(world: World) -> None:
    nodes = [world.cluster[name].address for name in ("n1", "n2", "n3")]

    def answers(who: str) -> list[str]:
        request = operator_pb2.StatusRequest()
        return [
            outcome(lambda at=at: ask(at, rpc.STATUS, request, world.shown(who))) for at in nodes
        ]

    assert answers("leaver") == [D] * 3
    without = {name: more for name, more in KNOWN.items() if name != "leaver"}
    world.write(without | {"joiner": 'role = "reader"'})
    try:
        wait_until(
            lambda: (answers("leaver"), answers("joiner")) == ([U] * 3, [D] * 3),
            deadline_s=REVOKED_WITHIN_S,
            what="the new tokens file counts",
        )
    finally:
        world.write(KNOWN)
        wait_until(
            lambda: answers("leaver") == [D] * 3, deadline_s=REVOKED_WITHIN_S, what="it is back"
        )


# The record.


def test_what_operators_do_is_written_down_and_what_they_may_not(world: World) -> None:
    address = world.cluster["n1"].address
    before = len(world.record())
    request = operator_pb2.ForgetRequest(node="nobody-there")

    ended = [
        outcome(lambda who=who: ask(address, rpc.FORGET, request, world.shown(who)))
        for who in ("nobody", "reader", "operator")
    ]

    assert ended == [U, P, "InvalidRequest"]
    wait_until(
        lambda: len(world.record()) >= before + 3, deadline_s=10, what="three lines are written"
    )
    lines = world.record()[before:]
    told = [(line["who"], line["role"], line["outcome"].partition(": ")[0]) for line in lines]
    assert told == [
        ("unknown", "", "refused"),
        ("reader", "reader", "refused"),
        ("operator", "operator", "failed"),
    ]
    assert {line["method"] for line in lines} == {"Operator.Forget"}
    assert all(line["about"] == ["nobody-there"] for line in lines)
    assert all("127.0.0.1" in line["peer"] for line in lines)
    text = (world.directory / "n1.jsonl").read_text() + world.cluster["n1"].process.log_tail()
    assert "-token" not in text


# The catalog.


def test_the_catalog_asks_for_tokens_and_knows_nodes_by_their_own(world: World) -> None:
    address = world.catalog.address
    listed = catalog_pb2.ListFilesRequest(volume="lake", limit=10)
    changes = catalog_pb2.ListChangesRequest(limit=10)

    def asked(method: Method[Any, Any], request: Any) -> list[str]:
        return [
            outcome(lambda who=who: ask(address, method, request, world.shown(who)))
            for who in ASKED
        ]

    assert asked(LIST_FILES, listed) == list(READS)
    assert asked(LIST_CHANGES, changes) == [U, U, U, P, D, D, D]
    with operator.connect(world.cluster["n1"].address, token="operator-token") as operators:
        source = f"file://{world.directory}/origin/models/"
        done = operators.catalog.run_import(ImportWanted("lake", source))
        assert done.added == 1
    with world.cluster.connect(token="reader-token") as cache:
        assert cache.read("penstock://lake/a.bin") == bytes(OBJECT_BYTES)
    admin = world.catalog.admin_address
    assert [fetched(admin, path, None)[0] for path in ("/healthz", "/metrics")] == [200, 401]
    assert fetched(admin, "/metrics", "Bearer reader-token")[0] == 200

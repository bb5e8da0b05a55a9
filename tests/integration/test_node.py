"""One node as the outside sees it: its ports, tickets, restarts, and what it refuses."""

import json
import random
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.json_format import MessageToDict
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

import penstock
from penstock import rpc
from penstock.checksums import BLOCK_BYTES, verify_blocks
from penstock.objects import ObjectId
from penstock.rpc import Channels
from penstock.ticket import LEEWAY_S, Ticket, TicketKeys
from penstock.v1 import cache_pb2, cache_pb2_grpc, operator_pb2, placement_pb2
from penstock_node.coordination import ClusterState, view_file
from penstock_node.testbed.certificates import Authority
from penstock_node.testbed.cluster import LocalCluster, NodeProcess, NodeSpec
from penstock_node.testbed.processes import free_port, wait_until

_CHUNK_BYTES = 256 * 1024
_OBJECT = random.Random(9).randbytes(_CHUNK_BYTES * 3 + 777)
_URL = "penstock://data/object"


def standalone(directory: Path, **config: object) -> LocalCluster:
    origin = directory / "origin"
    origin.mkdir(parents=True)
    (origin / "object").write_bytes(_OBJECT)
    return LocalCluster(
        directory,
        [NodeSpec("node", config={"allow_file_roots": [str(origin)], **config})],
        etcd=None,
        settings={"chunk_size": _CHUNK_BYTES},
        volumes={"data": {"url": f"file://{origin}/"}},
    )


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with standalone(tmp_path_factory.mktemp("node")) as made:
        yield made


@pytest.fixture
def node(cluster: LocalCluster) -> NodeProcess:
    return cluster["node"]


@pytest.fixture(scope="module")
def channels() -> Iterator[Channels]:
    made = Channels()
    yield made
    made.close()


def opened(node: NodeProcess, channels: Channels) -> cache_pb2.Object:
    answer = channels.call(node.address, rpc.OPEN, cache_pb2.OpenRequest(urls=[_URL]))
    return answer.results[0].object


def get(node: NodeProcess, channels: Channels, **request: object) -> cache_pb2.GetChunkResponse:
    asked = cache_pb2.GetChunkRequest(**request)  # type: ignore[arg-type]
    answer = channels.call(node.address, rpc.GET_CHUNK, asked)
    while answer.filling:
        answer = channels.call(node.address, rpc.GET_CHUNK, asked)
    return answer


def admin(node: NodeProcess, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{node.file.admin_address}{path}", timeout=10) as told:
            return told.status, told.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_probes_answer_and_the_cluster_is_told_as_json(node: NodeProcess) -> None:
    assert admin(node, "/healthz") == (200, "alive\n")
    assert admin(node, "/readyz") == (200, "ready\n")
    status, body = admin(node, "/api/cluster")
    assert status == 200
    assert json.loads(body)["nodes"][0]["state"] == "alive"
    assert admin(node, "/nonsense")[0] == 404


def test_the_web_page_is_at_the_root_of_the_admin_port(node: NodeProcess) -> None:
    status, body = admin(node, "/")
    assert status == 200
    assert body.startswith("<!doctype html>")
    assert admin(node, "/page/main.js")[0] == 200


def test_health_and_reflection_are_served(node: NodeProcess) -> None:
    with grpc.insecure_channel(node.address) as channel:
        health = health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(service="penstock.v1.Cache"), timeout=10
        )
        services = ProtoReflectionDescriptorDatabase(channel).get_services()

    assert health.status == health_pb2.HealthCheckResponse.SERVING
    assert {
        "penstock.v1.Cache",
        "penstock.v1.Chunks",
        "penstock.v1.Placements",
        "penstock.v1.Operator",
        "grpc.health.v1.Health",
    } <= set(services)


@pytest.mark.parametrize(("offset", "length"), [(0, None), (100, 300_000), (777, 0)])
def test_the_portable_read_streams_any_range(
    node: NodeProcess, offset: int, length: int | None
) -> None:
    request = cache_pb2.ReadRequest(url=_URL, offset=offset, length=length)
    with grpc.insecure_channel(node.address) as channel:
        parts = list(cache_pb2_grpc.CacheStub(channel).Read(request, timeout=30))

    assert parts[0].object.size == len(_OBJECT)
    wanted = _OBJECT[offset:] if length is None else _OBJECT[offset : offset + length]
    assert b"".join(part.data for part in parts[1:]) == wanted


def test_blocks_come_with_their_checksums(node: NodeProcess, channels: Channels) -> None:
    ticket = opened(node, channels).ticket

    answer = get(node, channels, ticket=ticket, index=1, start=BLOCK_BYTES, stop=3 * BLOCK_BYTES)

    first = _CHUNK_BYTES + BLOCK_BYTES
    assert answer.data == _OBJECT[first : first + 2 * BLOCK_BYTES]
    verify_blocks(answer.data, answer.checksums)


@pytest.mark.parametrize(
    ("index", "start", "stop"),
    [(99, 0, 65_536), (0, 1, 65_536), (0, 0, 65_537), (0, 65_536, 65_536), (3, 0, 65_536)],
)
def test_what_is_not_whole_blocks_of_a_chunk_is_refused(
    node: NodeProcess, channels: Channels, index: int, start: int, stop: int
) -> None:
    ticket = opened(node, channels).ticket

    with pytest.raises(penstock.InvalidRequest):
        get(node, channels, ticket=ticket, index=index, start=start, stop=stop)


@pytest.mark.parametrize("text", ["", "x", "A" * 200, "A" * 20_000, "ä"])
def test_junk_is_no_ticket(node: NodeProcess, channels: Channels, text: str) -> None:
    with pytest.raises(penstock.NotPermitted):
        get(node, channels, ticket=text, index=0, start=0, stop=BLOCK_BYTES)


def test_a_forged_ticket_is_refused(node: NodeProcess, channels: Channels) -> None:
    ticket = opened(node, channels).ticket
    forged = ("B" if ticket[0] == "A" else "A").join((ticket[:40], ticket[41:]))

    with pytest.raises(penstock.NotPermitted):
        get(node, channels, ticket=forged, index=0, start=0, stop=BLOCK_BYTES)


def known_state(node: NodeProcess) -> ClusterState | None:
    """What the node wrote down of its cluster, ticket keys and all; None before it has formed."""
    path = node.state_dir / "view.json"
    state = view_file.load(path, cluster="test") if path.exists() else None
    return state if state and state.placement else None


def signed(node: NodeProcess, *, cluster_uid: str | None = None, expires_at: float) -> str:
    wait_until(lambda: known_state(node) is not None, deadline_s=10, what="view.json is there")
    state = known_state(node)
    assert state is not None
    assert state.placement is not None
    identity = ObjectId("file:///x", "v", 10, _CHUNK_BYTES)
    uid = cluster_uid or state.placement.cluster_uid
    ticket = Ticket(uid, "data", identity, round(expires_at))
    return TicketKeys(state.ticket_keys.values()).sign(ticket, now=time.time())


def test_an_expired_ticket_says_so_and_is_renewed(node: NodeProcess, channels: Channels) -> None:
    expired = signed(node, expires_at=time.time() - LEEWAY_S - 5)

    with pytest.raises(penstock.TicketExpired):
        get(node, channels, ticket=expired, index=0, start=0, stop=10)

    renewed = channels.call(node.address, rpc.RENEW, cache_pb2.RenewRequest(ticket=expired))
    assert renewed.ticket_expires_at > time.time()


def test_another_clusters_ticket_is_refused(node: NodeProcess, channels: Channels) -> None:
    foreign = signed(node, cluster_uid="0" * 32, expires_at=time.time() + 100)

    with pytest.raises(penstock.NotPermitted, match="another cluster"):
        get(node, channels, ticket=foreign, index=0, start=0, stop=10)


def test_only_if_cached_never_asks_the_origin(node: NodeProcess, channels: Channels) -> None:
    evict = operator_pb2.EvictRequest(urls=[_URL])
    channels.call(node.address, rpc.EVICT, evict)
    before = node.metrics()['penstock_origin_requests_total{operation="get",volume="data"}']
    ticket = opened(node, channels).ticket

    with pytest.raises(penstock.NotCached):
        get(node, channels, ticket=ticket, index=0, start=0, stop=BLOCK_BYTES, only_if_cached=True)

    after = node.metrics()['penstock_origin_requests_total{operation="get",volume="data"}']
    assert after == before


def test_an_unchanged_placement_is_not_sent_again(node: NodeProcess, channels: Channels) -> None:
    first = channels.call(node.address, rpc.GET_PLACEMENT, placement_pb2.GetPlacementRequest())
    again = placement_pb2.GetPlacementRequest(
        cluster_uid=first.placement.cluster_uid,
        epoch=first.placement.epoch,
        members_digest=first.members_digest,
    )

    answer = channels.call(node.address, rpc.GET_PLACEMENT, again)

    assert MessageToDict(answer) == {"unchanged": True}


def test_counters_close_their_sum(node: NodeProcess) -> None:
    with penstock.connect(node.address) as cache:
        cache.read(_URL)

    metrics = node.metrics()
    by_source = sum(value for name, value in metrics.items() if "chunk_reads_total{" in name)
    read = sum(value for name, value in metrics.items() if "penstock_read_bytes_total{" in name)
    served = sum(value for name, value in metrics.items() if "served_bytes_total{" in name)
    assert by_source > 0
    assert read == served


def test_a_restart_keeps_address_identity_and_cache(tmp_path: Path) -> None:
    with standalone(tmp_path) as cluster, cluster.connect() as cache:
        node = cluster["node"]
        assert cache.read(_URL) == _OBJECT
        address = node.address

        assert node.stop() == 0
        assert not (node.state_dir / "node.json").exists()
        node.start()

        assert node.address == address
        assert cache.read(_URL) == _OBJECT
        metrics = node.metrics()
        assert metrics["penstock_placement_epoch"] == 1
        assert metrics['penstock_chunk_reads_total{source="origin"}'] == 0


def test_a_read_rides_out_a_restart_of_the_only_node(tmp_path: Path) -> None:
    with standalone(tmp_path) as cluster, cluster.connect() as cache:
        cache.read(_URL)
        cluster["node"].kill()
        cluster["node"].launch()

        assert cache.read(_URL) == _OBJECT


def test_with_a_memory_tier_in_front_a_second_read_comes_from_memory(tmp_path: Path) -> None:
    tiers = [
        {"path": str(tmp_path / "memory"), "capacity": 2 * _CHUNK_BYTES * 3, "role": "memory"},
        {"path": str(tmp_path / "disk"), "capacity": 64 * _CHUNK_BYTES, "role": "owned"},
    ]
    with standalone(tmp_path, tiers=tiers) as cluster, cluster.connect() as cache:
        cache.read(_URL)
        cache.read(_URL)

        assert cache.stats()["source"] == {"origin": len(_OBJECT), "memory": len(_OBJECT)}


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"nonsense": 1}, "nonsense"),
        ({"grpc_prot": 1}, "grpc_port"),
        ({"listen_host": "0.0.0.0"}, "insecure"),  # noqa: S104 - to be refused
        ({"tiers": [{"path": "/tier", "capacity": "lots", "role": "owned"}]}, "size"),
        ({"tiers": [{"path": "/proc/tier", "capacity": 1, "role": "owned"}]}, "/proc/tier"),
        ({"auth": {"tokens_file": "/etc/hostname"}}, "not TOML"),
    ],
)
def test_a_bad_configuration_ends_the_node_with_one_clear_message(
    tmp_path: Path, config: dict[str, object], said: str
) -> None:
    node = standalone(tmp_path, **config)["node"]
    node.launch()

    assert node.process.wait(timeout_s=30) == 1

    told = node.process.log_tail()
    assert said in told
    assert "Traceback" not in told


def test_a_port_that_is_taken_is_named(tmp_path: Path, node: NodeProcess) -> None:
    taken = int(node.address.rpartition(":")[2])
    second = standalone(tmp_path, grpc_port=taken)["node"]
    second.launch()

    assert second.process.wait(timeout_s=30) == 1

    assert f"grpc_port {taken}" in second.process.log_tail()


def test_two_nodes_on_one_state_directory_are_refused(tmp_path: Path, node: NodeProcess) -> None:
    second = standalone(
        tmp_path, state_dir=str(node.state_dir), admin_port=free_port(), grpc_port=0
    )["node"]
    second.process.start()

    assert second.process.wait(timeout_s=30) == 1

    assert str(node.process.pid) in second.process.log_tail()
    assert admin(node, "/readyz")[0] == 200


def test_with_certificates_only_those_of_the_same_authority_are_served(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.create()
    cert, key = authority.issue("node")
    files = {"ca": str(authority.ca), "cert": str(cert), "key": str(key)}
    trusted = penstock.Tls(authority.ca, *authority.issue("client"))
    cluster_of_one = standalone(tmp_path / "cluster", tls=files)
    with cluster_of_one["node"]:
        address = cluster_of_one["node"].address
        with penstock.connect(address, tls=trusted) as cache:
            assert cache.read(_URL) == _OBJECT
        with (
            penstock.connect(address, tls=penstock.Tls(authority.ca)) as nobody,
            pytest.raises(penstock.ClusterUnavailable),
        ):
            nobody.stat(_URL)
        with penstock.connect(address) as plain, pytest.raises(penstock.ClusterUnavailable):
            plain.stat(_URL)

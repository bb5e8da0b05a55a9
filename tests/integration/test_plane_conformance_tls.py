"""The planes' suite over TLS: one cluster that speaks it on every port, and fills from peers so."""

import tempfile
from collections.abc import Iterator
from contextlib import closing

import pytest

from penstock import operator
from penstock.certificates import Certificates
from penstock.core import Core, Options
from penstock_node.testbed.cluster import LocalCluster, NodeSpec
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.odd_origin import OddOrigin
from penstock_node.testbed.tls_files import ALL_PORTS, TlsFiles
from tests.integration.test_plane_conformance import (
    CHUNK_BYTES,
    CHUNKS,
    COPIES,
    DATA,
    TIERS,
    Client,
    Parts,
    gate,
    test_a_cancelled_read_ends_soon_and_leaves_the_buffer_alone,
    test_a_chunk_comes_from_the_origin_once_and_then_from_where_the_node_keeps_it,
    test_a_chunk_that_is_on_its_way_is_waited_for,
    test_a_deadline_ends_the_wait_for_a_fill_and_not_the_fill,
    test_a_node_that_is_not_there_is_unavailable,
    test_a_ticket_of_a_shorter_object_gives_none_of_this_one,
    test_any_part_of_a_chunk_is_its_slice,
    test_of_many_pieces_each_has_its_own_outcome_in_the_order_asked,
    test_only_if_cached_asks_nobody_else,
    test_pieces_that_are_all_cold_come_in_one_request_too,
    test_the_last_chunk_is_as_short_as_it_is,
    test_the_second_owner_fills_from_the_first,
    threads,
)

__all__ = [
    "gate",
    "test_a_cancelled_read_ends_soon_and_leaves_the_buffer_alone",
    "test_a_chunk_comes_from_the_origin_once_and_then_from_where_the_node_keeps_it",
    "test_a_chunk_that_is_on_its_way_is_waited_for",
    "test_a_deadline_ends_the_wait_for_a_fill_and_not_the_fill",
    "test_a_node_that_is_not_there_is_unavailable",
    "test_a_ticket_of_a_shorter_object_gives_none_of_this_one",
    "test_any_part_of_a_chunk_is_its_slice",
    "test_of_many_pieces_each_has_its_own_outcome_in_the_order_asked",
    "test_only_if_cached_asks_nobody_else",
    "test_pieces_that_are_all_cold_come_in_one_request_too",
    "test_the_last_chunk_is_as_short_as_it_is",
    "test_the_second_owner_fills_from_the_first",
    "threads",
]

DRAIN_S = 60.0


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    return TlsFiles(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def parts(
    tmp_path_factory: pytest.TempPathFactory, etcd: EtcdServer, files: TlsFiles
) -> Iterator[Parts]:
    with OddOrigin() as origin, tempfile.TemporaryDirectory(prefix="penstock-") as sockets:
        cluster = LocalCluster(
            tmp_path_factory.mktemp("planes-tls"),
            [
                NodeSpec(
                    name,
                    tiers,
                    config={"socket": f"{sockets}/{name}", "tls": files.config(*ALL_PORTS)},
                )
                for name, tiers in TIERS.items()
            ],
            etcd=etcd.endpoint,
            name="planes-tls",
            settings={"chunk_size": CHUNK_BYTES, "replicas": COPIES, "open_ttl_s": 0},
            volumes={"data": {"url": origin.url}},
        )
        with cluster:
            yield Parts(origin, cluster)


@pytest.fixture(scope="module")
def credentials(files: TlsFiles) -> Certificates:
    return files.tls.credentials()


@pytest.fixture
def client(parts: Parts, credentials: Certificates) -> Iterator[Client]:
    address = parts.cluster["n1"].address
    core = Core(Options(seeds=[address], plane="grpc", credentials=credentials))
    with closing(core):
        yield Client("bulk", core, parts)


def test_a_node_hands_over_what_it_owns(client: Client, files: TlsFiles) -> None:
    cluster = client.parts.cluster
    opened = client.open_new()
    for index in range(CHUNKS):
        for owner in client.owners(opened, index)[:COPIES]:
            assert client.ask(owner, opened, index).landed

    def asked_of_the_origin() -> float:
        """Of those that stay; by volume."""
        told = [cluster[name].metrics() for name in ("n1", "n2")]
        return sum(one['penstock_origin_bytes_total{volume="data"}'] for one in told)

    asked = asked_of_the_origin()
    with operator.connect(cluster["n1"].address, tls=files.tls) as connected:
        connected.cordon("n3", drain=True)
        drained = connected.wait_drained("n3", timeout_s=DRAIN_S)
    cluster["n3"].stop()

    assert drained.state == "drained"
    with cluster.connect(cluster["n1"], plane="bulk") as cache:
        assert cache.read(opened.url) == DATA
    assert asked_of_the_origin() == asked

"""Other ways into a node that asks for tokens: its socket, Kubernetes, a catalog without etcd, TLS
without certificates of clients."""

import hashlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock import errors, operator
from penstock.catalog import ImportWanted
from penstock.catalog_rpc import DESCRIBE
from penstock.credentials import Bearer
from penstock.rpc import Channels
from penstock.v1 import catalog_pb2
from penstock_node.testbed.catalog import CatalogServer
from penstock_node.testbed.cluster import LocalCluster, NodeSpec, TierSpec
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.kubernetes_answers import Account
from penstock_node.testbed.kubernetes_api import KubernetesApi
from penstock_node.testbed.tls_files import TlsFiles
from tests.integration.one_node import OneNode, one_node

MIB = 1024 * 1024
OBJECT = bytes(range(256)) * 4096
LOADER, STRANGER, DELETED = "eyJ.loader.sig", "eyJ.stranger.sig", "eyJ.deleted.sig"


def write_tokens(path: Path) -> str:
    """Write a tokens file with a token of each role, and return its path."""
    path.write_text(
        "\n".join(
            f'[tokens.{role}]\nsha256 = "{hashlib.sha256(f"{role}-token".encode()).hexdigest()}"\n'
            f'role = "{role}"'
            for role in ("reader", "operator")
        )
    )
    return str(path)


@dataclass(frozen=True, slots=True)
class Rig:
    """A node with all ways in, the Kubernetes that it asks, and a catalog without etcd."""

    node: OneNode
    kubernetes: KubernetesApi
    catalog: CatalogServer


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    directory = tmp_path_factory.mktemp("ways")
    tokens_file = write_tokens(directory / "tokens.toml")
    shown = directory / "shown"
    shown.write_text("operator-token\n")
    lake = directory / "lake"
    lake.mkdir()
    (lake / "a.bin").write_bytes(OBJECT)
    catalogued: dict[str, Any] = {
        "catalogued": True,
        "origins": [{"url": f"file://{lake}/"}],
    }
    catalog = CatalogServer(
        directory / "catalog",
        etcd=None,
        cluster="test",
        auth={"tokens_file": tokens_file},
        allow_file_roots=[str(lake)],
        volumes={"lake": catalogued},
    )
    with KubernetesApi(directory / "kubernetes") as kubernetes, catalog:
        kubernetes.state.accounts = {
            LOADER: Account("system:serviceaccount:training:loader", ("penstock",)),
            STRANGER: Account("system:serviceaccount:elsewhere:loader", ("penstock",)),
        }
        config = {
            "allow_file_roots": [str(directory)],
            "volumes": {"data": {"url": f"file://{directory}/origin/"}, "lake": catalogued},
            "socket_auth": "token",
            "catalog": catalog.address,
            "auth": {
                "tokens_file": tokens_file,
                "token": {"file": str(shown)},
                "kubernetes": {
                    "audience": "penstock",
                    "kubeconfig": str(kubernetes.kubeconfig()),
                    "grants": [
                        {
                            "service_account": "training/loader",
                            "role": "reader",
                            "volumes": ["data"],
                        }
                    ],
                },
            },
        }
        tiers = (TierSpec("owned", 128 * MIB),)
        with one_node(
            directory, tiers, chunk_bytes=MIB, config=config, token="reader-token"
        ) as node:
            node.put("object", OBJECT)
            yield Rig(node, kubernetes, catalog)


def test_the_socket_is_for_those_who_show_a_token(rig: Rig) -> None:
    for shown in (None, "wrong"):
        with (
            penstock.connect(rig.node.address, plane="host", token=shown) as cache,
            pytest.raises(errors.PenstockError) as refused,
        ):
            cache.read("penstock://data/object")
        assert isinstance(refused.value, errors.Unauthenticated)

    with penstock.connect(rig.node.address, plane="host", token="reader-token") as cache:
        assert cache.read("penstock://data/object") == OBJECT
        assert set(cache.stats()["plane"]) == {"host"}


def test_a_pod_is_known_by_its_service_account(rig: Rig) -> None:
    address = rig.node.node.address

    with penstock.connect(address, token=LOADER) as cache:
        assert cache.read("penstock://data/object") == OBJECT
        with pytest.raises(errors.NotPermitted, match="service account training/loader may not"):
            cache.stat("penstock://lake/a.bin")
        asked = rig.kubernetes.count("create tokenreviews")
        cache.stat("penstock://data/object", refresh=True)
        assert rig.kubernetes.count("create tokenreviews") == asked
    with (
        penstock.connect(address, token=STRANGER) as cache,
        pytest.raises(errors.NotPermitted, match=r"auth\.kubernetes\.grants"),
    ):
        cache.stat("penstock://data/object")
    with (
        penstock.connect(address, token=DELETED) as cache,
        pytest.raises(errors.Unauthenticated, match="not known here"),
    ):
        cache.stat("penstock://data/object")


def test_a_kubernetes_that_is_away_costs_only_those_whom_it_alone_knows(rig: Rig) -> None:
    address = rig.node.node.address
    rig.kubernetes.stop()
    try:
        with (
            penstock.connect(address, token="eyJ.unseen.sig") as cache,
            pytest.raises(errors.Retryable),
        ):
            cache.stat("penstock://data/object")
        with penstock.connect(address, token="reader-token") as cache:
            assert cache.stat("penstock://data/object").size == len(OBJECT)
    finally:
        rig.kubernetes.start()


def test_a_node_shows_its_configured_token_to_a_catalog_without_etcd(rig: Rig) -> None:
    address = rig.node.node.address
    lake = f"file://{rig.node.origin.parent}/lake/"
    with operator.connect(address, token="operator-token") as operators:
        done = operators.catalog.run_import(ImportWanted("lake", lake, "there"))

    assert done.added == 1
    with penstock.connect(address, token="reader-token") as cache:
        assert cache.read("penstock://lake/there/a.bin") == OBJECT


def test_a_catalog_without_etcd_says_what_to_give_a_node_in_place_of_its_own_token(
    rig: Rig,
) -> None:
    asked = catalog_pb2.DescribeCatalogRequest()
    shown = Bearer("penstock-node.n1.1800000000.key.0")
    with (
        closing(Channels(authorization=shown)) as channels,
        pytest.raises(errors.Unauthenticated, match=r"has no etcd.* in its \[auth\]"),
    ):
        channels.call(rig.catalog.address, DESCRIBE, asked)


def test_nodes_of_an_authority_of_one_s_own_ask_for_tokens_in_place_of_certificates(
    etcd: EtcdServer, tmp_path: Path
) -> None:
    files, origin = TlsFiles(tmp_path / "tls"), tmp_path / "origin"
    origin.mkdir()
    (origin / "a.bin").write_bytes(OBJECT)
    config = {
        "tls": {**files.config(), "client_certificates": False},
        "auth": {"tokens_file": write_tokens(tmp_path / "tokens.toml")},
        "allow_file_roots": [str(origin)],
    }
    made = LocalCluster(
        tmp_path / "nodes",
        [NodeSpec(name, config=config) for name in ("n1", "n2")],
        etcd=etcd.endpoint,
        name="tokens-by-tls",
        settings={"chunk_size": MIB // 16},
        volumes={"data": {"url": f"file://{origin}/"}},
        token="operator-token",
    )
    trusting = penstock.Tls(files.ca)
    url = "penstock://data/a.bin"
    with made as cluster:
        address = cluster["n1"].address
        with penstock.connect(address, tls=trusting, token="reader-token") as cache:
            assert cache.read(url) == OBJECT
        with (
            penstock.connect(address, tls=trusting, token=None) as cache,
            pytest.raises(errors.Unauthenticated),
        ):
            cache.stat(url)

        by_origin = cluster.total("penstock_origin_bytes_total")
        with operator.connect(address, tls=trusting, token="operator-token") as operators:
            operators.set_weights({"n1": 0})
            cluster.wait_settled(deadline_s=30)
            held = {node.id: node.cached_bytes for node in operators.status().nodes}
        assert held["n2"] >= len(OBJECT) == by_origin
        assert cluster.total("penstock_origin_bytes_total") == by_origin

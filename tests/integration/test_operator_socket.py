"""An operator on a machine with a node names none: the node's socket leads to its gRPC port."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from penstock import operator
from penstock.cli.app import app
from penstock.errors import ClusterUnavailable
from penstock_node.testbed.cluster import LocalCluster, NodeSpec, TierSpec
from penstock_node.testbed.etcd import EtcdServer

NAMES = ("n1", "n2")


@pytest.fixture(scope="module")
def sockets(tmp_path_factory: pytest.TempPathFactory, etcd: EtcdServer) -> Iterator[dict[str, str]]:
    """The sockets of two nodes of one cluster."""
    with tempfile.TemporaryDirectory(prefix="penstock-") as directory:
        paths = {name: f"{directory}/{name}" for name in NAMES}
        tiers = (TierSpec("owned", 64 * 1024 * 1024),)
        cluster = LocalCluster(
            tmp_path_factory.mktemp("nodes"),
            [NodeSpec(name, tiers, {"socket": path}) for name, path in paths.items()],
            etcd=etcd.endpoint,
            name="operator-socket",
        )
        with cluster:
            yield paths


@pytest.mark.parametrize("name", NAMES)
def test_an_operator_at_a_socket_speaks_to_the_node_that_made_it(
    sockets: dict[str, str], name: str
) -> None:
    with operator.connect(f"unix:{sockets[name]}") as connection:
        assert connection.asked_node() == name
        assert {node.id for node in connection.status().nodes} == set(NAMES)


def test_an_operators_verb_takes_a_socket(sockets: dict[str, str]) -> None:
    done = CliRunner().invoke(app, ["status", "--address", f"unix:{sockets['n1']}"])

    assert done.exit_code == 0, done.output
    assert "2 nodes" in done.stdout


def test_a_socket_that_nobody_answers_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClusterUnavailable, match=r"no node answers.*absent"):
        operator.connect(f"unix:{tmp_path}/absent")

"""Machines that Kubernetes cordons and taints, at real nodes under reads."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock import operator
from penstock_node.testbed.cluster import NodeSpec, TierSpec
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.kubernetes_api import KubernetesApi
from penstock_node.testbed.processes import wait_until
from penstock_node.testbed.readers import Readers
from penstock_node.testbed.s3 import S3Server
from penstock_node.testbed.site import MIB, Site, StoredObject

DEADLINE_S = 40.0
OBJECT_BYTES = 8 * MIB
NAMES = ("n1", "n2", "n3")


def spec(api: KubernetesApi, name: str) -> NodeSpec:
    """Return a node whose machine is the Node ``gpu-NAME``."""
    watched = {
        "node_name": f"gpu-{name}",
        "kubeconfig": str(api.kubeconfig()),
        "drain_taints": [{"taint": "spot", "within": "30s"}],
    }
    return NodeSpec(name, (TierSpec("owned", 64 * MIB),), config={"kubernetes": watched})


class Fleet:
    """Three nodes, each on a machine that Kubernetes knows, and an object that is cached."""

    def __init__(self, site: Site, api: KubernetesApi, operators: operator.Operator) -> None:
        self.site, self.api, self.operator = site, api, operators
        self.stored: StoredObject = site.put("model.bin", size=OBJECT_BYTES)
        with site.cluster.connect() as cache:
            assert cache.read(self.stored.url) == self.stored.data

    def states(self) -> dict[str, str]:
        return {node.id: node.state for node in self.operator.status().nodes}

    def wait_state(self, node: str, state: str) -> None:
        wait_until(
            lambda: self.states()[node] == state,
            deadline_s=DEADLINE_S,
            what=f"{node} is {state}, not {self.states()}",
        )

    def metric(self, node: str, name: str) -> float:
        return self.site.cluster[node].metrics()[name]

    def wait_metric(self, node: str, name: str, value: float) -> None:
        wait_until(
            lambda: self.metric(node, name) == value,
            deadline_s=DEADLINE_S,
            what=f"{name} of {node} is {value}",
        )

    def log(self, node: str) -> str:
        return (self.site.cluster[node].directory / "node.log").read_text()


@pytest.fixture(scope="module")
def fleet(
    tmp_path_factory: pytest.TempPathFactory, s3: S3Server, etcd: EtcdServer
) -> Iterator[Fleet]:
    directory = tmp_path_factory.mktemp("kubernetes-drain")
    # A lease that ends on a busy machine would have a node be away.
    settings = {"lease_ttl_s": 30.0, "chunk_size": 64 * 1024}
    with KubernetesApi(directory / "api") as api:
        for name in NAMES:
            api.add_node(f"gpu-{name}", labels={"topology.kubernetes.io/zone": f"zone-{name}"})
        specs = [spec(api, name) for name in NAMES]
        with (
            Site(directory, s3, etcd, nodes=specs, settings=settings) as site,
            operator.connect(site.address) as operators,
        ):
            yield Fleet(site, api, operators)


@pytest.fixture(autouse=True)
def as_before(fleet: Fleet) -> Iterator[None]:
    """Leave all nodes on the ring."""
    yield
    for name in NAMES:
        for taint in fleet.api.state.nodes[f"gpu-{name}"]["spec"].get("taints", []):
            fleet.api.untaint(f"gpu-{name}", taint["key"])
        fleet.api.cordon(f"gpu-{name}", is_cordoned=False)
    for name in NAMES:
        fleet.wait_state(name, "alive")
    fleet.site.cluster.wait_settled(deadline_s=DEADLINE_S)


def test_a_cordoned_machine_is_drained_and_put_back_and_no_reader_notices(
    fleet: Fleet, tmp_path: Path
) -> None:
    sent = fleet.site.s3.counters().sent_bytes
    with Readers(tmp_path / "r", fleet.site.address, fleet.stored.url, processes=2) as readers:
        readers.release().wait_reads(2)
        fleet.api.cordon("gpu-n2")
        fleet.wait_state("n2", "drained")
        readers.wait_reads(2)
        assert fleet.operator.drain_status("n2").reason == "kubernetes: unschedulable"
        assert fleet.metric("n2", "penstock_kubernetes_drain_wanted") == 1
        fleet.api.cordon("gpu-n2", is_cordoned=False)
        fleet.wait_state("n2", "alive")
        readers.wait_reads(2)
        reports = readers.reports

    assert [report.errors for report in reports] == [[], []]
    assert {digest for report in reports for digest in report.digests} == {fleet.stored.sha256}
    assert fleet.site.s3.counters().sent_bytes == sent


def test_a_taint_says_how_long_the_machine_is_there(fleet: Fleet) -> None:
    fleet.api.taint("gpu-n2", "other")
    fleet.api.taint("gpu-n2", "spot", effect="NoExecute")
    fleet.wait_state("n2", "drained")
    status = fleet.operator.drain_status("n2")
    assert status.reason == "kubernetes: spot:NoExecute"
    assert status.gone_at == pytest.approx(status.set_at + 30)
    fleet.api.untaint("gpu-n2", "spot")
    fleet.wait_state("n2", "alive")


def test_the_zone_is_the_machines(fleet: Fleet) -> None:
    with fleet.site.cluster.connect() as cache:
        members = cache.cluster_view.members
    assert {node: member.zone for node, member in members.items()} == {
        name: f"zone-{name}" for name in NAMES
    }


def test_a_node_that_starts_on_a_cordoned_machine_is_off_the_ring_from_the_start(
    fleet: Fleet,
) -> None:
    cluster = fleet.site.cluster
    fleet.api.cordon("gpu-n2")
    fleet.wait_state("n2", "drained")
    epoch = fleet.site.epoch
    cluster["n2"].stop()
    cluster["n2"].start()
    fleet.wait_metric("n2", "penstock_kubernetes_followed", 1)
    assert fleet.states()["n2"] in ("draining", "drained")
    fleet.wait_state("n2", "drained")
    assert fleet.site.epoch == epoch, "it has not been on the ring meanwhile"

    cluster["n3"].stop()
    fleet.api.cordon("gpu-n3")
    cluster["n3"].start()
    fleet.wait_state("n3", "drained")
    assert fleet.operator.drain_status("n3").reason == "kubernetes: unschedulable"
    assert fleet.site.epoch == epoch + 1, "it did not come back to the ring first"


def test_what_an_operator_does_is_not_undone(fleet: Fleet) -> None:
    fleet.operator.cordon("n2", drain=True, reason="new RAM")
    fleet.api.cordon("gpu-n2")
    fleet.wait_metric("n2", "penstock_kubernetes_drain_wanted", 1)
    assert fleet.operator.drain_status("n2").reason == "new RAM"
    fleet.api.cordon("gpu-n2", is_cordoned=False)
    fleet.wait_metric("n2", "penstock_kubernetes_drain_wanted", 0)
    assert fleet.states()["n2"] in ("draining", "drained")
    fleet.operator.uncordon("n2")

    fleet.api.cordon("gpu-n2")
    fleet.wait_state("n2", "drained")
    remembered = fleet.site.cluster["n2"].state_dir / "kubernetes.json"
    wait_until(
        lambda: json.loads(remembered.read_text())["answered"] == ["unschedulable"],
        deadline_s=DEADLINE_S,
        what="it is remembered",
    )
    fleet.operator.uncordon("n2")
    fleet.site.cluster["n2"].stop()
    fleet.site.cluster["n2"].start()
    fleet.wait_metric("n2", "penstock_kubernetes_drain_wanted", 1)
    fleet.api.touch("gpu-n2")
    assert fleet.states()["n2"] == "alive", "put back by hand, though cordoned still"
    fleet.api.taint("gpu-n2", "spot")
    fleet.wait_state("n2", "drained")


def test_a_cordon_by_hand_comes_back_after_a_drain(fleet: Fleet) -> None:
    fleet.operator.cordon("n2", reason="slow disk")
    fleet.api.taint("gpu-n2", "spot")
    fleet.wait_state("n2", "drained")
    fleet.api.untaint("gpu-n2", "spot")
    fleet.wait_state("n2", "cordoned")
    assert fleet.operator.drain_status("n2").reason == "slow disk"
    fleet.operator.uncordon("n2")


def test_while_the_api_server_is_away_nothing_changes(fleet: Fleet) -> None:
    fleet.api.cordon("gpu-n2")
    fleet.wait_state("n2", "drained")
    fleet.api.stop()
    try:
        fleet.wait_metric("n2", "penstock_kubernetes_followed", 0)
        states = fleet.states()
        fleet.api.cordon("gpu-n2", is_cordoned=False)
        assert fleet.states() == states
        assert "until it answers nothing changes" in fleet.log("n2")
    finally:
        fleet.api.start()
    fleet.wait_state("n2", "alive")
    assert fleet.metric("n2", 'penstock_kubernetes_failures_total{reason="away"}') >= 1


def test_a_role_without_the_rule_is_told_and_the_node_serves_on(fleet: Fleet) -> None:
    fleet.api.behaviour.forbidden = frozenset({"list nodes", "watch nodes"})
    fleet.api.cut()
    try:
        fleet.wait_metric("n2", "penstock_kubernetes_followed", 0)
        wait_until(
            lambda: "ClusterRole with get, list and watch of nodes" in fleet.log("n2"),
            deadline_s=DEADLINE_S,
            what="it is told",
        )
        with fleet.site.cluster.connect(fleet.site.cluster["n2"]) as cache:
            assert cache.read(fleet.stored.url) == fleet.stored.data
    finally:
        fleet.api.behaviour.forbidden = frozenset()
    for name in NAMES:
        fleet.wait_metric(name, "penstock_kubernetes_followed", 1)


def test_the_last_owner_is_left_on_the_ring(fleet: Fleet) -> None:
    def waiting() -> int:
        return "".join(map(fleet.log, NAMES)).count("the last that answers")

    before = waiting()
    for name in NAMES:
        fleet.api.cordon(f"gpu-{name}")
    wait_until(lambda: waiting() > before, deadline_s=DEADLINE_S, what="one waits")
    wait_until(
        lambda: sorted(fleet.states().values()).count("alive") == 1,
        deadline_s=DEADLINE_S,
        what="the others are drained",
    )

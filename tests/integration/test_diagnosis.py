"""What a node tells of itself: disks that hang, links that trickle, transfers that are refused."""

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http import HTTPStatus
from pathlib import Path

import pytest
from typer.testing import CliRunner

from penstock import operator
from penstock.bulk_connection import BulkConnection
from penstock.bulk_http import TICKET_SCHEME, TRANSFER_BYTES_MAX
from penstock.cli.app import app
from penstock.deadline import Deadline
from penstock.diagnosis_rpc import EXAMINE, KNOWN
from penstock.errors import InvalidRequest, NodeUnavailable, Overloaded
from penstock.rpc import Channels
from penstock.tls import Tls
from penstock.v1 import diagnosis_pb2
from penstock_node.diagnosis import disks as disks_module
from penstock_node.diagnosis.disks import MEASURED_BYTES, Disks, file_system_of, measure
from penstock_node.diagnosis.peers import ROUND_S, transfer
from penstock_node.diagnosis.process import process_limits
from penstock_node.store.tier import Tier
from penstock_node.testbed.certificates import Authority
from penstock_node.testbed.cluster import LocalCluster, NodeSpec, TierSpec
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.odd_disk import OddDisk, small_disk
from penstock_node.testbed.processes import free_port, wait_until
from tests.integration.one_node import OneNode, one_node

MIB = 1 << 20
CHUNK = 64 * 1024
DEADLINE_S = 10.0


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneNode]:
    directory = tmp_path_factory.mktemp("diagnosis").resolve()
    with one_node(directory, [TierSpec("owned", 64 * MIB)], chunk_bytes=CHUNK) as running:
        yield running


@pytest.fixture
def channels() -> Iterator[Channels]:
    with closing(Channels()) as made:
        yield made


# Disks


def test_measuring_leaves_nothing_behind(tmp_path: Path) -> None:
    write_s, read_s = measure(tmp_path)

    assert write_s > 0
    assert read_s > 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
def test_measuring_leaves_nothing_behind_where_files_need_names(tmp_path: Path) -> None:
    with OddDisk(tmp_path / "odd", below=tmp_path) as odd:
        write_s, read_s = measure(odd.path)

        assert min(write_s, read_s) > 0
        assert list(odd.path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
async def test_a_disk_that_hangs_is_told_as_hanging_and_looked_at_by_one_thread_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disks_module, "ANSWER_S", 0.2)
    with OddDisk(tmp_path / "odd", below=tmp_path) as odd:
        tier = Tier(odd.path / "tier", 16 * MIB, "owned")
        looked = Disks([tier], floors={})
        odd.become("hanging")

        (first,) = await looked.examine(measures=True, only=())
        (second,) = await looked.examine(measures=True, only=())

        assert first.failure == "no answer in 0.2 s"
        assert "has not come back" in second.failure
        odd.become("well")
        tier.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
async def test_a_full_disk_has_no_figure_but_says_how_full_it_is(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", size_bytes=8 * MIB) as path:
        tier = Tier(path / "tier", 4 * MIB, "owned", free_floor_bytes=0)
        (path / "others").write_bytes(bytes(6 * MIB))

        (told,) = await Disks([tier], floors={tier.path: 0}).examine(measures=True, only=())

        assert told.failure == "no room for a file of 4 MiB"
        assert told.measured_bytes == 0
        assert told.free_bytes < 2 * MIB
        assert told.total_bytes == 8 * MIB
        assert told.file_system == "tmpfs"
        assert told.floor_bytes == 0
        tier.close()


async def test_only_the_disks_that_are_named_are_measured_and_memory_never_is(
    tmp_path: Path,
) -> None:
    tiers = [
        Tier(tmp_path / "a", 16 * MIB, "owned"),
        Tier(tmp_path / "b", 16 * MIB, "owned"),
        Tier(tmp_path / "c", 16 * MIB, "memory"),
    ]

    named = await Disks(tiers, floors={}).examine(measures=True, only={str(tmp_path / "a")})
    every = await Disks(tiers, floors={}).examine(measures=True, only=())

    assert [each.measured_bytes for each in named] == [MEASURED_BYTES, 0, 0]
    assert [each.measured_bytes for each in every] == [MEASURED_BYTES, MEASURED_BYTES, 0]
    for tier in tiers:
        tier.close()


def test_a_file_system_is_told_by_its_device() -> None:
    mounts = (
        "22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n"
        "30 22 0:26 / /mnt/m rw,nosuid shared:9 - tmpfs tmpfs rw,size=64g\n"
    )

    assert file_system_of(os.makedev(0, 26), mounts) == "tmpfs"
    assert file_system_of(os.makedev(8, 1), mounts) == "ext4"
    assert file_system_of(os.makedev(9, 9), mounts) == ""


def odd_mounts(directory: Path) -> Path:
    """A table of mounts: one whose path is no UTF-8, and that of ``directory``."""
    device = directory.stat().st_dev
    table = directory / "mountinfo"
    table.write_bytes(
        b"30 22 9:9 / /mnt/donn\xe9es rw - ext4 /dev/sdb1 rw\n"
        + f"22 1 {os.major(device)}:{os.minor(device)} / / rw - xfs /dev/sda1 rw\n".encode()
    )
    return table


async def test_a_mount_whose_path_is_no_utf_8_costs_no_disk_its_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disks_module, "MOUNTS", odd_mounts(tmp_path))
    tier = Tier(tmp_path / "tier", 16 * MIB, "owned")

    (told,) = await Disks([tier], floors={}).examine(measures=False, only=())

    assert (told.failure, told.file_system) == ("", "xfs")
    tier.close()


async def test_an_error_that_nobody_thought_of_is_told_and_does_not_look_like_a_hanging_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disks_module, "MOUNTS", Path("no path\0"))
    tier = Tier(tmp_path / "tier", 16 * MIB, "owned")

    (told,) = await Disks([tier], floors={}).examine(measures=False, only=())

    assert told.failure == "ValueError: embedded null byte"
    tier.close()


def test_limits_are_those_of_this_process() -> None:
    told = process_limits()

    assert 0 < told.descriptors < told.descriptors_max
    assert 0 < told.mappings < told.mappings_max


# Transfers


def ticket_of(node: OneNode) -> str:
    url = node.put("a.bin", b"water")
    with node.connect("bulk") as cache:
        return str(cache._core.opens.open(url).ticket())


def test_a_transfer_is_as_long_as_it_was_asked_for_and_needs_a_ticket(node: OneNode) -> None:
    address, ticket = node.node.file.bulk_address, ticket_of(node)
    size = 3 * MIB + 17

    with closing(BulkConnection(address)) as connection:
        received, seconds = transfer(connection, ticket, size)

    assert received == size
    assert seconds > 0
    with (
        closing(BulkConnection(address)) as connection,
        pytest.raises(InvalidRequest, match="at most"),
    ):
        transfer(connection, ticket, TRANSFER_BYTES_MAX + 1)


def test_without_a_ticket_nothing_is_sent(node: OneNode) -> None:
    with closing(BulkConnection(node.node.file.bulk_address)) as connection:
        connection.send(
            b"GET /v1/transfer/1000 HTTP/1.1\r\nHost: n\r\n\r\n"
            b"GET /v1/transfer/1000 HTTP/1.1\r\nHost: n\r\nAuthorization: "
            + TICKET_SCHEME.encode()
            + b"AAAA\r\n\r\n"
        )
        statuses = []
        for _ in range(2):
            head = connection.receive_head(Deadline.after(5))
            connection.receive_body(head.length, Deadline.after(5))
            statuses.append(head.status)

    assert statuses == [HTTPStatus.FORBIDDEN, HTTPStatus.FORBIDDEN]


class Trickle:
    """A bulk port that begins an answer and then sends a little at a time."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        client, _ = self._listener.accept()
        with client, contextlib.suppress(OSError):
            client.recv(4096)
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n")
            while True:
                client.sendall(bytes(4096))
                time.sleep(0.02)

    def close(self) -> None:
        self._listener.close()
        self._thread.join()


def test_a_link_that_trickles_is_measured_by_what_came_in_time() -> None:
    with closing(Trickle()) as server, closing(BulkConnection(server.address)) as connection:
        received, seconds = transfer(connection, "t", 10_000_000)
        connection.close()

    assert 0 < received < 10_000_000
    assert seconds >= ROUND_S


# The node


def test_a_node_is_examined_by_one_at_a_time(node: OneNode, channels: Channels) -> None:
    with ThreadPoolExecutor(1) as threads, socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(DEADLINE_S)
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        peer = diagnosis_pb2.Peer(id="x", grpc_address=address)
        slow = diagnosis_pb2.ExamineRequest(peers=[peer])
        first = threads.submit(channels.call, node.node.address, EXAMINE, slow, timeout_s=30)
        asked, _ = silent.accept()  # The node looks at its peer, who says nothing.

        with pytest.raises(Overloaded, match="somebody else"):
            channels.call(node.node.address, EXAMINE, diagnosis_pb2.ExamineRequest())

        asked.close()
    assert first.result().id == "node"


def test_peers_that_are_not_there_are_told_port_by_port(node: OneNode, channels: Channels) -> None:
    address = f"127.0.0.1:{free_port()}"
    nobody = diagnosis_pb2.Peer(
        id="x", grpc_address=address, bulk_address=address, admin_address=address
    )

    told = channels.call(
        node.node.address, EXAMINE, diagnosis_pb2.ExamineRequest(peers=[nobody]), timeout_s=30
    )

    (look,) = told.peers
    assert look.grpc_failure
    assert look.bulk_failure
    assert not look.admin_failure, "nodes call each other by the other two"
    assert look.received_bytes == 0


def test_a_port_that_was_busy_is_asked_again_where_another_answers(
    node: OneNode, channels: Channels
) -> None:
    with ThreadPoolExecutor(1) as threads, socket.create_server(("127.0.0.1", 0)) as busy:
        busy.settimeout(DEADLINE_S)

        def answer_the_second() -> None:
            first, _ = busy.accept()
            with first, busy.accept()[0] as second:
                second.recv(1024)
                second.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

        answering = threads.submit(answer_the_second)
        peer = diagnosis_pb2.Peer(
            id="x",
            grpc_address=node.node.file.grpc_address,
            bulk_address=f"127.0.0.1:{busy.getsockname()[1]}",
        )
        request = diagnosis_pb2.ExamineRequest(peers=[peer])
        told = channels.call(node.node.address, EXAMINE, request, timeout_s=30)
        answering.result()

    (look,) = told.peers
    assert (look.grpc_failure, look.bulk_failure) == ("", "")


def test_a_volume_that_is_not_there_is_told_by_name(node: OneNode, channels: Channels) -> None:
    request = diagnosis_pb2.ExamineRequest(volumes=["data", "none"])

    told = channels.call(node.node.address, EXAMINE, request, timeout_s=30)

    assert [(each.volume, each.failure) for each in told.origins] == [
        ("data", ""),
        ("none", "NotPermitted"),
    ]


def test_a_cluster_of_one_is_examined_without_etcd(node: OneNode, channels: Channels) -> None:
    known = channels.call(node.node.address, KNOWN, diagnosis_pb2.KnownRequest())
    with operator.connect(node.node.address) as connection:
        found = connection.doctor.examine()

    assert [each.id for each in known.nodes] == ["node"]
    assert [f for f in found.findings if f.severity != "advice"] == []
    assert found.is_well


def test_nodes_that_ask_for_certificates_examine_each_other(
    tmp_path: Path, etcd: EtcdServer
) -> None:
    authority = Authority(tmp_path)
    authority.create()
    cert, key = authority.issue("penstock")
    tls = {"cert": str(cert), "key": str(key), "ca": str(authority.ca)}
    nodes = [NodeSpec(name, config={"tls": tls}) for name in ("n1", "n2")]
    cluster = LocalCluster(tmp_path / "nodes", nodes, etcd=etcd.endpoint, name="doctor-tls")
    try:
        for each in cluster.nodes.values():
            each.launch()
        for each in cluster.nodes.values():
            each.wait_ready()
        address, shown = cluster["n1"].address, Tls(authority.ca, cert, key)
        with operator.connect(address, tls=shown) as connection:
            wait_until(
                lambda: len(connection.placement().nodes) == 2,
                deadline_s=DEADLINE_S,
                what="both are on the ring",
            )
            found = connection.doctor.examine()
    finally:
        cluster.stop()

    worse = [(f.severity, str(f.place)) for f in found.findings if f.severity != "advice"]
    assert worse == [("warning", f"etcd {etcd.endpoint}")]  # Its version.
    assert all(each.peers[0].received_bytes for each in found.facts.examined.values())


# The verb


def test_a_node_that_is_none_is_refused_with_those_there_are(node: OneNode) -> None:
    env = {"PENSTOCK_ADDRESS": node.node.address}
    told = CliRunner().invoke(app, ["doctor", "--node", "n9"], env=env)

    assert told.exit_code == 1
    assert "there is no node 'n9'; known are node" in told.stderr


def test_where_no_node_answers_it_says_so_and_what_to_do() -> None:
    env = {"PENSTOCK_ADDRESS": f"127.0.0.1:{free_port()}"}
    people = CliRunner().invoke(app, ["doctor"], env=env)
    machines = CliRunner().invoke(app, ["doctor", "--json"], env=env)

    assert people.exit_code == machines.exit_code == 1
    assert people.stdout.startswith("problem  cluster: no node answers")
    assert "do:  see that nodes run" in people.stdout
    (finding,) = json.loads(machines.stdout)["findings"]
    assert finding["severity"] == "problem"


def test_a_port_that_accepts_and_says_nothing_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with closing(BulkConnection(address)) as connection, pytest.raises(NodeUnavailable):
            transfer(connection, "t", 1000)

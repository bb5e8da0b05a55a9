"""The bulk plane under faults: nodes and clients that die in mid-chunk, wires that flip bits,
and a cluster whose gRPC ports a reader never sees again."""

import contextlib
import hashlib
import random
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

import penstock
from penstock import operator, rpc
from penstock.rpc import Channels
from penstock.v1 import cache_pb2
from penstock_node.testbed.cluster import LocalCluster, NodeProcess, NodeSpec
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.processes import Process, wait_until
from penstock_node.testbed.wire import open_chunk_files

CHUNK_BYTES = 512 * 1024
CHUNKS = 24
DATA = random.Random(71).randbytes((CHUNKS - 1) * CHUNK_BYTES + 100_001)
URL = "penstock://data/object"
DEADLINE_S = 20.0
NODES = ("n1", "n2", "n3")
PAYLOAD_BYTES = 4096
"""Longer than any head: what comes in larger pieces has payload at its end."""


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("origin")
    (directory / "object").write_bytes(DATA)
    return directory


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, own_etcd: EtcdServer, origin: Path
) -> Iterator[LocalCluster]:
    """Three nodes, two copies of each chunk, and leases that outlive the tests."""
    cluster = LocalCluster(
        tmp_path_factory.mktemp("bulk"),
        [NodeSpec(name, config={"allow_file_roots": [str(origin)]}) for name in NODES],
        etcd=own_etcd.endpoint,
        name="bulk-faults",
        settings={"chunk_size": CHUNK_BYTES, "replicas": 2, "lease_ttl_s": 60},
        volumes={"data": {"url": f"file://{origin}/"}},
    )
    with cluster:
        yield cluster


@pytest.fixture
def cluster(running: LocalCluster) -> Iterator[LocalCluster]:
    """All three run before each test and after it, and have read the object."""
    with running.connect(plane="bulk") as cache:
        assert cache.read(URL) == DATA
    yield running
    for node in running.nodes.values():
        node.process.resume()
        if not node.process.running:
            node.start()
    running.wait_placed(len(NODES))


def first_owned(cache: penstock.Cache, node: str) -> list[int]:
    """Return the lengths of the chunks whose first owner is ``node``."""
    location = cache.locate(URL)
    return [
        location.object.chunk_length(chunk.index)
        for chunk in location.chunks
        if chunk.owners[0] == node
    ]


def test_a_node_killed_in_the_middle_of_a_read_costs_the_reader_nothing(
    cluster: LocalCluster,
) -> None:
    victim = cluster["n2"]
    with cluster.connect(plane="bulk") as cache, ThreadPoolExecutor(1) as threads:
        rest = len(DATA) - sum(first_owned(cache, victim.id))
        victim.process.pause()
        reading = threads.submit(cache.read, URL)
        wait_until(
            lambda: cache.stats()["plane"].get("bulk", 0) >= rest,
            deadline_s=DEADLINE_S,
            what="all has landed but what the victim owns",
        )

        victim.kill()

        assert reading.result(DEADLINE_S) == DATA
        assert cache.stats()["plane"] == {"bulk": len(DATA)}


# A client that dies ------------------------------------------------------------------------

STUCK = 24
"""Connections: more than a node has workers."""
STUCK_CLIENT = f"""
import signal, sys
from penstock_node.testbed.wire import Wire, chunk_request
address, ticket, *indexes = sys.argv[1:]
wires = [Wire(address, receive_buffer_bytes=4096) for _ in range({STUCK})]
print(*(wire.socket.getsockname()[1] for wire in wires), flush=True)
for wire in wires:
    wire.send(b"".join(chunk_request(i, ticket) for i in indexes))
signal.pause()
"""


def ticket(node: NodeProcess) -> str:
    with closing(Channels()) as channels:
        request = cache_pb2.OpenRequest(urls=[URL])
        return channels.call(node.address, rpc.OPEN, request).results[0].object.ticket


def held_sockets(ports: set[int]) -> int:
    """Return how many sockets processes hold whose other ends have, or had, ``ports``."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    sockets = (line.split() for line in lines)
    # One that nobody holds has the inode 0.
    return sum(int(fields[2][-4:], 16) in ports and fields[9] != "0" for fields in sockets)


def test_a_client_killed_in_mid_chunk_leaves_nothing_open(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    node = cluster["n1"]
    with penstock.connect(node.address, plane="bulk") as cache:
        held = [str(chunk.index) for chunk in cache.locate(URL).chunks if "n1" in chunk.held_by]
        words = [sys.executable, "-c", STUCK_CLIENT, node.file.bulk_address, ticket(node)]
        with Process([*words, *held * 3], log=tmp_path / "log") as client:
            client.wait_until(
                lambda: len(open_chunk_files(node)) == STUCK,
                deadline_s=DEADLINE_S,
                what="each connection is stuck in a chunk",
            )
            assert cache.read(URL, 100, 4096) == DATA[100:4196]
            ports = {int(port) for port in client.log_tail().split()}

            client.kill()

    wait_until(lambda: not open_chunk_files(node), deadline_s=DEADLINE_S, what="all is closed")
    assert len(ports) == STUCK
    wait_until(lambda: not held_sockets(ports), deadline_s=DEADLINE_S, what="sockets too")


# Wires that do harm ------------------------------------------------------------------------


class Relay:
    """A TCP relay to ``target`` that may change what comes back, and notes what was asked."""

    def __init__(self, target: str, change: Callable[[bytes], bytes] = bytes) -> None:
        self.asked = bytearray()
        self._target, self._change = target, change
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._run(self._accept)

    def _run(self, call: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=call, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                reader, _ = self._listener.accept()
            except OSError:  # It is over.
                return
            host, _, port = self._target.rpartition(":")
            node = socket.create_connection((host, int(port)))
            self._sockets += [reader, node]
            self._run(self._pump, reader, node, self._note)
            self._run(self._pump, node, reader, self._change)

    def _note(self, data: bytes) -> bytes:
        self.asked += data
        return data

    def _pump(
        self, source: socket.socket, target: socket.socket, change: Callable[[bytes], bytes]
    ) -> None:
        with contextlib.suppress(OSError):  # One end is gone: so is the other.
            while data := source.recv(65_536):
                target.sendall(change(data))
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End it; again does nothing."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for sock in (self._listener, *self._sockets):
            sock.close()


class Flips:
    """Flips a bit of the payload that passes, so many times."""

    def __init__(self, count: int) -> None:
        self.left = count
        self._lock = threading.Lock()

    def __call__(self, data: bytes) -> bytes:
        with self._lock:
            if len(data) <= PAYLOAD_BYTES or self.left == 0:
                return data
            self.left -= 1
        return data[:-1] + bytes([data[-1] ^ 4])


def redirect(cache: penstock.Cache, node: str, address: str) -> None:
    """Let ``cache`` believe that the node's bulk port is at ``address``."""
    view = cache.cluster_view
    members = dict(view.members)
    members[node] = replace(members[node], bulk_address=address)
    cache._core.routing.update(replace(view, members=members))


def wrong_chunks(cluster: LocalCluster) -> float:
    return cluster.total("penstock_corrupt_chunks_total")


@pytest.mark.parametrize("count", [1, 3])
def test_a_bit_flipped_on_the_wire_is_never_returned_and_asked_for_again(
    cluster: LocalCluster, count: int
) -> None:
    flips, corrupt = Flips(count), wrong_chunks(cluster)
    with closing(Relay(cluster["n1"].file.bulk_address, flips)) as relay:
        with cluster.connect(plane="bulk") as cache:
            redirect(cache, "n1", relay.address)

            assert cache.read(URL) == DATA
            assert cache.stats()["plane"] == {"bulk": len(DATA)}

        assert flips.left == 0
        assert b"Penstock-Recheck: 1" in relay.asked
    assert wrong_chunks(cluster) == corrupt, "the node's own copies are good"


def test_a_wire_that_flips_bits_for_ever_is_given_up_for_the_next_owner(
    cluster: LocalCluster,
) -> None:
    flips = Flips(1_000_000)
    with (
        closing(Relay(cluster["n1"].file.bulk_address, flips)) as relay,
        cluster.connect(plane="bulk") as cache,
    ):
        redirect(cache, "n1", relay.address)

        assert cache.read(URL) == DATA

    assert flips.left < 1_000_000, "it was asked"


class Cut:
    """Cuts each connection short in the midst of a body, so many times."""

    def __init__(self, count: int) -> None:
        self.left = count

    def __call__(self, data: bytes) -> bytes:
        if len(data) > PAYLOAD_BYTES and self.left > 0:
            self.left -= 1
            raise ConnectionResetError
        return data


def test_connections_cut_in_mid_chunk_cost_the_reader_nothing(cluster: LocalCluster) -> None:
    cut = Cut(3)
    with (
        closing(Relay(cluster["n3"].file.bulk_address, cut)) as relay,
        cluster.connect(plane="bulk") as cache,
    ):
        redirect(cache, "n3", relay.address)

        assert cache.read(URL) == DATA
        assert cut.left < 3


# Without gRPC ------------------------------------------------------------------------------


def test_after_its_first_placement_a_reader_needs_no_grpc(
    cluster: LocalCluster, origin: Path
) -> None:
    later = random.Random(72).randbytes(2 * CHUNK_BYTES)
    with closing(Relay(cluster["n1"].address)) as seed, penstock.connect(seed.address) as cache:
        assert cache.read(URL) == DATA
        seed.close()  # What was connected is gone, and nobody listens there any more.
        (origin / "later").write_bytes(later)
        with operator.connect(cluster["n1"].address) as connected:
            epoch = connected.set_weights({"n2": 120 + cache.cluster_view.placement.epoch}).epoch

        def has_caught_up() -> bool:
            assert cache.read(URL) == DATA
            return cache.cluster_view.placement.epoch >= epoch

        wait_until(has_caught_up, deadline_s=DEADLINE_S, what="it hears of the new placement")
        data = cache.read("penstock://data/later")
        names = [info.url for info in cache.list("penstock://data/")]
        channels = set(cache._core.channels._channels)

    assert hashlib.sha256(data).digest() == hashlib.sha256(later).digest()
    assert names == ["penstock://data/later", URL]
    assert channels == {seed.address}

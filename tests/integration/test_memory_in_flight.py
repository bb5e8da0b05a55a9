"""Payload in a node's memory, under more load than it has room for: bounded, and nobody fails."""

import itertools
import random
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest

import penstock
from penstock import operator
from penstock.v1 import cache_pb2, cache_pb2_grpc
from penstock_node.testbed.cluster import LocalCluster, NodeProcess, NodeSpec, TierSpec
from penstock_node.testbed.processes import wait_until
from penstock_node.testbed.usage import private_bytes

MIB = 1024 * 1024
CHUNK_BYTES = MIB
INFLIGHT_MAX = 10 * MIB
OBJECT_BYTES = 24 * MIB
OBJECTS = 3
READERS = 4
"""Of each kind; each asks for up to 16 chunks at once."""
ROUNDS = 3
SOON_S = 20.0
SPARE_BYTES = 96 * MIB
"""What threads, connections and the allocator may take beside payload, whatever the load."""


@dataclass
class Rig:
    node: NodeProcess
    objects: dict[str, bytes]
    peaks: list[float] = field(default_factory=list)

    def metric(self, name: str) -> float:
        return self.node.metrics()[name]

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Look again and again how much is in flight."""
        done = threading.Event()

        def watch() -> None:
            while not done.is_set():
                self.peaks.append(self.metric("penstock_inflight_bytes"))

        watching = threading.Thread(target=watch)
        watching.start()
        try:
            yield
        finally:
            done.set()
            watching.join()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    origin = tmp_path / "origin"
    origin.mkdir()
    rng, objects = random.Random(8), {}
    for at in range(OBJECTS):
        data = rng.randbytes(OBJECT_BYTES - at)
        (origin / str(at)).write_bytes(data)
        objects[f"penstock://data/{at}"] = data
    with tempfile.TemporaryDirectory(prefix="penstock-") as sockets:
        spec = NodeSpec(
            "n1",
            # Less than the objects take: there is always something to bring in.
            (TierSpec("owned", 2 * OBJECT_BYTES), TierSpec("local", 4 * MIB)),
            {
                "inflight_max": INFLIGHT_MAX,
                "socket": f"{sockets}/n.sock",
                "allow_file_roots": [str(origin)],
            },
        )
        cluster = LocalCluster(
            tmp_path / "cluster",
            [spec],
            etcd=None,
            settings={"chunk_size": CHUNK_BYTES},
            volumes={"data": {"url": f"file://{origin}/"}},
        )
        with cluster:
            yield Rig(cluster["n1"], objects)


def read_over(plane: str) -> Callable[[NodeProcess, str], bytes]:
    def read(node: NodeProcess, url: str) -> bytes:
        address = f"unix:{node.file.socket}" if plane == "host" else node.address
        with penstock.connect(address, plane=plane) as cache:
            return cache.read(url)

    return read


def stream(node: NodeProcess, url: str) -> bytes:
    with grpc.insecure_channel(node.address) as channel:
        answers = cache_pb2_grpc.CacheStub(channel).Read(cache_pb2.ReadRequest(url=url))
        return b"".join(answer.data for answer in answers)


def test_under_any_load_no_more_is_in_flight_than_was_promised(rig: Rig) -> None:
    kinds = [read_over("bulk"), read_over("grpc"), read_over("host"), stream]
    urls = list(rig.objects)
    before = private_bytes(rig.node.process.pid)

    def read_all(number: int) -> None:
        turn = itertools.islice(itertools.cycle(urls), number, number + ROUNDS)
        for url in turn:
            assert kinds[number % len(kinds)](rig.node, url) == rig.objects[url]
            with operator.connect(rig.node.address) as own:
                own.evict([url])

    with rig.watched(), ThreadPoolExecutor(READERS * len(kinds)) as readers:
        list(readers.map(read_all, range(READERS * len(kinds))))
    grown = private_bytes(rig.node.process.pid) - before

    assert rig.metric("penstock_inflight_bytes_max") == INFLIGHT_MAX
    assert 0 < max(rig.peaks) <= INFLIGHT_MAX
    assert max(rig.peaks) > INFLIGHT_MAX / 4, "the load is too little to say anything"
    assert grown < INFLIGHT_MAX + SPARE_BYTES
    wait_until(
        lambda: rig.metric("penstock_inflight_bytes") == 0, deadline_s=SOON_S, what="all is sent"
    )

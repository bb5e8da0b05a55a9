"""The node of a machine as its readers' first tier: one fetch a chunk, however many ask."""

import itertools
import random
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import grpc
import pytest

import penstock
from penstock.v1 import cache_pb2, cache_pb2_grpc
from penstock_node.testbed.cluster import LocalCluster, NodeProcess, NodeSpec, TierSpec
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.processes import wait_until
from penstock_node.testbed.readers import Readers

MIB = 1024 * 1024
CHUNK_BYTES = 256 * 1024
CHUNKS = 24
SOON_S = 20.0
PROCESSES = 4
STREAMS = 8


class Parts:
    """Two owners, and a machine with tiers of its own that owns nothing."""

    def __init__(self, directory: Path, sockets: Path, etcd: EtcdServer) -> None:
        self.origin = directory / "origin"
        self.origin.mkdir()
        self._names = itertools.count()
        shared = {"allow_file_roots": [str(self.origin)]}
        owned, copies = TierSpec("owned", 64 * MIB), TierSpec("local", 64 * MIB)
        memory = TierSpec("memory", 32 * MIB)
        self.cluster = LocalCluster(
            directory,
            [
                NodeSpec("one", (owned,), shared),
                NodeSpec("two", (owned,), shared),
                NodeSpec("machine", (memory, copies), shared | {"socket": f"{sockets}/m.sock"}),
            ],
            etcd=etcd.endpoint,
            name=directory.name,
            settings={"chunk_size": CHUNK_BYTES},
            volumes={"data": {"url": f"file://{self.origin}/"}},
        )

    @property
    def machine(self) -> NodeProcess:
        return self.cluster["machine"]

    @property
    def owners(self) -> tuple[NodeProcess, NodeProcess]:
        return self.cluster["one"], self.cluster["two"]

    @property
    def socket(self) -> str:
        return f"unix:{self.machine.file.socket}"

    def put(self, *, chunks: int = CHUNKS) -> tuple[str, bytes]:
        """Make a cold object; return its url and its bytes."""
        at = next(self._names)
        data = random.Random(at).randbytes((chunks - 1) * CHUNK_BYTES + 12_345)
        (self.origin / str(at)).write_bytes(data)
        return f"penstock://data/{at}", data

    def served(self, plane: str, *nodes: NodeProcess) -> float:
        name = f'penstock_served_bytes_total{{plane="{plane}"}}'
        return sum(node.metrics().get(name, 0.0) for node in nodes)

    def origin_bytes(self) -> float:
        return self.cluster.total("penstock_origin_bytes_total")


def chunk_files(node: NodeProcess, tier: int) -> set[Path]:
    return {path for path in (node.tier_paths[tier] / "chunks").glob("*/*") if path.is_file()}


def streamed(node: NodeProcess, url: str) -> bytes:
    """Read by the portable stream: through the node, whoever owns what."""
    with grpc.insecure_channel(node.address) as channel:
        answers = cache_pb2_grpc.CacheStub(channel).Read(
            cache_pb2.ReadRequest(url=url), timeout=SOON_S
        )
        return b"".join(answer.data for answer in answers)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory, etcd: EtcdServer) -> Iterator[Parts]:
    with tempfile.TemporaryDirectory(prefix="penstock-") as sockets:
        made = Parts(tmp_path_factory.mktemp("host-reads"), Path(sockets), etcd)
        with made.cluster:
            yield made


def test_a_machine_without_an_owned_tier_joins_and_owns_nothing(
    parts: Parts,
) -> None:
    url, data = parts.put()
    with penstock.connect(parts.socket) as cache:
        assert cache.read(url) == data

        view = cache.cluster_view
        owners = {owner for chunk in cache.locate(url).chunks for owner in chunk.owners}
    weights = {node.id: node.metrics()["penstock_weight"] for node in parts.cluster.running}

    assert set(view.members) == {"one", "two", "machine"}
    assert {node.id for node in view.placement.nodes} == {"one", "two"}
    assert weights == {"one": 100.0, "two": 100.0, "machine": 0.0}
    assert owners == {"one", "two"}


def test_however_many_processes_ask_each_byte_comes_into_the_machine_once(
    parts: Parts, tmp_path: Path
) -> None:
    url, data = parts.put()
    fetched, read = parts.served("bulk", *parts.owners), parts.origin_bytes()

    with Readers(tmp_path / "r", parts.socket, url, processes=PROCESSES, reads_max=2) as readers:
        reports = readers.release().wait_done()

    assert [report.errors for report in reports] == [[]] * PROCESSES
    assert [report.digests for report in reports] == [[sha256(data).hexdigest()]] * PROCESSES
    assert parts.served("bulk", *parts.owners) - fetched == len(data)
    assert parts.origin_bytes() - read == len(data)


def test_what_was_read_stays_in_memory_and_on_the_machines_own_disk(parts: Parts) -> None:
    before = [chunk_files(parts.machine, tier) for tier in (0, 1)]
    url, data = parts.put()

    with penstock.connect(parts.socket) as cache:
        assert cache.read(url) == data
        assert cache.read(url) == data
        held = [chunk.held_by for chunk in cache.locate(url).chunks]
    kept = [chunk_files(parts.machine, tier) - was for tier, was in enumerate(before)]

    assert [len(files) for files in kept] == [CHUNKS, CHUNKS]
    assert {path.name for path in kept[0]} == {path.name for path in kept[1]}
    assert all("machine" in nodes and len(nodes) == 2 for nodes in held)


def test_readers_by_streams_join_the_same_fetches(parts: Parts) -> None:
    url, data = parts.put()
    fetched = parts.served("bulk", *parts.owners)

    with ThreadPoolExecutor(STREAMS) as threads:
        streams = [threads.submit(streamed, parts.machine, url) for _ in range(STREAMS)]
        assert all(stream.result() == data for stream in streams)

    assert parts.served("bulk", *parts.owners) - fetched == len(data)


def test_a_node_that_keeps_no_copies_answers_for_chunks_of_others_and_forgets_them(
    parts: Parts,
) -> None:
    one, two = parts.owners
    url, data = parts.put()
    with penstock.connect(one.address, plane="bulk") as cache:
        owners = [chunk.owners[0] for chunk in cache.locate(url).chunks]
    before, fetched = chunk_files(one, 0), parts.served("bulk", two)
    assert set(owners) == {"one", "two"}

    assert streamed(one, url) == data

    lengths = [min(CHUNK_BYTES, len(data) - at * CHUNK_BYTES) for at in range(CHUNKS)]
    others = sum(n for n, owner in zip(lengths, owners, strict=True) if owner == "two")
    assert parts.served("bulk", two) - fetched == others
    assert len(chunk_files(one, 0) - before) == owners.count("one")
    wait_until(
        lambda: one.metrics()["penstock_inflight_bytes"] == 0,
        deadline_s=SOON_S,
        what="nothing is left in memory",
    )


def test_an_error_reaches_every_reader_and_the_next_one_asks_again(parts: Parts) -> None:
    url, data = parts.put()
    path = parts.origin / url.rpartition("/")[2]
    with penstock.connect(parts.socket) as cache, cache.open(url) as file:
        path.unlink()
        with ThreadPoolExecutor(STREAMS) as threads:
            reads = [threads.submit(cache.read, url) for _ in range(STREAMS)]
            errors = [read.exception() for read in reads]
        assert {type(error) for error in errors} <= {
            penstock.ObjectChanged,
            penstock.ObjectNotFound,
            penstock.OriginUnavailable,
        }
        assert file.tell() == 0

        path.write_bytes(data)
        wait_until(
            lambda: cache.stat(url, refresh=True).size == len(data), deadline_s=SOON_S, what="known"
        )
        assert cache.read(url) == data


def test_with_every_owner_gone_a_machine_reads_what_it_has_also_after_a_restart(
    parts: Parts,
) -> None:
    """The last of these tests: it ends the owners."""
    url, data = parts.put()
    with penstock.connect(parts.socket) as cache:
        assert cache.read(url) == data
    for owner in parts.owners:
        owner.kill()
    parts.machine.stop()
    parts.machine.start()

    with penstock.connect(parts.socket) as cache:
        assert cache.read(url) == data
        assert cache.stats()["plane"].keys() == {"host"}

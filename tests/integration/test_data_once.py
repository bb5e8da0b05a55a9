"""What a host's many workers cost the network and the origin: each byte once."""

import operator
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
from torch.utils.data import DataLoader

from penstock.data import Shards, ShardSampler, ShardStream
from penstock_node.testbed.cluster import LocalCluster, NodeProcess, NodeSpec, TierSpec
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.s3 import S3Server
from penstock_node.testbed.shards import write_tar_shards

MIB = 1 << 20
BUCKET = "data-once"
SHARDS = 12
SAMPLES = 20
SAMPLE_BYTES = 40_000
ALL = list(range(SHARDS * SAMPLES))
WORKERS = 8
SPARSE_SAMPLE_BYTES = 600_000
"""Of members that are much larger than a block: their headers lie far apart."""

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


class Host:
    """A machine with a node, in a cluster over an origin that has shards."""

    def __init__(self, owners: LocalCluster, node: NodeProcess, sizes: dict[str, int]) -> None:
        self._owners, self._node, self.sizes = owners, node, sizes
        self.address = f"unix:{node.file.socket}"

    def came_in(self) -> float:
        """Return the bytes that owners have sent so far: all to this host."""
        return self._owners.total("penstock_served_bytes_total")

    def left_the_origin(self) -> float:
        """Return the bytes that the origin has sent so far."""
        nodes = [*self._owners.running, self._node]
        return sum(
            value
            for node in nodes
            for name, value in node.metrics().items()
            if name.startswith("penstock_origin_bytes_total")
        )


@pytest.fixture(scope="module")
def host(
    tmp_path_factory: pytest.TempPathFactory, etcd: EtcdServer, s3: S3Server
) -> Iterator[Host]:
    root = tmp_path_factory.mktemp("shards")
    s3.create_bucket(BUCKET)
    sizes = {}
    for folder, sample_bytes in (("dense", SAMPLE_BYTES), ("sparse", SPARSE_SAMPLE_BYTES)):
        shards = SHARDS if folder == "dense" else 2
        paths = write_tar_shards(
            root / folder, shards=shards, samples=SAMPLES, sample_bytes=sample_bytes
        )
        for path in paths:
            s3.put(BUCKET, f"{folder}/{path.name}", path)
        sizes[folder] = sum(path.stat().st_size for path in paths)
    with tempfile.TemporaryDirectory(prefix="penstock-") as sockets:
        directory = tmp_path_factory.mktemp("nodes")
        cluster = LocalCluster(
            directory,
            [NodeSpec(name, (TierSpec("owned", 128 * MIB),)) for name in ("n1", "n2")],
            etcd=etcd.endpoint,
            name=BUCKET,
            settings={"chunk_size": MIB // 4},
            volumes={"data": {"url": f"s3://{BUCKET}/", "options": s3.options}},
        )
        local = NodeSpec("host", (TierSpec("local", 128 * MIB),), {"socket": f"{sockets}/node"})
        # It owns nothing, so no ring that the others wait for will have it.
        shared = {"cluster": BUCKET, "etcd": {"endpoints": [etcd.endpoint]}}
        with cluster, NodeProcess(directory, local, shared=shared) as node:
            yield Host(cluster, node, sizes)


def numbers_of(loader: "DataLoader[Any]") -> list[int]:
    return [int(each) for batch in loader for each in batch]


def test_eight_workers_bring_each_byte_once_and_the_next_epoch_none(host: Host) -> None:
    samples = ShardStream(
        "penstock://data/dense/",
        address=host.address,
        shuffle=True,
        transform=operator.itemgetter("cls"),
    )
    loader = DataLoader(samples, batch_size=8, num_workers=WORKERS)
    came, left, size = host.came_in(), host.left_the_origin(), host.sizes["dense"]

    first = numbers_of(loader)
    assert sorted(first) == ALL
    assert host.came_in() - came == size
    assert host.left_the_origin() - left == size

    samples.set_epoch(1)
    second = numbers_of(loader)
    assert sorted(second) == ALL
    assert second != first
    assert host.came_in() - came == size
    assert host.left_the_origin() - left == size


def test_an_index_and_then_samples_by_number_bring_each_byte_once(host: Host) -> None:
    came, left, size = host.came_in(), host.left_the_origin(), host.sizes["sparse"]
    samples = Shards(
        "penstock://data/sparse/", address=host.address, transform=operator.itemgetter("cls")
    )
    loader = DataLoader(samples, batch_size=4, sampler=ShardSampler(samples), num_workers=4)

    assert sorted(numbers_of(loader)) == list(range(len(samples)))
    assert host.came_in() - came == size
    assert host.left_the_origin() - left == size

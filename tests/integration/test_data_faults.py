"""What a training is told when something is wrong with its shards, or with the way to them."""

import operator
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file
from torch.utils.data import DataLoader

import penstock
from penstock import operator as cluster_operator
from penstock.data import Shards, ShardStream
from penstock.errors import ClusterUnavailable, InvalidRequest, ObjectChanged, ObjectNotFound
from penstock_node.testbed.cluster import LocalCluster, NodeSpec, TierSpec
from penstock_node.testbed.processes import free_ports
from penstock_node.testbed.s3 import S3Server
from penstock_node.testbed.shards import write_tar_shards

MIB = 1 << 20
BUCKET = "data-faults"

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


class Site:
    """A node over a bucket that tests write to."""

    def __init__(self, s3: S3Server, address: str) -> None:
        self.s3, self.address = s3, address

    def put(self, name: str, content: bytes) -> str:
        """Write an object; return its url."""
        self.s3.put(BUCKET, name, content)
        return f"penstock://data/{name}"

    def evict(self, url: str) -> None:
        """Have the node hold nothing of an object."""
        with cluster_operator.connect(self.address) as own:
            own.evict([url])

    def stream(self, url: str, **options: Any) -> ShardStream:
        return ShardStream(url, address=self.address, **options)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, s3: S3Server) -> Iterator[Site]:
    s3.create_bucket(BUCKET)
    cluster = LocalCluster(
        tmp_path_factory.mktemp("node"),
        [NodeSpec("node", (TierSpec("owned", 256 * MIB),))],
        etcd=None,
        settings={"chunk_size": MIB // 4},
        volumes={"data": {"url": f"s3://{BUCKET}/", "options": s3.options}},
    )
    with cluster:
        yield Site(s3, cluster["node"].address)


def tar_cut_short(directory: Path) -> bytes:
    (path,) = write_tar_shards(directory, shards=1, samples=8, sample_bytes=100_000)
    return path.read_bytes()[:500_000]


def parquet_without_its_footer(directory: Path) -> bytes:
    path = directory / "a.parquet"
    pq.write_table(pa.table({"x": list(range(10_000))}), path)
    return path.read_bytes()[:-100]


def safetensors_of_another_length(directory: Path) -> bytes:
    path = directory / "a.safetensors"
    save_file({"x": torch.zeros(100, 10)}, path)
    return path.read_bytes() + b"more"


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("name", "broken", "told"),
    [
        ("cut.tar", tar_cut_short, "cut short.*write it again, and close its writer"),
        ("cut.parquet", parquet_without_its_footer, "its footer is written last: write it again"),
        ("long.safetensors", safetensors_of_another_length, "truncated, or was written to by"),
    ],
)
def test_a_broken_shard_is_named_with_what_to_do(
    site: Site,
    tmp_path: Path,
    name: str,
    broken: Callable[[Path], bytes],
    told: str,
    workers: int,
) -> None:
    url = site.put(f"broken/{name}", broken(tmp_path))
    loader = DataLoader(site.stream(url), batch_size=None, num_workers=workers)

    with pytest.raises(InvalidRequest, match=rf"(?s)shard {url}.*{told}"):
        list(loader)
    with pytest.raises(InvalidRequest, match=rf"(?s)shard {url}.*{told}"):
        len(Shards(url, address=site.address))


def test_a_prefix_without_shards_is_an_error_that_tells_what_is_there(site: Site) -> None:
    site.put("texts/readme.txt", b"no shard")

    with pytest.raises(ObjectNotFound, match=r"no shards in .*texts/: .*texts/readme\.txt"):
        site.stream("penstock://data/texts/")
    with pytest.raises(ObjectNotFound, match="nothing lies below"):
        site.stream("penstock://data/none/")


def test_a_shard_that_is_not_there_is_not_found(site: Site) -> None:
    with pytest.raises(ObjectNotFound):
        list(site.stream("penstock://data/else.tar"))


def large_shard(directory: Path, seed: int) -> bytes:
    (path,) = write_tar_shards(directory, shards=1, samples=30, sample_bytes=1_000_000, seed=seed)
    return path.read_bytes()


def test_a_shard_overwritten_while_it_is_read_is_named(site: Site, tmp_path: Path) -> None:
    url = site.put("changing/0.tar", large_shard(tmp_path, 1))
    samples = iter(site.stream(url))
    next(samples)

    site.put("changing/0.tar", large_shard(tmp_path, 2))
    site.evict(url)

    with pytest.raises(ObjectChanged, match=f"shard {url} was overwritten.*under new names"):
        list(samples)


def test_a_shard_overwritten_between_epochs_is_named(site: Site, tmp_path: Path) -> None:
    url = site.put("between/0.tar", large_shard(tmp_path, 1))
    samples, by_number = site.stream("penstock://data/between/"), Shards(url, address=site.address)
    assert len(list(samples)) == len(by_number) == 30

    site.put("between/0.tar", large_shard(tmp_path, 2))
    with penstock.connect(site.address) as cache:
        cache.stat(url, refresh=True)

    loader = DataLoader(samples, batch_size=None, num_workers=2)
    with pytest.raises(ObjectChanged, match=f"shard {url} was overwritten"):
        list(loader)
    again = pickle.loads(pickle.dumps(by_number))  # noqa: S301 - our own
    with pytest.raises(ObjectChanged, match=f"shard {url} was overwritten"):
        list(DataLoader(again, batch_size=None, num_workers=2))


@pytest.mark.parametrize("workers", [0, 2])
def test_where_no_node_answers_the_address_is_named(workers: int) -> None:
    (port,) = free_ports(1)
    samples = ShardStream(
        "penstock://data/0.tar",
        address=f"127.0.0.1:{port}",
        transform=operator.itemgetter("cls"),
    )

    loader = DataLoader(samples, batch_size=None, num_workers=workers)

    with pytest.raises(ClusterUnavailable, match=f"127.0.0.1:{port}"):
        list(loader)
    with pytest.raises(ClusterUnavailable, match=f"127.0.0.1:{port}"):
        ShardStream("penstock://data/", address=f"127.0.0.1:{port}")


def test_without_torch_it_says_what_to_install() -> None:
    program = "import sys; sys.modules['torch'] = None; import penstock.data"

    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True
    )

    assert done.returncode == 1
    assert "InvalidRequest: this needs torch" in done.stderr
    assert "pip install 'penstock[torch]'" in done.stderr

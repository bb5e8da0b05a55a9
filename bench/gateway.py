"""Measure the S3 gateway beside nginx, which serves the same file to the same clients.

    python bench/gateway.py [--quick] [--json FILE]

One file in the safetensors format lies in the cache of one node, warm, and as a file of nginx.
boto3 and obstore read it by ranges of 8 MiB, as many at once, into memory; Run:ai's streamer makes
tensors of it, in a process of its own, without the time that this takes to start. ``--quick``
reads 8 MiB.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import torch
from botocore import UNSIGNED
from botocore.config import Config
from obstore.store import S3Store
from safetensors.torch import save_file

from penstock.checksums import block_checksums
from penstock_node.testbed.benchmark import Inputs, Measure, run_benchmark
from penstock_node.testbed.cluster import NodeProcess, NodeSpec, TierSpec
from penstock_node.testbed.contest import Contender, Contest, Sample
from penstock_node.testbed.destination import Destination
from penstock_node.testbed.loaders.running import load, runai
from penstock_node.testbed.parallel import Threads, read_range
from penstock_node.testbed.peers.nginx import Nginx
from penstock_node.testbed.warm import MIB, scratch

BUCKET, KEY = "models", "model.safetensors"
REGION = "us-east-1"
AT_ONCE = 8
COPIES = 3
"""The file, the node's, and the reader's."""
NODE, NGINX = "a node", "nginx"
CLIENTS = ("boto3", "obstore", "Run:ai")
TARGET = 0.9


@dataclass(frozen=True, slots=True)
class Size:
    """What a run measures."""

    object_bytes: int
    part_bytes: int
    rounds: int
    warms_up: bool = True


FULL = Size(object_bytes=1024 * MIB, part_bytes=8 * MIB, rounds=5)
QUICK = Size(object_bytes=8 * MIB, part_bytes=MIB, rounds=1, warms_up=False)


class Bench:
    """The file, both servers, and clients of either."""

    def __init__(self, path: Path, servers: Mapping[str, Callable[[], str]], size: Size) -> None:
        self._servers, self._size = servers, size
        data = path.read_bytes()
        self._destination = Destination(len(data), block_checksums(memoryview(data)))
        self._sum: int | None = None

    def measures(self, client: str) -> Iterator[Measure]:
        """Let a client read from each server in turn, and yield the figures."""
        read: Callable[[str], Sample] = {
            "boto3": self._boto3,
            "obstore": self._obstore,
            "Run:ai": self._runai,
        }[client]
        contenders: dict[str, Contender] = {
            server: partial(self._read, read, server) for server in (NGINX, NODE)
        }
        contest = Contest(contenders, work_bytes=len(self._destination.view), group=client)
        contest.run(self._size.rounds, what=client, warms_up=self._size.warms_up)
        yield contest.speed(NGINX)
        yield contest.speed(NODE)
        yield contest.speed_ratio(NODE, NGINX, bound="≥", target=TARGET)

    def _read(self, read: Callable[[str], Sample], server: str) -> Sample:
        return read(f"http://{self._servers[server]()}")

    def _boto3(self, endpoint: str) -> Sample:
        client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name=REGION,
            config=Config(
                signature_version=UNSIGNED,
                s3={"addressing_style": "path"},
                max_pool_connections=AT_ONCE,
            ),
        )
        return self._timed(partial(_read_range_by_boto3, client))

    def _obstore(self, endpoint: str) -> Sample:
        store = S3Store(
            BUCKET,
            config={
                "endpoint": endpoint,
                "region": REGION,
                "skip_signature": True,
                "virtual_hosted_style_request": False,
            },
            client_options={"allow_http": True},
        )
        return self._timed(partial(read_range, store, KEY))

    def _timed(self, read: Callable[[memoryview, int], None]) -> Sample:
        with Threads(AT_ONCE) as threads:
            return self._destination.timed(
                partial(threads.fill, self._destination.view, self._size.part_bytes, read)
            )

    def _runai(self, endpoint: str) -> Sample:
        (told,) = load(runai(endpoint, [f"s3://{BUCKET}/{KEY}"]))
        self._sum = told["sum"] if self._sum is None else self._sum
        assert told["sum"] == self._sum, "the tensors are not the file's"
        return Sample(told["load_s"])


def _read_range_by_boto3(client: Any, part: memoryview, start: int) -> None:
    span = f"bytes={start}-{start + len(part) - 1}"
    body = client.get_object(Bucket=BUCKET, Key=KEY, Range=span)["Body"]
    with contextlib.closing(body):
        part[:] = body.read()


@contextlib.contextmanager
def running(directory: Path, size: Size) -> Iterator[Bench]:
    """Start both servers over the same file."""
    files = directory / "files"
    path = files / BUCKET / KEY
    path.parent.mkdir(parents=True)
    rows = torch.arange(size.object_bytes // 4, dtype=torch.int32).reshape(-1, 1024)
    save_file({f"layer.{at}": part.contiguous() for at, part in enumerate(rows.chunk(8))}, path)
    node = NodeProcess(
        directory,
        NodeSpec(
            "node",
            (TierSpec("owned", size.object_bytes + 256 * MIB),),
            {"s3_port": 0, "allow_file_roots": [str(files)]},
        ),
        shared={"cluster": "bench", "volumes": {BUCKET: {"url": f"file://{path.parent}/"}}},
    )
    nginx = Nginx(directory / "nginx", files=files, header="X-Bench", values={})
    with node, nginx:
        servers = {NODE: lambda: node.file.s3_address, NGINX: lambda: nginx.address}
        yield Bench(path, servers, size)


def measure(is_quick: bool) -> tuple[Inputs, list[Measure]]:
    """Let each client read from both."""
    size = QUICK if is_quick else FULL
    with (
        scratch(size.object_bytes * COPIES) as directory,
        running(directory, size) as bench,
    ):
        measures = [each for client in CLIENTS for each in bench.measures(client)]
    inputs = {
        "object_bytes": size.object_bytes,
        "part_bytes": size.part_bytes,
        "requests_at_once": AT_ONCE,
        "rounds": size.rounds,
    }
    return inputs, measures


if __name__ == "__main__":
    run_benchmark("The S3 gateway beside nginx", measure)

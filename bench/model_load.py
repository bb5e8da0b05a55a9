"""Measure the seconds from process start until all tensors of a model are loaded.

    python bench/model_load.py [--quick] [--json FILE]

Loaders are processes of their own (`testbed.loaders`), on the processor; each touches all
pages of all tensors. *Warm host*: a node of the loaders' machine has the model. *Warm cluster*:
the owners have it, and the loaders' machine has no node. *Cold cluster*: nobody has it. Beside
them: the safetensors library on a file in the page cache, and the ways straight from S3, a process
of this machine too; held, it answers nothing before 20 ms have passed, and sends 300 MB/s. At last,
many loaders of a host that has nothing of the model yet: what comes into it, and the memory that
it takes there. What a loader's process itself uses, imports included, stands beside its seconds.
``--quick`` loads the real model once.
"""

import contextlib
import functools
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

import penstock
from penstock import operator
from penstock_node.testbed.benchmark import Inputs, Measure, run_benchmark
from penstock_node.testbed.cluster import LocalCluster, NodeProcess, NodeSpec, TierSpec
from penstock_node.testbed.contest import Contest, Sample
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.held_origin import HeldOrigin
from penstock_node.testbed.loaders.running import Way, load, runai
from penstock_node.testbed.model import MODEL_BYTES, model_path
from penstock_node.testbed.s3 import S3Server
from penstock_node.testbed.warm import MIB, scratch

BUCKET = "models"
URL = f"penstock://{BUCKET}"
REAL, MADE = "real", "made"
SHARDS = 4
HELD_DELAY_S = 0.020
HELD_BYTES_PER_S = 300e6
COPIES = 4
"""The files, the origin's, the owners' and the host's."""
HOST, CLUSTER, COLD = "Penstock, warm host", "Penstock, warm cluster", "Penstock, cold cluster"
LOCAL = "safetensors, local file"
OBSTORE, RUNAI, S3FS = DIRECT = ("obstore from S3", "Run:ai from S3", "s3fs from S3")
HELD = "obstore from S3, held"
GATEWAY = "Run:ai through a node"


@dataclass(frozen=True, slots=True)
class Crowd:
    """Some loaders of one model, started at one moment."""

    model: str
    loaders: int
    rounds: int
    ways: tuple[str, ...]
    warms_up: bool = True


@dataclass(frozen=True, slots=True)
class Size:
    """What a run measures."""

    shard_bytes: int
    crowds: tuple[Crowd, ...]
    ranks: Crowd
    """Of a host that has nothing of the model yet."""


EVERY = (LOCAL, HOST, CLUSTER, COLD, *DIRECT, GATEWAY)
FULL = Size(
    shard_bytes=512 * MIB,
    crowds=(
        Crowd(REAL, 1, 3, EVERY),
        Crowd(REAL, 8, 1, (LOCAL, HOST, CLUSTER, COLD, *DIRECT[:2], GATEWAY)),
        Crowd(REAL, 32, 1, (LOCAL, HOST, CLUSTER)),
        Crowd(MADE, 1, 3, (LOCAL, HOST, CLUSTER, COLD, *DIRECT[:2], HELD, GATEWAY)),
        Crowd(MADE, 8, 1, (LOCAL, HOST)),
    ),
    ranks=Crowd(MADE, 8, 1, (HOST,)),
)
QUICK = Size(
    shard_bytes=0,
    crowds=(Crowd(REAL, 1, 1, (LOCAL, HOST, CLUSTER, DIRECT[0], GATEWAY), warms_up=False),),
    ranks=Crowd(REAL, 2, 1, (HOST,)),
)


class Models:
    """The checkpoints as files, and what must come of loading each."""

    def __init__(self, directory: Path, size: Size) -> None:
        self.directory = directory
        (directory / REAL).mkdir(parents=True)
        shutil.copy(model_path(), directory / REAL / "model.safetensors")
        if size.shard_bytes:
            _write_checkpoint(directory / MADE, size.shard_bytes)
        self.sums: dict[str, int] = {}

    def files(self, model: str) -> list[Path]:
        """Return a model's files with tensors."""
        return sorted((self.directory / model).glob("*.safetensors"))

    def size_bytes(self, model: str) -> int:
        """Return how large a model is."""
        return sum(path.stat().st_size for path in self.files(model))

    def check(self, model: str, told: Mapping[str, Any]) -> None:
        """Make sure that all ways came to the same tensors."""
        assert told["sum"] == self.sums.setdefault(model, told["sum"]), (model, told)


def _write_checkpoint(directory: Path, shard_bytes: int) -> None:
    """Write random tensors, as large as those of a layer, in shards with an index."""
    directory.mkdir()
    rows = shard_bytes // SHARDS // (2 * 4096)
    generator = torch.Generator().manual_seed(3)
    weights: dict[str, str] = {}
    for shard in range(SHARDS):
        name = f"model-{shard + 1:05}-of-{SHARDS:05}.safetensors"
        tensors = {
            f"layers.{shard}.{at}.weight": torch.randint(
                0, 2**15, (rows, 4096), dtype=torch.int16, generator=generator
            )
            for at in range(SHARDS)
        }
        save_file(tensors, directory / name)
        weights |= dict.fromkeys(tensors, name)
    index = directory / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weights}))


class Bench:
    """All parts, and the ways to a model over them."""

    def __init__(
        self,
        models: Models,
        *,
        s3: S3Server,
        held: HeldOrigin,
        owners: LocalCluster,
        host: NodeProcess,
    ) -> None:
        self.models, self._s3, self._held = models, s3, held
        self._owners, self._host = owners, host
        self._socket = f"unix:{host.file.socket}"
        self._everyone = ",".join(node.address for node in (*owners.running, host))

    def measures(self, crowd: Crowd) -> Iterator[Measure]:
        """Let a crowd load in each way in turn, and yield the figures."""
        size = self.models.size_bytes(crowd.model)
        group = f"{size / 1e6:.0f} MB, {crowd.loaders} loader{'s' * (crowd.loaders > 1)}"
        runs = {way: functools.partial(self._load, way, crowd) for way in crowd.ways}
        contest = Contest(runs, work_bytes=size * crowd.loaders, group=group)
        contest.run(crowd.rounds, what=group, warms_up=crowd.warms_up)
        for way in crowd.ways:
            yield contest.seconds(way)
            yield contest.client_cpu(way)
        yield contest.time_ratio(HOST, LOCAL, bound="≤", target=1.1)
        for direct in (*DIRECT, HELD):
            if CLUSTER in crowd.ways and direct in crowd.ways:
                yield contest.time_ratio(CLUSTER, direct, bound="≤", target=0.5)

    def ranks(self, crowd: Crowd) -> Iterator[Measure]:
        """Let a crowd load a model that the owners have and its host has not."""
        size = self.models.size_bytes(crowd.model)
        for state in (COLD, CLUSTER):
            self._prepare(state, crowd.model)
        served, kept = self._served(), self._kept()
        told = load(self._way(HOST, crowd.model), loaders=crowd.loaders)
        for each in told:
            self.models.check(crowd.model, each)
        group = f"{size / 1e6:.0f} MB, {crowd.loaders} loaders of one host that has nothing of it"
        network = (self._served() - served) / size
        memory = (self._kept() - kept + sum(each["private_bytes"] for each in told)) / size
        yield Measure(
            "network bytes into the host ÷ size", network, bound="=", target=1.0, group=group
        )
        yield Measure(
            "memory of the host's tier and all loaders ÷ size",
            memory,
            bound="≤",
            target=1.02,  # Each interpreter grows by some megabytes.
            group=group,
        )

    def _served(self) -> float:
        """Return what the owners have sent so far."""
        return self._owners.total("penstock_served_bytes_total")

    def _kept(self) -> float:
        """Return what the host's tier holds."""
        used = self._host.metrics().items()
        return sum(size for name, size in used if name.startswith("penstock_tier_used_bytes"))

    def _load(self, way: str, crowd: Crowd) -> Sample:
        self._prepare(way, crowd.model)
        begun = time.monotonic()
        told = load(self._way(way, crowd.model), loaders=crowd.loaders)
        for each in told:
            self.models.check(crowd.model, each)
        seconds = max(each["loaded_at"] for each in told) - begun
        return Sample(seconds, client_cpu_s=sum(each["cpu_s"] for each in told))

    def _prepare(self, way: str, model: str) -> None:
        """Have the caches as the way's name says, whatever ran before."""
        urls = [f"{URL}/{model}/{path.name}" for path in self.models.files(model)]
        if way == COLD:
            with operator.connect(self._everyone) as own:
                own.evict(urls)
        if way == HOST:
            with penstock.connect(self._socket) as cache:
                for url in urls:
                    cache.view(url).release()
        if way in (CLUSTER, GATEWAY):
            with self._owners.connect(plane="bulk") as cache:
                for url in urls:
                    _bring(cache, url)

    def _way(self, way: str, model: str) -> Way:
        return self._ways(model)[way]

    def _ways(self, model: str) -> Mapping[str, Way]:
        files, url = self.models.files(model), f"{URL}/{model}"
        keys = [f"{model}/{path.name}" for path in files]
        owner = self._owners.nodes["n1"]
        by_owners = Way("penstock", {"address": owner.address, "plane": "bulk", "url": url})
        by_host = Way("penstock", {"address": self._socket, "plane": "host", "url": url})
        obstore = {
            **self._s3.options,
            "skip_signature": True,
            "virtual_hosted_style_request": False,
        }
        held = {**obstore, "endpoint": self._held.endpoint}
        s3fs = {"anon": True, "endpoint_url": self._s3.endpoint}
        stored, s3_urls = {"bucket": BUCKET, "keys": keys}, [f"s3://{BUCKET}/{key}" for key in keys]
        return {
            LOCAL: Way("local", {"files": [str(path) for path in files]}),
            HOST: by_host,
            CLUSTER: by_owners,
            COLD: by_owners,
            OBSTORE: Way("obstore", {**stored, "options": obstore}),
            HELD: Way("obstore", {**stored, "options": held}),
            S3FS: Way("s3fs", {**stored, "s3fs": s3fs}),
            RUNAI: runai(self._s3.endpoint, s3_urls),
            GATEWAY: runai(f"http://{owner.file.s3_address}", s3_urls),
        }


def _bring(cache: penstock.Cache, url: str) -> None:
    """Have the owners hold an object."""
    located = cache.locate(url)
    if not all(chunk.held_by for chunk in located.chunks):
        cache.read_into(url, memoryview(bytearray(located.object.size)))


@contextlib.contextmanager
def running(directory: Path, size: Size) -> Iterator[Bench]:
    """Start all parts."""
    models = Models(directory / "models", size)
    stored = {model: models.files(model) for model in {crowd.model for crowd in size.crowds}}
    capacity_bytes = sum(map(models.size_bytes, stored)) + 256 * MIB
    owners = [
        NodeSpec(f"n{i}", (TierSpec("owned", capacity_bytes),), {"s3_port": 0}) for i in (1, 2, 3)
    ]
    socket = {"socket": str(directory / "host.sock")}
    local = NodeSpec("host", (TierSpec("local", capacity_bytes),), socket)
    with (
        EtcdServer(directory / "etcd") as etcd,
        S3Server(directory / "s3") as s3,
        HeldOrigin(
            directory / "held", s3.endpoint, delay_s=HELD_DELAY_S, bytes_per_s=HELD_BYTES_PER_S
        ) as held,
    ):
        s3.create_bucket(BUCKET)
        for path in sorted(models.directory.glob("*/*")):
            s3.put(BUCKET, f"{path.parent.name}/{path.name}", path)
        cluster = LocalCluster(
            directory / "nodes",
            owners,
            etcd=etcd.endpoint,
            name="model-load",
            volumes={BUCKET: {"url": f"s3://{BUCKET}/", "options": s3.options}},
        )
        # It owns nothing, so no ring that the others wait for will have it.
        shared = {"cluster": "model-load", "etcd": {"endpoints": [etcd.endpoint]}}
        with cluster, NodeProcess(directory, local, shared=shared) as host:
            yield Bench(models, s3=s3, held=held, owners=cluster, host=host)


def measure(is_quick: bool) -> tuple[Inputs, list[Measure]]:
    """Let each crowd load in each way."""
    size = QUICK if is_quick else FULL
    model_bytes = MODEL_BYTES + SHARDS * size.shard_bytes
    with scratch(model_bytes * COPIES) as directory, running(directory, size) as bench:
        measures = [each for crowd in size.crowds for each in bench.measures(crowd)]
        measures += bench.ranks(size.ranks)
    inputs = {
        "made_checkpoint_bytes": SHARDS * size.shard_bytes,
        "shards": SHARDS,
        "rounds": {f"{crowd.model}, {crowd.loaders}": crowd.rounds for crowd in size.crowds},
    }
    return inputs, measures


if __name__ == "__main__":
    run_benchmark("Seconds until a model is loaded", measure)

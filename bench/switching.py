"""Measure switches between models of which the machine's own node keeps some.

    python bench/switching.py [--quick] [--json FILE]

One program loads five models in turn, in an order that chance gives, and touches all of each; the
tier of its machine's node holds two of them, the owners all. Beside it: the safetensors library on
files in the page cache, which holds all. In the first round, which is not counted, the models leave
the origin. ``--quick`` loads small ones.
"""

import contextlib
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

import penstock
import penstock.safetensors
from penstock_node.testbed.benchmark import Inputs, Measure, rounds, run_benchmark
from penstock_node.testbed.cluster import LocalCluster, NodeProcess, NodeSpec, TierSpec
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.loaders.load import touched
from penstock_node.testbed.s3 import S3Server
from penstock_node.testbed.warm import MIB, scratch

BUCKET = "models"
CLUSTER = "switching"
MODELS, FIT = 5, 2
TENSORS = 8
COPIES = 3
"""The files, the origin's, and the owners'; the host's tier has less."""
SEED = 3


@dataclass(frozen=True, slots=True)
class Size:
    """What a run measures."""

    model_bytes: int
    rounds: int


FULL = Size(model_bytes=512 * MIB, rounds=6)
QUICK = Size(model_bytes=4 * MIB, rounds=1)


@dataclass(slots=True)
class Samples:
    """Seconds of each switch, and what left the origin in counted rounds."""

    penstock: list[float] = field(default_factory=list)
    local: list[float] = field(default_factory=list)
    origin: list[float] = field(default_factory=list)


class Bench:
    """A program on a host, its models, and where else they are."""

    def __init__(self, files: Path, cache: penstock.Cache, s3: S3Server, size: Size) -> None:
        self._files, self._cache, self._s3, self._size = files, cache, s3, size
        self._rng = random.Random(SEED)
        self.samples = Samples()

    def run(self) -> None:
        """Switch through all models, once for a start and then once a round."""
        names = [f"{number}.safetensors" for number in range(MODELS)]
        for name in names:
            self._switch(name)
        self.samples = Samples()
        for _ in rounds(self._size.rounds, f"switches between {MODELS} models"):
            before = self._s3.counters().sent_bytes
            for name in self._rng.sample(names, MODELS):
                self._switch(name)
            self.samples.origin.append(self._s3.counters().sent_bytes - before)

    def _switch(self, name: str) -> None:
        begun = time.perf_counter()
        url = f"penstock://{BUCKET}/{name}"
        found = sum(map(touched, penstock.safetensors.load_file(url, cache=self._cache).values()))
        loaded = time.perf_counter()
        wanted = sum(map(touched, load_file(self._files / name).values()))
        self.samples.penstock.append(loaded - begun)
        self.samples.local.append(time.perf_counter() - loaded)
        assert found == wanted, f"{name} is not what the file is"

    def measures(self) -> Iterator[Measure]:
        """Yield the figures."""
        told = self.samples
        ratios = [mine / other for mine, other in zip(told.penstock, told.local, strict=True)]
        yield Measure.of("safetensors, local file", told.local, "s")
        yield Measure.of("Penstock", told.penstock, "s")
        yield Measure.of("time: Penstock ÷ safetensors, local file", ratios, bound="≤", target=1.2)
        yield Measure.of("bytes asked of the origin", told.origin, "B", bound="=", target=0)


def write_models(directory: Path, size: Size) -> None:
    """Write random models as files."""
    directory.mkdir()
    generator = torch.Generator().manual_seed(SEED)
    rows = size.model_bytes // TENSORS // (2 * 1024)
    for number in range(MODELS):
        tensors = {
            f"layers.{at}": torch.randint(
                0, 2**15, (rows, 1024), dtype=torch.int16, generator=generator
            )
            for at in range(TENSORS)
        }
        save_file(tensors, directory / f"{number}.safetensors")


@contextlib.contextmanager
def running(directory: Path, size: Size) -> Iterator[Bench]:
    """Start all parts."""
    files = directory / "files"
    write_models(files, size)
    owned = TierSpec("owned", MODELS * size.model_bytes + 256 * MIB)
    kept = TierSpec("local", FIT * size.model_bytes + size.model_bytes // 4)
    host = NodeSpec("host", (kept,), {"socket": str(directory / "host.sock")})
    with EtcdServer(directory / "etcd") as etcd, S3Server(directory / "s3") as s3:
        s3.create_bucket(BUCKET)
        for path in sorted(files.iterdir()):
            s3.put(BUCKET, path.name, path)
        cluster = LocalCluster(
            directory / "nodes",
            [NodeSpec(f"n{number}", (owned,)) for number in (1, 2)],
            etcd=etcd.endpoint,
            name=CLUSTER,
            volumes={BUCKET: {"url": f"s3://{BUCKET}/", "options": s3.options}},
        )
        # It owns nothing, so no ring that the others wait for will have it.
        shared = {"cluster": CLUSTER, "etcd": {"endpoints": [etcd.endpoint]}}
        with (
            cluster,
            NodeProcess(directory, host, shared=shared) as node,
            penstock.connect(f"unix:{node.file.socket}") as cache,
        ):
            yield Bench(files, cache, s3, size)


def measure(is_quick: bool) -> tuple[Inputs, list[Measure]]:
    """Switch, and count."""
    size = QUICK if is_quick else FULL
    room_bytes = size.model_bytes * (MODELS * COPIES + FIT + 1)
    with scratch(room_bytes) as directory, running(directory, size) as bench:
        bench.run()
        measures = list(bench.measures())
    inputs = {
        "models": MODELS,
        "fit_the_host": FIT,
        "model_bytes": size.model_bytes,
        "rounds": size.rounds,
    }
    return inputs, measures


if __name__ == "__main__":
    run_benchmark("Switches between models", measure)

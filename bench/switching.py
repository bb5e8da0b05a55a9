"""Measure switches between models of which the machine's own node keeps some.

    python bench/switching.py [--quick] [--json FILE]

One program loads five models in turn, in an order that chance gives, and touches all of each; the
tier of its machine's node holds two of them, the owners all. Beside it: the safetensors library on
files of a disk, of which the page cache holds the two that were loaded last; and on files that are
all in the page cache, for which the machine has memory for five. In the first round, which is not
counted, the models leave the origin. ``--quick`` loads small ones.
"""

import contextlib
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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
PENSTOCK = "Penstock"
DISK = "safetensors, files of a disk, 2 in the page cache"
CACHED = "safetensors, files in the page cache"
COPIES = 2
"""The origin's and the owners'; the host's tier has less."""
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
    """Seconds of each round's switches, and what left the origin in it."""

    penstock: list[float] = field(default_factory=list)
    disk: list[float] = field(default_factory=list)
    cached: list[float] = field(default_factory=list)
    origin: list[float] = field(default_factory=list)


class Bench:
    """A program on a host, its models, and where else they are."""

    def __init__(self, files: Path, cache: penstock.Cache, s3: S3Server, size: Size) -> None:
        self._files, self._cache, self._s3, self._size = files, cache, s3, size
        self._rng = random.Random(SEED)
        self._recent: list[Path] = []
        self.samples = Samples()

    def run(self) -> None:
        """Switch through all models, once for a start and then once a round."""
        names = [f"{number}.safetensors" for number in range(MODELS)]
        self._round(names)
        self.samples = Samples()
        for _ in rounds(self._size.rounds, f"switches between {MODELS} models"):
            before = self._s3.counters().sent_bytes
            self._round(self._rng.sample(names, MODELS))
            self.samples.origin.append(self._s3.counters().sent_bytes - before)

    def _round(self, names: Sequence[str]) -> None:
        by_penstock, from_disk, cached = zip(*map(self._switch, names), strict=True)
        self.samples.penstock.append(sum(by_penstock))
        self.samples.disk.append(sum(from_disk))
        self.samples.cached.append(sum(cached))

    def _switch(self, name: str) -> tuple[float, float, float]:
        """Return the seconds of each way."""
        url, path = f"penstock://{BUCKET}/{name}", self._files / name
        wanted, from_disk = timed_load(lambda: load_file(path))
        again, cached = timed_load(lambda: load_file(path))
        self._keep_in_page_cache(path)
        found, by_penstock = timed_load(
            lambda: penstock.safetensors.load_file(url, cache=self._cache)
        )
        assert found == wanted == again, f"{name} is not what the file is"
        return by_penstock, from_disk, cached

    def _keep_in_page_cache(self, path: Path) -> None:
        """Have those that were loaded last in the page cache, as many as fit the tier."""
        self._recent = [path, *(each for each in self._recent if each != path)]
        while len(self._recent) > FIT:
            with self._recent.pop().open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def measures(self) -> Iterator[Measure]:
        """Yield the figures."""
        told = self.samples
        for name, samples in (
            (DISK, told.disk),
            (CACHED, told.cached),
            (PENSTOCK, told.penstock),
        ):
            yield Measure.of(name, [each / MODELS for each in samples], "s")
        yield Measure.of(
            f"time: {PENSTOCK} ÷ {DISK}",
            ratios(told.penstock, told.disk),
            bound="≤",
            target=1.2,
        )
        yield Measure.of(f"time: {PENSTOCK} ÷ {CACHED}", ratios(told.penstock, told.cached))
        yield Measure.of("bytes asked of the origin", told.origin, "B", bound="=", target=0)


def timed_load(load: Callable[[], Mapping[str, torch.Tensor]]) -> tuple[int, float]:
    """Return a sum over a model that is loaded and touched, and the seconds that it took."""
    begun = time.perf_counter()
    total = sum(map(touched, load().values()))
    return total, time.perf_counter() - begun


def ratios(mine: Sequence[float], other: Sequence[float]) -> list[float]:
    """Return the ratios, round by round."""
    return [one / two for one, two in zip(mine, other, strict=True)]


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
    os.sync()  # What is not on the disk cannot leave the page cache.


@contextlib.contextmanager
def running(directory: Path, files: Path, size: Size) -> Iterator[Bench]:
    """Start all parts."""
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
    with (
        scratch(room_bytes) as directory,
        scratch(MODELS * size.model_bytes, place="disk") as disk,
        running(directory, disk / "files", size) as bench,
    ):
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

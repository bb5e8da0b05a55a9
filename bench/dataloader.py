"""Measure epochs of a DataLoader with many workers over shuffled shards.

    python bench/dataloader.py [--quick] [--json FILE]

The first epoch brings the shards from SeaweedFS to the node of this machine; the ones after are
timed, beside the same dataset class over the same shards as files, on the file system that the
node keeps its chunks on, pages in memory, and beside the `webdataset` package over those files.
*As tensors*: each sample becomes a tensor in its worker, and comes to the training in a batch.
*Nothing else*: of each sample only its size comes, so that reading is all that is left. Workers
live through all epochs. ``--quick`` reads a few megabytes with two workers.
"""

import contextlib
import functools
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from penstock.data import Shards, ShardSampler, ShardStream
from penstock_node.testbed.benchmark import Inputs, Measure, run_benchmark
from penstock_node.testbed.cluster import LocalCluster, NodeSpec, TierSpec
from penstock_node.testbed.contest import Contender, Contest, Sample
from penstock_node.testbed.peers import PeerAbsent
from penstock_node.testbed.s3 import S3Server
from penstock_node.testbed.shards import write_row_shards, write_tar_shards
from penstock_node.testbed.warm import MIB, scratch

BUCKET = "shards"
NODE, ELSEWHERE = "Penstock, this machine's node", "Penstock, no node here"
LOCAL, WEBDATASET = "local files", "webdataset, local files"
TAR, ROWS = "tar", "rows"
BUFFER_SAMPLES = 100
BATCH = 32
COPIES = 5
"""The files, the origin's, the nodes', and batches on their way."""
TARGET = 0.9


@dataclass(frozen=True, slots=True)
class Size:
    """What a run measures."""

    shards: int
    shard_bytes: int
    """Of one tar file; ``row_shard_bytes`` of one in safetensors format."""
    row_shard_bytes: int
    sample_bytes: int
    row_bytes: int
    workers: int
    rounds: int


FULL = Size(
    shards=16,
    shard_bytes=64 * MIB,
    row_shard_bytes=16 * MIB,
    sample_bytes=100_000,
    row_bytes=16_384,
    workers=8,
    rounds=9,
)
QUICK = Size(
    shards=4,
    shard_bytes=MIB,
    row_shard_bytes=MIB,
    sample_bytes=20_000,
    row_bytes=4_096,
    workers=2,
    rounds=1,
)


def as_tensors(sample: Mapping[str, Any]) -> tuple[torch.Tensor, int]:
    """Return what a training gets of a sample: bytes, for want of a picture, and its number."""
    return torch.frombuffer(bytearray(sample["jpg"]), dtype=torch.uint8), int(sample["cls"])


def as_size(sample: Mapping[str, Any]) -> tuple[int, int]:
    """Return next to nothing of a sample."""
    return len(sample["jpg"]), int(sample["cls"])


def as_row(sample: Mapping[str, Any]) -> tuple[torch.Tensor, int]:
    """Return a row as it is, and its number."""
    return sample["x"], int(sample["y"])


class Bench:
    """Shards as files and as objects, and nodes over these."""

    def __init__(self, files: Path, size: Size, *, nodes: LocalCluster, elsewhere: str) -> None:
        self._files, self._size = files, size
        self._nodes = nodes
        self._address, self._elsewhere = f"unix:{nodes['node'].file.socket}", elsewhere
        self.sizes = {kind: self._bytes_of(kind) for kind in (TAR, ROWS)}

    def _bytes_of(self, kind: str) -> int:
        return sum(path.stat().st_size for path in (self._files / kind).iterdir())

    def measures(self) -> Iterator[Measure]:
        """Let all ways read in turn, and yield the figures."""
        for kind, transform, what in (
            (TAR, as_tensors, "tar, as tensors"),
            (TAR, as_size, "tar, nothing else"),
            (ROWS, as_row, "safetensors, as tensors"),
        ):
            yield from self._contest(what, kind, self._streams(kind, transform))
        numbered = self._by_number(ROWS, as_row)
        yield from self._contest("safetensors, by number", ROWS, numbered)

    def _contest(
        self, group: str, kind: str, loaders: Mapping[str, "DataLoader[Any]"]
    ) -> Iterator[Measure]:
        count = self._size_of(kind)
        before = self._origin_bytes()
        epochs = _Epochs(count)
        epochs.run(loaders[NODE])
        if group == "tar, as tensors":  # The first that reads them.
            brought = (self._origin_bytes() - before) / self.sizes[kind]
            yield Measure(
                "origin bytes ÷ shards, first epoch", brought, bound="=", target=1.0, group=group
            )
        before = self._origin_bytes()
        runs: dict[str, Contender] = {
            way: functools.partial(epochs.run, loader) for way, loader in loaders.items()
        }
        contest = Contest(runs, work_bytes=self.sizes[kind], group=group)
        contest.run(self._size.rounds, what=group)
        for way in loaders:
            yield contest.speed(way)
        yield contest.speed_ratio(NODE, LOCAL, bound="≥", target=TARGET)
        if WEBDATASET in loaders:
            yield contest.speed_ratio(NODE, WEBDATASET)
        later = self._origin_bytes() - before
        yield Measure("origin bytes, later epochs", later, bound="=", target=0.0, group=group)

    def _size_of(self, kind: str) -> int:
        return self._size.shards * samples_of(self._size)[kind]

    def _origin_bytes(self) -> float:
        return self._nodes.total("penstock_origin_bytes_total")

    def _streams(self, kind: str, transform: Any) -> dict[str, "DataLoader[Any]"]:
        url, path = f"penstock://{BUCKET}/{kind}/", str(self._files / kind)
        options: Any = {
            "shuffle": True,
            "buffer_samples": BUFFER_SAMPLES,
            "transform": transform,
        }
        loaders = {
            NODE: self._loader(ShardStream(url, address=self._address, **options)),
            LOCAL: self._loader(ShardStream(path, **options)),
        }
        if kind == TAR:
            loaders[WEBDATASET] = self._loader(webdataset(self._files / kind, transform))
            elsewhere = ShardStream(url, address=self._elsewhere, **options)
            loaders[ELSEWHERE] = self._loader(elsewhere)
        return loaders

    def _by_number(self, kind: str, transform: Any) -> dict[str, "DataLoader[Any]"]:
        url, path = f"penstock://{BUCKET}/{kind}/", str(self._files / kind)
        datasets = {
            NODE: Shards(url, address=self._address, transform=transform),
            LOCAL: Shards(path, transform=transform),
        }
        return {
            way: self._loader(dataset, sampler=ShardSampler(dataset))
            for way, dataset in datasets.items()
        }

    def _loader(self, dataset: Any, **options: Any) -> "DataLoader[Any]":
        return DataLoader(
            dataset,
            batch_size=BATCH,
            num_workers=self._size.workers,
            persistent_workers=True,
            **options,
        )


class _Epochs:
    """Epochs of loaders that must all have the same samples."""

    def __init__(self, count: int) -> None:
        self._wanted = count, count * (count - 1) // 2

    def run(self, loader: "DataLoader[Any]") -> Sample:
        """Return what an epoch takes, from its beginning to the last batch."""
        count = total = 0
        begun = time.perf_counter()
        for _, numbers in loader:
            count += len(numbers)
            total += int(numbers.sum())
        seconds = time.perf_counter() - begun
        assert (count, total) == self._wanted, f"{count} samples, sum {total}"
        return Sample(seconds)


def webdataset(folder: Path, transform: Any) -> Any:
    """Return the package's dataset over files, shuffled alike.

    Raises:
        PeerAbsent: It is not installed.
    """
    try:
        from webdataset import WebDataset
    except ImportError as error:
        raise PeerAbsent("absent: pip install webdataset") from error
    paths = [str(path) for path in sorted(folder.iterdir())]
    shards = WebDataset(paths, shardshuffle=len(paths), seed=0)
    return shards.shuffle(BUFFER_SAMPLES).map(transform)


def samples_of(size: Size) -> Mapping[str, int]:
    """Return how many samples a shard has."""
    return {
        TAR: size.shard_bytes // size.sample_bytes,
        ROWS: size.row_shard_bytes // size.row_bytes,
    }


def write_shards(directory: Path, size: Size) -> None:
    """Write all shards; their samples are numbered through."""
    samples = samples_of(size)
    write_tar_shards(
        directory / TAR, shards=size.shards, samples=samples[TAR], sample_bytes=size.sample_bytes
    )
    write_row_shards(
        directory / ROWS, shards=size.shards, rows=samples[ROWS], row_bytes=size.row_bytes
    )


@contextlib.contextmanager
def running(directory: Path, size: Size) -> Iterator[Bench]:
    """Start all parts."""
    files = directory / "files"
    write_shards(files, size)
    paths: Sequence[Path] = sorted(files.glob("*/*"))
    tier = (TierSpec("owned", 2 * sum(path.stat().st_size for path in paths) + 64 * MIB),)
    with S3Server(directory / "s3") as s3:
        s3.create_bucket(BUCKET)
        for path in paths:
            s3.put(BUCKET, f"{path.parent.name}/{path.name}", path)
        sockets = {"node": str(directory / "node.sock"), "elsewhere": ""}
        here, elsewhere = (
            LocalCluster(
                directory / "nodes",
                [NodeSpec(name, tier, {"socket": socket})],
                etcd=None,
                volumes={BUCKET: {"url": f"s3://{BUCKET}/", "options": s3.options}},
            )
            for name, socket in sockets.items()
        )
        with here, elsewhere:
            address = elsewhere["elsewhere"].address
            yield Bench(files, size, nodes=here, elsewhere=address)


def measure(is_quick: bool) -> tuple[Inputs, list[Measure]]:
    """Let each way read some epochs."""
    # More workers than processors are the point here.
    warnings.filterwarnings("ignore", message="This DataLoader will create")
    size = QUICK if is_quick else FULL
    with (
        scratch(size.shards * (size.shard_bytes + size.row_shard_bytes) * COPIES) as directory,
        running(directory, size) as bench,
    ):
        measures = list(bench.measures())
    inputs = {
        "shards": size.shards,
        "shard_bytes": size.shard_bytes,
        "row_shard_bytes": size.row_shard_bytes,
        "sample_bytes": size.sample_bytes,
        "row_bytes": size.row_bytes,
        "workers": size.workers,
        "batch": BATCH,
        "buffer_samples": BUFFER_SAMPLES,
        "rounds": size.rounds,
    }
    return inputs, measures


if __name__ == "__main__":
    run_benchmark("Epochs of a DataLoader", measure)

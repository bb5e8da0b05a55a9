"""Measure loading a model onto a device beside a copy from pinned memory, which the bus bounds.

    python bench/device.py [--quick] [--json FILE]

The node of this machine has the model, a file in the safetensors format. All ends with the
tensors on the device, in a program that runs already and has loaded once: pinning buffers and the
device's first memory are told apart. Every byte of every load is compared on the device. Without a
CUDA device nothing is measured; ``--quick`` lets the processor stand for it, with 8 MiB.
"""

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

import penstock
import penstock.safetensors
from penstock_node.testbed.benchmark import Inputs, Measure, run_benchmark
from penstock_node.testbed.cluster import NodeProcess, NodeSpec, TierSpec
from penstock_node.testbed.contest import Contest, Sample
from penstock_node.testbed.peers import PeerAbsent
from penstock_node.testbed.warm import MIB, scratch

VOLUME, KEY = "models", "model.safetensors"
URL = f"penstock://{VOLUME}/{KEY}"
TENSORS = 32
COPIES = 3
"""The file, the node's, and pinned memory."""
PINNED, LOCAL, PENSTOCK = "a pinned copy", "safetensors, local file", "Penstock, warm host"
ABSENT = "absent: no CUDA device"


@dataclass(frozen=True, slots=True)
class Size:
    """What a run measures."""

    model_bytes: int
    rounds: int


FULL = Size(model_bytes=4096 * MIB, rounds=7)
QUICK = Size(model_bytes=8 * MIB, rounds=1)
CHUNK_BYTES = (4 * MIB, 16 * MIB)
"""What clusters have by default, and what one may have that holds large files alone."""


class Bench:
    """A model as a file and in a node, and the device that it goes to."""

    def __init__(
        self, path: Path, cache: penstock.Cache, device: str, size: Size, group: str
    ) -> None:
        self._path, self._cache, self._device, self._size = path, cache, device, size
        self._group = group
        self._wanted = load_file(path, device=device)
        self._pinned = torch.empty(
            size.model_bytes, dtype=torch.uint8, pin_memory=device == "cuda"
        ).fill_(3)

    def measures(self) -> Iterator[Measure]:
        """Load in each way in turn, and yield the figures."""
        first = self._load_by_penstock()
        yield Measure(
            f"{PENSTOCK}, the first load of a program", first.seconds, "s", group=self._group
        )
        contenders: dict[str, Callable[[], Sample]] = {
            PINNED: self._copy,
            LOCAL: self._load_local,
            PENSTOCK: self._load_by_penstock,
        }
        contest = Contest(contenders, work_bytes=self._size.model_bytes, group=self._group)
        contest.run(self._size.rounds, what=f"loads to {self._device}, {self._group}")
        yield from figures(contest)

    def _copy(self) -> Sample:
        return self._timed(partial(self._pinned.to, self._device, copy=True))

    def _load_local(self) -> Sample:
        return self._loaded(partial(load_file, self._path, device=self._device))

    def _load_by_penstock(self) -> Sample:
        return self._loaded(
            partial(penstock.safetensors.load_file, URL, self._device, cache=self._cache)
        )

    def _loaded(self, load: Callable[[], dict[str, torch.Tensor]]) -> Sample:
        found: dict[str, torch.Tensor] = {}
        sample = self._timed(lambda: found.update(load()))
        assert found.keys() == self._wanted.keys(), "tensors are missing"
        for name, tensor in found.items():
            assert torch.equal(tensor, self._wanted[name]), f"{name} is not what the file has"
        return sample

    def _timed(self, action: Callable[[], object]) -> Sample:
        self._await_device()
        begun = time.perf_counter()
        action()
        self._await_device()
        return Sample(time.perf_counter() - begun)

    def _await_device(self) -> None:
        if self._device == "cuda":
            torch.cuda.synchronize()


def figures(contest: Contest) -> Iterator[Measure]:
    """Yield what a contest came to."""
    for name in (PINNED, LOCAL, PENSTOCK):
        yield contest.speed(name)
    yield contest.speed_ratio(PENSTOCK, PINNED, bound="≥", target=0.85)
    yield contest.speed_ratio(PENSTOCK, LOCAL)


def nothing_measured() -> Iterator[Measure]:
    """Yield the figures of a machine without a device."""

    def absent() -> Sample:
        raise PeerAbsent(ABSENT)

    contest = Contest(dict.fromkeys((PINNED, LOCAL, PENSTOCK), absent), work_bytes=1)
    contest.run(0, what="loads")
    return figures(contest)


def write_model(path: Path, size_bytes: int) -> None:
    """Write random tensors."""
    generator = torch.Generator().manual_seed(3)
    rows = size_bytes // TENSORS // (2 * 1024)
    tensors = {
        f"layers.{at}.weight": torch.randint(
            0, 2**15, (rows, 1024), dtype=torch.int16, generator=generator
        )
        for at in range(TENSORS)
    }
    path.parent.mkdir()
    save_file(tensors, path)


@contextlib.contextmanager
def running(path: Path, device: str, size: Size, chunk_bytes: int) -> Iterator[Bench]:
    """Start a node beside the model's file, and have it bring the model in."""
    with tempfile.TemporaryDirectory(prefix="node-", dir=path.parent.parent) as name:
        node = NodeProcess(
            Path(name),
            NodeSpec(
                "host",
                (TierSpec("owned", size.model_bytes + 256 * MIB),),
                {"socket": f"{name}/host.sock", "allow_file_roots": [str(path.parent)]},
            ),
            shared={
                "cluster": "device",
                "settings": {"chunk_size": chunk_bytes},
                "volumes": {VOLUME: {"url": f"file://{path.parent}/"}},
            },
        )
        with node, penstock.connect(f"unix:{node.file.socket}") as cache:
            cache.view(URL).release()
            group = f"chunks of {chunk_bytes // MIB} MiB"
            yield Bench(path, cache, device, size, group)


def measure(is_quick: bool) -> tuple[Inputs, list[Measure]]:
    """Load onto the device, if there is one."""
    size = QUICK if is_quick else FULL
    inputs: dict[str, Any] = {"model_bytes": size.model_bytes, "rounds": size.rounds}
    if torch.cuda.is_available():
        device, inputs["device"] = "cuda", torch.cuda.get_device_name()
    elif is_quick:
        device, inputs["device"] = "cpu", "the processor, for want of one"
    else:
        return inputs, list(nothing_measured())
    measures: list[Measure] = []
    with scratch(size.model_bytes * COPIES) as directory:
        path = directory / "files" / KEY
        write_model(path, size.model_bytes)
        for chunk_bytes in CHUNK_BYTES:
            with running(path, device, size, chunk_bytes) as bench:
                measures += bench.measures()
    return inputs, measures


if __name__ == "__main__":
    run_benchmark("A model onto a device", measure)

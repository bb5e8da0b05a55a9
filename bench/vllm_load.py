"""Measure vLLM loading a model through its Penstock loader, beside its own on local files.

    python bench/vllm_load.py [--quick] [--json FILE]

The real vLLM, of which the compiled kernels are left out, loads a made Llama on the processor: its
own loader from files in the page cache, Penstock's from the node of this machine, which has the
model. Each fills the weights of a model that vLLM has made already; importing vLLM and making the
model are not counted. ``--quick`` loads a small one.
"""

import contextlib
import functools
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

import penstock
from penstock_node.testbed.benchmark import Inputs, Measure, run_benchmark
from penstock_node.testbed.cluster import LocalCluster, NodeSpec, TierSpec
from penstock_node.testbed.contest import Contest, Sample
from penstock_node.testbed.loaders.running import VLLM_ENVIRONMENT
from penstock_node.testbed.peers import PeerAbsent
from penstock_node.testbed.warm import MIB, scratch

PYTHON = Path(__file__).parents[1] / ".venv-vllm/bin/python"
VOLUME = "models"
SHARDS = 4
OURS, THEIRS = "vLLM, Penstock's loader, warm host", "vLLM's own loader, local files"
COPIES = 3
"""The files, the node's, and the weights in vLLM."""
SEED = 5


@dataclass(frozen=True, slots=True)
class Size:
    """What a run measures: a Llama of so many layers, so wide."""

    hidden: int
    inner: int
    layers: int
    words: int
    rounds: int

    def shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield the model's tensors."""
        yield "model.embed_tokens.weight", (self.words, self.hidden)
        yield "model.norm.weight", (self.hidden,)
        yield "lm_head.weight", (self.words, self.hidden)
        for layer in range(self.layers):
            for name in "qkvo":
                square = (self.hidden, self.hidden)
                yield f"model.layers.{layer}.self_attn.{name}_proj.weight", square
            for name in ("gate", "up"):
                yield f"model.layers.{layer}.mlp.{name}_proj.weight", (self.inner, self.hidden)
            yield f"model.layers.{layer}.mlp.down_proj.weight", (self.hidden, self.inner)
            for name in ("input", "post_attention"):
                yield f"model.layers.{layer}.{name}_layernorm.weight", (self.hidden,)

    def configuration(self) -> Mapping[str, Any]:
        """Return the model's ``config.json``."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": self.hidden,
            "intermediate_size": self.inner,
            "num_hidden_layers": self.layers,
            "num_attention_heads": 16,
            "num_key_value_heads": 16,
            "vocab_size": self.words,
            "max_position_embeddings": 128,
            "rms_norm_eps": 1e-5,
            "dtype": "bfloat16",
            "hidden_act": "silu",
        }


FULL = Size(hidden=2048, inner=5632, layers=16, words=32_000, rounds=5)
QUICK = Size(hidden=128, inner=256, layers=1, words=512, rounds=1)


def write_model(directory: Path, size: Size) -> int:
    """Write a random model in shards with an index; return its bytes."""
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(size.configuration()))
    generator = torch.Generator().manual_seed(SEED)
    shapes = list(size.shapes())
    weights: dict[str, str] = {}
    for shard in range(SHARDS):
        name = f"model-{shard + 1:05}-of-{SHARDS:05}.safetensors"
        tensors = {
            each: torch.randn(*shape, generator=generator).to(torch.bfloat16)
            for each, shape in shapes[shard::SHARDS]
        }
        save_file(tensors, directory / name, {"format": "pt"})
        weights |= dict.fromkeys(tensors, name)
    index = {"metadata": {}, "weight_map": weights}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    return sum(path.stat().st_size for path in directory.glob("*.safetensors"))


class Vllm:
    """A process that loads with vLLM, one model after another."""

    def __init__(self, process: "subprocess.Popen[str]", log: Path) -> None:
        self._process, self._log = process, log
        self._sum: int | None = None

    def load(self, load_format: str, model: str, extra: Mapping[str, str]) -> Sample:
        """Load a model once.

        Raises:
            PeerAbsent: It cannot.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        case = {"format": load_format, "model": model, "extra": extra}
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(case) + "\n")
            self._process.stdin.flush()
        # vLLM says things on standard output too.
        for line in self._process.stdout:
            if line.startswith('{"seconds"'):
                break
        else:
            raise PeerAbsent(f"vLLM failed: {self._log.read_text()[-500:]}")
        told = json.loads(line)
        self._sum = self._sum or told["sum"]
        assert told["sum"] == self._sum, f"{load_format} loads other weights"
        return Sample(told["seconds"], client_cpu_s=told["cpu_s"])


@contextlib.contextmanager
def vllm(directory: Path) -> Iterator[Vllm]:
    """Start vLLM's process; it is gone in the end."""
    command = [str(PYTHON), "-m", "penstock_node.testbed.loaders.vllm_load"]
    own = {"VLLM_CACHE_ROOT": str(directory), "HOME": str(directory)}
    log = directory / "vllm.log"
    with (
        log.open("w") as errors,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=os.environ | VLLM_ENVIRONMENT | own,
            text=True,
        ) as process,
    ):
        try:
            yield Vllm(process, log)
        finally:
            process.kill()


def measures_of(directory: Path, size: Size) -> Iterator[Measure]:
    """Load in both ways in turn, and yield the figures."""
    root = directory / "models"
    size_bytes = write_model(root / "llama", size)
    socket = str(directory / "node.sock")
    node = NodeSpec(
        "node",
        (TierSpec("owned", size_bytes + 64 * MIB),),
        {"socket": socket, "allow_file_roots": [str(root)]},
    )
    volumes = {VOLUME: {"url": f"file://{root}/"}}
    url = f"penstock://{VOLUME}/llama"
    with (
        LocalCluster(directory / "nodes", [node], etcd=None, volumes=volumes),
        vllm(directory) as loading,
    ):
        with penstock.connect(f"unix:{socket}") as cache:
            for path in sorted((root / "llama").glob("*.safetensors")):
                cache.view(f"{url}/{path.name}").release()
        model = str(root / "llama")
        runs = {
            THEIRS: functools.partial(loading.load, "safetensors", model, {}),
            OURS: functools.partial(
                loading.load, "penstock", model, {"url": url, "address": f"unix:{socket}"}
            ),
        }
        contest = Contest(runs, work_bytes=size_bytes, group=f"{size_bytes / 1e6:.0f} MB")
        contest.run(size.rounds, what="loads by vLLM")
    for way in runs:
        yield contest.seconds(way)
        yield contest.client_cpu(way)
    yield contest.time_ratio(OURS, THEIRS, bound="≤", target=1.1)


def measure(is_quick: bool) -> tuple[Inputs, list[Measure]]:
    """Load, or say what is missing."""
    size = QUICK if is_quick else FULL
    inputs = {"layers": size.layers, "hidden": size.hidden, "rounds": size.rounds}
    if not PYTHON.exists():
        absent = Measure(f"time: {OURS} ÷ {THEIRS}", None, note="absent: run tools/vllm.sh")
        return inputs, [absent]
    parameters = sum(torch.Size(shape).numel() for _, shape in size.shapes())
    with scratch(2 * parameters * COPIES) as directory:
        return inputs, list(measures_of(directory, size))


if __name__ == "__main__":
    run_benchmark("vLLM's loader", measure)

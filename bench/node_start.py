"""Measure how long a standalone node takes from its start as a process until it is ready.

    python bench/node_start.py [--quick] [--json FILE]

Ready means that ``node.json`` is there, which a node writes once it has joined and serves. It is
looked for every few milliseconds. The share of interpreter and imports is measured beside it.
"""

import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from penstock.objects import ObjectId
from penstock_node.store.store import Store
from penstock_node.store.tier import Tier
from penstock_node.testbed.benchmark import Inputs, Measure, rounds, run_benchmark
from penstock_node.testbed.cluster import NodeProcess, NodeSpec, TierSpec

CAPACITY_BYTES_MIN = 64 * 1024 * 1024
CHUNK_BYTES = 64 * 1024
"""The smallest: what matters to a start is how many there are."""
STORED_BYTES = CHUNK_BYTES + 4096
"""What a chunk takes of its tier, with what is kept beside it."""
START_TARGET_S = 1.0
IMPORTS = "import penstock.cli.app, penstock_node.command"
"""All that `penstock node` imports."""


@dataclass(frozen=True, slots=True)
class Size:
    """What a run measures."""

    runs: int
    chunks: int


FULL = Size(runs=10, chunks=20_000)
QUICK = Size(runs=1, chunks=50)


@dataclass(frozen=True, slots=True)
class Start:
    """One start of a node."""

    seconds: float
    """By the clock."""
    cpu_s: float
    """Used by the node, on all cores: what a busy machine stretches."""


def start_and_stop(node: NodeProcess) -> Start:
    """Start a node, stop it, and return what the start took."""
    begun = time.perf_counter()
    try:
        node.start()
        seconds = time.perf_counter() - begun
        used = psutil.Process(node.process.pid).cpu_times()
    finally:
        node.stop()
    return Start(seconds, used.user + used.system)


def new_node(directory: Path, name: str, size: Size) -> NodeProcess:
    """Return a standalone node that the chunks fill."""
    capacity_bytes = max(CAPACITY_BYTES_MIN, size.chunks * STORED_BYTES)
    spec = NodeSpec(name, (TierSpec("owned", capacity_bytes),))
    return NodeProcess(directory, spec, shared={"cluster": "bench"})


def fill(node: NodeProcess, size: Size) -> None:
    """Put chunks into the cache of a node that does not run."""
    (path,), (spec,) = node.tier_paths, node.spec.tiers
    subject = ObjectId("s3://bench/object", "1", size.chunks * CHUNK_BYTES, CHUNK_BYTES)
    payload = random.Random(5).randbytes(CHUNK_BYTES)
    store = Store([Tier(path, spec.capacity_bytes, "owned")])
    for index in range(size.chunks):
        kept = store.put(subject, index, payload, owned=True, reason="handoff")
        assert kept, f"chunk {index} was not kept"
    store.close()


def imports_s(statement: str) -> float:
    """Return how long a new interpreter takes to run ``statement``."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - begun


def measure(is_quick: bool) -> tuple[Inputs, list[Measure]]:
    """Take all figures in turn, so that a busy moment of the machine hits all alike."""
    size = QUICK if is_quick else FULL
    empty: list[Start] = []
    filled: list[Start] = []
    imports: list[float] = []
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as name:
        directory = Path(name)
        full_node = new_node(directory, "filled", size)
        start_and_stop(full_node)  # Forms its cluster, and compiles what is not compiled yet.
        fill(full_node, size)
        for run in rounds(size.runs, "starts of a node"):
            empty.append(start_and_stop(new_node(directory, f"empty-{run}", size)))
            filled.append(start_and_stop(full_node))
            imports.append(imports_s(IMPORTS))
    inputs = {"runs": size.runs, "chunks": size.chunks, "chunk_bytes": CHUNK_BYTES}
    return inputs, [
        Measure.of(
            "exec to ready, empty cache",
            [start.seconds for start in empty],
            "s",
            bound="≤",
            target=START_TARGET_S,
        ),
        Measure.of("of it processor time", [start.cpu_s for start in empty], "s"),
        Measure.of(
            f"exec to ready, full of {size.chunks:,} chunks",
            [start.seconds for start in filled],
            "s",
            bound="≤",
            target=START_TARGET_S,
        ),
        Measure.of("of it processor time, scan included", [start.cpu_s for start in filled], "s"),
        Measure.of("interpreter and imports alone, with its exit", imports, "s"),
    ]


if __name__ == "__main__":
    run_benchmark("Start of a standalone node", measure, starts_are_measured=True)

"""Measure what watching costs those who read: a node's counting, on and off.

    python bench/observing.py [--quick] [--json FILE]

Two nodes hold the same object; one of them, made for this, counts neither reads nor what is done
on its disks, and keeps no sample of them for `penstock plan`. They take turns, so that a busy
moment hits both, with chunks of 4 MiB and, where counting weighs more, of 256 KiB. Counting alone
is timed too, as the processor time of a call, beside what a node spends on a chunk; by the socket
that is more than it is, as an answer of many chunks counts once. ``--quick`` reads 8 MiB once.
"""

import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest import mock

from penstock.objects import ObjectId
from penstock_node.demand import Demand
from penstock_node.inflight import Inflight
from penstock_node.metrics import NodeMetrics
from penstock_node.store.disk import Spent
from penstock_node.testbed.benchmark import Inputs, Measure, run_benchmark
from penstock_node.testbed.contest import Contender, Contest
from penstock_node.testbed.warm import MIB, WarmSite, warm_site

KIB = 1024
PLANES = ("bulk", "host")
COUNTED, UNCOUNTED = "counted", "not counted"
STREAMS = 4
KEY = "s3://models/llama/model-00001-of-00002.safetensors"
CHUNKS = 1_000
"""Of a model, read one after another: all are in the sample, as on a small node."""
LOSS_MAX = 0.01
"""Of speed, and of processor time."""
NO_COUNTING = """
from penstock_node.demand import Demand
from penstock_node.metrics import NodeMetrics
from penstock_node.store.disk import Spent
Demand.read = Demand.read_each = NodeMetrics.served = Spent.add = lambda *_, **__: None
"""
"""What a Python that finds this as ``sitecustomize`` does before all else."""


@dataclass(frozen=True, slots=True)
class Size:
    """What a run measures."""

    object_bytes: int
    chunks: tuple[int, ...]
    rounds: int
    calls: int


FULL = Size(object_bytes=512 * MIB, chunks=(4 * MIB, 256 * KIB), rounds=21, calls=200_000)
QUICK = Size(object_bytes=8 * MIB, chunks=(MIB,), rounds=1, calls=1_000)


@contextlib.contextmanager
def sites(size: Size, chunk_bytes: int, order: Sequence[str]) -> Iterator[Mapping[str, WarmSite]]:
    """Run a node as it is, and one that does not count, in this order or the other."""
    site = partial(warm_site, object_bytes=size.object_bytes, chunk_bytes=chunk_bytes)
    made: dict[str, WarmSite] = {}
    with contextlib.ExitStack() as stack:
        module = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "sitecustomize.py"
        module.write_text(NO_COUNTING)
        for name in order:
            path = {"PYTHONPATH": str(module.parent)} if name == UNCOUNTED else {}
            with mock.patch.dict(os.environ, path):
                made[name] = stack.enter_context(site())
        yield made


def contest(size: Size, chunk_bytes: int, group: str, order: Sequence[str]) -> Contest:
    """Have both nodes, which are made in this order, read from in turns."""
    with sites(size, chunk_bytes, order) as both, contextlib.ExitStack() as clients:
        contenders: dict[str, Contender] = {}
        for plane in PLANES:
            for name, site in both.items():
                cache = clients.enter_context(site.connect(plane=plane, streams=STREAMS))
                contenders[f"{plane}, {name}"] = partial(site.read_over, cache, plane)
        made = Contest(contenders, work_bytes=size.object_bytes, group=group)
        made.run(size.rounds, what=f"metrics, {group}, {order[0]} first")
        check_counting(both)
    return made


def figures(size: Size, chunk_bytes: int, call_s: float) -> Iterator[Measure]:
    """Yield the figures with chunks of one size."""
    group = f"chunks of {chunk_bytes // KIB:,} KiB"
    # Where the first lies in memory is not where the second does, which may matter more than what
    # is measured: each is the first once.
    both = contest(size, chunk_bytes, group, (COUNTED, UNCOUNTED))
    both.take(contest(size, chunk_bytes, group, (UNCOUNTED, COUNTED)))
    chunks = size.object_bytes // chunk_bytes
    for plane in PLANES:
        on, off = f"{plane}, {COUNTED}", f"{plane}, {UNCOUNTED}"
        yield both.speed(on)
        yield both.speed_ratio(on, off, bound="≥", target=1 - LOSS_MAX)
        yield both.server_cpu(on)
        yield both.server_cpu_ratio(on, off, bound="≤", target=1 + LOSS_MAX)
        shares = [100 * call_s * chunks / sample.server_cpu_s for sample in both.samples[off]]
        yield Measure.of(
            f"counting a read, of a chunk's processor time: {plane}",
            shares,
            "%",
            bound="≤",
            target=100 * LOSS_MAX,
            group=group,
        )


def check_counting(both: Mapping[str, WarmSite]) -> None:
    """Make sure that one node has counted all, and the other nothing."""
    counts = {
        name: sum(
            value
            for sample, value in site.node.metrics().items()
            if sample.startswith("penstock_chunk_reads_total")
        )
        for name, site in both.items()
    }
    assert counts[COUNTED] > 0, counts
    assert counts[UNCOUNTED] == 0, counts


def counting_s(calls: int) -> float:
    """Return the processor time of counting one read, in seconds: the least of some runs."""
    metrics = NodeMetrics(version="bench", inflight=Inflight())
    demand, spent = Demand(capacity_bytes=lambda: 1 << 40), Spent()
    model = ObjectId(KEY, "1", CHUNKS * 4 * MIB, 4 * MIB)
    thread, length = threading.get_ident(), 4 * MIB
    least = float("inf")
    for _ in range(5):
        used = time.process_time()
        for call in range(calls):
            metrics.served(plane="bulk", source="disk", key=KEY, length=length, seconds=0.0003)
            demand.read(model, call % CHUNKS, length=length)
            spent.add(thread, 0.0003)
        least = min(least, (time.process_time() - used) / calls)
    return least


def measure(is_quick: bool) -> tuple[Inputs, list[Measure]]:
    """Measure with chunks of one size after another."""
    size = QUICK if is_quick else FULL
    call_s = counting_s(size.calls)
    measures = [Measure("counting a read", 1e6 * call_s, "µs", group="metrics")]
    for chunk_bytes in size.chunks:
        measures += figures(size, chunk_bytes, call_s)
    return {
        "object_bytes": size.object_bytes,
        "chunk_bytes": " and ".join(map(str, size.chunks)),
        "streams": STREAMS,
        "rounds": f"{size.rounds} with each of both as the first",
    }, measures


if __name__ == "__main__":
    run_benchmark("What watching costs", measure)

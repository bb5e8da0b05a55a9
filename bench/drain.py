"""Measure what a drain is worth that is cut off: reads without the origin after it.

    python bench/drain.py [--quick] [--json FILE]

Four nodes over a real etcd and a real S3 server hold the models of the trace ``zipf``, seed 1, at
a twentieth of its chunks; all are there, and its first reads have been made. A taint says that
one machine stops within 30 s, 120 s or 30 minutes; reads go on; after 30 s its node is killed,
whatever was said. Then the trace's next reads are made, and what they ask of the origin is
counted: 30 s of `handoff_bytes_per_s` bring but a part of what the node holds to the others.
Beside: chunks in no order, the least read first, and no drain at all. Kubernetes' API server is
the edge of `testbed.kubernetes_api`.
``--quick`` cuts off after a moment, with few reads.
"""

import contextlib
import itertools
import os
import random
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest import mock

import penstock
from penstock_node.testbed.benchmark import Inputs, Measure, rounds, run_benchmark
from penstock_node.testbed.cluster import LocalCluster, NodeSpec, TierSpec
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.kubernetes_api import KubernetesApi
from penstock_node.testbed.model_traces import ZIPF_MODELS, trace
from penstock_node.testbed.processes import wait_until
from penstock_node.testbed.s3 import S3Server

TRACE, SEED = "zipf", 1
SCALE = 20
"""So many chunks of the trace are one."""
CHUNK_BYTES = 128 * 1024
HANDOFF_BYTES_PER_S = 1_000_000
NAMES = ("n1", "n2", "n3", "n4")
LEAVES = "n4"
TAINTS = {"30 s": "30s", "120 s": "2m", "30 min": "30m"}
DEADLINE_S = 120.0
LOAD_EVERY_S = 0.5
"""Between loads while the node drains."""
LEASE_TTL_S = 10.0
ORDER = """
import numpy as np
from penstock_node.store.owned import Owned
best_first = Owned.best_first
def ordered(owned):
    listed = best_first(owned)
    return listed.at({order})
Owned.best_first = ordered
"""
"""What a Python that finds this as ``sitecustomize`` does before all else."""
ORDERS = {
    "no order": "np.random.default_rng(1).permutation(len(listed))",
    "the least read first": "np.arange(len(listed))[::-1]",
}


@dataclass(frozen=True, slots=True)
class Case:
    """One drain."""

    within: str
    """Of `TAINTS`; empty for none."""
    order: str = ""
    """Of `ORDERS`; empty for the product's own."""

    @property
    def group(self) -> str:
        """Return how the table calls it."""
        if not self.within:
            return "no drain"
        return f"within {self.within}, {self.order or 'what is read most first'}"


@dataclass(frozen=True, slots=True)
class Size:
    """What a run measures."""

    loads_before: int
    """Of the trace, beside the first of each model."""
    loads_after: int
    cut_s: float
    cases: tuple[Case, ...]


CASES = (
    *(Case(within) for within in TAINTS),
    Case(""),
    Case("30 min", "no order"),
    Case("30 s", "no order"),
    Case("30 min", "the least read first"),
)

FULL = Size(loads_before=500, loads_after=250, cut_s=30.0, cases=CASES)
QUICK = Size(loads_before=8, loads_after=4, cut_s=1.0, cases=(CASES[0], CASES[3]))


class Models:
    """The trace's models at the origin, and loads of them."""

    def __init__(self, s3: S3Server, bucket: str, size: Size) -> None:
        self.s3 = s3
        sizes: dict[int, int] = {}
        loads: list[int] = []
        for obj, chunk in trace(TRACE, seed=SEED):
            if chunk == 0:
                loads.append(obj)
            sizes[obj] = max(sizes.get(obj, 0), chunk // SCALE + 1)
        self.before = loads[: size.loads_before]
        self.after = loads[size.loads_before : size.loads_before + size.loads_after]
        self.all = sorted({*self.before, *self.after})
        self.sizes = {obj: sizes[obj] * CHUNK_BYTES for obj in self.all}
        self.held_bytes = sum(self.sizes.values())
        rng = random.Random(SEED)
        for obj in self.all:
            s3.put(bucket, f"m{obj}/model.bin", rng.randbytes(self.sizes[obj]))
        self._memory = memoryview(bytearray(max(self.sizes.values())))

    def load(self, cache: penstock.Cache, models: Sequence[int]) -> int:
        """Load models whole, one after another; return how many bytes. Raises what a read does."""
        return sum(
            cache.read_into(f"penstock://models/m{obj}/model.bin", self._memory[: self.sizes[obj]])
            for obj in models
        )


def cluster_of(
    directory: Path, etcd: EtcdServer, api: KubernetesApi, models: Models, bucket: str
) -> LocalCluster:
    """Return the nodes, not started."""
    rules = [{"taint": f"stops={within}", "within": within} for within in TAINTS.values()]
    specs = [
        NodeSpec(
            name,
            (TierSpec("owned", 2 * models.held_bytes),),
            config={
                "kubernetes": {
                    "node_name": name,
                    "kubeconfig": str(api.kubeconfig()),
                    "drain_taints": rules,
                }
            },
        )
        for name in NAMES
    ]
    return LocalCluster(
        directory,
        specs,
        etcd=etcd.endpoint,
        name=directory.name,
        settings={
            "chunk_size": CHUNK_BYTES,
            "lease_ttl_s": LEASE_TTL_S,
            "handoff_bytes_per_s": HANDOFF_BYTES_PER_S,
        },
        volumes={"models": {"url": f"s3://{bucket}/", "options": models.s3.options}},
    )


class Drained:
    """A case: the nodes filled, one drained and killed, and what is read after."""

    def __init__(self, case: Case, size: Size, models: Models, api: KubernetesApi) -> None:
        self._case, self._size, self._models, self._api = case, size, models, api

    def measure(self, cluster: LocalCluster) -> Iterator[Measure]:
        """Do it all; yield the figures."""
        staying = [cluster[name] for name in NAMES if name != LEAVES]
        with cluster.connect(*staying) as cache:
            self._models.load(cache, self._models.all)  # Else some are read for the first time.
            self._models.load(cache, self._models.before)
            held = cluster[LEAVES].metrics()
            held_bytes = sum(
                value for name, value in held.items() if name.startswith("penstock_tier_used_bytes")
            )
            moved = cluster.total("penstock_handoff_bytes_total")
            self._drain(cluster, cache)
            moved = cluster.total("penstock_handoff_bytes_total") - moved
            cluster[LEAVES].kill()
            sent = self._models.s3.counters().sent_bytes
            read = self._models.load(cache, self._models.after)
            asked = self._models.s3.counters().sent_bytes - sent
        share = 100 * (1 - asked / read)
        group = self._case.group
        is_ours = self._case.within and not self._case.order
        yield Measure("the node held", held_bytes / 1e6, "MB", group=group)
        yield Measure("of that handed over", 100 * moved / held_bytes, "%", group=group)
        yield Measure("read after", read / 1e6, "MB", group=group)
        yield Measure(
            "of that without the origin",
            share,
            "%",
            group=group,
            bound="≥" if is_ours else "",
            target=95.0 if is_ours else 0.0,
        )

    def _drain(self, cluster: LocalCluster, cache: penstock.Cache) -> None:
        """Taint the machine, read on, and return when it is to be cut off."""
        stop = threading.Event()
        reading = threading.Thread(target=self._read_on, args=(cache, stop))
        if not self._case.within:
            return
        within = TAINTS[self._case.within]
        self._api.taint(LEAVES, "stops", value=within)
        cut_at = time.monotonic() + self._size.cut_s
        reading.start()
        wait_until(
            lambda: cluster[LEAVES].metrics()["penstock_kubernetes_drain_wanted"] == 1,
            deadline_s=DEADLINE_S,
            what="it is told",
        )
        time.sleep(max(0.0, cut_at - time.monotonic()))
        stop.set()
        reading.join()

    def _read_on(self, cache: penstock.Cache, stop: threading.Event) -> None:
        for model in itertools.cycle(self._models.before[-100:]):
            if stop.wait(LOAD_EVERY_S):
                return
            self._models.load(cache, [model])


@contextlib.contextmanager
def ordered(order: str) -> Iterator[None]:
    """Have nodes that start hand over in another order."""
    with contextlib.ExitStack() as stack:
        if order:
            directory = stack.enter_context(tempfile.TemporaryDirectory())
            (Path(directory) / "sitecustomize.py").write_text(ORDER.format(order=ORDERS[order]))
            stack.enter_context(mock.patch.dict(os.environ, {"PYTHONPATH": directory}))
        yield


def measure(is_quick: bool) -> tuple[Inputs, list[Measure]]:
    """Drain in each way."""
    size, measures, bucket = QUICK if is_quick else FULL, list[Measure](), "drained"
    with (
        tempfile.TemporaryDirectory(prefix="penstock-bench-") as name,
        EtcdServer(Path(name) / "etcd") as etcd,
        S3Server(Path(name) / "s3") as s3,
    ):
        s3.create_bucket(bucket)
        models = Models(s3, bucket, size)
        for number in rounds(len(size.cases), "drains"):
            case = size.cases[number]
            with (
                tempfile.TemporaryDirectory(prefix=f"drain{number}-", dir=name) as below,
                KubernetesApi(Path(below) / "api") as api,
                ordered(case.order),
            ):
                for node in NAMES:
                    api.add_node(node)
                make = partial(cluster_of, etcd=etcd, api=api, models=models, bucket=bucket)
                with make(Path(below)) as cluster:
                    measures += Drained(case, size, models, api).measure(cluster)
    inputs = {
        "trace": f"{TRACE}, seed {SEED}",
        "models": ZIPF_MODELS,
        "held_bytes": models.held_bytes,
        "chunk_bytes": CHUNK_BYTES,
        "nodes": len(NAMES),
        "handoff_bytes_per_s": HANDOFF_BYTES_PER_S,
        "cut_s": size.cut_s,
    }
    return inputs, measures


if __name__ == "__main__":
    run_benchmark("A drain that is cut off", measure)

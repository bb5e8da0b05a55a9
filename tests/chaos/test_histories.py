"""Random histories of faults and changes over four real nodes; what may be expected is checked
all the time. See `testbed.history` and `testbed.history_run` for the rules.

    pytest tests/chaos/test_histories.py --chaos-seed 17 --chaos-steps 200
    pytest tests/chaos/test_histories.py -k outage --chaos-outage-s 300
"""

import contextlib
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from penstock_node.testbed.cluster import NodeSpec, TierSpec
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.history import World, at_random, outage
from penstock_node.testbed.history_run import HistoryRun
from penstock_node.testbed.linked_site import LinkedSite
from penstock_node.testbed.odd_disk import OddDisk
from penstock_node.testbed.s3 import S3Server
from penstock_node.testbed.site import MIB, SHORT_LEASE_TTL_S

HISTORIES = ((1, 2), (2, 1), (3, 2))
"""Those of the suite: seeds, and copies."""
STEPS = 20
LONGEST_S = 30.0
"""After so long a history of the suite is brought to its end."""
STEP_LONGEST_S = 30.0
"""On average, of histories that somebody asked for."""
AROUND_S = 240.0
"""Longest for the start, and until all is well again at the end; it takes seconds."""
CHUNK_BYTES = 64 * 1024
OBJECT_BYTES = (3 * MIB + 5, MIB, CHUNK_BYTES // 2)
NODES = ("n1", "n2", "n3", "n4")
ODD = NODES[-1]
CAPACITY_BYTES = 32 * MIB
SETTINGS = {
    "chunk_size": CHUNK_BYTES,
    "lease_ttl_s": SHORT_LEASE_TTL_S,
    "repair_after_s": 2.0,
    "handoff_bytes_per_s": 1_000_000_000,
    "open_ttl_s": 2.0,
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    option = metafunc.config.getoption
    seed, steps, outage_s = (option(f"--chaos-{what}") for what in ("seed", "steps", "outage-s"))
    if "outage_s" in metafunc.fixturenames:
        limit = pytest.mark.timeout(AROUND_S + outage_s)
        metafunc.parametrize("outage_s", [pytest.param(outage_s, marks=limit)], ids=["outage"])
        return
    histories = HISTORIES if seed is None else [(seed, copies) for copies in (1, 2)]
    longest_s = LONGEST_S if steps is None else steps * STEP_LONGEST_S
    limit = pytest.mark.timeout(AROUND_S + longest_s)
    metafunc.parametrize(
        ("seed", "copies", "steps", "longest_s"),
        [pytest.param(*each, steps or STEPS, longest_s, marks=limit) for each in histories],
        ids=[f"seed{seed}-copies{copies}" for seed, copies in histories],
    )


def has_fuse() -> bool:
    return os.geteuid() == 0 and Path("/dev/fuse").exists()


@contextlib.contextmanager
def odd_disk(directory: Path) -> Iterator[OddDisk | None]:
    """A disk that can be made bad, where the machine lets us make one."""
    if not has_fuse():
        yield None
        return
    with OddDisk(directory / "mount", below=directory / "odd") as disk:
        yield disk


def specs(disk: OddDisk | None) -> list[NodeSpec]:
    """Return equal nodes, of which the last has half its capacity on ``disk``."""
    half = CAPACITY_BYTES // 2
    halves = (TierSpec("owned", half, disk.path if disk else None), TierSpec("owned", half))
    return [
        NodeSpec(
            name,
            halves if name == ODD else (TierSpec("owned", CAPACITY_BYTES),),
            {"inflight_max": "4MiB"},
        )
        for name in NODES
    ]


@contextlib.contextmanager
def history(
    directory: Path, s3: S3Server, etcd: EtcdServer, *, copies: int
) -> Iterator[HistoryRun]:
    """Four nodes that have all cached."""
    settings = {**SETTINGS, "replicas": copies}
    with (
        odd_disk(directory) as disk,
        LinkedSite(
            directory / f"{directory.name}-{copies}",
            s3,
            etcd,
            nodes=specs(disk),
            settings=settings,
        ) as site,
    ):
        objects = [site.put(f"{size}.bin", size=size) for size in OBJECT_BYTES]
        run = HistoryRun(site, objects, World(NODES, copies, odd_disk=ODD if disk else ""), disk)
        run.warm_up()
        yield run
        print("\n".join(run.done))  # Shown by pytest -rP.


def over_after(seconds: float) -> Callable[[], bool]:
    ends_at = time.monotonic() + seconds
    return lambda: time.monotonic() > ends_at


def test_readers_are_served_and_budgets_kept_whatever_happens(
    seed: int,
    copies: int,
    steps: int,
    longest_s: float,
    tmp_path: Path,
    s3: S3Server,
    own_etcd: EtcdServer,
) -> None:
    with history(tmp_path, s3, own_etcd, copies=copies) as run:
        rng, is_over = random.Random(seed), over_after(longest_s)
        run.run(
            at_random(run.world, rng, steps=steps, is_over=is_over),
            seed=seed,
            again=f"pytest {__file__} --chaos-seed {seed} --chaos-steps {steps}",
        )


@pytest.mark.parametrize("how", ["kill", "silent"])
def test_an_etcd_that_is_gone_while_nodes_are_killed_costs_readers_nothing(
    how: str, outage_s: float, tmp_path: Path, s3: S3Server, own_etcd: EtcdServer
) -> None:
    with history(tmp_path, s3, own_etcd, copies=2) as run:
        rng, is_over = random.Random(5), over_after(outage_s)
        readers = run.run(
            outage(run.world, rng, how=how, is_over=is_over),
            seed=5,
            again=f"pytest {__file__} -k {how} --chaos-outage-s {outage_s:g}",
        )
        print(f"{readers.reads} reads, the slowest in {readers.slowest_s:.1f} s")

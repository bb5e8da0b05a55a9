"""Random histories of faults and changes over four real nodes; what may be expected is checked
all the time. See `testbed.history` and `testbed.history_run` for the rules.

    pytest tests/chaos/test_histories.py --chaos-seed 17 --chaos-steps 200
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock_node.testbed.cluster import NodeSpec, TierSpec
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.history import World
from penstock_node.testbed.history_run import HistoryRun
from penstock_node.testbed.linked_site import LinkedSite
from penstock_node.testbed.odd_disk import OddDisk
from penstock_node.testbed.s3 import S3Server
from penstock_node.testbed.site import LEASE_TTL_S, MIB

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
    "lease_ttl_s": LEASE_TTL_S,
    "repair_after_s": 2.0,
    "handoff_bytes_per_s": 1_000_000_000,
    "open_ttl_s": 2.0,
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    seed, steps = (metafunc.config.getoption(f"--chaos-{what}") for what in ("seed", "steps"))
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


def test_readers_are_served_and_budgets_kept_whatever_happens(
    seed: int,
    copies: int,
    steps: int,
    longest_s: float,
    tmp_path: Path,
    s3: S3Server,
    own_etcd: EtcdServer,
) -> None:
    directory = tmp_path / f"history-{copies}-{seed}"
    settings = {**SETTINGS, "replicas": copies}
    with (
        odd_disk(tmp_path) as disk,
        LinkedSite(directory, s3, own_etcd, nodes=specs(disk), settings=settings) as site,
    ):
        objects = [site.put(f"{size}.bin", size=size) for size in OBJECT_BYTES]
        world = World(NODES, copies, odd_disk=ODD if disk else "")
        run = HistoryRun(site, objects, world, disk)
        run.warm_up()
        run.run(seed, steps=steps, longest_s=longest_s)
        print("\n".join(run.done))  # Shown by pytest -rP.

"""`penstock plan` on a real cluster whose models do not fit: it tells what was measured."""

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock_node.testbed.cluster import NodeSpec, TierSpec
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.processes import wait_until
from penstock_node.testbed.s3 import S3Server
from penstock_node.testbed.site import MIB, Site

NODES = [NodeSpec(name, (TierSpec("owned", 16 * MIB),)) for name in ("a", "b")]
MODELS, MODEL_BYTES = 12, 5 * MIB
"""Twice what the nodes own."""
LOADS = 200
TOLERANCE = 0.06
"""Of the hit ratio: a few dozen chunks more or less are several percent of so small a cluster."""
DEADLINE_S = 30.0
AT_WORK = ("penstock_flights", "penstock_disk_waiting_writes", "penstock_disk_threads")


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, s3: S3Server, etcd: EtcdServer
) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("plan")
    with Site(directory, s3, etcd, nodes=NODES, settings={"chunk_size": "256KiB"}) as started:
        yield started


def plan(site: Site, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "penstock", "plan", "--address", site.address, *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


def outlook(told: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = (each for each in told["outlooks"] if each["name"].startswith(name))
    return dict(found)


def test_before_there_are_reads_it_tells_so_and_no_figure(site: Site) -> None:
    done = plan(site, "--json")

    assert done.returncode == 1
    assert "not enough reads yet" in json.loads(done.stdout)["message"]


def test_what_it_tells_of_the_present_size_is_what_was_measured(site: Site, tmp_path: Path) -> None:
    rng = random.Random(1)
    stored = [site.put(f"m{number}", size=MODEL_BYTES) for number in range(MODELS)]
    weights = [1 / (rank + 1) for rank in range(MODELS)]
    read_bytes, origin_bytes = 0, 0.0

    def has_landed() -> bool:
        return not any(map(site.cluster.total, AT_WORK))

    with site.cluster.connect() as cache:
        for at, each in enumerate(rng.choices(stored, weights, k=LOADS)):
            if at == LOADS // 4:  # From here on reads count: as many fill the caches.
                origin_bytes, read_bytes = site.cluster.total("penstock_origin_bytes_total"), 0
            assert cache.read(each.url) == each.data
            # What a busy disk has not taken yet would be asked of the origin again.
            wait_until(has_landed, deadline_s=DEADLINE_S, what="what was read is kept")
            read_bytes += MODEL_BYTES
    origin_bytes = site.cluster.total("penstock_origin_bytes_total") - origin_bytes
    measured = 1 - origin_bytes / read_bytes

    done = plan(site, "--json", "--add", "32MiB", "--plot", str(tmp_path / "curve.svg"))

    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    now, doubled = outlook(told, "now"), outlook(told, "+ 33.6 MB")
    assert told["rate"] == pytest.approx(1.0)
    assert told["measured_hit_ratio"] == pytest.approx(measured, abs=0.04)
    assert now["hit_ratio"] == pytest.approx(measured, abs=TOLERANCE)
    assert now["capacity_bytes"] == 32 * MIB
    assert doubled["hit_ratio"] > now["hit_ratio"] + 0.1
    assert doubled["origin_bytes_per_day"] < 0.6 * now["origin_bytes_per_day"]
    assert outlook(told, "replicas = 2")["hit_ratio"] < now["hit_ratio"] - 0.05
    assert outlook(told, "- 1 node")["hit_ratio"] < now["hit_ratio"] - 0.05
    assert (tmp_path / "curve.svg").read_text().startswith("<svg")

    shown = plan(site)
    assert shown.returncode == 0, shown.stderr
    assert "┤" in shown.stdout
    assert "every chunk" in shown.stdout
    print(shown.stdout, told)

"""The example of a training runs as it is written, on shards of a real node."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from penstock_node.testbed.cluster import LocalCluster, NodeSpec
from penstock_node.testbed.shards import write_tar_shards

EXAMPLE = Path(__file__).parents[2] / "examples/dataloader.py"
SHARDS, SAMPLES = 4, 25


@pytest.mark.parametrize("workers", [0, 2])
def test_the_example_trains_on_every_sample_of_each_epoch(tmp_path: Path, workers: int) -> None:
    root = tmp_path / "data"
    write_tar_shards(root / "pets", shards=SHARDS, samples=SAMPLES, sample_bytes=2_000)
    cluster = LocalCluster(
        tmp_path,
        [NodeSpec("node", config={"allow_file_roots": [str(root)]})],
        etcd=None,
        volumes={"datasets": {"url": f"file://{root}/"}},
    )
    command = [sys.executable, str(EXAMPLE), "penstock://datasets/pets/", "--workers", str(workers)]
    with cluster:
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            timeout=50,
            env=os.environ | {"PENSTOCK_ADDRESS": cluster["node"].address},
        )

    assert done.returncode == 0, done.stderr
    lines = re.findall(r"epoch (\d): (\d+) samples, loss \d+\.\d{3}", done.stdout)
    assert lines == [("0", str(SHARDS * SAMPLES)), ("1", str(SHARDS * SAMPLES))]

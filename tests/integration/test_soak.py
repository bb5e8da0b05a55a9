"""A soak that is too short to judge growth: it works, breaks and compares, and leaves nothing."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from penstock_node.testbed.processes import wait_until
from penstock_node.testbed.soak.tally import told

DEADLINE_S = 200.0
"""On a machine that others use as well; it takes 40."""
# A shell's background jobs ignore interrupts, and so would a soak that they start.
SOAK = ["env", "--default-signal=INT", sys.executable, "-m", "penstock_node.testbed.soak"]
WORKS = ("read a range", "view", "S3: get", "gRPC", "fsspec", "asyncio: read")
WORKS_MIN = 500
FAULTS_MIN = 2


def done(at: Path) -> int:
    files = [file for file in at.glob("penstock-soak-*/*.json") if file.name != "live.json"]
    return sum(sum(told(file).works.values()) for file in files)


@pytest.mark.timeout(2 * DEADLINE_S)
def test_a_soak_compares_all_it_reads_under_faults_and_when_interrupted_tells_and_leaves_nothing(
    tmp_path: Path,
) -> None:
    scratch, file, plot = tmp_path / "tmp", tmp_path / "soak.json", tmp_path / "soak.svg"
    scratch.mkdir()
    words = ["--minutes", "10", "--seed", "4", "--json", str(file), "--plot", str(plot)]
    with subprocess.Popen(
        [*SOAK, *words],
        env={**os.environ, "TMPDIR": str(scratch)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        wait_until(
            lambda: running.poll() is not None or done(scratch) >= WORKS_MIN,
            deadline_s=DEADLINE_S,
            what="much was read",
        )
        running.send_signal(signal.SIGINT)
        shown, trouble = running.communicate(timeout=DEADLINE_S)

    assert running.returncode == 130, shown + trouble
    found = json.loads(file.read_text())
    assert found["is_well"], shown
    assert found["wrong"] == found["unexpected"] == found["log_troubles"] == []
    assert not found["is_judged"]
    assert found["works"].keys() >= set(WORKS)
    assert found["read_bytes"] > 0
    assert len(found["events"]) >= FAULTS_MIN
    assert {name.split()[0] for name in found["samples"]} >= {"n1", "n2", "catalog", "client"}
    assert "wrong bytes: 0" in shown
    assert plot.read_text().startswith("<svg")
    assert list(scratch.iterdir()) == []

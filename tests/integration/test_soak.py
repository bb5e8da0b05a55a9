"""A soak that is too short to judge growth: it works, breaks and compares, and leaves nothing."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from penstock_node.testbed.processes import wait_until

DEADLINE_S = 150.0
WORKS = ("read a range", "view", "fork", "put", "S3: get", "gRPC", "fsspec", "asyncio: read")
FAULTS_MIN = 3


def soak(directory: Path, *words: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "penstock_node.testbed.soak", "--seed", "4", *words],
        env={**os.environ, "TMPDIR": str(directory)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.timeout(DEADLINE_S + 60)
def test_a_short_soak_compares_all_and_is_well_and_leaves_nothing(tmp_path: Path) -> None:
    scratch, told = tmp_path / "tmp", tmp_path / "soak.json"
    scratch.mkdir()

    running = soak(scratch, "--minutes", "0.35", "--json", str(told), "--plot", f"{told}.svg")
    shown, trouble = running.communicate(timeout=DEADLINE_S)

    assert running.returncode == 0, shown + trouble
    found = json.loads(told.read_text())
    assert found["wrong"] == found["unexpected"] == found["log_troubles"] == []
    assert not found["is_judged"]
    assert found["works"].keys() >= set(WORKS)
    assert found["read_bytes"] > 0
    assert len(found["events"]) >= FAULTS_MIN
    assert {name.split()[0] for name in found["samples"]} >= {"n1", "n2", "catalog", "client"}
    assert "wrong bytes: 0" in shown
    assert Path(f"{told}.svg").read_text().startswith("<svg")
    assert not list(scratch.glob("penstock-soak-*"))


@pytest.mark.timeout(DEADLINE_S + 60)
def test_one_that_is_interrupted_tells_what_it_saw_and_leaves_nothing(tmp_path: Path) -> None:
    running = soak(tmp_path, "--minutes", "10")
    (directory,) = found_once(tmp_path, running)
    wait_until(
        lambda: (directory / "edges.json").exists(), deadline_s=DEADLINE_S, what="all are at work"
    )

    running.send_signal(signal.SIGINT)
    shown, trouble = running.communicate(timeout=DEADLINE_S)

    assert running.returncode in (130, -signal.SIGINT), shown + trouble
    assert not directory.exists()


def found_once(at: Path, running: "subprocess.Popen[str]") -> list[Path]:
    def found() -> list[Path]:
        return list(at.glob("penstock-soak-*"))

    wait_until(
        lambda: bool(found()) or running.poll() is not None,
        deadline_s=DEADLINE_S,
        what="it has begun",
    )
    return found()

"""Every benchmark runs, small, and reports its figures. Nothing here judges a time."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

BENCH = Path(__file__).parents[2] / "bench"
RUN_TIMEOUT_S = 50.0


def quick(name: str, directory: Path) -> tuple[str, dict[str, dict[str, Any]]]:
    """Run a benchmark as a process; return what it printed, and its figures by group and name."""
    file = directory / "figures.json"
    done = subprocess.run(
        [sys.executable, BENCH / f"{name}.py", "--quick", "--json", file],
        check=False,
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_S,
        env=os.environ | {"COLUMNS": "200"},
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(file.read_text())
    assert report["machine"]["cpus"] >= 1
    figures = {f"{row['group']} {row['name']}".strip(): row for row in report["measures"]}
    assert len(figures) == len(report["measures"]), "two figures have one name"
    assert all(row["name"] in done.stdout for row in report["measures"])
    return done.stdout, figures


def targets(figures: dict[str, dict[str, Any]]) -> list[tuple[str, float]]:
    return sorted((row["bound"], row["target"]) for row in figures.values() if row["bound"])


def test_import_time_reports_its_target_and_that_nothing_heavy_is_loaded(tmp_path: Path) -> None:
    shown, figures = quick("import_time", tmp_path)

    assert targets(figures) == [("=", 0.0), ("≤", 150.0)]
    assert all(row["is_met"] for row in figures.values() if row["bound"] == "=")
    assert "runs: 2" in shown


def test_node_start_reports_empty_and_filled_caches_beside_the_target(tmp_path: Path) -> None:
    shown, figures = quick("node_start", tmp_path)

    assert targets(figures) == [("≤", 1.0), ("≤", 1.0)]
    assert all(row["value"] > 0 for row in figures.values())
    assert "chunks: 50" in shown


def test_reading_asks_the_origin_for_each_chunk_once(tmp_path: Path) -> None:
    shown, figures = quick("reading", tmp_path)

    exact = [row for row in figures.values() if row["bound"] == "="]
    assert [row["target"] for row in exact] == [33, 1, 33, 1]
    assert all(row["is_met"] for row in exact), exact
    assert all(row["value"] > 0 for row in figures.values())
    assert "plane: grpc" in shown

"""The ring's benchmark runs, small, and reports every figure with its target."""

import importlib.util
import json
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "bench" / "ring.py"


def run_benchmark(*arguments: str) -> None:
    spec = importlib.util.spec_from_file_location("bench_ring", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(arguments)


def test_the_quick_run_prints_a_table_and_writes_its_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_benchmark("--quick", "--json", str(tmp_path / "ring.json"))

    report = json.loads((tmp_path / "ring.json").read_text())
    measures = {measure["name"]: measure for measure in report["measures"]}
    targets = {name: m["target"] for name, m in measures.items() if m["target"] is not None}
    assert sorted(targets.values()) == [1.05, 1.05, 1.05, 1.06, 2.0, 2.0, 4.0, 40.0, 45.0, 130.0]
    assert all(measure["value"] > 0 for measure in measures.values())
    assert report["inputs"]["nodes"] == 50
    shown = capsys.readouterr().out
    assert "memory at rest" in shown
    assert report["digest"] in shown


def test_two_runs_of_the_same_inputs_have_one_digest(tmp_path: Path) -> None:
    for name in ("one", "two"):
        run_benchmark("--quick", "--json", str(tmp_path / name))

    digests = {json.loads((tmp_path / name).read_text())["digest"] for name in ("one", "two")}
    assert len(digests) == 1

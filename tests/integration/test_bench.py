"""Every benchmark runs, small, and reports its figures. Nothing here judges a time.

They run two at a time from the first test on, as most of their time they wait for parts to start,
each time one after another in one process: new ones would load the same modules 33 times.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Self

import pytest

from tests.integration.told_process import ToldProcess

BENCH = Path(__file__).parents[2] / "bench"
NAMES = sorted(path.stem for path in BENCH.glob("[a-z]*.py"))
RUNNER = Path(__file__).with_name("quick_benchmarks.py")
RUN_TIMEOUT_S = 120.0
pytestmark = pytest.mark.timeout(RUN_TIMEOUT_S + 30)
AT_ONCE = 2
"""And in the order of the tests, so that none waits for many."""
ALONE = {"node_start"}
"""What starts nodes as anybody does: the others of a process have them forked."""


@dataclass(frozen=True, slots=True)
class Run:
    """What a benchmark printed, and its report."""

    shown: str
    report: dict[str, Any]

    @property
    def figures(self) -> dict[str, dict[str, Any]]:
        """Its figures by group and name."""
        rows = self.report["measures"]
        figures = {f"{row['group']} {row['name']}".strip(): row for row in rows}
        assert len(figures) == len(rows), "two figures have one name"
        return figures

    @property
    def targets(self) -> list[tuple[str, float]]:
        """Of all figures that have one."""
        rows = self.figures.values()
        return sorted((row["bound"], row["target"]) for row in rows if row["bound"])

    @property
    def exact(self) -> list[dict[str, Any]]:
        """The figures that chance has no part in."""
        return [row for row in self.figures.values() if row["bound"] == "="]


class Benches:
    """A process that runs benchmarks one after another."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process = self._new_process()

    def _new_process(self) -> ToldProcess:
        command = [sys.executable, str(RUNNER), str(self._directory)]
        return ToldProcess(command, log=self._directory / "stderr.txt")

    def run_quick(self, name: str) -> Run:
        """Run one, alone if nodes start in it as anybody starts them."""
        if name in ALONE:
            with self._new_process() as process:
                process.tell(name)
        else:
            self._process.tell(name)
        report, failure = (self._directory / f"{name}.{kind}" for kind in ("json", "err"))
        assert not failure.exists(), failure.read_text()
        return Run((self._directory / f"{name}.txt").read_text(), json.loads(report.read_text()))

    def __enter__(self) -> Self:
        self._process.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        self._process.__exit__(*raised)


Runs = dict[str, Future[Run]]


def missed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if not row["is_met"]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """All benchmarks, on their way."""
    directory = tmp_path_factory.mktemp("bench")
    idle: SimpleQueue[Benches] = SimpleQueue()

    def run_quick(name: str) -> Run:
        benches = idle.get()
        try:
            return benches.run_quick(name)
        finally:
            idle.put(benches)

    with ThreadPoolExecutor(AT_ONCE) as pool, ExitStack() as stack:
        for _ in range(AT_ONCE):
            idle.put(stack.enter_context(Benches(directory)))
        yield {name: pool.submit(run_quick, name) for name in NAMES}
        pool.shutdown(wait=False, cancel_futures=True)


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_reports_every_figure_that_it_prints(name: str, runs: Runs) -> None:
    run = runs[name].result()

    assert run.figures
    assert run.report["machine"]["cpus"] >= 1
    assert run.report["command"] == f"python bench/{name}.py --quick"
    for row in run.report["measures"]:
        assert row["name"] in run.shown
        assert row["value"] is not None, f"{row['name']}: {row['note']}"


def test_nothing_heavy_is_loaded_by_an_import(runs: Runs) -> None:
    run = runs["import_time"].result()

    assert run.targets == [("=", 0.0), ("≤", 150.0)]
    assert missed(run.exact) == []


def test_a_node_starts_with_an_empty_and_a_full_cache(runs: Runs) -> None:
    run = runs["node_start"].result()

    assert run.targets == [("≤", 1.0), ("≤", 1.0)]
    assert run.report["inputs"]["chunks"] == 50


def test_reading_asks_the_origin_for_each_chunk_once(runs: Runs) -> None:
    exact = runs["reading"].result().exact

    assert [row["target"] for row in exact] == [33, 1, 33, 1]
    assert missed(exact) == []


def test_each_byte_comes_into_a_host_once_and_leaves_the_origin_once(runs: Runs) -> None:
    exact = runs["one_host"].result().exact

    assert [row["target"] for row in exact] == [1, 1]
    assert missed(exact) == []


def test_an_etcd_that_is_away_costs_no_read(runs: Runs) -> None:
    exact = runs["etcd_outage"].result().exact

    assert [row["name"] for row in exact] == [
        "reads that failed",
        "readers of wrong bytes",
        "epochs that passed",
    ]
    assert missed(exact) == []


def test_maintenance_and_losses_cost_no_read_and_no_byte_of_the_origin(runs: Runs) -> None:
    exact = runs["maintenance"].result().exact

    changes = ["drains", "a raised weight", "a join", "a stopped process", "a killed node"]
    assert [row["group"] for row in exact if row["name"] == "bytes asked of the origin"] == changes
    assert missed(exact) == []


def test_a_drain_that_is_cut_off_is_measured_beside_none(runs: Runs) -> None:
    figures = runs["drain"].result().figures

    share = "of that without the origin"
    assert {name for name in figures if share in name} == {
        f"within 30 s, what is read most first {share}",
        f"no drain {share}",
    }
    assert runs["drain"].result().targets == [("≥", 95.0)]


def test_streams_are_measured_beside_every_peer(runs: Runs) -> None:
    run = runs["streams"].result()

    alike = [("≤", 1.15), ("≤", 1.2), ("≤", 1.35), ("≥", 0.95), ("≥", 1.0), ("≥", 3.0)]
    one_stream, four_streams = [("≥", 0.9), *alike], [("≥", 0.95), *alike]
    assert run.targets == sorted(one_stream + four_streams)


def test_replaced_certificates_cost_no_read_and_no_byte(runs: Runs) -> None:
    exact = runs["tls"].result().exact

    assert [row["name"] for row in exact] == ["reads that failed", "reads of wrong bytes"]
    assert missed(exact) == []


def python_bench(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, BENCH, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_S,
    )


def test_chosen_benchmarks_run_one_after_another_into_one_page(tmp_path: Path) -> None:
    done = python_bench("index", "ring", "--quick", "--results", tmp_path / "page.md")

    assert done.returncode == 0, done.stderr
    text = (tmp_path / "page.md").read_text()
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings == ["## The index of a tier", "## The ring"]
    assert "absent" not in text
    assert "2 of 2: ring" in done.stderr


def test_a_benchmark_that_does_not_exist_is_refused_with_those_that_do() -> None:
    done = python_bench("steams")

    assert done.returncode == 2
    assert "no such benchmark: steams" in done.stderr
    assert "streams" in done.stderr

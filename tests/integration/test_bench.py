"""Every benchmark runs, small, and reports its figures. Nothing here judges a time.

They run two at a time from the first test on, as most of their time they wait for parts to start.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parents[2] / "bench"
NAMES = sorted(path.stem for path in BENCH.glob("[a-z]*.py"))
RUN_TIMEOUT_S = 50.0
AT_ONCE = 2
"""And in the order of the tests, so that none waits for many."""


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


def run_quick(name: str, directory: Path) -> Run:
    file = directory / f"{name}.json"
    done = subprocess.run(
        [sys.executable, BENCH / f"{name}.py", "--quick", "--json", file],
        check=False,
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_S,
        env=os.environ | {"COLUMNS": "200"},
    )
    assert done.returncode == 0, done.stderr
    return Run(done.stdout, json.loads(file.read_text()))


Runs = dict[str, Future[Run]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """All benchmarks, on their way."""
    directory = tmp_path_factory.mktemp("bench")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {name: pool.submit(run_quick, name, directory) for name in NAMES}
        pool.shutdown(cancel_futures=True)

"""The ring's benchmark, small: every figure has its target, and its chance is seeded."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARK = Path(__file__).parents[2] / "bench" / "ring.py"
OWNERS_DIGEST = "f1dee2cefd97edc0"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_ring", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_quick_run_has_every_figure_with_its_target(benchmark: ModuleType) -> None:
    inputs, measures = benchmark.measure(True)

    targets = sorted(measure.target for measure in measures if measure.bound)
    assert targets == [1.05, 1.05, 1.05, 1.06, 2.0, 2.0, 4.0, 40.0, 45.0, 130.0]
    assert all(measure.value > 0 for measure in measures)
    assert inputs["nodes"] == 50


def test_the_same_inputs_have_the_same_owners_everywhere(benchmark: ModuleType) -> None:
    assert benchmark.digest_of_owners(benchmark.QUICK) == OWNERS_DIGEST

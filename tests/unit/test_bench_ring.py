"""The ring's benchmark gives the same result for the same inputs."""

import importlib.util
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "bench" / "ring.py"


def test_two_runs_of_the_same_inputs_have_one_digest() -> None:
    spec = importlib.util.spec_from_file_location("bench_ring", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    digests = {module.digest_of_owners(module.QUICK) for _ in range(2)}

    assert len(digests) == 1

"""Random histories of whole clusters: safe while faults happen, and whole again after them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.batch import live_through
from tests.simulation.history import History

ROOT = Path(__file__).parents[2]
COUNT = int(os.environ.get("PENSTOCK_HISTORIES", "700"))
"""Half a minute of two processors; `python -m tests.simulation --count` lives through more."""
CHECKED = ("budgets", "reads", "origin reads", "not asked in vain", "placed chunks")
REPLAYED = (3, 11, 42)


@pytest.mark.timeout(600)  # On a busy machine.
def test_whatever_happens_nothing_is_lost_and_the_origin_does_not_notice() -> None:
    batch = live_through(range(COUNT))

    assert not batch.failures, "\n".join(batch.failures)
    assert all(batch.counts[what] > 0 for what in CHECKED), batch.counts


def digest_in_another_process(seed: int, hash_seed: str) -> str:
    code = f"from tests.simulation.history import History; print(History({seed}).run().digest)"
    places = [ROOT / "client", ROOT / "cachenode", ROOT]
    environment = {
        **os.environ,
        "PYTHONHASHSEED": hash_seed,
        "PYTHONPATH": os.pathsep.join(map(str, places)),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.mark.parametrize("seed", REPLAYED)
def test_a_seed_gives_the_same_history_to_the_byte_in_any_process(seed: int) -> None:
    digest = History(seed).run().digest

    assert History(seed).run().digest == digest
    assert digest_in_another_process(seed, "1") == digest
    assert digest_in_another_process(seed, "2") == digest

"""Random histories of whole clusters: safe while faults happen, and whole again after them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commit import seeds_of_commit
from tests.simulation.batch import live_through
from tests.simulation.history import History

ROOT = Path(__file__).parents[2]
COUNT = int(os.environ.get("PENSTOCK_HISTORIES", "250"))
"""Of each commit others; `python -m tests.simulation --count` lives through more."""
CHECKED = ("budgets", "reads", "origin reads", "not asked in vain", "placed chunks")
REPLAYED = (3, 11, 42)


@pytest.mark.timeout(600)  # On a busy machine.
def test_whatever_happens_nothing_is_lost_and_the_origin_does_not_notice() -> None:
    batch = live_through(seeds_of_commit(COUNT))

    assert not batch.failures, "\n".join(batch.failures)
    assert all(batch.counts[what] > 0 for what in CHECKED), batch.counts


def digests_in_another_process(hash_seed: str) -> list[str]:
    code = (
        "from tests.simulation.history import History\n"
        f"for seed in {REPLAYED}: print(History(seed).run().digest)"
    )
    places = [ROOT / "client", ROOT / "cachenode", ROOT]
    environment = {
        **os.environ,
        "PYTHONHASHSEED": hash_seed,
        "PYTHONPATH": os.pathsep.join(map(str, places)),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_a_seed_gives_the_same_history_to_the_byte_in_any_process() -> None:
    digests = [History(seed).run().digest for seed in REPLAYED]

    assert len(set(digests)) == len(REPLAYED)
    assert [History(seed).run().digest for seed in REPLAYED] == digests
    assert digests_in_another_process("1") == digests
    assert digests_in_another_process("2") == digests

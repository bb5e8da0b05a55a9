"""Many histories, on several processors."""

import gc
import multiprocessing
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.simulation.history import History

SEEDS_AT_ONCE = 20
"""A process takes so many at a time."""


@dataclass(slots=True)
class Batch:
    """What became of some histories."""

    failures: list[str] = field(default_factory=list)
    """A line each, with how to replay it."""
    counts: Counter[str] = field(default_factory=Counter)
    """How often what was checked."""

    def add(self, other: "Batch") -> None:
        """Add another's."""
        self.failures += other.failures
        self.counts += other.counts


def live_through(seeds: Sequence[int]) -> Batch:
    """Live through one history a seed."""
    parts = [seeds[at : at + SEEDS_AT_ONCE] for at in range(0, len(seeds), SEEDS_AT_ONCE)]
    whole = Batch()
    # Not by fork: the process that starts them may have threads.
    context = multiprocessing.get_context("spawn")
    with context.Pool(os.cpu_count()) as pool:
        for part in pool.imap_unordered(_live_through, parts):
            whole.add(part)
    return whole


def _live_through(seeds: Sequence[int]) -> Batch:
    batch = Batch()
    gc.freeze()  # What was imported is not looked at after each.
    for seed in seeds:
        try:
            batch.counts.update(History(seed).run().counts)
        except Exception as error:  # noqa: BLE001 - whatever it is, the seed replays it
            told = f"{type(error).__name__}: {error}"
            batch.failures.append(f"{told[:300]} (python -m tests.simulation --seed {seed})")
        gc.collect()  # While a history lives nothing is.
    return batch

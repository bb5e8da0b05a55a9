"""Chance that goes on with the sources: each commit tries what the one before did not.

Responsible for: seeds that are one commit's, the same in every process of a run.
Not responsible for: what is tried with them; a failure names the seed that replays it.
"""

import functools
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
FIRST_MAX = 1_000_000_000


def seeds_of_commit(count: int) -> range:
    """Return consecutive seeds of the commit that is checked out; from 0 where git knows none."""
    first = _first_seed()
    return range(first, first + count)


@functools.cache
def _first_seed() -> int:
    command = ["git", "-C", str(ROOT), "rev-parse", "--verify", "HEAD"]
    try:
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return 0
    return int(told, 16) % FIRST_MAX

"""`python -m tests.simulation`: replay one history, live through many, or run a scenario.

    python -m tests.simulation --seed 4711           one history, told line by line
    python -m tests.simulation --count 10000         many, on all processors; tells which break
    python -m tests.simulation --scenario hot        a scenario at full size, as a table

From the root of the sources, with `client` and `cachenode` importable.
"""

import argparse
import sys
import traceback

from tests.simulation.batch import live_through
from tests.simulation.history import History
from tests.simulation.scenarios import SCENARIOS


def main() -> int:
    """Do what the arguments say; return 1 if anything broke."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="replay this history")
    parser.add_argument("--first", type=int, default=0, help="the first of --count seeds")
    parser.add_argument("--count", type=int, help="live through so many histories")
    parser.add_argument("--scenario", choices=sorted(SCENARIOS), help="run it at full size")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        return _replay(arguments.seed)
    if arguments.scenario is not None:
        print(SCENARIOS[arguments.scenario]())
        return 0
    return _many(arguments.first, arguments.count or 1000)


def _replay(seed: int) -> int:
    try:
        outcome = History(seed, tell=print).run()
    except Exception:  # noqa: BLE001 - shown, with what led to it above
        traceback.print_exc(file=sys.stdout)
        return 1
    print(f"seed {seed}: {outcome.lines} lines, digest {outcome.digest}")
    return 0


def _many(first: int, count: int) -> int:
    batch = live_through(range(first, first + count))
    for failure in batch.failures:
        print(failure)
    print(f"{count} histories, {len(batch.failures)} broken; checked: {dict(batch.counts)}")
    return 1 if batch.failures else 0


if __name__ == "__main__":
    raise SystemExit(main())

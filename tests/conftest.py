"""What holds for every test: chance that replays, and no test that depends on speed."""

import gc
import os

import pytest
from hypothesis import settings

from penstock_node.testbed.processes import look_seldom
from penstock_node.testbed.template import fork_commands

# Nobody here multiplies large matrices: readers and verbs do as nodes do by themselves.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# What starts hundreds of nodes does not load their modules hundreds of times.
fork_commands()

# No test times what it waits for.
look_seldom()

settings.register_profile("penstock", deadline=None, derandomize=True)
settings.load_profile("penstock")


LONGEST = {"test_guide.py", "test_bench.py", "test_handover.py"}
"""Minutes each, where all others take seconds; a file is one process's."""

OUTAGE_S = 6.0
"""Three times the lease of the nodes that it is tried on."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a random history of faults be replayed, or a longer one be tried."""
    chaos = parser.getgroup("chaos", "random histories (tests/chaos/test_histories.py)")
    chaos.addoption("--chaos-seed", type=int, help="Try this seed alone.")
    chaos.addoption("--chaos-steps", type=int, help="So many steps, however long they take.")
    chaos.addoption("--chaos-outage-s", type=float, default=OUTAGE_S, help="How long etcd is gone.")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest: at the end, one of them would be waited for."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


def pytest_collection_finish() -> None:
    """Freeze what is loaded: else each look for garbage, of tests too, goes through all of it."""
    gc.freeze()

"""What holds for every test: chance that replays, and no test that depends on speed."""

import gc
import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from penstock_node.testbed.processes import look_seldom
from penstock_node.testbed.s3 import S3Server
from penstock_node.testbed.template import fork_commands

# Nobody here multiplies large matrices: readers and verbs do as nodes do by themselves.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# What starts hundreds of nodes does not load their modules hundreds of times.
fork_commands()

# No test times what it waits for.
look_seldom()

settings.register_profile("penstock", deadline=None, derandomize=True)
settings.load_profile("penstock")


LONGEST = (
    "docs/test_guide.py",
    "integration/test_bench.py",
    "chaos/test_partitions.py",
    "chaos/test_histories.py",
    "integration/test_demo.py",
    "integration/test_handover.py",
    "integration/test_soak.py",
    "integration/test_vllm.py",
    "simulation/test_histories.py",
)
"""Up to minutes each, longest first, where all others take seconds; a file is one process's."""
_RANKS = {name: rank for rank, name in enumerate(LONGEST)}

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
    items.sort(key=lambda item: _RANKS.get("/".join(item.path.parts[-2:]), len(_RANKS)))


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One S3 server for all tests that leave it alive: make a bucket of your own."""
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        yield server


def pytest_collection_finish() -> None:
    """Freeze what is loaded: else each look for garbage, of tests too, goes through all of it."""
    gc.freeze()

"""The limit of open files is raised at the start of a node, and a low one is told."""

import resource
import subprocess
import sys

PROGRAM = """
import resource
from penstock_node.descriptors import raise_descriptor_limit
resource.setrlimit(resource.RLIMIT_NOFILE, (64, {hard}))
print("limit", raise_descriptor_limit(), resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def said_with(hard: int) -> str:
    program = PROGRAM.format(hard=hard)
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    return done.stdout


def test_the_soft_limit_is_raised_to_the_hard_one() -> None:
    hard = min(1000, resource.getrlimit(resource.RLIMIT_NOFILE)[1])

    said = said_with(hard)

    assert f"limit {hard} ({hard}, {hard})" in said


def test_a_low_limit_is_told_with_what_to_do() -> None:
    assert "LimitNOFILE" in said_with(1000)

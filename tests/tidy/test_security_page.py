"""The threat model names a test for each threat, and the tests are there."""

import ast
import functools
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/security.md"
_NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def threats() -> list[str]:
    """Return the lines of the table of threats."""
    table = PAGE.read_text().partition("\n## Threats\n")[2].partition("\n## ")[0]
    return [line for line in table.splitlines() if line.startswith("| **")]


@functools.cache
def named_in(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text()) if path.is_file() else ast.Module([], [])
    functions = ast.FunctionDef | ast.AsyncFunctionDef
    return frozenset(each.name for each in ast.walk(tree) if isinstance(each, functions))


def test_each_threat_has_tests_that_exist() -> None:
    found = threats()
    named = {line[:60]: _NAMED.findall(line) for line in found}
    absent = [
        f"{path}::{name}"
        for tests in named.values()
        for path, name in tests
        if name not in named_in(ROOT / path)
    ]

    assert len(found) > 20, "the table of threats was not found"
    assert not [threat for threat, tests in named.items() if not tests], "name a test for these"
    assert not absent, "docs/security.md names tests that are not there"

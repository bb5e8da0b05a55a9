"""Which licences come with what ships: `docs/licences.md`, and who may be an exception."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tools.licences import EXCEPTIONS, Row, extras, is_allowed, rows

ROOT = Path(__file__).parents[2]
GPL_TOOLS = {"libcachesim"}
"""Those that measure and test; they are asked of by nothing that ships."""


def test_the_page_lists_what_comes_and_every_licence_was_looked_at() -> None:
    command = [sys.executable, "tools/licences.py"]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [
        ("MIT", True),
        ("MIT OR Apache-2.0", True),
        ("Apache-2.0 WITH LLVM-exception AND MIT", True),
        ("BSD-3-Clause AND GPL-3.0-or-later", False),
        ("LGPL-3.0-only", False),
        ("AGPL-3.0-only OR MIT", False),
        ("", False),
    ],
)
def test_only_licences_that_ask_for_nothing_but_their_notice_are_allowed(
    licence: str, allowed: bool
) -> None:
    assert is_allowed(licence) is allowed


def test_an_exception_comes_with_its_own_extra_and_no_other() -> None:
    [driver] = [row for row in rows() if row.name == "psycopg"]

    assert not list(driver.troubles())
    assert list(replace(driver, extras=("catalog", "postgresql")).troubles())
    assert list(replace(driver, licence="GPL-3.0-only").troubles())


def test_a_package_that_says_nothing_or_carries_something_new_is_told() -> None:
    assert list(Row("new", "", ("node",), ()).troubles())
    assert list(Row("new", "MIT", ("node",), ("libreadline",)).troubles())


def test_what_everybody_has_has_no_exception() -> None:
    assert not {row.name for row in rows() if "client" in row.extras} & EXCEPTIONS.keys()
    assert not GPL_TOOLS & {row.name for row in rows()}
    assert {"node", "catalog", "otel", "fsspec", "postgresql"} <= extras().keys()

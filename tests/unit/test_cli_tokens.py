"""`penstock token new`: what it shows, and what it writes."""

import hashlib
import json
import resource
import stat
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from penstock.cli.app import app
from penstock.credentials import check_token
from penstock.masking import mask


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(app, ["token", "new", *map(str, args)])


def made(*args: str | Path) -> dict[str, Any]:
    result = run(*args, "--json")
    assert result.exit_code == 0, result.output
    told: dict[str, Any] = json.loads(result.stdout)
    return told


def test_its_entry_has_the_hash_and_what_it_may_do_and_never_the_token() -> None:
    told = made("--name", "ci", "--role", "writer", "--volume", "models", "--volume", "data.2")

    entry = tomllib.loads(told["toml"])["tokens"]["ci"]
    assert entry == {
        "sha256": hashlib.sha256(told["token"].encode()).hexdigest(),
        "role": "writer",
        "volumes": ["models", "data.2"],
    }
    assert told["token"].startswith("pst_")
    assert told["token"] not in told["toml"]
    check_token(told["token"], where="it")


def test_without_saying_more_it_reads_all_volumes_for_ever() -> None:
    told = made("--name", "someone@example")

    assert (told["role"], told["volumes"], told["expires"]) == ("reader", [], None)
    assert tomllib.loads(told["toml"])["tokens"]["someone@example"].keys() == {"sha256", "role"}


def test_it_ends_when_it_was_told_to() -> None:
    before = datetime.now(UTC).replace(microsecond=0)

    told = made("--name", "ci", "--expires", "90d")

    expires = tomllib.loads(told["toml"])["tokens"]["ci"]["expires"]
    assert before <= expires - timedelta(days=90) <= datetime.now(UTC)
    assert datetime.fromisoformat(told["expires"]) == expires


def test_for_people_the_token_is_the_first_line_and_all_of_it_where_a_file_takes_the_entry(
    tmp_path: Path,
) -> None:
    shown = run("--name", "ci").stdout.splitlines()
    alone = run("--name", "ci", "--tokens-file", tmp_path / "tokens.toml").stdout

    assert shown[0].startswith("pst_")
    assert "[tokens." in shown[2]
    assert alone.count("\n") == 1


def test_a_file_gets_entry_after_entry_and_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    path.write_text("# by hand, and no end of line")
    path.chmod(0o640)

    first = made("--name", "a", "--tokens-file", path)
    second = made("--name", "b", "--tokens-file", path)

    tokens = tomllib.loads(path.read_text())["tokens"]
    assert {name: entry["sha256"] for name, entry in tokens.items()} == {
        "a": first["sha256"],
        "b": second["sha256"],
    }
    assert path.read_text().startswith("# by hand")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('[tokens."ci"]\n', "has a token 'ci' already"),
        ("no toml\n", "not TOML"),
        ("a = " + "9" * 5_000, "not TOML"),
        ("a = " + "[" * 5_000, "not TOML"),
        ('tokens = { a = { role = "reader" } }\n', "write each token that is there as [tokens."),
        ("tokens = 1\n", "tokens: want tables [tokens.NAME]"),
        ("[[tokens]]\n", "tokens: want tables [tokens.NAME]"),
    ],
)
def test_a_file_that_it_does_not_fit_into_is_left_as_it_is(
    tmp_path: Path, content: str, says: str
) -> None:
    path = tmp_path / "tokens.toml"
    path.write_text(content)

    result = run("--name", "ci", "--tokens-file", path)

    assert (result.exit_code, path.read_text()) == (1, content)
    assert says in result.stderr
    assert "pst_" not in result.output


def test_a_disk_that_becomes_full_leaves_no_half_of_an_entry(tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    made("--name", "a", "--tokens-file", path)
    content = path.read_text()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    resource.setrlimit(resource.RLIMIT_FSIZE, (len(content) + 40, limits[1]))
    try:
        result = run("--name", "ci", "--tokens-file", path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert (result.exit_code, path.read_text()) == (1, content)
    assert "cannot be written: No space left" in result.stderr
    assert "pst_" not in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ("--name", 'x"]\nrole'),
        ("--name", ""),
        ("--name", "ci", "--role", "root"),
        ("--name", "ci", "--volume", '"'),
        ("--name", "ci", "--expires", "0s"),
        ("--name", "ci", "--expires", "soon"),
        (),
    ],
)
def test_what_makes_no_entry_is_wrong_use(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)

    assert result.exit_code == 2
    assert "pst_" not in result.output


def test_a_token_is_masked_wherever_it_stands() -> None:
    token = made("--name", "ci")["token"]

    assert token not in mask(f"curl -H 'X-Key: {token}' failed; {token}")

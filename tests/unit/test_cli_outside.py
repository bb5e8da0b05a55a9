"""Verbs of other packages: listed by name, loaded when they are called."""

import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from typer.testing import CliRunner

from penstock.cli.app import app
from penstock.cli.outside import GROUP, load

# pydantic is loaded by typer itself where it is installed.
HEAVY = ("grpc", "numpy", "obstore", "google.protobuf", "penstock_node", "structlog")
HELP = f"""
import sys
from penstock.cli.app import app
app({{words!r}}, standalone_mode=False)
print("loaded:", *(name for name in {HEAVY!r} if name in sys.modules))
"""
WITHOUT_STRUCTLOG = """
import sys
sys.modules["structlog"] = None  # As if it were not installed.
sys.argv = ["penstock", "node", "--dir", "/nowhere"]
from penstock.cli import main
main()
"""
PLUGIN = """
import typer
several = typer.Typer(help="Several verbs.")
@several.callback()
def group() -> None: ...
@several.command()
def one(word: str) -> None: typer.echo(f"one {word}")
def single(word: str = "nothing") -> None: typer.echo(f"single {word}")
"""


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False
    )


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    """A folder with another package that brings verbs, as an installer would leave it."""
    (tmp_path / "plugin_of_test.py").write_text(PLUGIN)
    metadata = tmp_path / "plugin_of_test-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin-of-test\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(
        f"[{GROUP}]\nseveral = plugin_of_test:several\nsingle = plugin_of_test:single\n"
    )
    return tmp_path


@pytest.mark.parametrize(
    ("words", "prints"),
    [
        (["several", "one", "word"], "one word\n"),
        (["single"], "single nothing\n"),
        (["single", "--word", "x"], "single x\n"),
    ],
)
def test_an_outside_verb_is_a_function_or_an_app_of_several(
    plugins: Path, words: list[str], prints: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "penstock", *words],
        env={**os.environ, "PYTHONPATH": str(plugins)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, prints, "")


@pytest.mark.parametrize("words", [["--help"], ["stat", "--help"], ["weight", "--help"]])
def test_help_loads_nothing_heavy(words: list[str]) -> None:
    done = run_python(HELP.format(words=words))

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "loaded:"


def test_help_lists_the_outside_verbs_with_a_line_each() -> None:
    result = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "120"})

    assert "Run a cache node." in result.output
    assert "Check a node's configuration file." in result.output


def test_a_mistyped_outside_verb_is_guessed() -> None:
    result = CliRunner().invoke(app, ["nod"])

    assert result.exit_code == 2
    assert "Did you mean 'node'?" in result.output


def test_an_absent_extra_is_one_line_that_says_how_to_get_it() -> None:
    done = run_python(WITHOUT_STRUCTLOG)

    assert done.returncode == 1
    assert done.stderr == (
        "penstock: node needs structlog, which is not installed: pip install 'penstock[node]'\n"
    )


def test_a_module_of_ours_that_is_absent_is_a_bug_and_says_so() -> None:
    point = EntryPoint("gone", "penstock_node.gone:verb", GROUP)

    with pytest.raises(ModuleNotFoundError, match=r"penstock_node\.gone"):
        load(point)


def test_garbage_is_looked_for_again_once_a_verb_is_loaded(plugins: Path) -> None:
    told = "import gc\nlooks_for_garbage = gc.isenabled()\n"
    (plugins / "plugin_of_test.py").write_text(told + PLUGIN)

    done = run_python(
        f"import sys; sys.path.insert(0, {str(plugins)!r})\n"
        "from penstock.cli.outside import load, outside_verbs\n"
        "load(next(point for point in outside_verbs() if point.name == 'single'))\n"
        "import gc, plugin_of_test\n"
        "print(plugin_of_test.looks_for_garbage, gc.isenabled())"
    )

    assert (done.stdout, done.stderr) == ("False True\n", "")

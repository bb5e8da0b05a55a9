"""The `penstock` command: finds the verbs and says what is missing.

Responsible for: the verbs of the library, those of other packages found by their entry points
(group ``penstock.commands``), and errors as one line with exit status 1.
Not responsible for: what a verb does.
"""

import sys
from importlib.metadata import EntryPoint, entry_points
from typing import NoReturn

import typer

from penstock.errors import PenstockError

app = typer.Typer(
    name="penstock",
    help="A distributed cache that feeds GPU fleets from object storage.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _add_outside_verbs() -> None:
    """Add the verbs that other packages bring; one whose extra is absent says how to get it."""
    for point in sorted(entry_points(group="penstock.commands"), key=lambda point: point.name):
        try:
            app.command(name=point.name)(point.load())
        except ImportError as error:
            app.command(name=point.name, help=_missing(point, error))(_refusal(point, error))


def _missing(point: EntryPoint, error: ImportError) -> str:
    extra = "demo" if point.name == "demo" else "node"
    return f"Not installed ({error.name} is missing): pip install 'penstock[{extra}]'"


def _refusal(point: EntryPoint, error: ImportError):  # type: ignore[no-untyped-def]
    def refuse() -> NoReturn:
        print(f"penstock {point.name}: {_missing(point, error)}", file=sys.stderr)
        raise typer.Exit(1)

    return refuse


def main() -> None:
    """Run the command line."""
    _add_outside_verbs()
    try:
        app()
    except PenstockError as error:
        print(f"penstock: {error}", file=sys.stderr)
        sys.exit(1)

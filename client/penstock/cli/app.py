"""The `penstock` command: its verbs, and what holds for all of them.

Not responsible for: what a verb does; each group has a file of its own.
"""

from importlib.metadata import version
from typing import Annotated

import typer

from penstock.cli import (
    catalogued,
    cluster,
    doctor,
    engines,
    getting,
    maintenance,
    mirror,
    mounting,
    objects,
    pins,
    putting,
    reading,
    settings,
    support,
    tickets,
    tokens,
    top,
    tracing,
    volumes,
    warming,
    weights,
)
from penstock.cli.output import interrupt_on_termination, say
from penstock.cli.outside import Verbs

app = typer.Typer(
    name="penstock",
    cls=Verbs,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    epilog="Environment: PENSTOCK_ADDRESS; PENSTOCK_TOKEN or PENSTOCK_TOKEN_FILE; PENSTOCK_CA, "
    "PENSTOCK_CERT and PENSTOCK_KEY (PEM files) for TLS.",
)
for group in (
    objects,
    reading,
    getting,
    putting,
    tracing,
    warming,
    catalogued,
    pins,
    engines,
    mounting,
    cluster,
    doctor,
    top,
    weights,
    maintenance,
    settings,
    volumes,
    mirror,
    tickets,
    tokens,
    support,
):
    group.add_to(app)


def _say_version(wanted: bool) -> None:
    if wanted:
        say(f"penstock {version('penstock')}")
        raise typer.Exit


@app.callback()
def penstock(
    *,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_say_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """A distributed read cache that feeds GPU fleets from object storage."""


def main() -> None:
    """Run the command line."""
    interrupt_on_termination()
    app(prog_name="penstock")

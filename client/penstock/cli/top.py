"""`penstock top`: what the cluster does at this moment."""

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.connection import Address, Json, open_operator
from penstock.cli.live import EVERY_DEFAULT, Every, follow
from penstock.cli.output import CLUSTER_PANEL, say, say_json, verb
from penstock.cli.top_order import Sort

if TYPE_CHECKING:
    from penstock.operator import Operator
    from penstock.overview import History, Overview

HISTORY_EVERY_S = 5.0
"""A sample is of ten seconds: it need not be asked for more often."""


def add_to(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command(rich_help_panel=CLUSTER_PANEL)(top)


@verb
def top(
    *,
    every: Every = EVERY_DEFAULT,  # type: ignore[assignment]
    sort: Annotated[Sort, typer.Option(help="Which nodes come first.")] = Sort.SERVED,
    once: Annotated[
        bool, typer.Option("--once", help="Print one picture; so where there is no terminal.")
    ] = False,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Watch the cluster at work: rates, hits, fill, hand-over, warm-ups, the hottest models."""
    with open_operator(address) as operator:
        if as_json:
            _say_documents(operator, every_s=None if once else every)
        elif once or not sys.stdout.isatty():
            _say_once(operator, sort)
        else:
            _follow(operator, sort, every_s=every)


def _say_documents(operator: "Operator", *, every_s: float | None) -> None:
    """Print one JSON document a refresh, or one alone."""
    say_json(operator.overviews.gathered().to_json())
    while every_s is not None:
        sys.stdout.flush()
        time.sleep(every_s)
        say_json(operator.overviews.now().to_json())


def _say_once(operator: "Operator", sort: Sort) -> None:
    from penstock.cli.output import rendered
    from penstock.cli.top_picture import picture

    overview = operator.overviews.gathered()
    history = operator.overviews.history()
    for line in rendered(lambda size: picture(overview, history, sort, columns=size.width)):
        say(line)


def _follow(operator: "Operator", sort: Sort, *, every_s: float) -> None:
    from penstock.cli.top_picture import picture

    asked_at = -HISTORY_EVERY_S
    history: History | None = None

    def look() -> "tuple[Overview, History]":
        nonlocal asked_at, history
        overviews = operator.overviews
        overview = overviews.gathered() if history is None else overviews.now()
        if history is None or time.monotonic() >= asked_at + HISTORY_EVERY_S:
            history, asked_at = overviews.history(), time.monotonic()
        return overview, history

    follow(
        look,
        lambda found, size: picture(*found, sort, columns=size.width, lines=size.height),
        every_s=every_s,
    )

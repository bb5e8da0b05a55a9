"""`penstock trace`: one read, hop by hop."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.connection import (
    URL_HELP,
    Address,
    Json,
    Length,
    Offset,
    Refresh,
    check_url,
    open_cache,
)
from penstock.cli.output import (
    OBJECTS_PANEL,
    Column,
    note,
    say_json,
    say_table,
    verb,
)
from penstock.cli.progress import watched
from penstock.cli.trace_output import say_trace, trace_json
from penstock.errors import PenstockError

if TYPE_CHECKING:
    from penstock.trace_calls import ReadTrace, SlowRead

_SLOW_COLUMNS = (
    Column("when"),
    Column("took", is_number=True),
    Column("node"),
    Column("chunk", is_number=True),
    Column("of"),
    Column("most of it at"),
)


def add_to(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command(rich_help_panel=OBJECTS_PANEL)(trace)


@verb
def trace(
    url: Annotated[
        str | None,
        typer.Argument(parser=check_url, metavar="URL", help=URL_HELP, show_default=False),
    ] = None,
    *,
    offset: Offset = 0,
    length: Length = None,
    slow: Annotated[
        bool, typer.Option("--slow", help="Show the slowest reads that the nodes remember.")
    ] = False,
    shows_all: Annotated[
        bool, typer.Option("--all", help="Draw every span, not the slowest of each kind.")
    ] = False,
    count: Annotated[int, typer.Option(min=1, max=1000, help="How many slow ones.")] = 20,
    refresh: Refresh = False,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Read an object once and show where the time went, or the slowest reads of late."""
    if slow == (url is not None):
        raise typer.BadParameter("name a URL to read, or --slow", param_hint="URL")
    if slow:
        _say_slow(address, count, as_json=as_json)
    else:
        assert url is not None, "checked above"
        found, failure = _traced(url, offset, length, address, refresh=refresh)
        if as_json:
            say_json(trace_json(found) | ({"error": failure.name} if failure else {}))
        else:
            say_trace(url, found, shows_all=shows_all)
        if failure:
            note(str(failure))
            raise typer.Exit(1)


def _traced(
    url: str, offset: int, length: int | None, address: str | None, *, refresh: bool
) -> "tuple[ReadTrace, PenstockError | None]":
    """Read it; where a read failed is what its trace shows."""
    from penstock.cli.transfer import Span, Transfer

    with open_cache(address) as cache:
        try:
            with (
                watched(url) as watcher,
                Path(os.devnull).open("wb", buffering=0) as nowhere,
                cache.tracing() as found,
            ):
                transfer = Transfer(cache, url, Span(offset, length), watcher, refresh=refresh)
                transfer.to_stream(nowhere)
        except PenstockError as error:
            return found, error
    return found, None


def _say_slow(address: str | None, count: int, *, as_json: bool) -> None:
    with open_cache(address) as cache:
        found = cache.slow_reads(count)
    if as_json:
        from penstock.trace_calls import ReadTrace

        reads = [trace_json(ReadTrace(read.trace_id, list(read.spans))) for read in found.reads]
        say_json({"reads": reads, "silent": found.silent})
        return
    say_table(_SLOW_COLUMNS, [_slow_row(read) for read in found.reads])
    if found.silent:
        note(f"no answer from {', '.join(found.silent)}")


def _first_note(read: "SlowRead", name: str) -> str:
    return next((span.notes[name] for span in read.spans if name in span.notes), "")


def _slow_row(read: "SlowRead") -> tuple[str, ...]:
    from datetime import datetime

    from penstock.trace_path import time_by_place, tree

    top = read.top
    branch = max(tree(read.spans), key=lambda each: each.span.duration_s)
    spent = time_by_place(branch)
    moment = datetime.fromtimestamp(top.started_at).astimezone()
    return (
        f"{moment:%H:%M:%S}",
        f"{top.duration_s * 1000:,.1f} ms",
        top.node,
        *(_first_note(read, name) for name in ("chunk", "url")),
        spent[0].place if spent else "",
    )

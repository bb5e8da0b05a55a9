"""`penstock pin|unpin|pins`: objects that are kept."""

import contextlib
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli.connection import URL_HELP, Address, Json, check_url, open_cache, open_operator
from penstock.cli.output import (
    OBJECTS_PANEL,
    Column,
    counted,
    note,
    percent,
    say,
    say_json,
    say_table,
    verb,
)
from penstock.cli.progress import watched
from penstock.cli.warming import run_warmup
from penstock.units import format_size

if TYPE_CHECKING:
    from penstock.operator_results import Pins, PinStatus

_COLUMNS = (
    Column("url"),
    Column("objects", is_number=True),
    Column("size", is_number=True),
    Column("with copies", is_number=True),
    Column("held", is_number=True),
    Column("pinned"),
)

Urls = Annotated[
    list[str],
    typer.Argument(
        parser=check_url,
        metavar="URL…",
        help=f"{URL_HELP} Everything below one that ends in a slash, or is no object.",
        show_default=False,
    ),
]


def add_to(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    for function in (pin, unpin, pins):
        app.command(rich_help_panel=OBJECTS_PANEL)(function)


@verb
def pin(
    urls: Urls,
    *,
    wait: Annotated[
        bool,
        typer.Option("--wait/--no-wait", help="Bring in what is missing; or let owners do it."),
    ] = True,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Keep objects: evict them last, and bring in again what is lost.

    What is there now is pinned, in its present version: pin it again for what comes later.
    """
    with open_operator(address) as operator:
        made = operator.pin(urls)
    report = interrupt = None
    if wait:
        with contextlib.ExitStack() as stack:
            cache = stack.enter_context(open_cache(address))
            bar = stack.enter_context(watched("warming up"))
            report, interrupt = run_warmup(cache, urls, bar)
    if as_json:
        warmup = {"warmup": asdict(report)} if report else {}
        say_json({**_to_json(made), **warmup})
    else:
        _say_pinned(made)
    if interrupt is not None:
        note("interrupted; it is pinned, and its owners bring in the rest")
        raise interrupt
    if report and report.failed_objects:
        first = report.failed[0]
        failed = counted(report.failed_objects, "object")
        note(f"{failed} could not be brought in yet; {first.url}: {first.message}")
        raise typer.Exit(1)


def _say_pinned(made: "Pins") -> None:
    for each in made.pins:
        objects = counted(each.objects, "object")
        say(f"pinned {each.url}: {objects}, {format_size(each.bytes)}")
    say(f"{_used(made)}")


def _used(found: "Pins") -> str:
    used, budget = format_size(found.pinned_bytes), format_size(found.budget_bytes)
    return f"all pins take {used} with copies, of {budget} that may be pinned"


@verb
def unpin(urls: Urls, *, address: Address = None, as_json: Json = False) -> None:
    """Keep objects no longer; what is cached of them ages out."""
    with open_operator(address) as operator:
        operator.unpin(urls)
    if as_json:
        say_json({"unpinned": urls})
    else:
        say("".join(f"unpinned {url}\n" for url in urls).rstrip())


@verb
def pins(*, address: Address = None, as_json: Json = False) -> None:
    """List what is pinned, and how much of it the nodes hold."""
    with open_operator(address) as operator:
        found = operator.pins()
    if as_json:
        say_json(_to_json(found))
    else:
        say_table(_COLUMNS, map(_row, found.pins))
        say(f"\n{_used(found)}")
    if found.unreachable:
        note(f"could not ask {', '.join(found.unreachable)}: more may be held")


def _to_json(found: "Pins") -> dict[str, Any]:
    told = asdict(found)
    for each, pin_status in zip(told["pins"], found.pins, strict=True):
        each["share_held"] = pin_status.share_held
    return told


def _row(each: "PinStatus") -> tuple[str, ...]:
    moment = datetime.fromtimestamp(each.pinned_at, tz=UTC)
    return (
        each.url,
        f"{each.objects:,}",
        format_size(each.bytes),
        format_size(each.cost_bytes),
        percent(each.share_held),
        f"{moment:%Y-%m-%d %H:%MZ}",
    )

"""`penstock status`, `penstock forget`: the cluster's nodes."""

import dataclasses
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.connection import Address, Json, complete_node, open_operator
from penstock.cli.live import EVERY_DEFAULT, Every, follow
from penstock.cli.models import say_models
from penstock.cli.output import (
    CLUSTER_PANEL,
    Column,
    counted,
    percent,
    rendered,
    say,
    say_json,
    table,
    verb,
)
from penstock.units import format_size

if TYPE_CHECKING:
    from rich.console import RenderableType

    from penstock.operator import Operator
    from penstock.operator_results import ClusterStatus, NodeStatus

_COLUMNS = (
    Column("node"),
    Column("host"),
    Column("state"),
    Column("weight", is_number=True),
    Column("share", is_number=True),
    Column("capacity", is_number=True),
    Column("cached", is_number=True),
    Column("epoch", is_number=True),
)
_OVERRIDE_MARK = "*"
_UNKNOWN = "-"


def add_to(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command(rich_help_panel=CLUSTER_PANEL)(status)
    app.command(rich_help_panel=CLUSTER_PANEL)(forget)


@verb
def status(
    *,
    models: Annotated[
        bool, typer.Option("--models", help="Show what is cached of models, by directory.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on, in place in a terminal; see also: penstock top.")
    ] = False,
    every: Every = EVERY_DEFAULT,  # type: ignore[assignment]  # the parser makes it a number
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Show the cluster's nodes, their weights and what they hold."""
    if models and watch:
        raise typer.BadParameter("watch models with: penstock top", param_hint="--watch")
    if models:
        say_models(address, as_json=as_json)
        return
    with open_operator(address) as operator:
        if watch and sys.stdout.isatty() and not as_json:
            follow(
                operator.status,
                lambda found, size: _picture(found, lines=size.height),
                every_s=every,
            )
        _say_status(operator, as_json=as_json)
        while watch:
            sys.stdout.flush()
            time.sleep(every)
            _say_status(operator, as_json=as_json)


def _say_status(operator: "Operator", *, as_json: bool) -> None:
    found = operator.status()
    if as_json:
        say_json(dataclasses.asdict(found))
    else:
        for line in rendered(lambda _size: _picture(found)):
            say(line)


def _picture(found: "ClusterStatus", *, lines: int | None = None) -> "RenderableType":
    """Return the status; where there are only so many lines, the nodes that fit."""
    from rich.console import Group
    from rich.text import Text

    away = sum(node.state == "away" for node in found.nodes)
    count = counted(len(found.nodes), "node") + (f", {away} away" if away else "")
    above = Text(f"cluster {found.cluster}, epoch {found.epoch}, {count}\n")
    below = ""
    if any(node.weight_source == "override" for node in found.nodes):
        below = (
            f"\n{_OVERRIDE_MARK} set by an operator; back to automatic: penstock weight auto NODE"
        )
    nodes = found.nodes
    if lines is not None and len(nodes) > (room := lines - 3 - len(below.splitlines())):
        nodes = tuple(sorted(nodes, key=lambda node: node.state != "away")[: room - 1])
        below = f"… and {counted(len(found.nodes) - len(nodes), 'more node')}{below}"
    shown = table(_COLUMNS, [_row(node) for node in nodes])
    return Group(above, shown, *([Text(below)] if below else []))


def _row(node: "NodeStatus") -> tuple[str, ...]:
    answered = bool(node.version)
    mark = _OVERRIDE_MARK if node.weight_source == "override" else ""
    return (
        node.id,
        node.host,
        node.state,
        f"{mark}{node.weight}",
        percent(node.share),
        format_size(node.owned_capacity_bytes),
        format_size(node.cached_bytes) if answered else _UNKNOWN,
        str(node.seen_epoch) if node.seen_epoch else _UNKNOWN,
    )


@verb
def forget(
    node: Annotated[
        str, typer.Argument(help="Its id.", autocompletion=complete_node, show_default=False)
    ],
    *,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Take a node that is away off the ring, with its weight and its record."""
    with open_operator(address) as operator:
        epoch = operator.forget(node)
    if as_json:
        say_json({"node": node, "epoch": epoch})
    else:
        say(f"{node} is off the ring since epoch {epoch}")

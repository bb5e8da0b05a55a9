"""`penstock status`, `penstock forget`: the cluster's nodes."""

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.connection import Address, Json, complete_node, open_operator
from penstock.cli.models import say_models
from penstock.cli.output import (
    CLUSTER_PANEL,
    Column,
    counted,
    percent,
    say,
    say_json,
    say_table,
    verb,
)
from penstock.units import format_size

if TYPE_CHECKING:
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
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Show the cluster's nodes, their weights and what they hold."""
    if models:
        say_models(address, as_json=as_json)
        return
    with open_operator(address) as operator:
        found = operator.status()
    if as_json:
        say_json(dataclasses.asdict(found))
    else:
        _say_status(found)


def _say_status(found: "ClusterStatus") -> None:
    away = sum(node.state == "away" for node in found.nodes)
    nodes = counted(len(found.nodes), "node") + (f", {away} away" if away else "")
    say(f"cluster {found.cluster}, epoch {found.epoch}, {nodes}\n")
    say_table(_COLUMNS, [_row(node) for node in found.nodes])
    if any(node.weight_source == "override" for node in found.nodes):
        say(f"\n{_OVERRIDE_MARK} set by an operator; back to automatic: penstock weight auto NODE")


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

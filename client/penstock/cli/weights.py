"""`penstock weight set|auto`: how much of the key space each node owns."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.connection import Address, Json, complete_node, open_operator
from penstock.cli.output import (
    CLUSTER_PANEL,
    Column,
    counted,
    note,
    percent,
    say,
    say_json,
    say_table,
    verb,
)
from penstock.errors import InvalidRequest
from penstock.placement import check_weight
from penstock.units import format_duration, format_size

if TYPE_CHECKING:
    from penstock.operator_results import Move, WeightsPreview, WeightsSet

_COLUMNS = (
    Column("from"),
    Column("to"),
    Column("share", is_number=True),
    Column("cached", is_number=True),
    Column("chunks", is_number=True),
)

DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Change nothing; show what would move, and where to.")
]
Reason = Annotated[str, typer.Option(help="Why; kept with the weight.", metavar="TEXT")]


def add_to(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    weight = typer.Typer(no_args_is_help=True, help="Set nodes' weights; 100 is the usual one.")
    weight.command("set")(set_weights)
    weight.command("auto")(auto_weights)
    app.add_typer(weight, name="weight", rich_help_panel=CLUSTER_PANEL)


def _complete_change(ctx: typer.Context, incomplete: str) -> list[str]:
    return [f"{node}=" for node in complete_node(ctx, incomplete)]


@verb
def set_weights(
    changes: Annotated[
        list[str],
        typer.Argument(
            metavar="NODE=WEIGHT…",
            help="0 to 10,000. 0 takes a node off the ring; it goes on serving what it holds.",
            autocompletion=_complete_change,
            show_default=False,
        ),
    ],
    *,
    dry_run: DryRun = False,
    reason: Reason = "",
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Set weights, all in one step; they win over automatic ones until lifted."""
    _change(parse_changes(changes), reason, address, dry_run=dry_run, as_json=as_json)


@verb
def auto_weights(
    nodes: Annotated[
        list[str],
        typer.Argument(
            metavar="NODE…", help="Ids.", autocompletion=complete_node, show_default=False
        ),
    ],
    *,
    dry_run: DryRun = False,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Let weights follow the nodes' capacity again."""
    _change(dict.fromkeys(nodes), "", address, dry_run=dry_run, as_json=as_json)


def parse_changes(texts: Sequence[str]) -> dict[str, int | None]:
    """Return node id to weight of texts like ``gpu-17=200``.

    Raises:
        typer.BadParameter: One is not like that, or names a node again.
    """
    changes: dict[str, int | None] = {}
    for text in texts:
        node, separator, weight = text.partition("=")
        if not (node and separator):
            raise typer.BadParameter(f"{text!r}: write NODE=WEIGHT, for example gpu-17=200")
        if node in changes:
            raise typer.BadParameter(f"{node!r} is named twice")
        changes[node] = _parse_weight(weight)
    return changes


def _parse_weight(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise typer.BadParameter(
            f"weight {text!r}: want a whole number, 0 to 10,000 (penstock weight auto goes back "
            "to automatic)"
        )
    try:
        check_weight(weight := int(text[:10]))  # More digits are too many in any case.
    except InvalidRequest as error:
        raise typer.BadParameter(str(error)) from None
    return weight


def _change(
    changes: Mapping[str, int | None],
    reason: str,
    address: str | None,
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    with open_operator(address) as operator:
        done = (
            operator.preview_weights(changes)
            if dry_run
            else operator.set_weights(changes, reason=reason)
        )
    if as_json:
        say_json(dataclasses.asdict(done))
    else:
        say_done(done)


def say_done(done: "WeightsPreview | WeightsSet") -> None:
    """Print what a change of weights did, or would do."""
    from penstock.operator_results import WeightsSet

    if isinstance(done, WeightsSet):
        weights = ", ".join(f"{node} weighs {weight}" for node, weight in done.weights.items())
        say(f"in force at epoch {done.epoch}: {weights}")
    else:
        _say_preview(done)


def _say_preview(preview: "WeightsPreview") -> None:
    unknown = set(preview.unknown)
    if preview.moves:
        say_table(
            _COLUMNS, [_row(move, is_known=move.source not in unknown) for move in preview.moves]
        )
        say(
            f"\n{_total(preview.moves)}, in {format_duration(preview.handoff_s)} at "
            "handoff_bytes_per_s; nothing was changed"
        )
    else:
        say("nothing would move")
    if unknown:
        note(f"could not ask {', '.join(preview.unknown)}: what they hold is not counted")


def _row(move: "Move", *, is_known: bool) -> tuple[str, ...]:
    cached = (format_size(move.cached_bytes), f"{move.cached_chunks:,}") if is_known else ("?", "?")
    return (move.source, move.target, percent(move.share), *cached)


def _total(moves: Sequence["Move"]) -> str:
    share = percent(sum(move.share for move in moves))
    size = format_size(sum(move.cached_bytes for move in moves))
    chunks = counted(sum(move.cached_chunks for move in moves), "chunk")
    return f"{share} of the key space would move, {size} of it cached in {chunks}"

"""`penstock tickets ls|rotate`: the keys that sign tickets."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.connection import Address, Json, open_operator
from penstock.cli.output import CLUSTER_PANEL, Column, counted, say, say_json, say_table, verb
from penstock.units import format_duration

if TYPE_CHECKING:
    from penstock.ticket_key_calls import TicketKeyInfo

_COLUMNS = (Column("key"), Column("age", is_number=True), Column("state"))


def add_to(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    tickets = typer.Typer(no_args_is_help=True, help="See or change the keys that sign tickets.")
    tickets.command("ls")(list_keys)
    tickets.command("rotate")(rotate)
    app.add_typer(tickets, name="tickets", rich_help_panel=CLUSTER_PANEL)


@verb
def list_keys(*, address: Address = None, as_json: Json = False) -> None:
    """Show when keys came, and until when what they signed is good. Keys are never shown."""
    with open_operator(address) as operator:
        keys = operator.ticket_keys()
    if as_json:
        say_json({"keys": [asdict(key) for key in keys]})
    else:
        _say_keys(keys)


@verb
def rotate(
    *,
    revoke: Annotated[
        bool,
        typer.Option(
            "--revoke",
            help="A key has leaked: end all others, and every ticket that they signed, now.",
        ),
    ] = False,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Have another key sign tickets. Nodes do so by themselves each ticket_key_rotation_s.

    Reads go on. Without --revoke the new key signs in a minute, and tickets that were signed before
    stay good for their time; with it their readers open their objects again by themselves.
    """
    with open_operator(address) as operator:
        rotated = operator.rotate_ticket_keys(revoke=revoke)
    if as_json:
        say_json({"keys": [asdict(key) for key in rotated.keys], "revoked": rotated.revoked})
        return
    if revoke:
        say(f"{counted(rotated.revoked, 'key')} revoked: no ticket of before is good any longer")
    _say_keys(rotated.keys)


def _say_keys(keys: "Sequence[TicketKeyInfo]") -> None:
    now = time.time()
    rows = [(key.id, format_duration(max(0.0, now - key.created_at)), _state(key)) for key in keys]
    say_table(_COLUMNS, rows)


def _state(key: "TicketKeyInfo") -> str:
    if key.verifies_until is not None:
        left = format_duration(max(0.0, key.verifies_until - time.time()))
        return f"signs still; then good for {left}" if key.signs else f"good for {left} yet"
    return "signs" if key.signs else "will sign when all nodes have seen it"

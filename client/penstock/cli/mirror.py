"""`penstock mirror status`: how far behind its source a mirror is."""

from typing import TYPE_CHECKING

import typer

from penstock.cli.connection import Address, Json, open_operator
from penstock.cli.output import CLUSTER_PANEL, Column, note, say, say_json, say_table, verb
from penstock.units import format_duration

if TYPE_CHECKING:
    from penstock.catalog import CatalogStatus

_COLUMNS = (
    Column("volume"),
    Column("source seq", is_number=True),
    Column("seq", is_number=True),
    Column("behind", is_number=True),
    Column("lag"),
)


def add_to(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    mirror = typer.Typer(no_args_is_help=True, help="Mirrors of other regions' catalogs.")
    mirror.callback()(_group)
    mirror.command("status")(status)
    app.add_typer(mirror, name="mirror", rich_help_panel=CLUSTER_PANEL)


def _group() -> None:
    """Mirrors of other regions' catalogs."""  # With a callback one verb stays a verb.


@verb
def status(*, address: Address = None, as_json: Json = False) -> None:
    """Show how far this cluster's catalog is behind the one that it mirrors."""
    with open_operator(address) as operator:
        told = operator.catalog.status()
    if as_json:
        say_json(_to_json(told))
    elif not told.mirror_of:
        say(f"the catalog at {told.address} is no mirror; its newest entry is {told.seq}")
    else:
        say(f"the catalog at {told.address} mirrors {told.mirror_of}")
        say_table(_COLUMNS, [_row(told, volume) for volume in told.volumes])
    if told.trouble:
        note(told.trouble)
        raise typer.Exit(1)


def _to_json(told: "CatalogStatus") -> dict[str, object]:
    marks = {"source_seq": told.source_seq, "seq": told.seq, "lag_s": told.lag_s}
    return {
        "mirror_of": told.mirror_of,
        "trouble": told.trouble,
        "volumes": [{"name": name, **marks, "copied_bytes": 0} for name in told.volumes],
    }


def _row(told: "CatalogStatus", volume: str) -> tuple[str, ...]:
    behind = max(0, told.source_seq - told.seq)
    lag = format_duration(told.lag_s) if told.lag_s else "none"
    return (volume, f"{told.source_seq:,}", f"{told.seq:,}", f"{behind:,}", lag)

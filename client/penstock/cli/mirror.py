"""`penstock mirror`: how far behind its source a mirror is, and which data it brings here."""

from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.connection import Address, Json, open_operator
from penstock.cli.output import CLUSTER_PANEL, Column, note, say, say_json, say_table, verb
from penstock.units import format_duration, format_size, parse_size

if TYPE_CHECKING:
    from penstock.catalog import CatalogStatus
    from penstock.mirror_rules import BroughtVolume

_COLUMNS = (
    Column("volume"),
    Column("source seq", is_number=True),
    Column("seq", is_number=True),
    Column("behind", is_number=True),
    Column("lag"),
    Column("data here up to", is_number=True),
    Column("copied", is_number=True),
)


def add_to(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    mirror = typer.Typer(no_args_is_help=True, help="Mirrors of other regions' catalogs.")
    mirror.command("status")(status)
    mirror.command("set")(set_rules)
    app.add_typer(mirror, name="mirror", rich_help_panel=CLUSTER_PANEL)


@verb
def set_rules(
    volume: Annotated[str, typer.Argument(help="A catalogued one.", show_default=False)],
    *,
    copy_data: Annotated[
        list[str] | None,
        typer.Option(metavar="GLOB", help="Copy these to the first of the volume's origins."),
    ] = None,
    warm: Annotated[
        list[str] | None,
        typer.Option(metavar="GLOB", help="Bring these into this cluster's cache."),
    ] = None,
    rate: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Copy at most so much by the second.")
    ] = None,
    address: Address = None,
) -> None:
    """Say which data of VOLUME this mirror brings into its region, by itself as it comes.

    What there is already is brought too. Each time all is said anew: without globs nothing is
    brought any more. What was stays.
    """
    from penstock.mirror_rules import MirrorRules

    rules = MirrorRules(
        tuple(copy_data or ()), tuple(warm or ()), float(parse_size(rate)) if rate else 0.0
    )
    with open_operator(address) as operator:
        operator.catalog.set_mirror_rules(volume, rules)
    for done, globs in (("copied to this region's store", rules.copied), ("warmed", rules.warmed)):
        say(f"{volume}: {', '.join(globs) if globs else 'nothing'} is {done}")


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
    troubles = [f"{each.name}: {each.trouble}" for each in told.brought if each.trouble]
    if told.trouble:
        troubles.insert(0, told.trouble)
    for trouble in troubles:
        note(trouble)
    if troubles:
        raise typer.Exit(1)


def _to_json(told: "CatalogStatus") -> dict[str, object]:
    marks = {"source_seq": told.source_seq, "seq": told.seq, "lag_s": told.lag_s}
    return {
        "mirror_of": told.mirror_of,
        "trouble": told.trouble,
        "volumes": [
            {"name": name, **marks, **_brought_to_json(_brought(told, name))}
            for name in told.volumes
        ],
    }


def _brought(told: "CatalogStatus", volume: str) -> "BroughtVolume | None":
    return next((each for each in told.brought if each.name == volume), None)


def _brought_to_json(brought: "BroughtVolume | None") -> dict[str, object]:
    if brought is None:
        return {"copied_bytes": 0}
    return {
        "copied_bytes": brought.copied_bytes,
        "copied_files": brought.copied_files,
        "copy_data": brought.rules.copied,
        "warm": brought.rules.warmed,
        "brought_seq": brought.seq,
        "trouble": brought.trouble,
    }


def _row(told: "CatalogStatus", volume: str) -> tuple[str, ...]:
    behind = max(0, told.source_seq - told.seq)
    lag = format_duration(told.lag_s) if told.lag_s else "none"
    brought = _brought(told, volume)
    data = (f"{brought.seq:,}", format_size(brought.copied_bytes)) if brought else ("-", "-")
    return (volume, f"{told.source_seq:,}", f"{told.seq:,}", f"{behind:,}", lag, *data)

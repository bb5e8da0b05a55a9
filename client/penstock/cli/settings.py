"""`penstock settings get|set`: what all nodes of a cluster agree on."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from penstock.cli.connection import Address, Json, open_operator
from penstock.cli.output import CLUSTER_PANEL, Column, say, say_json, say_table, verb
from penstock.errors import InvalidRequest
from penstock.nearest import did_you_mean
from penstock.settings import ClusterSettings

_COLUMNS = (Column("setting"), Column("value", is_number=True), Column("default", is_number=True))
_SIZE_UNITS = {"TiB": 2**40, "GiB": 2**30, "MiB": 2**20, "TB": 10**12, "GB": 10**9, "MB": 10**6}
_SIZES = ("chunk_size", "weight_unit_bytes", "handoff_bytes_per_s")


def add_to(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    settings = typer.Typer(no_args_is_help=True, help="Read or change cluster-wide settings.")
    settings.command("get")(get_settings)
    settings.command("set")(set_settings)
    app.add_typer(settings, name="settings", rich_help_panel=CLUSTER_PANEL)


def _complete_name(incomplete: str) -> list[str]:
    return [name for name in ClusterSettings().to_json() if name.startswith(incomplete)]


def _complete_change(incomplete: str) -> list[str]:
    return [f"{name}=" for name in _complete_name(incomplete)]


@verb
def get_settings(
    name: Annotated[
        str | None,
        typer.Argument(help="One of them; all by default.", autocompletion=_complete_name),
    ] = None,
    *,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Show settings; with a NAME its bare value, in bytes or seconds."""
    with open_operator(address) as operator:
        settings = operator.settings()
    if name is not None and name not in settings:
        raise InvalidRequest(f"there is no setting {name!r}; {did_you_mean(name, settings)}")
    if as_json:
        say_json(settings if name is None else {name: settings[name]})
    elif name is None:
        _say_settings(settings)
    else:
        say(str(settings[name]))


@verb
def set_settings(
    changes: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME=VALUE…",
            help="Sizes as 4MiB or 4TB, durations as 30s or 10m; bare numbers are bytes, seconds.",
            autocompletion=_complete_change,
            show_default=False,
        ),
    ],
    *,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Change settings, all in one step."""
    wanted = parse_changes(changes)
    with open_operator(address) as operator:
        before = operator.settings()
        after = operator.set_settings(wanted)
    if as_json:
        say_json(after)
        return
    for name in wanted:
        old, new = (format_setting(name, settings[name]) for settings in (before, after))
        say(f"{name}: {new} (was {old})")


def parse_changes(texts: Sequence[str]) -> dict[str, str]:
    """Return name to value of texts like ``replicas=2``; the cluster knows what is good.

    Raises:
        typer.BadParameter: One is not like that, or names a setting again.
    """
    changes: dict[str, str] = {}
    for text in texts:
        name, separator, value = (part.strip() for part in text.partition("="))
        if not (name and separator and value):
            raise typer.BadParameter(f"{text!r}: write NAME=VALUE, for example replicas=2")
        if name in changes:
            raise typer.BadParameter(f"{name!r} is named twice")
        changes[name] = value
    return changes


def _say_settings(settings: Mapping[str, Any]) -> None:
    defaults = ClusterSettings().to_json()
    rows = []
    for name, value in settings.items():
        default = format_setting(name, defaults[name]) if name in defaults else ""
        rows.append((name, format_setting(name, value), default))
    say_table(_COLUMNS, rows)


def format_setting(name: str, value: Any) -> str:
    """Return a value with its unit, as `penstock settings set` takes it and none other."""
    if name in _SIZES and isinstance(value, int) and value > 0:
        for unit, size in _SIZE_UNITS.items():
            if value % size == 0:
                return f"{value // size}{unit}"
    elif name.endswith("_s") and isinstance(value, int | float):
        return f"{value:g}s"
    return str(value)

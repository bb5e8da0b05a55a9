"""Verbs that live outside the library: found by entry points, loaded when they are called.

Responsible for: listing them without importing them, and saying which extra is missing.
Not responsible for: what they do. The node's verbs come this way: the library never imports it.
"""

import contextlib
import gc
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group

from penstock.cli.output import CLUSTER_PANEL, PROCESSES_PANEL, verb
from penstock.errors import InvalidConfiguration

GROUP = "penstock.commands"

_HELP = {
    "catalog": "Run the catalog.",
    "config": "Check a node's configuration file.",
    "demo": "Show a whole cluster at work on this machine.",
    "node": "Run a cache node.",
    "plan": "Tell what hit ratio more capacity, other nodes or two copies would give.",
}
_PANELS = {"plan": CLUSTER_PANEL}
_EXTRAS = {"catalog": "catalog", "demo": "demo"}


class Verbs(TyperGroup):
    """The library's verbs, and the outside ones as names until one of them is called."""

    # Typer brought a click of its own at some version: neither one's types can be named here.
    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self._outside = {point.name: point for point in outside_verbs()}
        for name in self._outside:
            text = _HELP.get(name, "A verb of another package.")
            panel = _PANELS.get(name, PROCESSES_PANEL)
            self.commands[name] = TyperCommand(name, help=text, rich_help_panel=panel)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that ``args`` begins with; an outside one is loaded now."""
        name, command, rest = super().resolve_command(ctx, args)
        if name in self._outside:
            command = load(self._outside[name])
        return name, command, rest


def outside_verbs() -> Iterator[EntryPoint]:
    """Yield the entry points of verbs, sorted by name."""
    yield from sorted(entry_points(group=GROUP), key=lambda point: point.name)


def load(point: EntryPoint) -> Any:
    """Return the command of an entry point: a function, or a Typer app with verbs of its own."""
    holder = typer.Typer(pretty_exceptions_enable=False)
    try:
        with _no_collection():
            found = point.load()
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == point.module.partition(".")[0]:
            raise  # Not an extra: our own module is not there.
        holder.command(point.name, context_settings=_ANY_ARGUMENTS)(_refusal(point, error.name))
    else:
        if isinstance(found, typer.Typer):
            holder.add_typer(found, name=point.name)
        else:
            holder.command(point.name)(verb(found))
    return get_group(holder).commands[point.name]


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """What is imported stays: looking through it for garbage is a sixth of a node's start."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


_ANY_ARGUMENTS = {"ignore_unknown_options": True, "allow_extra_args": True}


def _refusal(point: EntryPoint, missing: str | None) -> Any:
    extra = _EXTRAS.get(point.name, "node")

    @verb
    def refuse() -> None:
        raise InvalidConfiguration(
            f"{point.name} needs {missing}, which is not installed: pip install 'penstock[{extra}]'"
        )

    refuse.__doc__ = f"Not installed: pip install 'penstock[{extra}]'"
    return refuse

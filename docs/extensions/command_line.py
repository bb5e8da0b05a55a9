"""The command line in the reference: every verb with its arguments and options.

Responsible for: ``{command-line}``, which walks the tree of commands that `penstock` itself has,
the verbs of other packages included.
"""

import inspect
from collections.abc import Iterator
from typing import Any

import typer.main
from generated import MarkdownDirective, code, table
from sphinx.application import Sphinx

from penstock.cli.app import app as penstock
from penstock.cli.outside import load, outside_verbs

PROGRAM = "penstock"
OF_ALL = ("address", "as_json")
"""Options that all verbs have: the page says so once."""


class CommandLine(MarkdownDirective):
    """Every verb, by the groups that ``penstock --help`` shows."""

    def markdown(self) -> Iterator[str]:
        """Return the lines."""
        panels: dict[str, list[tuple[str, Any]]] = {}
        for name, command in verbs().items():
            panels.setdefault(command.rich_help_panel or "Other", []).append((name, command))
        for panel, found in panels.items():
            yield f"## {panel}"
            for name, command in found:
                yield from _command(f"{PROGRAM} {name}", command, "###")


def verbs() -> dict[str, Any]:
    """Return the verbs by name, those of other packages loaded."""
    found = dict(typer.main.get_command(penstock).commands)  # type: ignore[attr-defined]  # a group
    for point in outside_verbs():
        panel = found[point.name].rich_help_panel
        found[point.name] = load(point)
        found[point.name].rich_help_panel = panel
    return found


def _command(path: str, command: Any, level: str) -> Iterator[str]:
    yield from ("", f"{level} {path}", "", inspect.cleandoc(command.help or ""), "")
    for name, below in getattr(command, "commands", {}).items():
        yield from _command(f"{path} {name}", below, f"{level}#")
    if not getattr(command, "commands", {}):
        yield from ("", "```text", _usage(path, command), "```", "")
        yield from table(("option", "what it does"), map(_parameter, _shown(command)))


def _shown(command: Any) -> list[Any]:
    hidden = (each.name in OF_ALL or getattr(each, "hidden", False) for each in command.params)
    shown = [each for each, is_hidden in zip(command.params, hidden, strict=True) if not is_hidden]
    return sorted(shown, key=lambda each: each.param_type_name != "argument")


def _usage(path: str, command: Any) -> str:
    arguments = [each for each in _shown(command) if each.param_type_name == "argument"]
    words = [_name(each) if each.required else f"[{_name(each).strip('[]')}]" for each in arguments]
    return " ".join([path, *words, "[OPTIONS]"])


def _name(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.rpartition("_")[2].upper())


def _parameter(parameter: Any) -> tuple[str, str]:
    if parameter.param_type_name == "argument":
        return code(_name(parameter).strip("[]")), _text(parameter)
    names = ", ".join(map(code, (*parameter.opts, *parameter.secondary_opts)))
    value = "" if parameter.is_flag else f" {_name(parameter)}"
    return f"{names}{value}", _text(parameter)


def _text(parameter: Any) -> str:
    """Return what an option does, with its default and where else it is read from."""
    text = parameter.help or ""
    default = _default(parameter)
    if default:
        text += f" Default: {default}."
    if parameter.envvar:
        text += f" Environment: `{parameter.envvar}`."
    if parameter.multiple and "repeated" not in text:
        text += " May be repeated."
    return text


def _default(parameter: Any) -> str:
    if isinstance(parameter.show_default, str):
        told = parameter.show_default
        return told if " " in told else code(told)
    value = parameter.default
    if (
        getattr(parameter, "is_flag", False)
        or not isinstance(value, str | int | float)
        or value in ("", False)
    ):
        return ""
    return code(str(value))


def setup(app: Sphinx) -> dict[str, Any]:
    """Register it."""
    app.add_directive("command-line", CommandLine)
    return {"parallel_read_safe": True}

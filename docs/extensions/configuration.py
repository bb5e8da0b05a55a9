"""Configuration files and the cluster's settings in the reference, from their classes.

Responsible for: ``{configuration}``, ``{catalog-configuration}`` and ``{settings}``: each key with
its type, its default and what the source says of it.
"""

import ast
import inspect
import itertools
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from generated import MarkdownDirective, code, plain, table
from pydantic import BaseModel
from sphinx.application import Sphinx

from penstock.cli.settings import format_setting
from penstock.settings import ClusterSettings
from penstock_node import config_values
from penstock_node.config_keys import CatalogKeys, NodeKeys
from penstock_node.config_section import SecretReference, Section

_NAMED = {
    id(config_values.Size): "size",
    id(config_values.SizeFromZero): "size",
    id(config_values.Duration): "duration",
    id(config_values.Port): "port",
    id(config_values.Host): "host",
    id(config_values.SecretHost): "host",
    id(config_values.AbsolutePath): "path",
    id(config_values.Weight): '"auto" or a number',
    id(config_values.ParsedNetwork): "network",
    id(SecretReference): "secret",
}


class Configuration(MarkdownDirective):
    """Every key of ``node.toml``, a table of TOML at a time."""

    def markdown(self) -> Iterator[str]:
        """Return the lines."""
        yield from ("", "### Top of the file", "")
        yield from _keys(NodeKeys)
        yield from _tables(NodeKeys)


class CatalogConfiguration(MarkdownDirective):
    """Every key of ``catalog.toml``; its tables are those of ``node.toml``."""

    def markdown(self) -> Iterator[str]:
        """Return the lines."""
        yield from _keys(CatalogKeys)
        heads = [head for _, head in _sections(CatalogKeys)]
        assert set(heads) <= {head for _, head in _sections(NodeKeys)}, "the page tells of these"
        yield f"And these tables, as in a node's file: {', '.join(map(code, heads))}."


class Settings(MarkdownDirective):
    """Every cluster-wide setting."""

    def markdown(self) -> Iterator[str]:
        """Return the lines."""
        told, defaults = texts_below(ClusterSettings), ClusterSettings().to_json()
        rows = [
            (code(name), code(format_setting(name, value)), told.get(name, ""))
            for name, value in defaults.items()
        ]
        yield from table(("setting", "default", "what it says"), rows)


def _tables(model: type[BaseModel], above: str = "") -> Iterator[str]:
    """Yield the lines of each table of TOML in a model, and of those within it."""
    for section, head in _sections(model, above):
        yield from ("", f"### `{head}`", "", plain(inspect.getdoc(section) or ""), "")
        yield from _keys(section)
        yield from _tables(section, f"{head.strip('[]')}.")


def _sections(model: type[BaseModel], above: str = "") -> Iterator[tuple[type[Section], str]]:
    for name, field in model.model_fields.items():
        section, form = _section(field.annotation)
        if section is not None:
            heads = {"list": f"[[{above}{name}]]", "map": f"[{above}{name}.NAME]"}
            yield section, heads.get(form, f"[{above}{name}]")


def _keys(model: type[BaseModel]) -> list[str]:
    told, hints = texts_below(model), typing.get_type_hints(model, include_extras=True)
    rows = [
        (code(name), _type(hints[name]), _default(field, _type(hints[name])), told.get(name, ""))
        for name, field in model.model_fields.items()
        if _section(field.annotation)[0] is None
    ]
    return table(("key", "type", "default", "what it says"), rows)


def texts_below(cls: type) -> dict[str, str]:
    """Return the string below each attribute in the source of a class, and of its own bases."""
    ours = [each for each in reversed(cls.__mro__) if each.__module__.startswith("penstock")]
    return {name: text for each in ours for name, text in _texts_in(each).items()}


def _texts_in(cls: type) -> dict[str, str]:
    (tree,) = ast.parse(inspect.getsource(cls)).body
    assert isinstance(tree, ast.ClassDef)
    found: dict[str, str] = {}
    for field, text in itertools.pairwise(tree.body):
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            found[field.target.id] = plain(inspect.cleandoc(str(text.value.value)))
    return found


def _section(annotation: Any) -> tuple[type[Section] | None, str]:
    """Return the class of a table of TOML, and whether there is one, a list or a map of them."""
    kinds = [annotation, *typing.get_args(annotation)]
    is_section = (k for k in kinds if inspect.isclass(k) and issubclass(k, Section))
    section = next((k for k in is_section if k is not SecretReference), None)
    origin = typing.get_origin(annotation)
    return section, "list" if origin is tuple else "map" if origin is dict else "one"


def _type(annotation: Any) -> str:
    if id(annotation) in _NAMED:
        return _NAMED[id(annotation)]
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type(inner[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type(each) for each in inner if each is not type(None))
    if origin is typing.Literal:
        return " or ".join(f'`"{each}"`' for each in inner)
    if origin is tuple:
        return f"list of {_type(inner[0])}s"
    if origin is dict:
        return "table"
    return {"str": "text", "int": "number", "bool": "true or false", "Path": "path"}.get(
        getattr(annotation, "__name__", ""), str(getattr(annotation, "__name__", annotation))
    )


def _default(field: Any, kind: str) -> str:
    value = field.default
    match value:
        case _ if field.is_required():
            return "*required*"
        case None | "" | () | {}:
            return ""
        case bool():
            return code(str(value).lower())
        case tuple():
            return ", ".join(code(f'"{each}"') for each in value)
        case str() | Path():
            return code(f'"{value}"')
        case _ if kind == "size":
            return code(f"{value >> 20}MiB")
        case _ if kind == "duration":
            return code(f"{value:g}s")
        case _:
            return code(str(value))


def setup(app: Sphinx) -> dict[str, Any]:
    """Register all."""
    app.add_directive("configuration", Configuration)
    app.add_directive("catalog-configuration", CatalogConfiguration)
    app.add_directive("settings", Settings)
    return {"parallel_read_safe": True}

"""Where a node's configuration comes from: a file, the environment, flags.

Responsible for: reading each, merging them, and telling of every problem which key it is about,
where that stands, and which known key is nearest.
Not responsible for: what values are good (`config_keys`, `config_checks`).
"""

import os
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, TypeAlias, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, EnvSettingsSource, TomlConfigSettingsSource

from penstock.errors import InvalidConfiguration
from penstock.nearest import did_you_mean
from penstock_node.config_keys import ENVIRONMENT_DELIMITER, ENVIRONMENT_PREFIX

CONFIG_BYTES_MAX = 4 * 1024 * 1024

Place: TypeAlias = tuple[str | int, ...]
"""A key and the tables around it: ``("tiers", 0, "capacity")``."""

# They tell clients whom to call and what to show, and the command line which file to read.
_OF_CLIENTS = ("ADDRESS", "TOKEN", "TOKEN_FILE", "CA", "CERT", "KEY", "SNAPSHOTS", "TRACE_SHARE")
NOT_CONFIGURATION = frozenset(f"PENSTOCK_{name}" for name in (*_OF_CLIENTS, "CONFIG"))
# Kubernetes tells each pod of every service in such variables: one named "penstock" is common.
_SERVICE_LINK = re.compile(r"PENSTOCK_(.+_)?(SERVICE_(HOST|PORT(_.+)?)|PORT(_\d+_[A-Z]+(_.+)?)?)")
_LINK_VALUE = re.compile(r"(tcp|udp|sctp)://\S+")

_WANTED = {
    "list_type": "want a list",
    "tuple_type": "want a list",
    "dict_type": "want a table",
    "model_type": "want a table",
    "model_attributes_type": "want a table",
    "missing": "missing",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with the key at ``place``; an empty place means with the whole."""

    place: Place
    message: str
    where: str = ""
    """Where the key stands; empty: in whichever layer sets it."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One source's values, and a function that says where a place stands in it."""

    values: Mapping[str, Any]
    where: Callable[[Place], str]


class _Environment(EnvSettingsSource):
    """Leaves text that is not JSON as it is, for validation to refuse by its own name."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            return value


def read_file(path: Path, keys: type[BaseSettings]) -> Layer:
    """Return the values of a TOML file.

    Raises:
        InvalidConfiguration: It cannot be read, or is not TOML: with line and column.
    """
    try:
        if path.stat().st_size > CONFIG_BYTES_MAX:
            raise InvalidConfiguration(f"{path}: more than {CONFIG_BYTES_MAX} bytes")
        path.open("rb").close()
        values = TomlConfigSettingsSource(keys, toml_file=path)()
    except OSError as error:
        raise InvalidConfiguration(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidConfiguration(f"{path}: not TOML: {error}") from error
    return Layer(values, lambda place: str(path))


def read_environment(keys: type[BaseSettings]) -> tuple[Layer, list[Problem]]:
    """Return the values of ``PENSTOCK_…``, and a problem for each that names no key."""
    values = _Environment(keys)()
    variables = dict(_variables())
    problems = [
        Problem(place, f"unknown key; {nearest_key(keys, place)}", f"environment variable {name}")
        for place, name in variables.items()
        if not _reaches(values, place) and not _is_service_link(name)
    ]
    return Layer(values, lambda place: _describe_variables(variables, place)), problems


def from_flags(flags: Mapping[str, Any]) -> Layer:
    """Return the values given on the command line; None means that a flag was not given."""
    given = {name: value for name, value in flags.items() if value is not None}
    return Layer(given, lambda place: f"flag --{str(place[0]).replace('_', '-')}")


def merged(layers: Sequence[Layer]) -> dict[str, Any]:
    """Return one set of values: earlier layers win, tables are merged, lists replaced."""
    values: dict[str, Any] = {}
    for layer in reversed(layers):
        values = _laid_over(values, layer.values)
    return values


def unknown_keys(keys: type[BaseModel], values: Mapping[str, Any]) -> list[Problem]:
    """Return a problem for each key that is no key of the whole (tables are validated)."""
    unknown = [name for name in values if name not in keys.model_fields]
    return [Problem((name,), f"unknown key; {nearest_key(keys, (name,))}") for name in unknown]


def problems_of(error: ValidationError, keys: type[BaseModel]) -> Iterator[Problem]:
    """Tell pydantic's findings in our words. Never shows an input: it may be a secret."""
    for detail in error.errors(include_url=False, include_input=False):
        place = tuple(detail["loc"])
        yield Problem(place, _message(detail, place, keys))


def nearest_key(keys: type[BaseModel], place: Place) -> str:
    """Return half a sentence that names the known key nearest to ``place``'s last part."""
    return did_you_mean(str(place[-1]), _known_keys(keys, place))


def refuse(problems: Iterable[Problem], layers: Sequence[Layer]) -> None:
    """Raise all problems as one error, a line each; return if there is none.

    Raises:
        InvalidConfiguration: There is one.
    """
    lines = dict.fromkeys(_line(problem, layers) for problem in problems)
    if lines:
        raise InvalidConfiguration("\n".join(lines))


def _line(problem: Problem, layers: Sequence[Layer]) -> str:
    where = problem.where or _where(problem.place, layers)
    key = _dotted(problem.place)
    return f"{key}: {problem.message}" + (f" ({where})" if where else "")


def _where(place: Place, layers: Sequence[Layer]) -> str:
    """Say which layers set ``place``, or the nearest table around it: tables may have several."""
    for end in range(len(place), 0, -1):
        setting = [layer for layer in layers if _reaches(layer.values, place[:end])]
        if setting:
            is_table = all(_is_table_at(layer.values, place[:end]) for layer in setting)
            return "; ".join(
                layer.where(place[:end]) for layer in setting[: None if is_table else 1]
            )
    return ""


def _dotted(place: Place) -> str:
    return "".join(
        f"[{part}]" if isinstance(part, int) else f".{part}" for part in place
    ).removeprefix(".")


def _message(detail: ErrorDetails, place: Place, keys: type[BaseModel]) -> str:
    if detail["type"] == "extra_forbidden":
        return f"unknown key; {nearest_key(keys, place)}"
    if detail["type"] == "value_error":
        return str(detail["ctx"]["error"])
    return _WANTED.get(detail["type"], detail["msg"][:1].lower() + detail["msg"][1:])


def _known_keys(keys: type[BaseModel], place: Place) -> list[str]:
    """Return the keys of the table in which ``place``'s last part stands; none in free tables."""
    kind: Any = keys
    for part in place[:-1]:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            kind = kind.model_fields[str(part)].annotation if part in kind.model_fields else None
        else:
            kind = _element(kind)
        kind = _element(kind) if NoneType in get_args(kind) else kind
    is_model = isinstance(kind, type) and issubclass(kind, BaseModel)
    return list(kind.model_fields) if is_model else list(keys.model_fields)


def _element(annotation: Any) -> Any:
    """Return T of ``T | None``, ``dict[str, T]`` and ``tuple[T, ...]``."""
    kinds = [kind for kind in get_args(annotation) if kind not in (NoneType, Ellipsis, str)]
    return kinds[-1] if kinds else None


def _variables() -> Iterator[tuple[Place, str]]:
    for name, value in os.environ.items():
        is_ours = name.upper().startswith(ENVIRONMENT_PREFIX) and value
        if is_ours and name.upper() not in NOT_CONFIGURATION:
            key = name[len(ENVIRONMENT_PREFIX) :].lower()
            yield tuple(key.split(ENVIRONMENT_DELIMITER)), name


def _is_service_link(name: str) -> bool:
    link = _SERVICE_LINK.fullmatch(name)
    if link is None:
        return False
    # `…_PORT` alone could be a mistyped key of ours: only the value tells.
    return (
        not name.endswith("_PORT")
        or "_SERVICE_" in name
        or bool(_LINK_VALUE.fullmatch(os.environ[name]))
    )


def _describe_variables(variables: Mapping[Place, str], place: Place) -> str:
    names = [
        name
        for at, name in sorted(variables.items())
        if at == place[: len(at)] or place == at[: len(place)]
    ]
    return f"environment variable {', '.join(names)}"


def _reaches(values: Any, place: Place) -> bool:
    for part in place:
        in_table = isinstance(values, Mapping) and part in values
        in_list = isinstance(values, Sequence) and isinstance(part, int) and part < len(values)
        if not (in_table or in_list):
            return False
        values = values[part]
    return True


def _is_table_at(values: Any, place: Place) -> bool:
    for part in place:
        values = values[part]
    return isinstance(values, Mapping)


def _laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    values = dict(below)
    for name, value in above.items():
        old = values.get(name)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            values[name] = _laid_over(old, value)
        else:
            values[name] = value
    return values

"""`penstock status --models`: what is cached of models, by directory."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from penstock.cli.connection import open_operator
from penstock.cli.output import Column, note, percent, say, say_json, say_table
from penstock.units import format_size

if TYPE_CHECKING:
    from penstock.operator_results import ModelStatus

_COLUMNS = (
    Column("model"),
    Column("objects", is_number=True),
    Column("size", is_number=True),
    Column("held", is_number=True),
    Column("copies", is_number=True),
    Column("last read"),
)


def say_models(address: str | None, *, as_json: bool) -> None:
    """Print what was opened of late or is pinned, and how much of it is held."""
    with open_operator(address) as operator:
        found = operator.models()
    if as_json:
        say_json({"models": list(map(_to_json, found.models)), "unreachable": found.unreachable})
    elif found.models:
        say_table(_COLUMNS, map(_row, found.models))
    else:
        say("nothing was opened since the nodes started, and nothing is pinned")
    if found.unreachable:
        note(f"could not ask {', '.join(found.unreachable)}: more may be held")


def _to_json(model: "ModelStatus") -> dict[str, Any]:
    return {**asdict(model), "share_held": model.share_held}


def _row(model: "ModelStatus") -> tuple[str, ...]:
    moment = datetime.fromtimestamp(model.last_read, tz=UTC) if model.last_read else None
    return (
        model.url,
        f"{model.objects:,}",
        format_size(model.bytes),
        percent(model.share_held),
        f"{model.copies:.1f}",
        f"{moment:%Y-%m-%d %H:%MZ}" if moment else "-",
    )

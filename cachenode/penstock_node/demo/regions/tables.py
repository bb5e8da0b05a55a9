"""Two regions on a terminal: a table for each act, and where each byte came from.

Responsible for: turning figures into what people read.
Not responsible for: taking or judging them, how tables look (`drawing`).
"""

from collections.abc import Iterable, Iterator
from textwrap import shorten

from rich.console import Group, RenderableType
from rich.text import Text

from penstock.cli.output import counted
from penstock.units import format_size
from penstock_node.demo.drawing import facts, in_seconds, table
from penstock_node.demo.regions.figures import (
    Copy,
    CutOff,
    FarReads,
    Figures,
    Import,
    NewVersion,
    Parts,
    Step,
)
from penstock_node.demo.scene import Model
from penstock_node.demo.starters import StartedPart

MESSAGE_MAX = 160
"""Characters of an error's message; the first of them say which place does not answer."""


def title(model: Model) -> RenderableType:
    """Return what the demo is about."""
    return Text(
        f"Penstock: two regions, and a real model of {format_size(model.size_bytes)} between them",
        style="bold",
    )


def parts_table(act: Parts) -> RenderableType:
    """Return what runs, by region."""
    rows = (
        (
            region.name if at == 0 else "",
            part.name,
            part.what,
            part.address,
            in_seconds(part.seconds),
        )
        for region in act.regions
        for at, part in enumerate(region.parts)
    )
    columns = ("region", "part", "what", "address", ">ready after")
    link = f"{act.round_trip_s * 1000:.0f} ms there and back, {format_size(act.bytes_per_s)}/s"
    return Group(table(columns, rows), facts([("the link", link)]))


def _part_row(part: StartedPart) -> tuple[str, ...]:
    return part.name, part.what, part.address, in_seconds(part.seconds)


def import_table(act: Import) -> RenderableType:
    """Return what an import cost, and when the west had it."""
    return facts(
        [
            (
                "imported",
                f"{act.files} files, {format_size(act.bytes)}, in {act.seconds:.2f} s",
            ),
            (
                "asked of the bucket",
                f"{counted(act.list_requests, 'listing')}, {format_size(act.read_bytes)} of data",
            ),
            (
                "in the west",
                f"{act.level_s:.2f} s later, as entry {act.west_seq} of {act.east_seq}",
            ),
            ("for that over the link", f"{format_size(act.feed_bytes)}, from catalog to catalog"),
            (
                "listed in the west",
                f"{act.listed} files in {act.listed_s * 1000:.0f} ms, by its own catalog",
            ),
        ]
    )


def far_reads_table(act: FarReads) -> RenderableType:
    """Return reads without a copy."""
    return steps_table([act.cold, act.again])


def copy_table(act: Copy) -> RenderableType:
    """Return a copy and a read after it."""
    rule = ("the rule", f"penstock mirror set models --copy-data '{act.rule}'")
    copied = ("copied", f"{counted(act.copied_files, 'file')}, {format_size(act.copied_bytes)}")
    return Group(facts([rule, copied]), steps_table([act.made, act.read]))


def new_version_table(act: NewVersion) -> RenderableType:
    """Return how a new version came."""
    seen = ("known in the west", f"{act.seen_s:.2f} s after its import in the east")
    return Group(facts([seen]), steps_table([act.made, act.read]))


def cut_off_table(act: CutOff) -> RenderableType:
    """Return what went on, and what did not."""
    rows = [
        ("listed in the west", f"{act.listed} files"),
        ("not copied, not cached", act.absent_url),
        ("a read of it", f"{act.absent_error} after {act.absent_s:.1f} s"),
        ("", shorten(act.absent_message, MESSAGE_MAX, placeholder=" …")),
    ]
    return Group(steps_table([act.cached, act.copied]), facts(rows))


def steps_table(steps: Iterable[Step]) -> RenderableType:
    """Return where the bytes of each step came from."""
    columns = (
        "the model in the west",
        ">seconds",
        ">over\nthe link",
        ">west's own\nstore",
        ">west's\ncaches",
        "SHA-256",
    )
    return table(columns, map(_step_row, steps))


def _step_row(step: Step) -> tuple[str, ...]:
    return (
        step.name,
        f"{step.seconds:.2f}",
        _size(step.flow.link_bytes),
        _size(step.flow.own_bytes),
        _size(step.cache_bytes),
        "equal" if step.is_equal else "DIFFERS",
    )


def _size(size: int) -> str:
    return format_size(size) if size else "-"


def summary(figures: Figures) -> Iterator[RenderableType]:
    """Yield where each byte came from, from the first act to the last."""
    yield Text("\nWhere each byte came from", style="bold")
    yield Text(
        "As the link and the stores counted it. A copy is read again, to be compared.",
        style="dim",
    )
    yield steps_table(figures.steps)
    feed = f"{format_size(figures.cut_off.feed_bytes)} over the link, in all"
    yield facts([("from catalog to catalog", feed)])

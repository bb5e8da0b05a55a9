"""A trace for people and for machines.

Responsible for: its JSON, and what it comes to: where the time went.
Not responsible for: following a read (`penstock.trace_calls`), the waterfall (`waterfall`).
"""

from typing import TYPE_CHECKING

from penstock.cli.output import Column, counted, note, percent, say, say_table
from penstock.units import format_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from penstock.trace_calls import ReadTrace
    from penstock.trace_path import Spent

PLACES_MAX = 20
"""That are told of by name: all others take less, and are told of together."""


def trace_json(found: "ReadTrace") -> dict[str, object]:
    """Return a trace for machines; times count from the begin of the first span."""
    begun = found.spans[0].started_at if found.spans else 0.0
    return {
        "trace_id": found.id,
        "spans": [
            {
                "name": span.name,
                "node": span.node,
                "id": span.id,
                "parent": span.parent,
                "start_ms": (span.started_at - begun) * 1000,
                "duration_ms": span.duration_s * 1000,
                "queued_ms": span.queued_s * 1000,
                "bytes": span.bytes,
                **{name: value for name, value in span.notes.items() if name not in _KEYS},
            }
            for span in found.spans
        ],
        "silent": found.silent,
        "dropped": found.dropped,
    }


_KEYS = frozenset(("name", "node", "id", "parent", "start_ms", "duration_ms", "queued_ms", "bytes"))


def _told(spent: "Sequence[Spent]") -> "list[Spent]":
    """Return the places that took most, and what all others took together."""
    from penstock.trace_path import Spent

    named, others = list(spent[:PLACES_MAX]), spent[PLACES_MAX:]
    if others:
        seconds = sum(each.seconds for each in others)
        queued_s = sum(each.queued_s for each in others)
        named.append(Spent(f"{len(others)} others", seconds, queued_s))
    return named


def say_trace(url: str, found: "ReadTrace", *, shows_all: bool = False) -> None:
    """Print a trace for people: what it comes to, and the waterfall."""
    from penstock.cli.waterfall import say_waterfall
    from penstock.trace_path import time_by_place, tree

    top = max(tree(found.spans), key=lambda branch: branch.span.duration_s)
    took_s = top.span.duration_s
    size = sum(span.bytes for span in found.spans if not span.node and span.name == "ask")
    size = size or sum(span.bytes for span in found.spans if not span.node)
    rate = f", {format_size(size / took_s)}/s" if took_s and size else ""
    say(f"{url}: {format_size(size)} in {took_s * 1000:,.1f} ms{rate}; trace {found.id}\n")
    say_table(
        (
            Column("where the time went"),
            Column("ms", is_number=True),
            Column("queued", is_number=True),
            Column("share", is_number=True),
        ),
        [
            (
                spent.place,
                f"{spent.seconds * 1000:,.1f}",
                f"{spent.queued_s * 1000:,.1f}" if spent.queued_s else "",
                percent(spent.seconds / took_s if took_s else 0.0),
            )
            for spent in _told(time_by_place(top))
        ],
    )
    say("")
    say_waterfall(top, shows_all=shows_all)
    if found.silent:
        note(f"no spans from {', '.join(found.silent)}: no answer")
    if found.dropped:
        note(f"{counted(found.dropped, 'span')} more were too many to be kept")

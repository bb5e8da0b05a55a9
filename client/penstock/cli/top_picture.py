"""The picture of `penstock top`: totals with sparklines, nodes, warm-ups, the hottest models.

Responsible for: what stands where, and what fits a terminal of so many columns and lines.
Not responsible for: when it is drawn (`top`), the order of nodes (`top_order`).
"""

import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from penstock.cli.output import counted
from penstock.cli.top_order import Sort, fill, in_order
from penstock.overview import (
    AWAY,
    PLANES,
    SOURCES,
    History,
    ModelLine,
    NodeLine,
    Overview,
    WarmupLine,
    hit_ratio,
)
from penstock.units import format_size

WIDE_COLUMNS = 150
"""From here on there is room for each plane, and for more."""
SPARKS_NARROW, SPARKS_WIDE = 24, 60
"""Samples that sparklines show, of ten seconds each."""
MODELS_SHARE = 5
"""The hottest models have one of so many lines of the terminal, ..."""
MODELS_MIN = 3
WARMUPS_MAX = 3
"""... and warm-ups no more than these."""
NODES_MIN = 3
BAR_NARROW, BAR_WIDE = 6, 16
SIZE_COLUMNS = len("999.9 MB")
SIZES = (*PLANES, "size", "cached")
_SPARKS = "▁▂▃▄▅▆▇█"
_STATE_STYLES = {
    AWAY: "bold red",
    "draining": "yellow",
    "drained": "yellow",
    "cordoned": "yellow",
    "alive": "green",
}
_UNKNOWN = "-"


def picture(
    overview: Overview,
    history: History,
    sort: Sort,
    *,
    columns: int,
    lines: int | None = None,
) -> RenderableType:
    """Return the picture.

    Args:
        overview: The cluster.
        history: Its last hour.
        sort: Which nodes come first.
        columns: Of the terminal.
        lines: Of the terminal: as many nodes are shown as fit. None: all are.
    """
    is_wide = columns >= WIDE_COLUMNS
    head = _totals(overview, history, is_wide=is_wide)
    models, warmups = list(overview.models), list(overview.warmups)
    nodes = in_order(overview.nodes, sort)
    if lines is not None:
        models = models[: max(MODELS_MIN, lines // MODELS_SHARE)]
        warmups = warmups[:WARMUPS_MAX]
    below: list[RenderableType] = []
    if warmups:
        below += [Text(), _warmups(warmups, len(overview.warmups))]
    if models:
        below += [Text(), _models(models)]
    if lines is not None:
        taken = len(head) + 2 + _height(warmups) + _height(models)
        nodes = nodes[: max(NODES_MIN, lines - taken - (len(nodes) > lines - taken))]
    parts: list[RenderableType] = [*head, Text(), _nodes(nodes, is_wide=is_wide)]
    if left := len(overview.nodes) - len(nodes):
        parts.append(Text(f"… and {counted(left, 'more node')}, by {sort.value}", style="dim"))
    return Group(*parts, *below)


def _height(rows: Sequence[object]) -> int:
    """Return how many lines a table takes, with an empty one before it."""
    return len(rows) + 2 if rows else 0


# Totals.


def _totals(overview: Overview, history: History, *, is_wide: bool) -> list[Text]:
    there, rates = overview.there, overview.total_rates()
    away = len(overview.nodes) - len(there)
    at = datetime.fromtimestamp(overview.at, tz=UTC)
    title = Text(no_wrap=True)
    title.append(f"cluster {overview.cluster}", style="bold")
    title.append(f", epoch {overview.epoch}, {counted(len(overview.nodes), 'node')}")
    if away:
        title.append(f", {away} away", style="bold red")
    title.append(f", seen by {overview.node} at {at:%H:%M:%S}Z")
    sparks = SPARKS_WIDE if is_wide else SPARKS_NARROW
    read = _summed([history.series.get(f"read_bytes.{source}", ()) for source in SOURCES])
    hit = hit_ratio(node.told for node in there)
    sources = ", ".join(f"{name} {_rate(rates.read_bytes.get(name, 0.0))}" for name in SOURCES)
    planes = ", ".join(
        f"{name} {_rate(rate)}"
        for name in PLANES
        if (rate := rates.served_bytes.get(name, 0.0)) or name == PLANES[0]
    )
    return [
        title,
        _total("read", sum(rates.read_bytes.values()), read[-sparks:], f"hits {_share(hit)}"),
        _total(
            "origin",
            rates.origin_bytes,
            list(history.series.get("origin_bytes", ()))[-sparks:],
            f"{rates.origin_requests:.1f} requests/s, {rates.failures:.1f} failures/s",
        ),
        _total("hand-over", rates.handoff_bytes, [], f"evicted {_rate(rates.evicted_bytes)}"),
        Text(f"from {sources}", no_wrap=True, overflow="ellipsis"),
        Text(f"over {planes}", no_wrap=True, overflow="ellipsis"),
    ]


def _total(name: str, rate: float, samples: Sequence[float], more: str) -> Text:
    text = Text(f"{name:<9} {_rate(rate):>10}  ", no_wrap=True, overflow="ellipsis")
    if samples:
        text.append(sparkline(samples), style="cyan")
        text.append("  ")
    return text.append(more)


def sparkline(samples: Sequence[float]) -> str:
    """Return a character a sample, up to the highest among them; a space where none is known."""
    highest = max((value for value in samples if not math.isnan(value)), default=0.0)
    return "".join(
        " "
        if math.isnan(value)
        else _SPARKS[min(len(_SPARKS) - 1, int(value / highest * len(_SPARKS)))]
        if highest > 0
        else _SPARKS[0]
        for value in samples
    )


def _summed(rows: Sequence[Sequence[float]]) -> list[float]:
    """Return the sums of several series; NaN where none of them has a sample."""
    return [
        sum(known) if (known := [value for value in some if not math.isnan(value)]) else math.nan
        for some in zip(*rows, strict=True)
    ]


# Tables.


def _table(first: str) -> Table:
    """Return a table whose first column is cut where there is no room for all."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column(first, overflow="ellipsis")
    return table


def _add_numbers(table: Table, titles: Iterable[str]) -> None:
    """Add columns to the right: wide enough for any size, so that they stand still."""
    for title in titles:
        width = SIZE_COLUMNS if title.endswith("/s") or title in SIZES else None
        table.add_column(title, justify="right", no_wrap=True, min_width=width)


def _name(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="ellipsis")


def _nodes(nodes: Iterable[NodeLine], *, is_wide: bool) -> Table:
    table = _table("node")
    table.add_column("state", no_wrap=True, min_width=len("draining"))
    table.add_column("weight", justify="right", no_wrap=True)
    table.add_column("fill", no_wrap=True)
    planes, more = (PLANES, ("fails/s", "cached")) if is_wide else ((), ())
    _add_numbers(table, ("hit", "served/s", *planes, "origin/s", *more, "hand-over"))
    for node in nodes:
        told, is_away = node.told, node.state == AWAY
        rates = told.rates
        cells = [
            _share(node.hit_ratio),
            _bytes(rates.served),
            *(_bytes(rates.served_bytes.get(plane, 0.0)) for plane in planes),
            _bytes(rates.origin_bytes),
            *((f"{rates.failures:.1f}", _bytes(told.cached_bytes)) if is_wide else ()),
            _bytes(told.handoff_waiting_bytes),
        ]
        mark = "*" if node.weight_source == "override" else ""
        table.add_row(
            _name(node.id),
            Text(node.state, style=_STATE_STYLES.get(node.state, "")),
            Text(f"{mark}{node.weight}"),
            _bar(fill(node), width=BAR_WIDE if is_wide else BAR_NARROW),
            *(Text(_UNKNOWN if is_away else cell) for cell in cells),
            style="dim" if is_away else "",
        )
    return table


def _warmups(warmups: Iterable[WarmupLine], count: int) -> Table:
    table = _table(f"warm-up{f' ({count})' if count > WARMUPS_MAX else ''}")
    table.add_column("by", no_wrap=True)
    table.add_column("done", no_wrap=True)
    table.add_column("", no_wrap=True)
    for each in warmups:
        share = each.bytes_done / each.bytes if each.bytes else None
        sizes = f"{format_size(each.bytes_done)} of {format_size(each.bytes)}"
        bar = _bar(share, width=BAR_NARROW)
        table.add_row(_name(each.name), Text(each.node or "a program"), bar, Text(sizes))
    return table


def _models(models: Iterable[ModelLine]) -> Table:
    table = _table("hottest models")
    _add_numbers(table, ("read/s", "size", "held", "copies"))
    for each in models:
        is_known = each.bytes > 0
        table.add_row(
            _name(each.url),
            Text(_bytes(each.read_bytes_per_s)),
            Text(format_size(each.bytes) if is_known else _UNKNOWN),
            Text(_share(each.held_bytes / each.bytes) if is_known else _UNKNOWN),
            Text(f"{each.copies:.1f}" if is_known else _UNKNOWN),
        )
    return table


# Cells.


def _bar(share: float | None, *, width: int) -> Text:
    """Return a bar and its figure: ``████──── 52 %``."""
    if share is None:
        return Text(_UNKNOWN)
    full = round(share * width)
    text = Text("█" * full, style="cyan")
    text.append("─" * (width - full), style="dim")
    return text.append(f" {share * 100:3.0f} %", style="default")


def _rate(bytes_per_s: float) -> str:
    return f"{format_size(bytes_per_s)}/s"


def _bytes(size: float) -> str:
    return format_size(size) if size >= 0.5 else "0"


def _share(share: float | None) -> str:
    return _UNKNOWN if share is None else f"{share * 100:.1f} %"

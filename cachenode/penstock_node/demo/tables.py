"""The demo on a terminal: a sentence and a table for each act.

Responsible for: turning figures into what people read, within 80 columns.
Not responsible for: taking or judging them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from penstock.units import format_size
from penstock_node.demo.claims import Claim
from penstock_node.demo.figures import (
    Asked,
    Crowd,
    Kill,
    Parts,
    Pass,
    Reads,
    Shares,
    WeightChange,
    WholeRead,
)
from penstock_node.demo.kept import Lines
from penstock_node.demo.scene import Model


@dataclass(frozen=True, slots=True)
class _Mark:
    """A check mark, in letters where the terminal has only those."""

    is_kept: bool

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        kept, broken = ("ok", "NO") if options.ascii_only else ("✓", "✗")
        yield Text(kept, "bold green") if self.is_kept else Text(broken, "bold red")

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(2, 2)


def title(model: Model) -> RenderableType:
    """Return what the demo is about."""
    return Text(
        f"Penstock: three nodes cache a real model of {format_size(model.size_bytes)}",
        style="bold",
    )


def heading(number: int, title: str, sentence: str) -> RenderableType:
    """Return an act's title, and the sentence that says what it shows."""
    return Group(Text(f"\n{number}  {title}", style="bold"), Text(sentence, style="dim"))


def parts_table(act: Parts) -> RenderableType:
    """Return what runs."""
    rows = [(part.name, part.what, part.address, _seconds(part.seconds)) for part in act.parts]
    return _table(("part", "what", "address", ">ready after"), rows)


def shares_table(act: Shares) -> RenderableType:
    """Return weights and shares."""
    rows = [
        (
            node.node,
            _mib(node.capacity_bytes),
            str(node.weight),
            _percent(node.expected_share),
            _percent(node.ring_share),
            _percent(node.real_share),
            str(node.chunks),
        )
        for node in act.nodes
    ]
    columns = ("node", ">capacity", ">weight", ">expected", ">of the ring", ">of chunks", ">chunks")
    return _table(columns, rows)


def reads_table(act: Reads) -> RenderableType:
    """Return cold and warm reads."""
    columns = (
        "plane",
        "caches",
        ">seconds",
        ">throughput",
        ">chunk\nmedian",
        ">chunk\np99",
        ">store\nasked",
        ">store\nsent",
    )
    return _table(columns, [_pass_row(one) for one in act.passes])


def _pass_row(one: Pass) -> Sequence[str]:
    return (
        one.plane,
        "cold" if one.is_cold else "warm",
        f"{one.whole.seconds:.2f}",
        _rate(one.whole),
        _milliseconds(one.latency.median_s),
        _milliseconds(one.latency.p99_s),
        *_asked(one.whole_asked),
    )


def crowd_table(act: Crowd, *, model_bytes: int) -> RenderableType:
    """Return what a crowd on cold caches cost the object store."""
    rows = [
        ("chunks cached before", str(act.held_before)),
        ("readers", f"{act.processes} processes, {act.equal} with the right SHA-256"),
        (
            "read",
            f"{format_size(act.delivered_bytes)} in {act.seconds:.2f} s, "
            f"{format_size(act.delivered_bytes / act.seconds)}/s",
        ),
        ("object store", f"{act.asked.chunk_requests} requests, {act.asked.sent_bytes:,} bytes"),
        ("the model", f"{model_bytes:,} bytes"),
        ("ratio", f"{act.origin_ratio:.2f}"),
    ]
    return _facts(rows)


def weight_table(act: WeightChange) -> RenderableType:
    """Return what was predicted beside what moved."""
    told = {(move.source, move.target): move.chunks for move in act.predicted}
    real = {(move.source, move.target): move.chunks for move in act.moved}
    rows = [
        (*pair, str(told.get(pair, 0)), str(real.get(pair, 0)))
        for pair in sorted(told.keys() | real.keys())
    ]
    rows.append(("on disks", "", format_size(act.predicted_bytes), format_size(act.moved_bytes)))
    columns = ("from", "to", ">dry run", ">moved")
    facts = [
        ("epoch", f"{act.epoch_before} to {act.epoch_after}, everywhere in {act.seconds:.2f} s"),
        ("handed over", f"after {act.handed_over_s:.1f} s, in the background"),
        ("read after it", f"{act.read.seconds:.2f} s, {_verdict(act.read)}"),
        ("object store", f"{act.asked.chunk_requests} requests"),
    ]
    return Group(_table(columns, rows), _facts(facts))


def kill_table(act: Kill) -> RenderableType:
    """Return how reads went on."""
    slowest = max((read.seconds for read in act.reads), default=0.0)
    epochs = ", ".join(map(str, act.epochs_after))
    equal = sum(read.is_equal for read in act.reads)
    return _facts(
        [
            ("reads meanwhile", f"{len(act.reads)}, {equal} with the right SHA-256"),
            ("errors", str(len(act.errors))),
            ("slowest read", f"{slowest:.2f} s"),
            ("counted as away", f"{act.away_s:.1f} s after the kill"),
            ("epoch", f"{act.epoch_before} before, {epochs} after"),
            ("lost with it", f"{act.chunks_lost} chunks, {format_size(act.bytes_lost)}"),
            (
                "object store",
                f"{act.asked.chunk_requests} requests, {format_size(act.asked.sent_bytes)}",
            ),
        ]
    )


def claims_table(claims: Iterable[Claim]) -> RenderableType:
    """Return the claims with a mark each."""
    table = _empty_table(("", "claim", "measured"))
    for claim in claims:
        table.add_row(_Mark(claim.is_kept), Text(claim.text), Text(claim.measured))
    return _indented(table)


def ending(seconds: float, directory: Path, lines: Sequence[Lines]) -> RenderableType:
    """Return how it ended: what to paste where the cluster was kept."""
    if not lines:
        return Text(f"\n{seconds:.1f} s in all; everything is stopped and deleted.")
    parts: list[RenderableType] = [
        Text(f"\n{seconds:.1f} s in all; the cluster stays up in {directory}. To paste:")
    ]
    for group in lines:
        parts.append(Text(f"\n# {group.purpose}", style="dim"))
        # Never wrapped: what is pasted has to be whole.
        parts += [Text(line, no_wrap=True, overflow="ignore") for line in group.lines]
    return Group(*parts)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> RenderableType:
    table = _empty_table(columns)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return _indented(table)


def _empty_table(columns: Sequence[str]) -> Table:
    """Return a table; columns that begin with ``>`` stand to the right."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=False)
    for title in columns:
        is_number = title.startswith(">")
        table.add_column(
            title.removeprefix(">"),
            justify="right" if is_number else "left",
            no_wrap=is_number,
            overflow="fold",
        )
    return table


def _facts(rows: Iterable[tuple[str, str]]) -> RenderableType:
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in rows:
        table.add_row(Text(name, style="dim"), Text(value))
    return _indented(table)


def _indented(table: Table) -> RenderableType:
    return Padding(table, (1, 0, 0, 3), expand=False)


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


def _percent(share: float) -> str:
    return f"{share * 100:.1f} %"


def _mib(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"


def _rate(read: WholeRead) -> str:
    return f"{format_size(read.bytes_per_s)}/s"


def _verdict(read: WholeRead) -> str:
    return "SHA-256 equal" if read.is_equal else "SHA-256 DIFFERS"


def _asked(asked: Asked) -> tuple[str, str]:
    return f"{asked.chunk_requests}", format_size(asked.sent_bytes)

"""The demo on a terminal: a sentence and a table for each act.

Responsible for: turning figures into what people read.
Not responsible for: taking or judging them, how tables look (`drawing`).
"""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from penstock.units import format_size
from penstock_node.demo.drawing import facts, in_seconds, table
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


def title(model: Model) -> RenderableType:
    """Return what the demo is about."""
    return Text(
        f"Penstock: three nodes cache a real model of {format_size(model.size_bytes)}",
        style="bold",
    )


def parts_table(act: Parts) -> RenderableType:
    """Return what runs."""
    rows = [(part.name, part.what, part.address, in_seconds(part.seconds)) for part in act.parts]
    return table(("part", "what", "address", ">ready after"), rows)


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
    return table(columns, rows)


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
    return table(columns, [_pass_row(one) for one in act.passes])


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
    return facts(rows)


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
    course = [
        ("epoch", f"{act.epoch_before} to {act.epoch_after}, everywhere in {act.seconds:.2f} s"),
        ("handed over", f"after {act.handed_over_s:.1f} s, in the background"),
        ("read after it", f"{act.read.seconds:.2f} s, {_verdict(act.read)}"),
        ("object store", f"{act.asked.chunk_requests} requests"),
    ]
    return Group(table(columns, rows), facts(course))


def kill_table(act: Kill) -> RenderableType:
    """Return how reads went on."""
    slowest = max((read.seconds for read in act.reads), default=0.0)
    epochs = ", ".join(map(str, act.epochs_after))
    equal = sum(read.is_equal for read in act.reads)
    return facts(
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

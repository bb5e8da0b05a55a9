"""`penstock plan`: what other capacities would find of what is read.

Responsible for: options, asking the cluster or reading a trace, and showing what follows.
Not responsible for: the figures (`curve`, `scenarios`), pictures (`drawing`).
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from penstock.cli.connection import Address, Json, open_operator
from penstock.cli.output import Column, note, percent, say, say_json, say_table
from penstock.cli.progress import followed, watched
from penstock.errors import ClusterUnavailable, InvalidRequest, PenstockError, Retryable
from penstock.objects import CHUNK_BYTES_DEFAULT
from penstock.reuse import cluster_sample
from penstock.sampled_reads import SampledReads
from penstock.units import format_duration, format_size, parse_size
from penstock_node.planning import drawing
from penstock_node.planning.curve import READS_ENOUGH, Curve, curve_of, is_enough, sizes_for
from penstock_node.planning.scenarios import (
    Outlook,
    PlannedCluster,
    PlannedNode,
    clusters_to_compare,
    outlook,
    steps_for,
)
from penstock_node.planning.trace_file import sample_of

_COLUMNS = (
    Column("cluster"),
    Column("capacity", is_number=True),
    Column("hit ratio", is_number=True),
    Column("change", is_number=True),
    Column("from the origin, a day", is_number=True),
)
_NOW = "now"


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the cluster, or a trace, tells."""

    cluster: PlannedCluster
    sample: SampledReads
    ring_share: float = 1.0
    is_measured: bool = True


def plan(
    *,
    add: Annotated[
        list[str] | None,
        typer.Option(metavar="SIZE", help="What more to compare with, e.g. 2TB. May be repeated."),
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Reads to go by instead of the cluster's: CSV or JSON lines with time, url, "
            "offset or chunk, length, size.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    capacity: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="With --trace: of the cluster; else that of yours."),
    ] = None,
    nodes: Annotated[
        int, typer.Option(help="With --capacity: how many nodes it has.", min=1, max=10_000)
    ] = 1,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.svg", help="Draw the curve there.", dir_okay=False)
    ] = None,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Tell what hit ratio more capacity, other nodes or two copies would give."""
    added = [float(parse_size(size)) for size in add or ()]
    if (capacity is not None or nodes != 1) and trace is None:
        raise InvalidRequest("--capacity and --nodes are of a --trace: a cluster knows its own")
    asked = _traced(trace, capacity, nodes, address) if trace else _of_cluster(address)
    if not is_enough(asked.sample):
        raise Retryable(_too_few(asked.sample))
    steps = {*steps_for(asked.cluster.capacity_bytes), *added}
    compared = clusters_to_compare(asked.cluster, added=sorted(steps))
    curve = _replayed(asked, compared)
    outlooks = [outlook(cluster, curve) for cluster in compared]
    picture = _picture(asked.cluster, curve, outlooks)
    if plot is not None:
        _write(plot, drawing.as_svg(picture))
    if as_json:
        say_json(_as_json(asked, curve, outlooks))
    else:
        _say(asked, curve, outlooks, picture)


def _too_few(sample: SampledReads) -> str:
    return (
        f"not enough reads yet: {len(sample):,} in {format_duration(sample.duration_s)}, of which "
        f"a quarter fills the caches that are compared; want {READS_ENOUGH * 4 // 3:,}. Come back "
        "when models were loaded, or give a --trace"
    )


# What there is.


def _of_cluster(address: str | None) -> _Asked:
    with open_operator(address) as operator, followed("asking the nodes"):
        status, settings = operator.status(), operator.settings()
        owners = [node for node in status.nodes if node.share > 0.0 and node.owned_capacity_bytes]
        answers = operator.sampled_reads(
            {node.id: node.grpc_address for node in owners if node.grpc_address}
        )
    if not owners:
        raise ClusterUnavailable("no node owns anything: look at penstock status")
    samples = {node: each for node, each in answers.items() if isinstance(each, SampledReads)}
    for node, each in answers.items():
        if isinstance(each, PenstockError):
            note(f"{node} does not tell what was read: {each}")
    found = cluster_sample(samples, shares={node.id: node.share for node in owners})
    if found is None:
        raise ClusterUnavailable(
            "nodes with less than half of the ring tell what was read; see penstock status, and "
            "that all nodes run this version"
        )
    planned = [PlannedNode(node.id, node.owned_capacity_bytes, node.share) for node in owners]
    cluster = PlannedCluster(_NOW, tuple(planned), int(settings["replicas"]))
    return _Asked(cluster, found[0], found[1])


def _traced(trace: Path, capacity: str | None, nodes: int, address: str | None) -> _Asked:
    chunk_size, replicas = CHUNK_BYTES_DEFAULT, 1
    if capacity is None:
        with open_operator(address) as operator:
            status, settings = operator.status(), operator.settings()
        chunk_size, replicas = int(settings["chunk_size"]), int(settings["replicas"])
        planned = [
            PlannedNode(node.id, node.owned_capacity_bytes, node.share)
            for node in status.nodes
            if node.share > 0.0 and node.owned_capacity_bytes
        ]
    else:
        each = parse_size(capacity) / nodes
        if not each:
            raise InvalidRequest("--capacity 0: give the size of the cluster, for example 8TB")
        planned = [PlannedNode(str(number), each, 1.0 / nodes) for number in range(nodes)]
    cluster = PlannedCluster(_NOW, tuple(planned), replicas)
    with watched(str(trace)) as bar:
        bar.begin(trace.stat().st_size)
        sample = sample_of(
            trace,
            chunk_size=chunk_size,
            capacity_bytes=cluster.distinct_bytes,
            on_progress=bar.advance,
        )
    return _Asked(cluster, sample, is_measured=False)


def _replayed(asked: _Asked, compared: list[PlannedCluster]) -> Curve:
    sizes = sizes_for(
        asked.cluster.distinct_bytes, also=[cluster.distinct_bytes for cluster in compared]
    )
    with followed("replaying the reads") as line:
        return curve_of(
            asked.sample,
            sizes=sizes,
            nodes=len(asked.cluster.nodes),
            ring_share=asked.ring_share,
            is_measured=asked.is_measured,
            on_progress=lambda done: line.say(f"replaying the reads: {done} of {len(sizes)} sizes"),
        )


# What is shown.


def _picture(now: PlannedCluster, curve: Curve, outlooks: list[Outlook]) -> drawing.Picture:
    here = outlooks[0]
    return drawing.Picture(
        title="Share of the bytes read that is found, by capacity for different bytes",
        xs=[point.capacity_bytes for point in curve.points],
        ys=[point.hit_ratio for point in curve.points],
        marks=[drawing.Mark(_NOW, now.distinct_bytes, here.hit_ratio)],
    )


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidRequest(f"--plot {path} cannot be written: {error.strerror}") from error


def _say(asked: _Asked, curve: Curve, outlooks: list[Outlook], picture: drawing.Picture) -> None:
    for line in _preface(asked, curve):
        say(line)
    say("")
    say_table(_COLUMNS, [_row(each, outlooks[0]) for each in outlooks])
    say("")
    for line in drawing.in_characters(picture):
        say(line)
    say("")
    for line in _remarks(asked.cluster, curve, outlooks):
        say(line)


def _preface(asked: _Asked, curve: Curve) -> Iterator[str]:
    looked_at = "every chunk" if curve.rate > 0.99 else f"one chunk in {1 / curve.rate:,.0f}"
    yield (
        f"reads of {format_duration(curve.duration_s)}: {curve.reads:,} of {looked_at}, "
        f"{format_size(curve.read_bytes_per_day)} a day, "
        f"{format_size(curve.working_set_bytes)} of different bytes"
    )
    if curve.measured is not None:
        here = outlook(asked.cluster, curve)
        yield (
            f"found of them in fact: {percent(curve.measured)}; "
            f"by replaying them: {percent(here.hit_ratio)}"
        )


def _row(each: Outlook, now: Outlook) -> tuple[str, ...]:
    change = (each.hit_ratio - now.hit_ratio) * 100
    off = f" ±{each.error * 100:.1f}" if each.error >= 0.0005 else ""
    return (
        each.name,
        format_size(each.capacity_bytes),
        f"{percent(each.hit_ratio)}{off}",
        "" if each is now else f"{change:+.1f}",
        format_size(each.origin_bytes_per_day),
    )


def _remarks(now: PlannedCluster, curve: Curve, outlooks: list[Outlook]) -> Iterator[str]:
    needed = curve.working_set_bytes * now.copies
    if any(each.capacity_bytes >= needed for each in outlooks):
        yield (
            f"All that was read fits into {format_size(needed)}: beyond it no more of these reads "
            "are found."
        )
    if now.copies > 1:
        yield f"With {now.copies} copies, 1 / {now.copies} of the capacity is for different bytes."
    elif any(each.name.startswith("replicas") for each in outlooks):
        yield "Two copies halve what there is for different bytes; a lost node then costs no reads."


def _as_json(asked: _Asked, curve: Curve, outlooks: list[Outlook]) -> dict[str, Any]:
    return {
        "reads": curve.reads,
        "rate": curve.rate,
        "duration_s": curve.duration_s,
        "read_bytes_per_day": curve.read_bytes_per_day,
        "working_set_bytes": curve.working_set_bytes,
        "replicas": asked.cluster.replicas,
        "ring_share": asked.ring_share,
        "measured_hit_ratio": curve.measured,
        "outlooks": [dataclasses.asdict(each) for each in outlooks],
        "curve": [dataclasses.asdict(point) for point in curve.points],
    }

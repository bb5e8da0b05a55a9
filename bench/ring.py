"""Measure the ring beside its targets: time, memory, balance, movement.

    python bench/ring.py [--quick] [--json FILE]

``--quick`` uses small rings, for which the targets are not meant: it shows that the benchmark
runs. Chance is seeded, so balance and movement are the same everywhere; times are not.
"""

import argparse
import hashlib
import json
import random
import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from penstock.placement import PlacedNode
from penstock.ring import Ring, diff

MB = 1e6


@dataclass(frozen=True, slots=True)
class Size:
    """What a run measures."""

    points_per_100: int
    nodes: int
    nodes_few: int
    seeds: int
    builds: int
    changes: int
    lookups: int


FULL = Size(
    points_per_100=4096, nodes=1000, nodes_few=100, seeds=20, builds=3, changes=20, lookups=50_000
)
QUICK = Size(
    points_per_100=256, nodes=50, nodes_few=10, seeds=2, builds=1, changes=3, lookups=1_000
)


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure, and the most that it should be; None where there is no target."""

    name: str
    value: float
    unit: str = ""
    target: float | None = None

    @property
    def verdict(self) -> str:
        if self.target is None:
            return ""
        return "met" if self.value <= self.target else "missed"


def equal_nodes(count: int, *, prefix: str = "node") -> list[PlacedNode]:
    return [PlacedNode(f"{prefix}-{k:04d}", f"host-{k}", "", 100) for k in range(count)]


def reweighted(nodes: Sequence[PlacedNode], at: int, weight: int) -> list[PlacedNode]:
    old = nodes[at]
    changed = PlacedNode(old.id, old.host, old.zone, weight)
    return [*nodes[:at], changed, *nodes[at + 1 :]]


def chunk_ids(count: int) -> list[bytes]:
    rng = random.Random(7)
    return [rng.randbytes(16) for _ in range(count)]


def seconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def some_changes(nodes: Sequence[PlacedNode], count: int) -> Iterator[list[PlacedNode]]:
    """Yield what becomes of ``nodes``: joins, leaves, weights doubled and halved in turn."""
    rng = random.Random(count)
    for number in range(count):
        at = rng.randrange(len(nodes))
        joining = PlacedNode(f"new-{number}", f"new-host-{number}", "", 100)
        yield [
            [*nodes, joining],
            [*nodes[:at], *nodes[at + 1 :]],
            reweighted(nodes, at, 200),
            reweighted(nodes, at, 50),
        ][number % 4]


def measure_memory(size: Size) -> Iterator[Measure]:
    nodes = equal_nodes(size.nodes)
    tracemalloc.start()
    ring = Ring.build(nodes, size.points_per_100)
    at_rest, at_build = tracemalloc.get_traced_memory()
    changing = 0
    for changed in some_changes(nodes, 4):
        tracemalloc.reset_peak()
        ring.changed_to(changed)
        changing = max(changing, tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
    yield Measure("memory at rest", at_rest / MB, "MB", 45.0)
    yield Measure("memory while changing, both rings", changing / MB, "MB", 130.0)
    yield Measure("memory while building", at_build / MB, "MB")


def measure_times(size: Size) -> Iterator[Measure]:
    nodes, per_100 = equal_nodes(size.nodes), size.points_per_100
    builds = [seconds(lambda: Ring.build(nodes, per_100)) for _ in range(size.builds)]
    yield Measure("first build, median", statistics.median(builds), "s", 2.0)
    ring = Ring.build(nodes, per_100)
    changes = [
        seconds(partial(ring.changed_to, changed)) for changed in some_changes(nodes, size.changes)
    ]
    yield Measure("change, median", statistics.median(changes) * 1e3, "ms", 40.0)
    ids = chunk_ids(size.lookups)
    for n in (1, 2, 3):
        yield Measure(f"owners, {n}", nanoseconds_a_lookup(ring, ids, n), "ns")
    each = seconds(lambda: ring.owners_each(ids, 3)) / len(ids)
    yield Measure("owners, 3, many at once", each * 1e9, "ns")
    doubled = ring.changed_to(reweighted(nodes, 0, 200))
    yield Measure("diff of one weight doubled", seconds(lambda: diff(ring, doubled)), "s")


def nanoseconds_a_lookup(ring: Ring, ids: Sequence[bytes], n: int) -> float:
    batch = 500
    times = []
    for at in range(0, len(ids), batch):
        started = time.perf_counter_ns()
        for chunk_id in ids[at : at + batch]:
            ring.owners(chunk_id, n)
        times.append((time.perf_counter_ns() - started) / batch)
    return statistics.median(times)


def measure_balance(size: Size) -> Iterator[Measure]:
    for count, seeds, target in ((size.nodes_few, size.seeds, 1.05), (size.nodes, 5, 1.06)):
        ratios = [largest_to_mean(count, size.points_per_100, seed) for seed in range(seeds)]
        name = f"largest/mean of {count} equal nodes, {len(ratios)} seeds"
        yield Measure(f"{name}, median", statistics.median(ratios), "", target)
        yield Measure(f"{name}, worst", max(ratios))


def largest_to_mean(count: int, points_per_100: int, seed: int) -> float:
    nodes = equal_nodes(count, prefix=f"seed-{seed}")
    return max(Ring.build(nodes, points_per_100).shares().values()) * count


def measure_weights(size: Size) -> Iterator[Measure]:
    errors = []
    for seed in range(size.seeds):
        nodes = [PlacedNode(f"seed-{seed}-{k}", f"h{k}", "", 100 * k) for k in (1, 2, 3)]
        shares = Ring.build(nodes, size.points_per_100).shares()
        errors += [abs(shares[node.id] / (node.weight / 600) - 1) * 100 for node in nodes]
    name = f"error of shares 1:2:3, {size.seeds} seeds"
    yield Measure(f"{name}, median", statistics.median(errors), "%", 2.0)
    yield Measure(f"{name}, worst", max(errors), "%", 4.0)


def fair_shares(nodes: Sequence[PlacedNode]) -> dict[str, float]:
    total = sum(node.weight for node in nodes)
    return {node.id: node.weight / total for node in nodes}


def gains(before: dict[str, float], after: dict[str, float]) -> float:
    return sum(max(0.0, share - before.get(id_, 0.0)) for id_, share in after.items())


def measure_movement(size: Size) -> Iterator[Measure]:
    """Compare what moves with the least: how much all growing shares grow together.

    Shares as they are tell whether a key moves in vain; shares by weight add the ring's unevenness.
    """
    nodes = equal_nodes(size.nodes_few)
    ring = Ring.build(nodes, size.points_per_100)
    to_real, to_fair = [], []
    for changed in some_changes(nodes, size.changes):
        after = ring.changed_to(changed)
        moved = sum(move.share for move in diff(ring, after))
        to_real.append(moved / gains(ring.shares(), after.shares()))
        to_fair.append(moved / gains(fair_shares(nodes), fair_shares(changed)))
    name = f"moved/least of {size.changes} changes"
    yield Measure(f"{name}, by real shares, worst", max(to_real), "", 1.05)
    yield Measure(f"{name}, by weights, worst", max(to_fair), "", 1.05)


def digest_of_owners(size: Size) -> str:
    """Name the result: the same on every machine, for the same inputs."""
    ring = Ring.build(equal_nodes(size.nodes_few), size.points_per_100)
    owners = ring.owners_each(chunk_ids(1_000), 3)
    return hashlib.blake2b(json.dumps(owners).encode(), digest_size=8).hexdigest()


def show(measures: Sequence[Measure], size: Size, digest: str, *, with_targets: bool) -> None:
    table = Table(title=f"Ring of {size.nodes} nodes, {size.points_per_100} points a weight of 100")
    table.add_column("measure")
    for name in ("value", "target", ""):
        table.add_column(name, justify="right")
    for measure in measures:
        shown = "" if measure.target is None else f"≤ {measure.target:g} {measure.unit}"
        verdict = measure.verdict if with_targets else ""
        table.add_row(measure.name, f"{measure.value:,.4g} {measure.unit}", shown, verdict)
    table.caption = f"owners of 1,000 chunks: {digest}"
    Console().print(table)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="small rings, seconds in all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    options = parser.parse_args(arguments)
    size = QUICK if options.quick else FULL
    parts = (measure_memory, measure_times, measure_balance, measure_weights, measure_movement)
    measures = [measure for part in parts for measure in part(size)]
    digest = digest_of_owners(size)
    show(measures, size, digest, with_targets=not options.quick)
    if options.json:
        rows = [asdict(measure) | {"verdict": measure.verdict} for measure in measures]
        report = {"inputs": asdict(size), "digest": digest, "measures": rows}
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()

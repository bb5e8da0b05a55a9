"""Measure the ring beside its targets: time, memory, balance, movement.

    python bench/ring.py [--quick] [--json FILE]

``--quick`` uses small rings, for which the targets are not meant: it shows that the benchmark
runs. Chance is seeded, so balance and movement are the same everywhere; times are not.
"""

import hashlib
import json
import random
import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial

from penstock.placement import PlacedNode
from penstock.ring import Ring, diff
from penstock_node.testbed.benchmark import Inputs, Measure, rounds, run_benchmark

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


def at_most(name: str, value: float, unit: str = "", *, target: float) -> Measure:
    return Measure(name, value, unit, bound="≤", target=target)


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
    yield at_most("memory at rest", at_rest / MB, "MB", target=45.0)
    yield at_most("memory while changing, both rings", changing / MB, "MB", target=130.0)
    yield Measure("memory while building", at_build / MB, "MB")


def measure_times(size: Size) -> Iterator[Measure]:
    nodes, per_100 = equal_nodes(size.nodes), size.points_per_100
    builds = [seconds(lambda: Ring.build(nodes, per_100)) for _ in range(size.builds)]
    yield Measure.of("first build", builds, "s", bound="≤", target=2.0)
    ring = Ring.build(nodes, per_100)
    changes = [
        seconds(partial(ring.changed_to, changed)) * 1e3
        for changed in some_changes(nodes, size.changes)
    ]
    yield Measure.of("change", changes, "ms", bound="≤", target=40.0)
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
        yield Measure.of(name, ratios, bound="≤", target=target)


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
    yield Measure.of(f"{name}, median", errors, "%", bound="≤", target=2.0)
    yield at_most(f"{name}, worst", max(errors), "%", target=4.0)


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
    yield at_most(f"{name}, by real shares, worst", max(to_real), target=1.05)
    yield at_most(f"{name}, by weights, worst", max(to_fair), target=1.05)


def digest_of_owners(size: Size) -> str:
    """Name the result: the same on every machine, for the same inputs."""
    ring = Ring.build(equal_nodes(size.nodes_few), size.points_per_100)
    owners = ring.owners_each(chunk_ids(1_000), 3)
    return hashlib.blake2b(json.dumps(owners).encode(), digest_size=8).hexdigest()


def measure(is_quick: bool) -> tuple[Inputs, list[Measure]]:
    """Take all figures."""
    size = QUICK if is_quick else FULL
    parts = (measure_memory, measure_times, measure_balance, measure_weights, measure_movement)
    measures = [figure for at in rounds(len(parts), "the ring") for figure in parts[at](size)]
    return asdict(size) | {"owners_of_1000_chunks": digest_of_owners(size)}, measures


if __name__ == "__main__":
    run_benchmark("The ring", measure)

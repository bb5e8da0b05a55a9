"""What a soak has shown: what grew, which bytes were wrong, which errors nobody should see.

Responsible for: limits, which errors go with which faults, and which lines of a log are troubles.
Not responsible for: the arithmetic of growth (`growth`), printing (`report`).
"""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from penstock_node.testbed.soak.faults import Event
from penstock_node.testbed.soak.growth import Growth, Point, growth
from penstock_node.testbed.soak.tally import Done, Trouble
from penstock_node.testbed.soak.vitals import Vitals
from penstock_node.testbed.soak.watch import Key, Seen

GROWTH_MAX = 0.02
"""Of resident memory, over the window."""
COUNTS_ADDED_MAX: Mapping[str, float] = {"descriptors": 3.0, "threads": 1.0}
"""Flat: connections and files that are open at a moment come and go."""
DESCRIPTORS_A_POOL_THREAD = 4
"""One more thread of a pool, which has a bound, may keep a connection: to SQLite it is three
files, to a node a socket at either end."""
STATE_BYTES_MAX = 4 * 1024 * 1024
WARM_UP_SHARE, WARM_UP_MAX_S = 0.4, 240.0
"""How much of a soak is not judged: caches and pools fill until then."""
WINDOW_MIN_S = 120.0
"""What is shorter is told, and not judged."""
EDGES_S = 10.0
"""A series that covers the window but for so much at either end covers it."""
MEASURES = ("resident", "private", "descriptors", "sockets", "threads", "pooled")
FOREIGN = ("etcd", "SeaweedFS")
AFTERWARDS_S = 20.0
"""Until so long after a fault its errors may come: requests that began under it end by then."""
AT_ONCE_S = 1.0
ORIGIN_FAULTS = ("the origin refuses", "the origin is silent", "the origin is slow")
EXPECTED: Mapping[str, tuple[str, ...]] = {
    "OriginUnavailable": ORIGIN_FAULTS,
    "S3": ORIGIN_FAULTS,
    "EIO": ORIGIN_FAULTS,
    "NodeUnavailable": ("a node is killed", "a node is stopped"),
}
"""Errors, and the faults that they go with; any other is a bug."""
CHANGING = re.compile(r"live/|puts/")
_UNNAMED = re.compile(r"Traceback|Exception ignored|never retrieved|never awaited|ResourceWarning")


@dataclass(frozen=True, slots=True)
class Line:
    """How one process went."""

    process: str
    measure: str
    growth: Growth
    limit: str = ""
    """In words; empty for what is told only."""
    is_kept: bool = True


@dataclass(frozen=True, slots=True)
class Verdict:
    """All of it."""

    window_s: float
    lines: Sequence[Line]
    wrong: Sequence[str]
    unexpected: Sequence[Trouble]
    expected: Mapping[str, int]
    """Errors that went with faults, by name."""
    log_troubles: Sequence[str]
    over_budget: Sequence[str]
    failure: str = ""
    """Why it ended early."""

    @property
    def is_judged(self) -> bool:
        """Whether it lasted long enough for growth to be judged."""
        return self.window_s >= WINDOW_MIN_S

    @property
    def grown(self) -> list[Line]:
        """What grew beyond its limit."""
        return [line for line in self.lines if not line.is_kept] if self.is_judged else []

    @property
    def is_well(self) -> bool:
        """Whether all is as it should be."""
        troubles = (self.wrong, self.unexpected, self.log_troubles, self.over_budget, self.grown)
        return not (self.failure or any(troubles))


def judge(
    seen: Seen,
    done: Mapping[str, Done],
    events: Sequence[Event],
    logs: Mapping[str, Path],
    *,
    began: float,
    ended: float,
    failure: str = "",
) -> Verdict:
    """Return what a soak has shown that went on from ``began`` to ``ended``."""
    first = began + min(WARM_UP_MAX_S, WARM_UP_SHARE * (ended - began))
    troubles = [each for told in done.values() for each in told.troubles]
    expected = [each for each in troubles if is_expected(each, events)]
    names = [each.name or "OSError" for each in expected]
    return Verdict(
        window_s=ended - first,
        lines=[*_process_lines(seen, first, ended), *_disk_lines(seen, first)],
        wrong=[each for told in done.values() for each in told.wrong],
        unexpected=[each for each in troubles if each not in expected],
        expected={name: names.count(name) for name in sorted(set(names))},
        log_troubles=[each for name, log in logs.items() for each in log_troubles(name, log)],
        over_budget=seen.over_budget,
        failure=failure,
    )


def is_expected(trouble: Trouble, events: Sequence[Event]) -> bool:
    """Tell whether an error goes with a fault of that time."""
    kind = trouble.name
    if kind == "ObjectChanged":
        return CHANGING.search(trouble.text) is not None
    if trouble.text.startswith("GatewayError('5"):
        kind = "S3"
    if trouble.work.startswith("S3:") and trouble.text.startswith("IncompleteRead"):
        kind = "S3"  # Once it has begun to send there is no other way to tell of an error.
    if trouble.work == "mount" and trouble.text.startswith("OSError(5"):
        kind = "EIO"
    return any(
        event.name in EXPECTED.get(kind, ())
        and event.began - AT_ONCE_S <= trouble.at <= event.ended + AFTERWARDS_S
        for event in events
    )


def log_troubles(name: str, log: Path) -> list[str]:
    """Return the lines of a log that nobody should have to read."""
    if not log.exists():
        return []
    with log.open(errors="replace") as lines:
        return [f"{name}: {line.strip()}" for line in lines if _is_trouble(line)]


def _is_trouble(line: str) -> bool:
    try:
        said = json.loads(line)
    except ValueError:
        return _UNNAMED.search(line) is not None
    if not isinstance(said, dict):
        return False
    return said.get("level") in ("error", "critical") or _UNNAMED.search(line) is not None


def _process_lines(seen: Seen, first: float, ended: float) -> Iterator[Line]:
    for (name, _), samples in _lasting(seen.vitals, first, ended):
        window = [(at, vitals) for at, vitals in samples if at >= first]
        went = {
            measure: found
            for measure in MEASURES
            if (found := growth([(at, float(getattr(v, measure))) for at, v in window])) is not None
        }
        for measure, found in went.items():
            of_pools = max(0, math.ceil(went["pooled"].added)) if measure == "descriptors" else 0
            line = _line(name, measure, found, of_pools=of_pools)
            yield Line(name, measure, found) if name in FOREIGN else line


def _line(name: str, measure: str, went: Growth, *, of_pools: int) -> Line:
    may_be_flat = went.least_added <= 0
    if measure == "resident":
        kept = went.share < GROWTH_MAX or may_be_flat
        return Line(name, measure, went, f"< {GROWTH_MAX:.0%}", kept)
    if (most := COUNTS_ADDED_MAX.get(measure)) is not None:
        most += of_pools * DESCRIPTORS_A_POOL_THREAD
        return Line(name, measure, went, f"≤ +{most:.0f}", went.added <= most or may_be_flat)
    return Line(name, measure, went)


def _lasting(
    vitals: Mapping[Key, Sequence[tuple[float, Vitals]]], first: float, ended: float
) -> Iterable[tuple[Key, Sequence[tuple[float, Vitals]]]]:
    """Return the series of processes that were there all the time."""
    return (
        (key, samples)
        for key, samples in vitals.items()
        if samples[0][0] <= first + EDGES_S and samples[-1][0] >= ended - EDGES_S
    )


def _disk_lines(seen: Seen, first: float) -> Iterator[Line]:
    for name, points in seen.disks.items():
        window: list[Point] = [point for point in points if point[0] >= first]
        went = growth(window)
        if went is None:
            continue
        if name.endswith(": state") and not name.startswith("catalog"):
            kept = went.highest <= STATE_BYTES_MAX
            yield Line(name, "disk", went, f"≤ {STATE_BYTES_MAX // 1024**2} MiB", kept)
        else:
            yield Line(name, "disk", went)

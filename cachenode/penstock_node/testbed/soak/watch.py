"""Looking at all processes of a soak, every few seconds.

Responsible for: the samples of each process, a new series where one was started again; what tiers
and state directories take; and what tiers take beyond their budget.
Not responsible for: what becomes of the samples (`judgement`).
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from penstock_node.testbed.soak.growth import Point
from penstock_node.testbed.soak.place import Place
from penstock_node.testbed.soak.vitals import Vitals, allocated_bytes, vitals_of

LOOK_EVERY_S = 2.0
DISKS_EVERY = 3
"""At each so many looks."""
SLACK_BYTES = 1024 * 1024
"""Of directories, and of files on their way between two looks of the file system."""

Key = tuple[str, int]
"""A process's name, and its number."""


@dataclass(slots=True)
class Seen:
    """All samples so far."""

    vitals: dict[Key, list[tuple[float, Vitals]]] = field(default_factory=lambda: defaultdict(list))
    disks: dict[str, list[Point]] = field(default_factory=lambda: defaultdict(list))
    """What each node's tiers take, and its state directory."""
    over_budget: list[str] = field(default_factory=list)


class Watch:
    """A thread that looks while the ``with`` lasts."""

    def __init__(self, place: Place, *, on_look: Callable[[Seen], None]) -> None:
        self._place, self._on_look = place, on_look
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch")
        self.seen = Seen()

    def _run(self) -> None:
        looks = 0
        while not self._stop.wait(LOOK_EVERY_S):
            self._look()
            if looks % DISKS_EVERY == 0:
                self._look_at_disks()
            looks += 1
            self._on_look(self.seen)

    def _look(self) -> None:
        for name, process in self._place.processes().items():
            if process.running and (found := vitals_of(process.pid)) is not None:
                self.seen.vitals[name, process.pid].append((time.time(), found))

    def _look_at_disks(self) -> None:
        for name, node in self._place.cluster.nodes.items():
            tiers = zip(node.tier_paths, node.spec.tiers, strict=True)
            taken = {path: (allocated_bytes([path]), tier.capacity_bytes) for path, tier in tiers}
            self.seen.over_budget += [
                f"{name}: {path.name} takes {used:,} of {capacity:,} bytes"
                for path, (used, capacity) in taken.items()
                if used > capacity + SLACK_BYTES
            ]
            whole = float(sum(used for used, _ in taken.values()))
            self.seen.disks[f"{name}: tiers"].append((time.time(), whole))
            state = float(allocated_bytes([node.state_dir]))
            self.seen.disks[f"{name}: state"].append((time.time(), state))
        state = float(allocated_bytes([self._place.catalog.state_dir]))
        self.seen.disks["catalog: state"].append((time.time(), state))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

"""Watching that nodes keep to their budgets, all the time.

Responsible for: looking at the metrics of every node that runs, again and again, in a thread.
Not responsible for: what the budgets are; nodes tell.
"""

import threading
from types import TracebackType
from typing import Self

from penstock_node.testbed.cluster import LocalCluster, NodeProcess

LOOK_EVERY_S = 0.3
ANSWER_TIMEOUT_S = 2.0
"""One that hangs is looked at later."""
USED, CAPACITY = "penstock_tier_used_bytes", "penstock_tier_capacity_bytes"
INFLIGHT, INFLIGHT_MAX = "penstock_inflight_bytes", "penstock_inflight_bytes_max"


class Budgets:
    """A thread that looks while the ``with`` lasts."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, name="budgets")
        self.looks = 0
        self.broken: list[str] = []

    def check(self) -> None:
        """Raise an `AssertionError` that tells of a budget that was not kept, if one was not."""
        assert not self.broken, "\n".join(self.broken)

    def _look(self) -> None:
        while not self._stop.wait(LOOK_EVERY_S):
            for node in self._cluster.running:
                try:
                    told = node.metrics(timeout_s=ANSWER_TIMEOUT_S)
                except (OSError, AssertionError):  # It is about to start, or has just ended.
                    continue
                self.looks += 1
                self.broken += _broken(node, told)

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


def _broken(node: NodeProcess, told: dict[str, float]) -> list[str]:
    limits = {
        name: told[CAPACITY + name.removeprefix(USED)] for name in told if name.startswith(USED)
    }
    limits[INFLIGHT] = told[INFLIGHT_MAX]
    return [
        f"{node.id} uses {told[name]:,.0f} of {limit:,.0f}: {name}"
        for name, limit in limits.items()
        if told[name] > limit
    ]

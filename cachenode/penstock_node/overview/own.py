"""What this node does: looked at each two seconds, remembered for an hour.

Responsible for: which counters make which rate, and the looks.
Not responsible for: counting (`metrics` and the parts), the arithmetic (`history`).

A look reads a dozen numbers; it collects no registry.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor

from prometheus_client import Counter

from penstock.overview import PLANES, SERIES, SOURCES, NodeTold, Rates, TierLine, WarmupLine
from penstock_node.handover.handover import Handover
from penstock_node.inflight import Inflight
from penstock_node.metrics import NodeMetrics
from penstock_node.origin import Origins
from penstock_node.overview.history import LOOK_S, MINUTE_S, Growth, History, Samples, sample_at
from penstock_node.store.store import Store
from penstock_node.tasks import in_thread

HOTTEST_TOLD = 20
"""Directories."""
ADD_UP_S = 1.0
"""How long a sample waits for what is cached."""
_READ, _SERVED = "read_bytes.", "served_bytes."
COUNTERS = (
    *(_READ + source for source in SOURCES),
    *(_SERVED + plane for plane in PLANES),
    "origin_bytes",
    "origin_requests",
    "failures",
    "evicted_bytes",
    "handoff_bytes",
)


class OwnOverview:
    """See the module. On the event loop."""

    def __init__(
        self,
        *,
        node_id: str,
        version: str,
        metrics: NodeMetrics,
        store: Store,
        origins: Origins,
        handover: Handover,
        inflight: Inflight,
        warmups: Callable[[], tuple[WarmupLine, ...]],
        threads: Executor,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Put the parts together.

        Args:
            node_id: This node, and the ``version`` of its program.
            version: See there.
            metrics: What is counted as it happens.
            store: Counts what is evicted, and has the tiers.
            origins: Count what they are asked.
            handover: Tells what waits.
            inflight: Memory that is lent.
            warmups: Those that this node goes through.
            threads: For adding up what is cached.
            clock: Seconds since 1970.
            monotonic: Seconds, from anywhere on.
        """
        self._node_id, self._version = node_id, version
        self._metrics, self._store, self._origins = metrics, store, origins
        self._handover, self._inflight, self._warmups = handover, inflight, warmups
        self._threads = threads
        self._clock, self._monotonic = clock, monotonic
        self._growth = Growth(COUNTERS)
        self._history = History()
        self._begun = sample_at(clock())
        self._cached_bytes = 0

    @property
    def node_id(self) -> str:
        """This node."""
        return self._node_id

    async def run(self) -> None:
        """Look each two seconds, at the same moments on all nodes whose clocks agree, for ever."""
        adding_up = asyncio.create_task(self._add_up(), name="add up what is cached")
        self.look()
        while True:
            await asyncio.sleep(LOOK_S - self._clock() % LOOK_S)
            if self._is_over(sample_at(self._clock()) - 1):
                if adding_up.done():
                    adding_up.result()
                    adding_up = asyncio.create_task(self._add_up(), name=adding_up.get_name())
                # Disks may hang: what is told of them is old then, and all else is not.
                await asyncio.wait({adding_up}, timeout=ADD_UP_S)
            self.look()

    def _is_over(self, number: int) -> bool:
        """Tell whether a sample is to be taken, of a time in which this node ran."""
        return number >= max(self._history.after, self._begun)

    async def _add_up(self) -> None:
        """Add up what is cached: with a memory tier it takes a moment, so not at each look."""
        self._cached_bytes = await in_thread(self._threads, lambda: self._store.cached_bytes)

    def look(self) -> None:
        """Look at the counters, and take a sample if one is over."""
        self._growth.look(self._counters(), at_s=self._monotonic())
        self._metrics.hottest.turn()
        if self._is_over(over := sample_at(self._clock()) - 1):
            self._history.set(over, self._sample())

    def _sample(self) -> list[float]:
        rates: dict[str, float] = {**self._growth.rates(), "cached_bytes": self._cached_bytes}
        return [rates[name] for name in SERIES]

    def _counters(self) -> dict[str, float]:
        metrics = self._metrics
        origins = list(self._origins.counters().values())
        counted = dict.fromkeys(COUNTERS, 0.0)
        for (plane, source), row in metrics.reads.rows().items():
            for name in (_SERVED + plane, _READ + source):
                if name in counted:
                    counted[name] += row.size_bytes
        counted["origin_bytes"] = sum(told.bytes_read for told in origins)
        counted["origin_requests"] = sum(told.requests for told in origins)
        counted["failures"] = _total(metrics.chunk_read_failures)
        counted["evicted_bytes"] = self._store.statistics.evicted_bytes
        counted["handoff_bytes"] = _total(metrics.handoff_bytes)
        return counted

    def samples_after(self, number: int) -> Samples:
        """Return the samples behind one; behind 0 are all of the hour."""
        return self._history.since(number)

    def told(self) -> NodeTold:
        """Return what this node does now."""
        rates, minute = self._growth.rates(), self._growth.over(MINUTE_S)
        read = {source: minute[_READ + source] for source in SOURCES}
        return NodeTold(
            id=self._node_id,
            version=self._version,
            rates=Rates(
                {source: rates[_READ + source] for source in SOURCES},
                {plane: rates[_SERVED + plane] for plane in PLANES},
                rates["origin_bytes"],
                rates["origin_requests"],
                rates["failures"],
                rates["evicted_bytes"],
                rates["handoff_bytes"],
            ),
            minute_bytes=sum(read.values()),
            minute_hit_bytes=sum(read.values()) - read["origin"],
            cached_bytes=self._cached_bytes,
            handoff_waiting_bytes=self._handover.taking.waiting_bytes,
            inflight_bytes=self._inflight.used_bytes,
            tiers=self._tiers(),
            warmups=self._warmups(),
            hottest=self._metrics.hottest.by_the_second(limit=HOTTEST_TOLD),
        )

    def _tiers(self) -> tuple[TierLine, ...]:
        return tuple(
            TierLine(
                str(tier.path), tier.role, tier.used_bytes, tier.capacity_bytes, tier.is_healthy
            )
            for tier in self._store.tier_usage()
        )


def _total(counter: Counter) -> float:
    """Return a counter's value, of all its labels together."""
    samples = (sample for family in counter.collect() for sample in family.samples)
    return sum(sample.value for sample in samples if sample.name.endswith("_total"))

"""One node gathers what all do: few calls at once, and the sums of what they told."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from penstock.errors import NodeUnavailable
from penstock.membership.view import Member
from penstock.overview import SERIES, NodeTold, Rates
from penstock.overview_messages import told_to_proto
from penstock_node.overview.asking import AT_ONCE, Asker
from penstock_node.overview.gathering import (
    LOOKED_AT_S,
    ROUND_S,
    SILENT_S,
    Gathering,
    round_s,
    samples_to_proto,
)
from penstock_node.overview.history import History, Samples, sample_at
from penstock_node.testbed.hand_clock import HandClock

UNIX_S = 1_790_000_000.0
NOW = sample_at(UNIX_S)
DEADLINE_S = 30.0
NODES = 1_000


def told_by(node: str, rate: float) -> NodeTold:
    return NodeTold(node, "1.0", Rates({"disk": rate}, {"bulk": rate}), cached_bytes=5)


def hour(*values: float, last: int = NOW - 1) -> History:
    """Samples that end at a number, with one value in all series."""
    history = History()
    for at, value in enumerate(values, start=last + 1 - len(values)):
        history.set(at, [value] * len(SERIES))
    return history


@dataclass
class Wire:
    """The edge: nodes at their addresses, as gRPC would reach them. Called from threads."""

    hours: dict[str, History] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)
    in_flight: int = 0
    in_flight_max: int = 0
    asked: list[tuple[str, int]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    calls: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    """Released once a call."""

    def call(self, address: str, _method: Any, request: Any, *, timeout_s: float = 0) -> Any:
        assert 0 < timeout_s < ROUND_S + 1
        with self.lock:
            self.in_flight += 1
            self.in_flight_max = max(self.in_flight_max, self.in_flight)
            self.asked.append((address, request.samples_after))
        time.sleep(0.0002)  # Of a call's way there and back: others begin meanwhile.
        with self.lock:
            self.in_flight -= 1
        self.calls.release()
        if address in self.silent:
            raise NodeUnavailable(f"{address} does not answer")
        answer = told_to_proto(told_by(address, 2.0))
        samples = self.hours.get(address, History()).since(request.samples_after)
        answer.samples.CopyFrom(samples_to_proto(samples))
        return answer


@dataclass
class Self:
    """The node that gathers."""

    hour: History = field(default_factory=History)
    node_id: str = "self"

    def told(self) -> NodeTold:
        return told_by(self.node_id, 1.0)

    def samples_after(self, number: int) -> Samples:
        return self.hour.since(number)


@dataclass
class Cluster:
    """The real gathering over the wire of the test, and its clock."""

    wire: Wire
    own: Self
    gathering: Gathering
    clock: HandClock

    @property
    def asked(self) -> list[str]:
        return sorted(address for address, _ in self.wire.asked)


@asynccontextmanager
async def cluster_of(count: int) -> AsyncIterator[Cluster]:
    wire, own, clock = Wire(), Self(), HandClock()
    members = [Member(name, "", grpc_address=name) for name in ("self", *names(count))]
    asker = Asker(wire)
    gathering = Gathering(
        own=own, members=lambda: members, asker=asker, clock=lambda: UNIX_S, monotonic=clock
    )
    yield Cluster(wire, own, gathering, clock)
    asker.close()


def names(count: int) -> list[str]:
    return [f"n{at:04}" for at in range(count)]


def first_series(samples: Samples) -> list[float]:
    return [float(value) for value in samples.values[0]]


async def test_a_thousand_nodes_are_asked_once_each_and_few_of_them_at_once() -> None:
    async with cluster_of(NODES) as cluster:
        await cluster.gathering.ask_round(period_s=0.0)

        told = cluster.gathering.told
        assert cluster.asked == names(NODES)
        assert 1 < cluster.wire.in_flight_max <= AT_ONCE
        assert len(told) == NODES + 1
        total = Rates.sum_of(each.told.rates for each in told.values())
        assert total.read_bytes["disk"] == 2.0 * NODES + 1.0


def test_a_round_over_many_nodes_takes_longer_so_that_they_cost_no_more_by_the_second() -> None:
    assert round_s(3) == round_s(200) == ROUND_S
    assert round_s(NODES) == 10


async def test_samples_of_all_nodes_are_added_up_each_of_them_once() -> None:
    async with cluster_of(2) as cluster:
        cluster.own.hour = hour(1, 2, 3)
        cluster.wire.hours = {"n0000": hour(10, 20), "n0001": hour(100)}
        await cluster.gathering.ask_round(period_s=0.0)
        cluster.wire.hours["n0000"] = hour(10, 20, 30, last=NOW)
        await cluster.gathering.ask_round(period_s=0.0)

        samples = cluster.gathering.samples()

        assert first_series(samples) == [1, 12, 123, 30]
        assert samples.after == NOW + 1
        asked = [after for node, after in cluster.wire.asked if node == "n0000"]
        assert asked == [0, NOW - 1], "what is known already is not told again"


async def test_a_node_whose_clock_is_ahead_pushes_nothing_out() -> None:
    async with cluster_of(1) as cluster:
        cluster.own.hour = hour(1, 2)
        cluster.wire.hours = {"n0000": hour(7, last=NOW + 10_000)}
        await cluster.gathering.ask_round(period_s=0.0)

        assert first_series(cluster.gathering.samples()) == [1, 2]


async def test_a_node_that_is_silent_keeps_what_it_told_and_is_left_alone_for_a_while() -> None:
    async with cluster_of(2) as cluster:
        await cluster.gathering.ask_round(period_s=0.0)
        cluster.wire.silent = {"n0001"}
        await cluster.gathering.ask_round(period_s=0.0)
        cluster.wire.asked.clear()
        await cluster.gathering.ask_round(period_s=0.0)

        assert cluster.asked == ["n0000"]
        assert cluster.gathering.told["n0001"].told.rates.read_bytes == {"disk": 2.0}
        cluster.clock.now += SILENT_S
        await cluster.gathering.ask_round(period_s=0.0)
        assert cluster.asked == ["n0000", "n0000", "n0001"]


async def test_nodes_are_asked_only_while_somebody_looks() -> None:
    async with cluster_of(3) as cluster:
        running = asyncio.create_task(cluster.gathering.run())
        for _ in range(8):
            await asyncio.sleep(0)  # No time passes: whatever would begin has begun.
        assert not any(task.get_name().startswith("ask ") for task in asyncio.all_tasks())

        cluster.gathering.look()
        for _ in names(3):
            assert await asyncio.to_thread(cluster.wire.calls.acquire, timeout=DEADLINE_S)
        assert cluster.gathering.is_looked_at

        cluster.clock.now += LOOKED_AT_S
        assert not cluster.gathering.is_looked_at
        running.cancel()


async def test_who_has_left_is_forgotten_but_for_the_sums() -> None:
    async with cluster_of(2) as cluster:
        cluster.wire.hours = {"n0001": hour(5)}
        await cluster.gathering.ask_round(period_s=0.0)

        cluster.gathering.retain(["self", "n0000"])

        assert cluster.gathering.told.keys() == {"self", "n0000"}
        assert np.nansum(cluster.gathering.samples().values[0]) == 5


async def test_an_error_that_is_no_answer_of_a_node_is_not_hidden() -> None:
    class Broken(Wire):
        def call(self, address: str, _method: Any, request: Any, *, timeout_s: float = 0) -> Any:
            raise AssertionError("a bug")

    asker = Asker(Broken())
    members = [Member("n", "", grpc_address="n")]
    try:
        with pytest.raises(AssertionError, match="a bug"):
            await asker.ask_all(members, *_ANY_CALL)
    finally:
        asker.close()


_ANY_CALL: Any = (None, None)

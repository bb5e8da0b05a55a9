"""Gathering facts from all nodes at once, within a bound of time.

Responsible for: whom to ask for the cluster, what each node is asked, and asking once more for what
stands out: so a machine that was busy for a moment is no finding.
Not responsible for: what facts mean (`checks`), what nodes do when asked.
"""

import contextlib
import random
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from penstock.catalog import Catalog
from penstock.diagnosis_rpc import CLOCK, EXAMINE, KNOWN
from penstock.doctor.again import combined
from penstock.doctor.asker import look_around, port_failure
from penstock.doctor.checks import judge, worst_first
from penstock.doctor.facts import (
    CatalogFacts,
    Clock,
    Examined,
    Facts,
    KnownCluster,
    KnownNode,
    NodeFacts,
)
from penstock.doctor.finding import Checked, Finding
from penstock.doctor.messages import examined_from_proto, known_from_proto
from penstock.doctor.plan import Wanted, plan_again, plan_all
from penstock.errors import ClusterUnavailable, InvalidRequest, Overloaded, PenstockError
from penstock.membership.nodes import Nodes
from penstock.rpc import Channels
from penstock.v1 import diagnosis_pb2

THREADS_MAX = 128
"""Nodes that are asked at once; each waits, and works little."""
KNOWN_S = 5.0
CLOCK_S = 2.0
CLOCK_ROUNDS = 3
"""The fastest round trip says most of a clock."""
EXAMINE_S = 22.0
"""A node ends each of its looks within seconds; all of them hanging takes so long."""
ALL_S = 30.0
"""After so long what has not come is left out."""
BUSY_S = 2.0
"""Until a node is asked again that is being examined for somebody else."""
IN_TURN_MAX = 8
"""Nodes that are looked at again one after another, so that nothing else is measured meanwhile."""
NOT_IN_TIME = ClusterUnavailable("it was not examined in time")

T = TypeVar("T")
Progress = Callable[[int, int], None]
"""Told how many nodes of how many have answered."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found, and what follows."""

    facts: Facts
    checked: tuple[Checked, ...]

    @property
    def findings(self) -> list[Finding]:
        """All of them, the worst first."""
        return worst_first(self.checked)

    @property
    def is_well(self) -> bool:
        """Whether there is no problem."""
        return not any(finding.severity == "problem" for finding in self.findings)


class Doctor:
    """Examines a cluster over an operator's connections."""

    def __init__(
        self,
        nodes: Nodes,
        channels: Channels,
        catalog: Catalog,
        *,
        rng: random.Random | None = None,
    ) -> None:
        self._nodes = nodes
        self._channels = channels
        self._catalog = catalog
        self._rng = rng or random.Random()  # noqa: S311 - spreads looks, guards nothing

    def examine(
        self, wanted: Wanted | None = None, *, on_progress: Progress = lambda _done, _of: None
    ) -> Diagnosis:
        """Look at every node, and judge.

        Each node writes 4 MiB to each disk of its tiers, at most three times, reads it back and
        removes it; receives at most 12 MiB from each of four others; and sends three requests to
        each origin.

        Args:
            wanted: What to look at; by default everything.
            on_progress: Called whenever a node has answered.

        Raises:
            ClusterUnavailable: No node answers.
            InvalidRequest: There is no such node.
        """
        run = _Run(wanted or Wanted(), self._channels, self._rng, on_progress)
        known = self._known(run)
        facts = run.gather(known)
        better = run.better_asked(facts)
        if better:
            known = run.known_of(better) or known
            facts = run.gather(known, before=facts)
        facts = replace(facts, catalog=_catalog_facts(self._catalog, known), asker=look_around())
        facts = run.look_again(facts)
        facts = replace(facts, seconds=run.seconds)
        return Diagnosis(facts, tuple(_narrowed(judge(facts), run.wanted.node)))

    def _known(self, run: "_Run") -> KnownCluster:
        known = known_from_proto(
            self._nodes.call(KNOWN, diagnosis_pb2.KnownRequest(), timeout_s=KNOWN_S)
        )
        names = [node.id for node in known.nodes]
        if run.wanted.node and run.wanted.node not in names:
            raise InvalidRequest(
                f"there is no node {run.wanted.node!r}; known are {', '.join(names[:20])}"
            )
        return known


def _narrowed(checked: list[Checked], node: str) -> list[Checked]:
    if not node:
        return checked
    return [
        replace(each, findings=[f for f in each.findings if f.place.concerns(node)])
        for each in checked
    ]


def _catalog_facts(catalog: Catalog, known: KnownCluster) -> CatalogFacts | None:
    if not known.catalog_address:
        return None
    begun = time.monotonic()
    try:
        told = catalog.status()
    except PenstockError as error:
        return CatalogFacts(known.catalog_address, failure=str(error))
    return CatalogFacts(
        told.address,
        latency_s=time.monotonic() - begun,
        mirror_of=told.mirror_of,
        lag_s=told.lag_s,
        trouble=told.trouble,
    )


def _in_turns(
    requests: Mapping[str, diagnosis_pb2.ExamineRequest],
) -> Iterator[Mapping[str, diagnosis_pb2.ExamineRequest]]:
    """Yield what is asked together: one node at a time, while there are few."""
    if len(requests) > IN_TURN_MAX:
        yield requests
        return
    for name, request in requests.items():
        yield {name: request}


class _Run:
    """One examination of one cluster."""

    def __init__(
        self, wanted: Wanted, channels: Channels, rng: random.Random, on_progress: Progress
    ) -> None:
        self.wanted = wanted
        self._channels = channels
        self._rng = rng
        self._on_progress = on_progress
        self._begun = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._begun

    def known_of(self, node: KnownNode) -> KnownCluster | None:
        """Return the cluster as ``node`` knows it; None: it does not say."""
        try:
            told = self._channels.call(
                node.grpc_address, KNOWN, diagnosis_pb2.KnownRequest(), timeout_s=KNOWN_S
            )
        except PenstockError:
            return None
        return known_from_proto(told)

    def gather(self, known: KnownCluster, *, before: Facts | None = None) -> Facts:
        """Return the facts of all nodes that ``known`` names; those of ``before`` are kept."""
        nodes = dict(before.nodes) if before else {}
        missing = [n for n in known.nodes if n.id not in nodes or nodes[n.id].failure]
        looked = self._each({node.id: partial(self._look_at, node) for node in missing})
        for node in missing:
            nodes[node.id] = looked.get(node.id) or NodeFacts(node.id, str(NOT_IN_TIME))
        answering = [n for n in known.nodes if not nodes[n.id].failure]
        requests = plan_all(
            answering, (v.name for v in known.volumes), wanted=self.wanted, rng=self._rng
        )
        wanted = {name: each for name, each in requests.items() if not nodes[name].examined}
        found = self._examine(wanted, {n.id: n for n in answering})
        for name in wanted:
            told = found.get(name, NOT_IN_TIME)
            if isinstance(told, Examined):
                nodes[name] = replace(nodes[name], examined=told)
            else:
                nodes[name] = replace(nodes[name], failure=str(told))
        return Facts(
            cluster=known,
            nodes=nodes,
            asker=look_around(),
            is_measured=self.wanted.measures,
            link_floor_bytes_per_s=self.wanted.link_floor_bytes_per_s,
        )

    def better_asked(self, facts: Facts) -> KnownNode | None:
        """Return a node that knows the cluster better than the one that was asked."""
        asked = facts.cluster
        newer = {
            name: each.epoch
            for name, each in facts.examined.items()
            if each.is_connected and (each.epoch > asked.epoch or not asked.is_connected)
        }
        best = max(newer, key=lambda name: newer[name], default="")
        return next((node for node in asked.nodes if node.id == best), None)

    def look_again(self, facts: Facts) -> Facts:
        """Have all that stands out looked at once more, and return the better of both."""
        answering = {n.id: n for n in facts.cluster.nodes if n.id in facts.examined}
        requests = plan_again(judge(facts), answering, facts=facts)
        nodes = dict(facts.nodes)
        found: dict[str, Examined | PenstockError] = {}
        for some in _in_turns(requests):
            found |= self._examine(some, answering)
        for name, told in found.items():
            first = nodes[name].examined
            if first is not None and isinstance(told, Examined):
                nodes[name] = replace(nodes[name], examined=combined(first, told))
        return replace(facts, nodes=nodes)

    def _look_at(self, node: KnownNode) -> NodeFacts:
        """Look whether a node answers this machine, and at its clock."""
        if not node.grpc_address:
            return NodeFacts(node.id, "nobody knows its address while it is away")
        try:
            clock = min(
                (self._clock_of(node.grpc_address) for _ in range(CLOCK_ROUNDS)),
                key=lambda each: each.uncertainty_s,
            )
        except PenstockError as error:
            # What gRPC tells after it is the same once more.
            return NodeFacts(node.id, str(error).partition("; last error")[0])
        return NodeFacts(
            node.id,
            clock=clock,
            bulk_failure=port_failure(node.bulk_address) if node.bulk_address else "",
            admin_failure=port_failure(node.admin_address) if node.admin_address else "",
        )

    def _clock_of(self, address: str) -> Clock:
        begun = time.time()
        told = self._channels.call(address, CLOCK, diagnosis_pb2.ClockRequest(), timeout_s=CLOCK_S)
        ended = time.time()
        return Clock(told.now - (begun + ended) / 2, (ended - begun) / 2)

    def _examine(
        self,
        requests: Mapping[str, diagnosis_pb2.ExamineRequest],
        nodes: Mapping[str, KnownNode],
    ) -> dict[str, Examined | PenstockError]:
        self._on_progress(0, len(requests))
        calls = {
            name: partial(self._examine_one, nodes[name].grpc_address, request)
            for name, request in requests.items()
        }
        return self._each(calls, on_progress=self._on_progress)

    def _examine_one(
        self, address: str, request: diagnosis_pb2.ExamineRequest
    ) -> Examined | PenstockError:
        while True:
            try:
                told = self._channels.call(address, EXAMINE, request, timeout_s=EXAMINE_S)
            except Overloaded as error:  # Somebody else has it examined.
                if self.seconds > ALL_S / 2:
                    return error
                time.sleep(BUSY_S)
            except PenstockError as error:
                return error
            else:
                return examined_from_proto(told)

    def _each(
        self,
        calls: Mapping[str, Callable[[], T]],
        *,
        on_progress: Progress = lambda _done, _of: None,
    ) -> dict[str, T]:
        """Return what each call returns, of those that return in time."""
        if not calls:
            return {}
        threads = ThreadPoolExecutor(min(THREADS_MAX, len(calls)), thread_name_prefix="doctor")
        found: dict[str, T] = {}
        try:
            running = {threads.submit(call): name for name, call in calls.items()}
            with contextlib.suppress(TimeoutError):
                for future in as_completed(running, timeout=max(0.0, ALL_S - self.seconds)):
                    found[running[future]] = future.result()
                    on_progress(len(found), len(calls))
            return found
        finally:
            threads.shutdown(wait=False, cancel_futures=True)

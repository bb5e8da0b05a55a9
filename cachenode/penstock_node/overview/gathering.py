"""Gathering what all nodes do, while somebody looks.

Responsible for: asking each node once a round, spread over it; what each told last; the sum of
their samples.
Not responsible for: how many are asked at once (`asking`), what becomes of it (`whole`).

A round is two seconds for up to two hundred nodes, and ten for a thousand: a node answers in less
than a millisecond of its processor, and who gathers takes a few hundredths of one. The first round
after nobody looked is not spread: who looks waits for it.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import structlog

from penstock.errors import PenstockError
from penstock.membership.view import Member
from penstock.overview import SERIES, NodeTold
from penstock.overview_messages import NODE_OVERVIEW, told_from_proto
from penstock.v1 import overview_pb2
from penstock_node.overview.asking import Asker
from penstock_node.overview.history import History, Samples, sample_at

LOOKED_AT_S = 30.0
"""For so long after somebody looked, nodes are asked."""
ROUND_S = 2.0
ASKED_PER_S = 100
"""Nodes, once all have been asked: more of them make a round longer."""
BURST_S = 0.5
"""Calls begin together that often: one by one each costs a processor three times as much."""
SILENT_S = 15.0
"""Until a node is asked again that did not answer."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Told:
    """What a node told, when (seconds since 1970), and its newest sample that is in the sum."""

    told: NodeTold
    at: float
    newest: int


class Telling(Protocol):
    """What a node tells of itself: see `own`."""

    @property
    def node_id(self) -> str:
        """Its id."""

    def told(self) -> NodeTold:
        """Return what it does now."""

    def samples_after(self, number: int) -> Samples:
        """Return its samples behind one; behind 0 are all of the hour."""


class Gathering:
    """See the module. On the event loop."""

    def __init__(
        self,
        *,
        own: Telling,
        members: Callable[[], Iterable[Member]],
        asker: Asker,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin with nothing, and ask nobody.

        Args:
            own: This node's part.
            members: Who answers at present, this node among them.
            asker: Asks the others.
            clock: Seconds since 1970.
            monotonic: Seconds, from anywhere on.
        """
        self._own, self._members, self._asker = own, members, asker
        self._clock, self._monotonic = clock, monotonic
        self._told: dict[str, Told] = {}
        self._silent_until: dict[str, float] = {}
        self._history = History()
        self._looked_at = -LOOKED_AT_S
        self._is_wanted = asyncio.Event()

    def look(self) -> None:
        """Have nodes asked from now on, for half a minute."""
        self._looked_at = self._monotonic()
        self._is_wanted.set()

    @property
    def is_looked_at(self) -> bool:
        """Whether somebody has looked of late."""
        return self._monotonic() - self._looked_at < LOOKED_AT_S

    async def wait_for_a_look(self) -> None:
        """Return at once if somebody has looked of late, else when somebody does."""
        await self._is_wanted.wait()

    @property
    def told(self) -> Mapping[str, Told]:
        """What each node told last, by its id; of this node as it is now."""
        self._take_own()
        return self._told

    def samples(self) -> Samples:
        """Return the sums of the samples that nodes told, of the last hour."""
        self._take_own()
        return self._history.since(0)

    def retain(self, nodes: Iterable[str]) -> None:
        """Forget nodes that are none of some; what they told stays in the sums."""
        for gone in self._told.keys() - set(nodes):
            del self._told[gone]

    async def run(self) -> None:
        """Ask, whenever somebody looks, for ever."""
        while True:
            await self.wait_for_a_look()
            await self.ask_round(period_s=0.0)
            while self.is_looked_at:
                await self.ask_round(period_s=round_s(len(list(self._members()))))
            self._is_wanted.clear()

    async def ask_round(self, *, period_s: float) -> None:
        """Ask all nodes once, spread over a time."""
        begun = self._monotonic()
        others = [each for each in self._members() if each.id != self._own.node_id]
        async with asyncio.TaskGroup() as group:
            for number, member in enumerate(others):
                due_s = period_s * number / len(others)
                await self._sleep_until(begun + due_s - due_s % BURST_S)
                if self._monotonic() >= self._silent_until.get(member.id, 0.0):
                    group.create_task(self._ask(member), name=f"ask {member.id} what it does")
        now = self._monotonic()
        self._silent_until = {n: until for n, until in self._silent_until.items() if until > now}
        await self._sleep_until(begun + period_s)

    async def _sleep_until(self, moment: float) -> None:
        left_s = moment - self._monotonic()
        if left_s > 0:
            await asyncio.sleep(left_s)

    async def _ask(self, member: Member) -> None:
        newest = self._newest_of(member.id)
        request = overview_pb2.NodeOverviewRequest(samples_after=newest)
        try:
            answer = await self._asker.ask(member, NODE_OVERVIEW, request)
        except PenstockError as error:
            _log.debug("a node does not tell what it does", node=member.id, error=str(error))
            self._silent_until[member.id] = self._monotonic() + SILENT_S
        else:
            self._take(member.id, told_from_proto(answer), samples_from_proto(answer.samples))

    def _newest_of(self, node: str) -> int:
        return self._told[node].newest if node in self._told else 0

    def _take_own(self) -> None:
        node = self._own.node_id
        self._take(node, self._own.told(), self._own.samples_after(self._newest_of(node)))

    def _take(self, node: str, told: NodeTold, samples: Samples) -> None:
        """Keep what a node tells, and add its samples to the sums, each of them once."""
        now, newest = self._clock(), self._newest_of(node)
        # A node whose clock is ahead must not push out what the others told.
        count = max(0, min(samples.after, sample_at(now) + 1) - samples.first)
        taken = Samples(samples.first, samples.values[:, :count])
        if count and taken.first > newest:
            self._history.add(taken)
            newest = taken.after - 1
        self._told[node] = Told(told, now, newest)


def round_s(nodes: int) -> float:
    """Return how long a round over so many nodes takes."""
    return max(ROUND_S, nodes / ASKED_PER_S)


def samples_to_proto(samples: Samples) -> overview_pb2.Samples:
    """Return samples as a message."""
    return overview_pb2.Samples(
        first=samples.first, values=samples.values.ravel().tolist(), names=SERIES
    )


def samples_from_proto(told: overview_pb2.Samples) -> Samples:
    """Return the samples of a message: the series that this version knows, NaN for one it lacks."""
    values = np.array(told.values, np.float32)
    names = list(told.names)
    count = len(values) // len(names) if names else 0
    rows = values[: count * len(names)].reshape(len(names), count)
    known = np.full((len(SERIES), count), np.nan, np.float32)
    for at, name in enumerate(SERIES):
        if name in names:
            known[at] = rows[names.index(name)]
    return Samples(told.first, known)

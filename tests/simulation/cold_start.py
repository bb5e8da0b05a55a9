"""Scenario: a whole fleet starts at once and loads one model that nobody has cached.

Real: the ring and the ids of chunks, so who owns what; the order in which a client goes through a
whole object (from a random chunk on); how many chunks a node has in flight from other nodes and
from the origin, which its lanes of memory bound; one read of the origin a chunk, by its owner.
Modelled: bytes on links (`fluid`). Chunks are sent on once they are whole. The clients of a host
share what its node fetches, each chunk once, and reading from the node costs no link. No loss, no
latency but one of a request, processors and disks as fast as needed.
That single flights hold under real code is what the histories, and `hot_object`, show.
"""

import random
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from penstock.objects import ObjectId
from penstock.placement import PlacedNode
from penstock.ring import Ring, positions_of
from penstock_node.inflight import Inflight
from tests.simulation.fluid import Links, Numbers, Places, rates

CHUNK_SIZE = 4 * 1024 * 1024
REQUEST_S = 0.0005
STEPS_A_CHUNK = 4
"""While a node's link brings in one chunk on each of its lanes, time is cut into so many steps."""
NOBODY = -1
ABSENT, FILLING, THERE = range(3)
GBIT = 1e9 / 8


@dataclass(frozen=True, slots=True)
class Scale:
    """How large it is."""

    nodes: int
    clients_a_node: int
    model_bytes: int
    links: Links


LINKS = Links(node_bytes_per_s=100 * GBIT, origin_bytes_per_s=400 * GBIT, stream_bytes_per_s=0.1e9)
FULL = Scale(nodes=1_000, clients_a_node=10, model_bytes=200 * 10**9, links=LINKS)
SMALL = Scale(nodes=30, clients_a_node=10, model_bytes=3 * 10**9, links=LINKS)


@dataclass(frozen=True, slots=True)
class ColdStart:
    """What came of it."""

    scale: Scale
    chunks: int
    origin_bytes: float
    """In models."""
    seconds: float
    bounds: dict[str, float]
    """Seconds that each kind of link needs at least."""

    @property
    def over_bound(self) -> float:
        """The time, in the bound of the busiest link."""
        return self.seconds / max(self.bounds.values())

    def __str__(self) -> str:
        scale = self.scale
        bounds = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in self.bounds.items())
        return (
            f"{scale.nodes} nodes, {scale.nodes * scale.clients_a_node} clients, "
            f"{scale.model_bytes / 1e9:.0f} GB in {self.chunks} chunks\n"
            f"origin bytes {self.origin_bytes:.2f} x; all have it after {self.seconds:.2f} s\n"
            f"bounds: {bounds}; {self.over_bound:.2f} x the busiest link's"
        )


def run(scale: Scale, *, seed: int = 1) -> ColdStart:
    """Run it."""
    fleet = _Fleet(scale, random.Random(seed))
    seconds = fleet.run()
    return ColdStart(scale, fleet.chunks, fleet.filled / fleet.chunks, seconds, fleet.bounds())


class _Fleet:
    """All transfers of all nodes. A *slot* is one chunk that a node may have in flight."""

    def __init__(self, scale: Scale, rng: random.Random) -> None:
        self._scale, nodes = scale, scale.nodes
        model = ObjectId("s3://models/large", '"v1"', scale.model_bytes, CHUNK_SIZE)
        self.chunks = model.chunk_count
        placed = [PlacedNode(f"n{at:04}", f"h{at:04}", "", 100) for at in range(nodes)]
        ids = [model.chunk_id(index) for index in range(self.chunks)]
        owners = Ring.build(placed, 4096).owner_table(positions_of(ids), 1)
        self._owners: Places = owners[:, 0].astype(np.int64)
        inflight = Inflight()
        slots = inflight.peer.bytes_max // CHUNK_SIZE
        self._fills_max = inflight.origin.bytes_max // CHUNK_SIZE
        self._hosts: Places = np.repeat(np.arange(nodes), slots)
        clients = nodes * scale.clients_a_node
        self._at: Places = np.array([rng.randrange(self.chunks) for _ in range(clients)])
        of_client = np.arange(nodes * slots) % slots % scale.clients_a_node
        self._client: Places = self._hosts * scale.clients_a_node + of_client
        self._wanted: Places = np.full(nodes * slots, NOBODY)
        self._left: Numbers = np.zeros(nodes * slots)
        self._taken: npt.NDArray[np.bool_] = np.zeros((nodes, self.chunks), np.bool_)
        self._taken_count: Places = np.zeros(nodes, np.int64)
        self._state: npt.NDArray[np.int8] = np.zeros(self.chunks, np.int8)
        self._filling: Places = np.empty(0, np.int64)
        self._fill_left: Numbers = np.empty(0)
        self._queue: Places = np.empty(0, np.int64)
        self.filled = 0
        """Chunks that were read from the origin."""

    def bounds(self) -> dict[str, float]:
        """Return the seconds that links need at least."""
        links, size = self._scale.links, float(CHUNK_SIZE)
        most = int(np.bincount(self._owners, minlength=self._scale.nodes).max())
        return {
            "origin": self.chunks * size / links.origin_bytes_per_s,
            "into a node": self.chunks * size / links.node_bytes_per_s,
            "out of the busiest": most * size * (self._scale.nodes - 1) / links.node_bytes_per_s,
        }

    def run(self) -> float:
        """Return the seconds until every node has every chunk."""
        links = self._scale.links
        slots = len(self._hosts) // self._scale.nodes
        step_s = CHUNK_SIZE * slots / links.node_bytes_per_s / STEPS_A_CHUNK
        now = 0.0
        while True:
            self._assign()
            busy = np.flatnonzero(self._wanted != NOBODY)
            if not len(busy):
                return now
            self._step(busy, step_s)
            now += step_s

    # Who wants what.

    def _assign(self) -> None:
        """Give slots that are free the next chunk that their client has not met."""
        free = np.flatnonzero(self._wanted == NOBODY)
        free = free[self._taken_count[self._hosts[free]] < self.chunks]
        while len(free):
            # Slots of one client take turns: of each client one at a time.
            _, first = np.unique(self._client[free], return_index=True)
            turn = free[first]
            at, hosts = self._at[self._client[turn]], self._hosts[turn]
            for each in np.flatnonzero(self._taken[hosts, at]).tolist():
                at[each] = self._next_new(hosts[each], at[each])
            self._at[self._client[turn]] = (at + 1) % self.chunks
            # Of two clients of a host that are at one chunk, the later goes on to the next.
            _, only = np.unique(hosts * self.chunks + at, return_index=True)
            is_new = np.zeros(len(turn), np.bool_)
            is_new[only] = True
            is_new &= ~self._taken[hosts, at]
            self._take(turn[is_new], at[is_new])
            free = free[self._wanted[free] == NOBODY]
            free = free[self._taken_count[self._hosts[free]] < self.chunks]

    def _next_new(self, host: int, at: int) -> int:
        """Return the next chunk from ``at`` on that a host has not asked for; there is one."""
        ahead = self._taken[host, at:]
        found = int(ahead.argmin())
        return at + found if not ahead[found] else int(self._taken[host, :at].argmin())

    def _take(self, slots: Places, chunks: Places) -> None:
        hosts = self._hosts[slots]
        self._taken[hosts, chunks] = True
        self._taken_count += np.bincount(hosts, minlength=self._scale.nodes)
        self._wanted[slots] = chunks
        # What a slot has left over of the step goes into its next chunk.
        self._left[slots] += CHUNK_SIZE + REQUEST_S * self._lane_bytes_per_s
        asked = np.unique(chunks[self._state[chunks] == ABSENT])
        self._state[asked] = FILLING
        self._queue = np.concatenate([self._queue, asked])

    @property
    def _lane_bytes_per_s(self) -> float:
        return self._scale.links.node_bytes_per_s * self._scale.nodes / len(self._hosts)

    # A step.

    def _step(self, busy: Places, step_s: float) -> None:
        self._begin_fills()
        chunks, hosts = self._wanted[busy], self._hosts[busy]
        there = self._state[chunks] == THERE
        is_own = self._owners[chunks] == hosts
        self._land(busy[there & is_own])
        moving = busy[there & ~is_own]
        fillers = self._owners[self._filling]
        speed, fill_speed = rates(
            self._scale.links,
            sources=self._owners[self._wanted[moving]],
            targets=self._hosts[moving],
            fillers=fillers,
            nodes=self._scale.nodes,
        )
        self._left[moving] -= speed * step_s
        done = moving[self._left[moving] <= 0.0]
        self._wanted[done] = NOBODY
        self._fill_left -= fill_speed * step_s
        self._end_fills()

    def _land(self, slots: Places) -> None:
        """End what lies on the host itself: no link is in between."""
        self._wanted[slots] = NOBODY
        self._left[slots] = 0.0

    def _begin_fills(self) -> None:
        """Have owners read the origin, so many chunks at a time as their memory takes."""
        if not len(self._queue):
            return
        crowd = np.bincount(self._owners[self._filling], minlength=self._scale.nodes)
        owners = self._owners[self._queue]
        order = np.argsort(owners, kind="stable")
        begins = np.searchsorted(owners[order], owners[order])
        place = np.empty(len(owners), np.int64)
        place[order] = np.arange(len(owners)) - begins
        may = place < self._fills_max - crowd[owners]
        begun, self._queue = self._queue[may], self._queue[~may]
        self._filling = np.concatenate([self._filling, begun])
        self._fill_left = np.concatenate([self._fill_left, np.full(len(begun), float(CHUNK_SIZE))])

    def _end_fills(self) -> None:
        ended = self._fill_left <= 0.0
        self._state[self._filling[ended]] = THERE
        self.filled += int(ended.sum())
        self._filling, self._fill_left = self._filling[~ended], self._fill_left[~ended]

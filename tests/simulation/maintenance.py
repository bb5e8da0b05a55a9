"""Scenario: weekly maintenance. Some nodes are drained, stopped, and put back under read load.

All of it is the simulated cluster of the histories: real owners, fills, hand-over and eviction. The
caches are near full and reads are skewed, so that a worse choice of what to keep shows.

What the capacity left allows is what a cluster of the remaining nodes alone has on the same reads,
window by window: of a drained cluster nobody can ask for more than of one that never was larger.
"""

import asyncio
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from penstock.settings import ClusterSettings
from penstock_node.coordination.maintenance import state_of
from penstock_node.coordination.state import ClusterState
from tests.simulation.client import SimClient
from tests.simulation.cluster import Shape, SimCluster

CHUNK_SIZE = 65_536
OBJECT_BYTES = 3_000
FILE_BYTES = 4_096
SKEW = 0.9
"""Of Zipf's law: the n-th object is read in proportion to n to the power of minus this."""
CACHED_SHARE = 0.5
"""Of all objects, what fits into the nodes together."""
CLIENTS = 8
GAP_S = 0.02
WINDOWS = 12
WARM_WINDOWS = 4
"""Before anything happens; what is read in them fills the caches."""
DRAINED_AT, BACK_AT = WARM_WINDOWS, WARM_WINDOWS + 4
"""Windows at whose beginning nodes are drained, and put back."""
CALLBACKS_MAX = 50_000_000


@dataclass(frozen=True, slots=True)
class Scale:
    """How large it is."""

    nodes: int
    out: int
    """Nodes that are drained."""
    objects: int
    reads_a_window: int


FULL = Scale(nodes=20, out=2, objects=4_000, reads_a_window=4_000)
SMALL = Scale(nodes=6, out=1, objects=300, reads_a_window=400)


@dataclass(frozen=True, slots=True)
class Maintenance:
    """Hit ratios by window, of the cluster and of the one that has the remaining nodes alone."""

    scale: Scale
    ratios: tuple[float, ...]
    allowed: tuple[float, ...]
    wrong: int
    """Reads that failed, or gave other bytes."""

    @property
    def worst_points(self) -> float:
        """The least that a window had over what is allowed, from the drain on, in points."""
        pairs = zip(self.ratios[DRAINED_AT:], self.allowed[DRAINED_AT:], strict=True)
        return min(100 * (ratio - allowed) for ratio, allowed in pairs)

    def __str__(self) -> str:
        scale = self.scale
        lines = [f"{scale.out} of {scale.nodes} nodes; hit ratio in %, by {scale.reads_a_window}"]
        for at, (ratio, allowed) in enumerate(zip(self.ratios, self.allowed, strict=True)):
            what = {0: "warming", DRAINED_AT: "drain", BACK_AT: "back"}.get(at, "")
            lines.append(f"{what:8} {100 * ratio:7.2f}  allowed {100 * allowed:7.2f}")
        lines.append(f"worst: {self.worst_points:+.2f} points; wrong reads: {self.wrong}")
        return "\n".join(lines)


def run(scale: Scale, *, seed: int = 1) -> Maintenance:
    """Run it twice: with the maintenance, and on the remaining nodes alone."""
    with_all, without = _Run(scale, seed, is_whole=True), _Run(scale, seed, is_whole=False)
    ratios, allowed = with_all.ratios(), without.ratios()
    return Maintenance(scale, ratios, allowed, with_all.wrong + without.wrong)


class _Run:
    """One cluster on the reads of a seed."""

    def __init__(self, scale: Scale, seed: int, *, is_whole: bool) -> None:
        self._scale, self._is_whole = scale, is_whole
        nodes = scale.nodes if is_whole else scale.nodes - scale.out
        capacity = int(CACHED_SHARE * scale.objects * FILE_BYTES / scale.nodes)
        shape = Shape(
            nodes=nodes,
            clients=CLIENTS,
            settings=ClusterSettings(chunk_size=CHUNK_SIZE),
            capacities=(capacity,) * nodes,
            hosts=nodes,
        )
        self._cluster = SimCluster(random.Random(seed), shape, callbacks_max=CALLBACKS_MAX)
        self._reads = _skewed(random.Random(seed + 1), scale.objects)
        self._hits = [0] * WINDOWS
        self._next, self._begun = itertools.count(), 0
        self.wrong = 0

    def ratios(self) -> tuple[float, ...]:
        """Return the hit ratio of each window."""
        with self._cluster as cluster:
            cluster.run(self._live())
        return tuple(hits / self._scale.reads_a_window for hits in self._hits)

    async def _live(self) -> None:
        cluster = self._cluster
        await cluster.start()
        for at in range(self._scale.objects):
            cluster.world.put(f"o{at}", OBJECT_BYTES, CHUNK_SIZE)
        operating = asyncio.create_task(self._operate())
        await asyncio.gather(*(self._read_on(client) for client in cluster.clients))
        await operating

    async def _read_on(self, client: SimClient) -> None:
        while (at := next(self._next)) < WINDOWS * self._scale.reads_a_window:
            subject = self._cluster.world.objects[f"o{next(self._reads)}"]
            read = await client.read(subject, 0)
            self.wrong += not (read.error is None and read.is_right)
            self._hits[at // self._scale.reads_a_window] += read.source not in ("", "origin")
            self._begun = at
            await asyncio.sleep(GAP_S * self._cluster.rng.random())

    async def _until_window(self, window: int) -> None:
        while self._begun < window * self._scale.reads_a_window:  # noqa: ASYNC110
            await asyncio.sleep(GAP_S)

    async def _operate(self) -> None:
        if not self._is_whole:
            return
        nodes = list(self._cluster.nodes.values())
        leaving, staying = nodes[: self._scale.out], nodes[-1]
        assert staying.parts is not None
        coordination = staying.parts.coordination
        await self._until_window(DRAINED_AT)
        for node in leaving:
            await coordination.operations.cordon(node.id, purpose="drain", reason="weekly")
        for node in leaving:
            await coordination.wait_for(partial(_is_drained, node.id), timeout_s=600.0)
            node.kill()
        await self._until_window(BACK_AT)
        for node in leaving:
            node.start()
        for node in leaving:
            await coordination.wait_for(partial(_is_back, node.id), timeout_s=60.0)
            await coordination.operations.uncordon(node.id)


def _is_drained(node_id: str, state: ClusterState) -> bool:
    return state_of(state, node_id) == "drained"


def _is_back(node_id: str, state: ClusterState) -> bool:
    return node_id in state.members


def _skewed(rng: random.Random, objects: int) -> Iterator[int]:
    """Yield objects for ever, by Zipf's law."""
    weights = list(itertools.accumulate((at + 1) ** -SKEW for at in range(objects)))
    order = rng.sample(range(objects), objects)
    while True:
        (found,) = rng.choices(order, cum_weights=weights)
        yield found

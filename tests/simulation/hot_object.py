"""Scenario: a thousand clients want one object at once. Who serves how much of it?

All of it is the simulated cluster of the histories: real owners, fills, routing and attempts.
"""

import asyncio
import random
from dataclasses import dataclass

from penstock.settings import ClusterSettings
from tests.simulation.client import SimClient
from tests.simulation.cluster import Shape, SimCluster

CHUNK_SIZE = 65_536
OVER_S = 2.0
"""Clients come within so long."""
CALLBACKS_MAX = 20_000_000


@dataclass(frozen=True, slots=True)
class HotObject:
    """What came of it."""

    nodes: int
    clients: int
    chunks: int
    served: tuple[int, ...]
    """Chunks served to clients by each node."""
    origin_reads: int
    wrong: int
    """Reads that failed, or gave other bytes."""

    @property
    def busiest(self) -> float:
        """What the busiest node served, in means."""
        return max(self.served) * self.nodes / sum(self.served)

    def __str__(self) -> str:
        return (
            f"{self.nodes:6} {self.clients:8} {self.chunks:7} {self.busiest:9.2f} "
            f"{self.origin_reads / self.chunks:9.2f} {self.wrong:6}"
        )


HEAD = " nodes  clients  chunks  busiest x  origin x  wrong"


def run(*, nodes: int, clients: int, chunks: int, reads: int, seed: int = 1) -> HotObject:
    """Have each client read the object ``reads`` times."""
    rng = random.Random(seed)
    capacity = 4 * chunks * 2 * CHUNK_SIZE
    shape = Shape(
        nodes=nodes,
        clients=clients,
        settings=ClusterSettings(chunk_size=CHUNK_SIZE),
        capacities=(capacity,) * nodes,
        hosts=nodes,
    )
    with SimCluster(rng, shape, callbacks_max=CALLBACKS_MAX) as cluster:
        return cluster.run(_read(cluster, chunks, reads))


async def _read(cluster: SimCluster, chunks: int, reads: int) -> HotObject:
    await cluster.start()
    subject = cluster.world.put("hot", (chunks - 1) * CHUNK_SIZE + 1000, CHUNK_SIZE)
    wrong = 0

    async def read(client: SimClient) -> None:
        nonlocal wrong
        for _ in range(reads):
            await asyncio.sleep(OVER_S * cluster.rng.random())
            first = cluster.rng.randrange(chunks)
            for at in range(chunks):  # From any chunk on, as the library reads whole objects.
                got = await client.read(subject, (first + at) % chunks)
                wrong += not (got.error is None and got.is_right)

    await asyncio.gather(*(read(client) for client in cluster.clients))
    served = tuple(node.parts.served for node in cluster.nodes.values() if node.parts)
    return HotObject(
        len(cluster.nodes),
        len(cluster.clients),
        chunks,
        served,
        cluster.world.reads.total(),
        wrong,
    )

"""A simulated node: the product's own parts, put together as `penstock_node.node` does.

Responsible for: the order of starting, what a kill leaves (the disk, the last view), starting
again after a failure as a supervisor of services would.
Not responsible for: what the parts do; the edges that they are given (`edges`).
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.errors import PenstockError
from penstock.membership.view import Member, View
from penstock.settings import ClusterSettings
from penstock_node.chunk import Chunk, Filled
from penstock_node.chunks import Chunks
from penstock_node.cluster import Cluster
from penstock_node.coordination import Announcement, ClusterDefaults, Coordination
from penstock_node.coordination.clock import Clock
from penstock_node.coordination.coordination import VIEW_FILE
from penstock_node.coordination.formation import FormationTimes
from penstock_node.coordination.state import ClusterState
from penstock_node.coordination.view_file import FileAccess
from penstock_node.demand import Demand
from penstock_node.fill import Filler
from penstock_node.flights import Flight
from penstock_node.handover.handover import Handover
from penstock_node.handover.spreading import Spreading
from penstock_node.incoming import Incoming
from penstock_node.inflight import Inflight
from penstock_node.keeping import Keeping
from penstock_node.metrics import NodeMetrics
from penstock_node.ownership import Duty
from penstock_node.serve.handover_service import HandoverService
from penstock_node.store import Store
from penstock_node.store.eviction import Reason
from penstock_node.traces import Traces
from tests.simulation.clock import Process, SimExecutor, SimLoop
from tests.simulation.coordinator import Connection
from tests.simulation.coordinator import Store as KeyStore
from tests.simulation.disk import Platter, SimTier
from tests.simulation.edges import SimAsking, SimOrigins, SimPeers
from tests.simulation.network import Network
from tests.simulation.origin import World
from tests.simulation.trace import Trace

CLUSTER = "simulated"
RESTARTS_AFTER_S = 1.0
SCAN_S_MAX = 2.0
WALL_S = 1.7e9
"""What the clock on the wall says at the beginning."""
QUIET_S = 0.3


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all nodes of a cluster share."""

    loop: SimLoop
    rng: random.Random
    network: Network
    keys: KeyStore
    world: World
    trace: Trace
    settings: ClusterSettings
    inflight_bytes: int


class WatchedFiller(Filler):
    """Fills, and notes since when."""

    def __init__(self, *, clock: Callable[[], float], **parts: Any) -> None:
        super().__init__(**parts)
        self._clock = clock
        self.began: dict[bytes, tuple[float, View]] = {}
        """When the latest fill of each chunk began, and what was known of the cluster then."""

    def start(self, chunk: Chunk, duty: Duty, *, reason: Reason = "read") -> Flight[Filled]:
        if self.running(chunk) is None:
            self.began[chunk.id] = self._clock(), self._cluster.view
        return super().start(chunk, duty, reason=reason)


class Parts:
    """One process of a node: everything that is gone when it is killed."""

    def __init__(self, node: "SimNode", number: int) -> None:
        loop = node.around.loop
        self._node, self._around, self.loop = node, node.around, loop
        self.took_at = loop.time()
        """When a newer placement came into force."""
        self.served = 0
        """Chunks given to clients."""
        self._threads = SimExecutor(loop)
        self.process = Process(node.id)
        self.process.runs = self
        self.tier = SimTier(node.platter, node.capacity_bytes, "owned", loop=loop)
        self.store = Store([self.tier])
        self._state_dir = Path("/simulated") / node.id
        self.coordination = self._coordination(number)
        self.cluster = Cluster(
            node_id=node.id,
            name=CLUSTER,
            was_away=self._state_dir / VIEW_FILE in node.files,
            clock=self._wall,
            monotonic=loop.time,
            rng=self._around.rng,
        )
        self._inflight = Inflight(self._around.inflight_bytes)
        self._metrics = NodeMetrics(version="simulated", inflight=self._inflight)
        self._traces = Traces(self._node.id)
        self._peers = SimPeers(self.cluster, self._around.network)
        self._incoming = Incoming()
        self.filler = self._filled()
        self.handover = self._handed_over()
        self.handover_service = HandoverService(
            giving=self.handover.giving, copying=self.handover.copying
        )
        self.chunks = Chunks(
            cluster=self.cluster,
            coordination=self.coordination,
            store=self.store,
            filler=self.filler,
            peers=self._peers,
            traces=self._traces,
            threads=self._threads,
        )
        self.spreading = Spreading(
            cluster=self.cluster,
            make_copies=self.handover.copying.spread,
            loop=loop,
            clock=loop.time,
        )

    def _wall(self) -> float:
        return WALL_S + self.loop.time()

    def _coordination(self, number: int) -> Coordination:
        node = self._node
        member = Member(
            id=node.id,
            host=node.host,
            grpc_address=f"{node.id}:7400",
            bulk_address=f"{node.id}:7401",
            incarnation=f"{node.id}-{number}",
        )
        return Coordination(
            Connection(self._around.keys, node.id),
            Announcement(
                member=member,
                machine_id=node.host,
                state_dir=self._state_dir,
                owned_capacity_bytes=node.capacity_bytes,
            ),
            ClusterDefaults(
                cluster=CLUSTER,
                settings=self._around.settings,
                formation=FormationTimes(quiet_s=QUIET_S, longest_s=5 * QUIET_S),
            ),
            where="the simulated store",
            clock=Clock(self.loop.time, self._wall, self._around.rng.randbytes),
            view_access=FileAccess(node.read_file, node.write_file),
        )

    def _filled(self) -> WatchedFiller:
        return WatchedFiller(
            clock=self.loop.time,
            cluster=self.cluster,
            keeping=Keeping(store=self.store, threads=self._threads),
            peers=self._peers,
            origins=SimOrigins(self._node.id, self._around.world),
            inflight=self._inflight,
            incoming=self._incoming,
            metrics=self._metrics,
            traces=self._traces,
            demand=Demand(capacity_bytes=lambda: self.store.owned_capacity_bytes, clock=self._wall),
            on_changed=_ignore_change,
        )

    def _handed_over(self) -> Handover:
        return Handover(
            cluster=self.cluster,
            store=self.store,
            filler=self.filler,
            peers=self._peers,
            inflight=self._inflight,
            asking=SimAsking(self._node.id, self._around.network),
            metrics=self._metrics,
            incoming=self._incoming,
            disk_threads=self._threads,
            clock=self.loop.time,
            rng=self._around.rng,
        )

    async def run(self, scan_s: float) -> None:
        """Join, and do what a node does for as long as it lives.

        Raises:
            PenstockError: It cannot start, or not go on.
        """
        end_scan = self.tier.begin_scan()
        self.loop.call_later(scan_s, end_scan)
        await self.coordination.start()
        await self.cluster.take(self.coordination.state)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow())
            group.create_task(self.handover.run(self._announce_settled))
            group.create_task(self._fail())

    async def _fail(self) -> None:
        raise await self.coordination.failed()

    def _announce_settled(self, epoch: int) -> None:
        self.coordination.announce(settled_epoch=epoch)

    async def _follow(self) -> None:
        news = asyncio.Event()

        def tell(_state: ClusterState) -> None:
            news.set()

        self.coordination.subscribe(tell)
        while True:
            before = self.cluster.epoch
            await self.cluster.take(self.coordination.state)
            if self.cluster.epoch > before:
                self.took_at = self.loop.time()
            self.coordination.announce(seen_epoch=self.cluster.epoch)
            await news.wait()
            news.clear()


async def _ignore_change(_chunk: Chunk) -> None:
    """Opening is not simulated: clients ask the origin themselves."""


class SimNode:
    """A machine with a disk, on which the process of a node runs, or not."""

    def __init__(
        self, node_id: str, around: Surroundings, *, host: str, capacity_bytes: int
    ) -> None:
        self.id, self.host, self.around = node_id, host, around
        self.capacity_bytes = capacity_bytes
        self.platter = Platter(around.rng)
        self.parts: Parts | None = None
        self.unsteady_at = 0.0
        """When something last happened to it."""
        self.troubled_at: list[float] = []
        """Every time that something happened to it."""
        self._starts = 0
        self.files: dict[Path, bytes] = {}
        """In its state directory."""

    def read_file(self, path: Path) -> bytes:
        """Return a file's content; raises FileNotFoundError."""
        if path not in self.files:
            raise FileNotFoundError(path)
        return self.files[path]

    def write_file(self, path: Path, content: bytes) -> None:
        """Replace a file."""
        self.files[path] = content

    @property
    def is_up(self) -> bool:
        """Whether its process runs, and is not stopped."""
        return self.parts is not None and not self.parts.process.is_stopped

    def start(self) -> None:
        """Start the process, which is started again if it ends by itself."""
        assert self.parts is None, f"{self.id} runs"
        self._starts += 1
        parts = self.parts = Parts(self, self._starts)
        self.around.network.processes[self.id] = parts.process
        scan_s = SCAN_S_MAX * self.around.rng.random()
        running = self.around.loop.spawn(parts.process, parts.run(scan_s), name=self.id)
        running.add_done_callback(lambda done: self._ended(parts, done))
        self._note("starts")

    def _ended(self, parts: Parts, done: "asyncio.Task[None]") -> None:
        if done.cancelled() or self.parts is not parts:
            return
        self._note("ends by itself:", repr(_first(done.exception())))
        self.kill()
        self.around.loop.call_later(RESTARTS_AFTER_S, self._restart)

    def _restart(self) -> None:
        if self.parts is None:
            self.start()

    def kill(self, *, is_power_lost: bool = False) -> None:
        """End the process as `kill -9` does, or with its machine, which breaks no connection."""
        assert self.parts is not None
        self.parts.process.is_dead = True
        del self.around.network.processes[self.id]
        if not is_power_lost:
            self.around.network.reset(self.id)
        self.parts = None
        self._note("is killed")

    def stop(self) -> None:
        """Stop the process as SIGSTOP does."""
        assert self.parts is not None
        self.parts.process.is_stopped = True
        self._note("is stopped")

    def resume(self) -> None:
        """Let a stopped process go on."""
        assert self.parts is not None
        self.around.loop.resume(self.parts.process)
        self._note("goes on")

    def _note(self, *what: object) -> None:
        self.unsteady_at = self.around.loop.time()
        self.troubled_at.append(self.unsteady_at)
        self.around.trace(self.id, *what)


def _first(error: BaseException | None) -> BaseException | None:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if error is not None and not isinstance(error, PenstockError):
        raise error
    return error

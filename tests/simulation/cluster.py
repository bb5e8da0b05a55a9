"""A whole simulated cluster: nodes, clients, the origin, the store of keys, and faults.

Responsible for: putting it together, the verbs that a history is made of, ending it.
Not responsible for: which verbs when (`history`), what must hold (`checks`).
"""

import asyncio
import gc
import logging
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog

from penstock.settings import ClusterSettings
from penstock_node.coordination.records import VOLUMES, volume_to_json
from penstock_node.inflight import BYTES_MAX_DEFAULT
from tests.simulation.client import SimClient
from tests.simulation.clock import SimLoop
from tests.simulation.coordinator import NAME as KEYS
from tests.simulation.coordinator import Store as KeyStore
from tests.simulation.network import Network
from tests.simulation.node import SimNode, Surroundings
from tests.simulation.origin import URL, VOLUME, World
from tests.simulation.trace import Trace

T = TypeVar("T")

LOOK_S = 0.25
"""Between looks whether all is settled."""


def _ignore(*_news: object) -> None:
    """Watch nothing."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How large a cluster is."""

    nodes: int
    clients: int
    settings: ClusterSettings
    capacities: tuple[int, ...]
    """Owned bytes of each node."""
    hosts: int
    """Machines that the nodes lie on; no more than nodes."""
    inflight_bytes: int = BYTES_MAX_DEFAULT
    """Of payload on its way in each node."""


class SimCluster:
    """Everything of one simulation. Use it in a ``with``."""

    def __init__(
        self,
        rng: random.Random,
        shape: Shape,
        *,
        callbacks_max: int,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self.rng, self.shape = rng, shape
        self.loop = SimLoop(rng, callbacks_max=callbacks_max)  # type: ignore[abstract]
        self.trace = Trace(self.loop.time, tell=tell)
        self.network = Network(self.loop, rng)
        self.keys = KeyStore(self.network, rng)
        self.world = World(self.loop, rng)
        around = Surroundings(
            loop=self.loop,
            rng=rng,
            network=self.network,
            keys=self.keys,
            world=self.world,
            trace=self.trace,
            settings=shape.settings,
            inflight_bytes=shape.inflight_bytes,
        )
        self.nodes = {
            node_id: SimNode(node_id, around, host=f"h{at % shape.hosts}", capacity_bytes=capacity)
            for at, capacity in enumerate(shape.capacities)
            for node_id in (f"n{at}",)
        }
        self.clients = [
            SimClient(f"c{at}", self.network, self.nodes, rng) for at in range(shape.clients)
        ]
        self.keys.put(VOLUMES + VOLUME, volume_to_json({"url": URL}))
        self.links_changed_at = 0.0
        """When a link was last cut, or mended."""
        self.ever_rotten: set[bytes] = set()
        """The chunks of which a copy has rotted, anywhere."""

    def __enter__(self) -> "SimCluster":
        # What nodes log is for people; the trace has what happened.
        self._logging = structlog.get_config()
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
        # When it runs is no part of a seed; and whoever waits for what it alone frees is found.
        self._collects = gc.isenabled()
        gc.disable()
        return self

    def __exit__(self, *_error: object) -> None:
        structlog.configure(**self._logging)
        if self._collects:
            gc.enable()
        for node in self.nodes.values():
            node.platter.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what ``work`` does, as the main task; then everything ends."""

        async def run() -> T:
            try:
                return await work
            finally:
                self._watch_no_more()  # What the dead had in hand is done now, and means nothing.
                await self.loop.end()

        value: T = self.loop.run_until_complete(run())
        return value

    def _watch_no_more(self) -> None:
        self.keys.watch = self.world.watch = _ignore
        for node in self.nodes.values():
            node.platter.watch = _ignore

    async def start(self) -> None:
        """Start all nodes, and wait until they are a cluster."""
        for node in self.nodes.values():
            node.start()
        await self.until_settled(timeout_s=60.0)

    async def until_settled(self, *, timeout_s: float, epoch_min: int = 1) -> None:
        """Wait until `is_settled`.

        Raises:
            TimeoutError: It is not in time.
        """
        async with asyncio.timeout(timeout_s):
            while not self.is_settled(epoch_min=epoch_min):  # noqa: ASYNC110 - seen from outside
                await asyncio.sleep(LOOK_S)

    # Faults.

    def note(self, *what: object) -> None:
        """Note something that happens to the cluster."""
        self.trace(*map(str, what))

    def cut(self, one: str, other: str) -> None:
        """Cut the link between two nodes, or a node and the store of keys."""
        self.note("cut", one, other)
        self.links_changed_at = self.loop.time()
        self.network.cut(one, other)

    def heal(self) -> None:
        """Mend all links; the store of keys is told, whose watches wait."""
        self.note("heal")
        self.links_changed_at = self.loop.time()
        self.network.heal()
        self.keys.set_up(is_up=self.keys.is_up)

    def set_keys_up(self, *, is_up: bool) -> None:
        """Have the store of keys go away, or come back."""
        self.note("the coordinator is", "back" if is_up else "away")
        self.keys.set_up(is_up=is_up)

    def set_origin_up(self, *, is_up: bool) -> None:
        """Have the origin go away, or come back."""
        self.note("the origin is", "back" if is_up else "away")
        self.world.set_up(is_up=is_up)

    def mend(self) -> None:
        """End all faults."""
        self.heal()
        if not self.keys.is_up:
            self.set_keys_up(is_up=True)
        self.set_origin_up(is_up=True)
        self.world.is_slow = False
        for node in self.nodes.values():
            node.platter.is_full_by_others = node.platter.is_slow = False
            if node.parts is None:
                node.start()
            elif node.parts.process.is_stopped:
                node.resume()

    # States.

    def is_settled(self, *, epoch_min: int) -> bool:
        """Tell whether every node knows that every node has handed over all, at one epoch."""
        views = []
        for node in self.nodes.values():
            if node.parts is None or node.parts.cluster.routing.view is None:
                return False
            views.append(node.parts.cluster.view)
        epochs = {view.placement.epoch for view in views}
        return (
            len(epochs) == 1
            and min(epochs) >= epoch_min
            and all(
                view.members.keys() == self.nodes.keys()
                and {member.settled_epoch for member in view.members.values()} == epochs
                for view in views
            )
        )


__all__ = ["KEYS", "Shape", "SimCluster"]

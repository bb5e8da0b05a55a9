"""Short random histories of a small cluster: readers, operators and faults, all from one seed.

Responsible for: what happens when. First faults come while clients read, and all that must hold is
checked at each step; then the faults end, and everything must come to its place.
Not responsible for: what must hold (`checks`), the cluster (`cluster`).
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass

from penstock.errors import PenstockError
from penstock.settings import ClusterSettings
from penstock_node.inflight import BYTES_MAX_DEFAULT, LANE_SHARES
from tests.simulation.checks import Broken, Checks
from tests.simulation.client import SimClient
from tests.simulation.cluster import KEYS, Shape, SimCluster
from tests.simulation.node import SimNode

CALLBACKS_MAX = 300_000
CHUNK_SIZE = 65_536
SMALL_BYTES = 900
FILE_BYTES_MAX = 17 * 4096
SETTLED_S_MAX = 300.0
SHORT_SHARE = 0.8
"""Of histories, those of three or four nodes and a few steps: most of what can break needs no more,
and more of them are lived through in the same time."""
ACT_SHARE = 0.4
"""Of all that can happen, what may in one history."""
COPIED_S = 3.0
"""By then what came at last is copied."""
READ_GAP_S = 0.5
STEP_GAP_S = 0.7


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a history."""

    seed: int
    digest: str
    lines: int
    virtual_s: float
    counts: dict[str, int]


def _file_bytes(size: int) -> int:
    """Return what the chunks of an object take on a disk, about."""
    return FILE_BYTES_MAX * (size // CHUNK_SIZE) + 2 * 4096


class History:
    """One history."""

    def __init__(self, seed: int, *, tell: Callable[[str], None] | None = None) -> None:
        self.seed = seed
        self._rng = random.Random(seed)
        self._is_short = self._rng.random() < SHORT_SHARE
        self._is_ample = self._rng.random() < 0.6
        shape = self._shape()
        self._cluster = SimCluster(self._rng, shape, callbacks_max=CALLBACKS_MAX, tell=tell)
        self._checks = Checks(self._cluster)
        self._reading: list[asyncio.Task[None]] = []
        self._is_over = False
        self._acts = self._some_acts()
        self._may_lack_copies = False
        """What an owner lacks comes with the next placement, and not before."""

    def _shape(self) -> Shape:
        rng = self._rng
        nodes = rng.choice((3, 3, 4) if self._is_short else (3, 3, 4, 4, 5, 6, 8))
        self._sizes = [
            (chunks - 1) * CHUNK_SIZE + SMALL_BYTES
            for chunks in rng.choices((1, 2, 3), (18, 2, 1), k=rng.randint(4, self._longest(8, 18)))
        ]
        everything = sum(_file_bytes(size) for size in self._sizes)
        capacity = 4 * everything if self._is_ample else max(everything // nodes, FILE_BYTES_MAX)
        settings = ClusterSettings(
            chunk_size=CHUNK_SIZE,
            replicas=rng.choice((1, 1, 2, 2, 3)),
            points_per_100=rng.choice((16, 64)),
            lease_ttl_s=2.0,
            departure_grace_s=rng.choice((2.0, 60.0)),
            repair_after_s=rng.choice((1.0, 60.0)),
            handoff_bytes_per_s=rng.choice((1_000_000, 20_000_000)),
        )
        return Shape(
            nodes=nodes,
            clients=rng.choice((1, 1, 2, 3)),
            settings=settings,
            capacities=tuple(capacity * rng.choice((1, 1, 2)) for _ in range(nodes)),
            hosts=rng.choice((nodes, nodes, max(1, nodes - 1))),
            # Room for one chunk in each lane: whoever waits in a circle waits for ever.
            inflight_bytes=rng.choice((BYTES_MAX_DEFAULT, LANE_SHARES * settings.chunk_size)),
        )

    def _longest(self, short: int, long: int) -> int:
        return short if self._is_short else long

    def run(self) -> Outcome:
        """Live it.

        Raises:
            Broken: Something that must hold did not.
        """
        with self._cluster as cluster:
            try:
                cluster.run(self._live())
            except Broken as error:  # What was found first, perhaps in the midst of a node's code.
                raise self._checks.broken[0] if self._checks.broken else error from None
            if self._checks.broken:
                raise self._checks.broken[0]
            if cluster.loop.failures:
                raise Broken(f"nobody handled: {cluster.loop.failures[0]}")
            trace = cluster.trace
            return Outcome(
                self.seed, trace.digest, trace.count, cluster.loop.time(), self._checks.counts
            )

    async def _live(self) -> None:
        self._write_objects()
        await self._cluster.start()
        self._cluster.trace("the cluster has formed")
        self._reading = [
            asyncio.create_task(self._read_on(client)) for client in self._cluster.clients
        ]
        for _ in range(self._rng.randint(3, self._longest(9, 20))):
            await self._step()
            self._look_at_readers()
        await self._end()

    def _write_objects(self) -> None:
        for at, size in enumerate(self._sizes):
            self._put(f"o{at}", size)

    def _put(self, path: str, size: int) -> None:
        subject = self._cluster.world.put(path, size, CHUNK_SIZE)
        self._cluster.trace("written:", path, subject.version, subject.chunk_count)

    # Readers.

    async def _read_on(self, client: SimClient) -> None:
        while not self._is_over:
            paths = sorted(self._cluster.world.objects)
            await self._read(client, paths[int(len(paths) * self._rng.random() ** 2)])
            await asyncio.sleep(READ_GAP_S * self._rng.random())

    async def _read(self, client: SimClient, path: str) -> None:
        subject = self._cluster.world.objects[path]
        for index in self._rng.sample(range(subject.chunk_count), subject.chunk_count):
            read = await client.read(subject, index)
            told = read.source or repr(read.error)
            self._cluster.trace(client.name, "reads", path, subject.version, index, told)
            self._checks.read_ended(read)

    def _look_at_readers(self) -> None:
        for task in self._reading:
            if task.done():
                task.result()

    # Steps.

    async def _step(self) -> None:
        await asyncio.sleep(STEP_GAP_S * self._rng.random())
        self._rng.choice(self._acts)()

    def _some_acts(self) -> list[Callable[[], None]]:
        """Return what may happen in this history: where all may, little has time to sink in."""
        others = (
            self._stop_or_resume,
            self._overwrite,
            self._cut_or_heal,
            self._keys_away_or_back,
            self._origin_away_or_back,
            self._origin_slow_or_not,
            self._weigh,
            self._drain_or_put_back,
            self._fill_disk_or_free,
            self._rot,
            self._replace_disk,
            self._lose_keys,
            self._set_copies,
            self._end_lease,
        )
        chosen = [act for act in others if self._rng.random() < ACT_SHARE]
        return [self._kill_or_start, self._kill_or_start, *chosen]

    def _some_node(self) -> SimNode:
        return self._rng.choice(list(self._cluster.nodes.values()))

    def _kill_or_start(self) -> None:
        node = self._some_node()
        if node.parts is None:
            node.start()
        else:
            node.kill(is_power_lost=self._rng.random() < 0.3)

    def _stop_or_resume(self) -> None:
        node = self._some_node()
        if node.parts is None:
            return
        if node.parts.process.is_stopped:
            node.resume()
        else:
            node.stop()

    def _overwrite(self) -> None:
        """Write a new version; what was cached of the old one stays until it is evicted."""
        path = self._rng.choice(sorted(self._cluster.world.objects))
        self._put(path, self._cluster.world.objects[path].size)

    def _cut_or_heal(self) -> None:
        if not self._cluster.network.is_whole:
            self._cluster.heal()
            return
        names = [*self._cluster.nodes, KEYS]
        one, other = self._rng.sample(names, 2)
        self._cluster.cut(one, other)

    def _keys_away_or_back(self) -> None:
        self._cluster.set_keys_up(is_up=not self._cluster.keys.is_up)

    def _origin_away_or_back(self) -> None:
        self._cluster.set_origin_up(is_up=not self._cluster.world.is_up)

    def _origin_slow_or_not(self) -> None:
        world = self._cluster.world
        world.is_slow = not world.is_slow
        self._cluster.trace("the origin is", "slow" if world.is_slow else "quick")

    def _fill_disk_or_free(self) -> None:
        node = self._some_node()
        self._may_lack_copies = True
        node.platter.is_full_by_others = not node.platter.is_full_by_others
        self._cluster.note(node.id, "disk full:", node.platter.is_full_by_others)

    def _rot(self) -> None:
        node = self._some_node()
        if node.platter.chunks:
            chunk_id = self._rng.choice(sorted(node.platter.chunks))
            node.platter.rot(chunk_id)
            self._cluster.ever_rotten.add(chunk_id)
            self._cluster.note(node.id, "a byte rots in", chunk_id.hex())

    def _replace_disk(self) -> None:
        """Have a node start with an empty disk. No list is made for that alone."""
        node = self._some_node()
        if node.parts is None:
            self._cluster.note(node.id, "has a new disk")
            node.platter.lose_all()
            self._may_lack_copies = True
            node.start()

    def _lose_keys(self) -> None:
        """Have the store of keys lose all: the nodes give it back what they know."""
        if self._rng.random() < 0.3:
            self._cluster.note("the coordinator has lost everything")
            self._cluster.keys.wipe()

    def _end_lease(self) -> None:
        node = self._some_node()
        self._cluster.note(node.id, "loses its lease")
        self._cluster.keys.end_leases_of(node.id)

    def _set_copies(self) -> None:
        """Change how many owners keep a chunk. What that asks for comes with the next placement."""
        replicas = self._rng.choice((1, 2, 3))
        self._may_lack_copies = True
        self._operate(
            self._some_node(),
            f"replicas {replicas}",
            lambda by: by.set_settings({"replicas": replicas}),
        )

    def _weigh(self) -> None:
        node, weight = self._some_node(), self._rng.choice((None, 50, 100, 100, 200, 300))
        self._operate(
            node, f"weight {weight}", lambda by: by.set_weights({node.id: weight}, reason="")
        )

    def _drain_or_put_back(self) -> None:
        node = self._some_node()
        if self._rng.random() < 0.5:
            self._operate(
                node, "drain", lambda by: by.cordon(node.id, purpose="drain", reason="simulated")
            )
        else:
            self._operate(node, "uncordon", lambda by: by.uncordon(node.id))

    def _operate(self, node: SimNode, what: str, act: Callable[..., object]) -> None:
        """Have an operator do something through any node that is up."""
        by = self._some_node()
        if by.parts is None or not by.is_up or by.parts.cluster.epoch == 0:
            return
        self._cluster.note(what, node.id, "by", by.id)
        parts = by.parts

        async def operate() -> None:
            try:
                await act(parts.coordination.operations)  # type: ignore[misc]
            except PenstockError as error:
                self._cluster.trace(what, node.id, "is refused:", repr(error))

        self._cluster.loop.spawn(parts.process, operate(), name=what)

    # The end.

    async def _end(self) -> None:
        """End the faults; then everything must finish."""
        self._cluster.mend()
        self._is_over = True
        await asyncio.gather(*self._reading)
        await self._until_settled("after the faults")
        await asyncio.sleep(COPIED_S)
        if self._is_ample and not self._may_lack_copies:
            self._checks.all_is_in_place(but_for_troubled=True)
        epoch = await self._change_placement()
        await self._until_settled("after one more change", epoch_min=epoch)
        if self._is_ample:
            self._checks.all_is_in_place(but_for_troubled=False)
        await self._read_all()

    async def _until_settled(self, what: str, *, epoch_min: int = 1) -> None:
        try:
            await self._cluster.until_settled(timeout_s=SETTLED_S_MAX, epoch_min=epoch_min)
        except TimeoutError as error:
            raise Broken(f"{what}, and it never settles") from error
        self._cluster.trace("settled:", what)

    async def _change_placement(self) -> int:
        """Change a weight: what was lost of copies on the way is on the next lists."""
        parts = next(iter(self._cluster.nodes.values())).parts
        assert parts is not None
        state = parts.coordination.state
        assert state.placement is not None
        epoch = state.epoch
        node = next(node for node in state.placement.nodes if node.weight > 0)
        self._cluster.note("weight", node.id, node.weight + 1)
        await self._cluster.loop.spawn(
            parts.process,
            parts.coordination.operations.set_weights({node.id: node.weight + 1}, reason=""),
            name="weigh",
        )
        assert parts.coordination.state.epoch > epoch
        return parts.coordination.state.epoch

    async def _read_all(self) -> None:
        """Read everything once more: that costs the origin what no disk has."""
        world, client = self._cluster.world, self._cluster.clients[0]
        before = world.reads.total()
        lost = 0
        for path in sorted(world.objects):
            subject = world.objects[path]
            ids = [subject.chunk_id(index) for index in range(subject.chunk_count)]
            lost += sum(self._checks.is_lost(each) for each in ids)
            await self._read(client, path)
        asked = world.reads.total() - before
        self._cluster.trace("all is read:", asked, "from the origin,", lost, "were lost")
        if self._is_ample and asked > lost:
            raise Broken(f"the origin was asked for {asked} chunks, and {lost} were lost")

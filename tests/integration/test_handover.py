"""Hand-over over real nodes: after a change nobody asks the origin for what the cluster holds."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

import penstock
from penstock import operator
from penstock.object_info import ChunkLocation
from penstock_node.testbed.cluster import NodeProcess, NodeSpec, TierSpec
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.processes import wait_until
from penstock_node.testbed.s3 import S3Server
from penstock_node.testbed.site import MIB, Site, StoredObject

pytestmark = pytest.mark.timeout(180)  # So that a wait ends first, and says what for.

DEADLINE_S = 60.0
CHUNK_BYTES = 64 * 1024
OBJECT_BYTES = 16 * MIB
NODES = ("n1", "n2", "n3")
LONG_LEASE_S = 30.0
SLOW = {"handoff_bytes_per_s": 1_000_000}
FAST = {"handoff_bytes_per_s": 1_000_000_000}


MORE = 10
MORE_BYTES = 16 * MIB
"""What each of the more owns: enough for all that could come to it."""


def spec(name: str, *, capacity: int = 128 * MIB, **config: object) -> NodeSpec:
    return NodeSpec(name, (TierSpec("owned", capacity),), config)


class Moving:
    """A site whose placement changes, with one object that is cached."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.stored = site.put("model.bin", size=OBJECT_BYTES)
        with site.cluster.connect() as cache:
            assert cache.read(self.stored.url) == self.stored.data

    def set_weights(self, **weights: int | None) -> int:
        """Change weights; returns the epoch of that."""
        with operator.connect(self.site.address) as connected:
            return connected.set_weights(weights).epoch

    def wait_acted_on(self, epoch: int) -> None:
        """Wait until every node acts on an epoch."""
        what = f"all nodes act on epoch {epoch}"
        wait_until(lambda: self.site.epochs() == {epoch}, deadline_s=DEADLINE_S, what=what)

    def wait_more_moved(self) -> None:
        """Wait until something has moved from now on."""
        before = self.moved_bytes()
        wait_until(
            lambda: self.moved_bytes() > before, deadline_s=DEADLINE_S, what="some have moved"
        )

    def wait_copied(self) -> None:
        """Wait until each chunk is at all of its owners."""

        def is_copied() -> bool:
            return all(set(chunk.owners) <= set(chunk.held_by) for chunk in self.chunks())

        wait_until(is_copied, deadline_s=DEADLINE_S, what="each chunk is at its owners")

    def settle(self) -> None:
        """Wait until every member has handed over all that it has."""
        self.site.cluster.wait_settled(deadline_s=DEADLINE_S)

    def sent_by_origin(self) -> float:
        """Return what running nodes, and the origin itself, say that it sent."""
        counted = self.site.s3.counters().sent_bytes
        return counted + self.site.cluster.total("penstock_origin_bytes_total")

    def moved_bytes(self) -> float:
        return self.site.cluster.total("penstock_handoff_bytes_total")

    def chunks(self) -> tuple[ChunkLocation, ...]:
        with self.site.cluster.connect() as cache:
            return cache.locate(self.stored.url).chunks

    def check_whole(self) -> None:
        """Each chunk is at its owners, and a reader gets the object from there."""
        sent = self.sent_by_origin()
        with self.site.cluster.connect() as cache:
            located = cache.locate(self.stored.url)
            assert all(set(chunk.owners) <= set(chunk.held_by) for chunk in located.chunks)
            assert cache.read(self.stored.url) == self.stored.data
        assert self.sent_by_origin() == sent


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


@pytest.fixture
def start(stack: ExitStack, tmp_path: Path, s3: S3Server, etcd: EtcdServer) -> "Starter":
    return Starter(stack, tmp_path, s3, etcd)


class Starter:
    """Starts sites of a test's own."""

    _numbers = itertools.count()

    def __init__(self, stack: ExitStack, path: Path, s3: S3Server, etcd: EtcdServer) -> None:
        self._stack, self._path, self._s3, self._etcd = stack, path, s3, etcd

    def __call__(self, *specs: NodeSpec, **settings: float) -> Moving:
        directory = self._path / f"handover-{next(self._numbers)}"
        # A lease that ends, on a busy machine, has others stand in: their chunks count as moved.
        settings = {"chunk_size": CHUNK_BYTES, "lease_ttl_s": LONG_LEASE_S, **FAST, **settings}
        site = Site(directory, self._s3, self._etcd, nodes=specs, settings=settings)
        self._stack.enter_context(site)
        return Moving(site)


def shares(stored: StoredObject, cache: penstock.Cache) -> dict[str, set[int]]:
    """Return the chunks of which each node is the first owner."""
    owned: dict[str, set[int]] = {}
    for chunk in cache.locate(stored.url).chunks:
        owned.setdefault(chunk.owners[0], set()).add(chunk.index)
    return owned


def least_moved(before: Sequence[ChunkLocation], after: Sequence[ChunkLocation]) -> int:
    """Return the bytes that any way from one placement to another has to move."""
    return CHUNK_BYTES * sum(
        len(set(now.owners) - set(then.owners)) for then, now in zip(before, after, strict=True)
    )


def test_a_raised_weight_moves_what_the_ring_says_and_asks_the_origin_for_nothing(
    start: Starter,
) -> None:
    moving = start(*map(spec, NODES))
    moving.settle()
    sent = moving.sent_by_origin()
    with moving.site.cluster.connect() as cache:
        before = shares(moving.stored, cache)

    moving.set_weights(n1=300)
    moving.settle()

    with moving.site.cluster.connect() as cache:
        after = shares(moving.stored, cache)
    gained = after["n1"] - before["n1"]
    assert gained
    assert moving.sent_by_origin() == sent
    # What moves is what changed owners: the last chunk alone is shorter.
    assert len(gained) * CHUNK_BYTES - moving.moved_bytes() in range(CHUNK_BYTES)
    moving.check_whole()


def test_a_node_of_weight_nothing_hands_over_all_and_may_stop(start: Starter) -> None:
    moving = start(*map(spec, NODES))
    moving.settle()

    moving.set_weights(n2=0)
    moving.settle()
    moving.site.cluster["n2"].stop()

    moving.check_whole()


def test_a_machine_that_comes_back_has_its_chunks_still(start: Starter) -> None:
    moving = start(*map(spec, NODES))
    moving.settle()
    moving.set_weights(n2=0)
    moving.settle()
    node = moving.site.cluster["n2"]
    node.stop()
    node.start()
    moved = moving.moved_bytes()

    moving.set_weights(n2=None)
    moving.settle()

    assert moving.moved_bytes() == moved
    moving.check_whole()


def test_a_node_that_joins_takes_over_its_share(start: Starter) -> None:
    moving = start(*map(spec, NODES))
    moving.settle()
    sent = moving.sent_by_origin()

    joined = moving.site.cluster.add(spec("n4"))
    moving.settle()

    assert moving.sent_by_origin() == sent
    assert 0 < joined.metrics()["penstock_handoff_bytes_total"] < OBJECT_BYTES
    moving.check_whole()


@pytest.mark.parametrize("replicas", [1, 2])
def test_ten_nodes_that_come_onto_the_ring_together_take_over_no_more_than_they_must(
    start: Starter, replicas: int
) -> None:
    moving = start(*map(spec, NODES), replicas=replicas)
    moving.wait_copied()
    moving.settle()
    more = [spec(f"m{i}", capacity=MORE_BYTES, weight=0) for i in range(MORE)]
    moving.site.cluster.add_all(more, deadline_s=DEADLINE_S)
    moving.settle()
    sent, moved, epoch = moving.sent_by_origin(), moving.moved_bytes(), moving.site.epoch
    before = moving.chunks()

    moving.set_weights(**{each.name: 100 for each in more})
    moving.settle()

    after = moving.chunks()
    assert moving.site.epoch == epoch + 1
    assert moving.sent_by_origin() == sent
    assert 0 < moving.moved_bytes() - moved <= 1.05 * least_moved(before, after)
    assert {owner for chunk in after for owner in chunk.owners} >= {each.name for each in more}
    moving.check_whole()


def test_ten_nodes_that_start_at_once_join_whenever_they_are_ready(start: Starter) -> None:
    """As many placements as it takes: what has moved already may move again."""
    moving = start(*map(spec, NODES))
    moving.settle()
    sent = moving.sent_by_origin()

    more = [spec(f"m{i}", capacity=MORE_BYTES, weight=100) for i in range(MORE)]
    moving.site.cluster.add_all(more, deadline_s=DEADLINE_S)
    moving.settle()

    assert moving.sent_by_origin() == sent
    moving.check_whole()


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("is_begun", [False, True], ids=["at once", "in the middle"])
def test_a_change_after_another_moves_no_more_than_each_must(
    start: Starter, replicas: int, is_begun: bool
) -> None:
    moving = start(*map(spec, NODES), replicas=replicas, **SLOW)
    moving.wait_copied()
    moving.settle()
    sent, moved = moving.sent_by_origin(), moving.moved_bytes()
    placements = [moving.chunks()]

    for weights in ({"n1": 300}, {"n1": 50, "n2": 200}, {"n2": None, "n3": 0}):
        moving.wait_acted_on(moving.set_weights(**weights))
        placements.append(moving.chunks())
        if is_begun:
            moving.wait_more_moved()
    with operator.connect(moving.site.address) as connected:
        connected.set_settings(FAST)
    moving.settle()

    assert moving.sent_by_origin() == sent
    least = sum(map(least_moved, placements[:-1], placements[1:]))
    assert 0 < moving.moved_bytes() - moved <= 1.05 * least
    moving.check_whole()


def test_changes_in_the_middle_of_others_end_with_every_chunk_where_it_belongs(
    start: Starter,
) -> None:
    moving = start(*map(spec, NODES), **SLOW)
    moving.settle()
    sent = moving.sent_by_origin()

    moving.set_weights(n1=300)
    wait_until(lambda: moving.moved_bytes() > 0, deadline_s=DEADLINE_S, what="some have moved")
    moving.set_weights(n1=None, n3=300)
    moving.set_weights(n2=50)
    with operator.connect(moving.site.address) as connected:
        connected.set_settings(FAST)
    moving.settle()

    assert moving.sent_by_origin() == sent
    moving.check_whole()


def test_what_is_read_meanwhile_comes_from_former_owners(start: Starter) -> None:
    moving = start(*map(spec, NODES), **SLOW)
    moving.settle()
    sent = moving.sent_by_origin()

    moving.set_weights(n2=0)
    with moving.site.cluster.connect() as cache:
        assert cache.read(moving.stored.url) == moving.stored.data

    assert moving.sent_by_origin() == sent


@pytest.mark.parametrize("broken", ["n1", "n2"], ids=["the new owner", "the former owner"])
def test_a_crash_in_the_middle_is_gone_on_from(start: Starter, broken: str) -> None:
    moving = start(*map(spec, NODES), **SLOW)
    moving.settle()
    sent = moving.site.s3.counters().sent_bytes

    moving.set_weights(n2=0)
    wait_until(lambda: moving.moved_bytes() > 0, deadline_s=DEADLINE_S, what="some have moved")
    moving.site.cluster[broken].kill()
    moving.site.cluster[broken].start()
    with operator.connect(moving.site.address) as connected:
        connected.set_settings(FAST)
    moving.settle()

    assert moving.site.s3.counters().sent_bytes == sent
    moving.check_whole()


@pytest.mark.parametrize("ends", [NodeProcess.kill, NodeProcess.stop], ids=["crash", "restart"])
def test_what_others_kept_for_a_node_that_was_away_it_gets_when_it_is_back(
    start: Starter, ends: Callable[[NodeProcess], object]
) -> None:
    """Each byte that was read meanwhile leaves the origin once, and not again for its owner."""
    moving = start(*map(spec, NODES), lease_ttl_s=2.0)
    moving.settle()
    site, node = moving.site, moving.site.cluster["n2"]
    ends(node)
    read = site.put("read-meanwhile.bin", size=OBJECT_BYTES)
    with site.cluster.connect() as cache:
        assert cache.read(read.url) == read.data
    sent = site.s3.counters().sent_bytes

    node.start()
    site.cluster.wait_placed(len(NODES))
    moving.settle()

    with site.cluster.connect() as cache:
        located = cache.locate(read.url)
        assert cache.read(read.url) == read.data
    assert all(set(chunk.owners) <= set(chunk.held_by) for chunk in located.chunks)
    assert site.s3.counters().sent_bytes == sent


def test_what_there_is_no_room_for_stays_and_is_told(start: Starter) -> None:
    small = spec("small", capacity=4 * MIB)
    moving = start(spec("large"), small)
    moving.settle()

    moving.set_weights(large=0)
    moving.settle()

    left = moving.site.cluster["large"].metrics()["penstock_handoff_left_bytes"]
    assert 8 * MIB < left < OBJECT_BYTES
    assert moving.site.cluster["small"].metrics()["penstock_evicted_bytes_total"] == 0

"""Parts of a cluster that cannot reach each other, by resets and by silence, under readers.

Each test is the proof of a row of docs/failures.md.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

import penstock
from penstock import operator
from penstock.etcd import Etcd
from penstock.membership.coordinator import Listing
from penstock_node.node_file import read_node_file
from penstock_node.testbed.checked_readers import CheckedReaders
from penstock_node.testbed.cluster import NodeSpec, TierSpec
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.linked_site import ETCD, ORIGIN, LinkedSite
from penstock_node.testbed.links import OUTSIDE, Links, Mood
from penstock_node.testbed.processes import wait_until
from penstock_node.testbed.s3 import S3Server
from penstock_node.testbed.site import MIB, SHORT_LEASE_TTL_S, StoredObject

pytestmark = pytest.mark.timeout(150)

DEADLINE_S = 40.0
COPIED_DEADLINE_S = 90.0
"""Whose lease had just ended is not told of a chunk, and asks a minute later for what it missed."""
CHUNK_BYTES = 64 * 1024
OBJECT_BYTES = 4 * MIB + 777
NAMES = ("n1", "n2", "n3")
MOODS: tuple[Mood, ...] = ("cut", "silent")
LONG_LEASE_S = 60.0
"""A lease that outlives a test: what helps readers is not the lease."""


@dataclass
class Rig:
    """A site over links, and what was read and asked so far."""

    site: LinkedSite
    copies: int
    stored: StoredObject
    sent_before: int = 0

    @property
    def links(self) -> Links:
        return self.site.links

    def sent(self) -> int:
        """Return the bytes that the origin has sent since the last `remember`."""
        return self.site.s3.counters().sent_bytes - self.sent_before

    def remember(self) -> None:
        self.sent_before = self.site.s3.counters().sent_bytes

    def readers(self) -> CheckedReaders:
        return CheckedReaders(self.site.addresses, [self.stored], seed=1, count=2)

    def held_by(self) -> list[tuple[str, ...]]:
        with self.site.cluster.connect() as cache:
            return [tuple(chunk.held_by) for chunk in cache.locate(self.stored.url).chunks]

    def wait_copied(self) -> None:
        """Wait until as many nodes as there should be hold each chunk."""
        wait_until(
            lambda: all(len(held) >= self.copies for held in self.held_by()),
            deadline_s=COPIED_DEADLINE_S,
            what=f"{self.copies} nodes have each chunk",
        )

    def warm(self) -> None:
        with self.site.cluster.connect() as cache:
            assert cache.read(self.stored.url) == self.stored.data
        self.wait_copied()
        self.remember()

    def bytes_of(self, node: str) -> int:
        """Return what a node holds of the object."""
        with self.site.cluster.connect() as cache:
            located = cache.locate(self.stored.url)
        held = (chunk for chunk in located.chunks if node in chunk.held_by)
        return sum(located.object.chunk_length(chunk.index) for chunk in held)

    def members_of(self, node: str) -> set[str]:
        with self.site.cluster.connect(self.site.cluster[node]) as cache:
            return set(cache.cluster_view.members)

    def wait_members(self, expected: set[str], *nodes: str) -> None:
        wait_until(
            lambda: all(self.members_of(node) == expected for node in nodes),
            deadline_s=DEADLINE_S,
            what=f"{nodes} know {expected}",
        )


class Rigs:
    """Sites of one and of two copies, with short and with long leases; made when first asked for.

    On a busy machine a node cannot always keep a short lease: who counts on none has a long one.
    """

    def __init__(
        self, stack: ExitStack, make: Callable[[str], Path], s3: S3Server, etcd: EtcdServer
    ) -> None:
        self._stack, self._make, self._s3, self._etcd = stack, make, s3, etcd
        self._made: dict[tuple[int, float], Rig] = {}

    def rig(self, copies: int, lease_ttl_s: float) -> Rig:
        """Return three nodes of a site that keeps so many copies."""
        key = copies, lease_ttl_s
        if key not in self._made:
            settings = {"chunk_size": CHUNK_BYTES, "replicas": copies, "lease_ttl_s": lease_ttl_s}
            directory = self._make(f"partitions-{copies}-{lease_ttl_s:.0f}")
            nodes = [NodeSpec(name, (TierSpec("owned", 64 * MIB),)) for name in NAMES]
            site = LinkedSite(directory, self._s3, self._etcd, nodes=nodes, settings=settings)
            self._stack.enter_context(site)
            self._made[key] = Rig(site, copies, site.put("none"))
        return self._made[key]


@pytest.fixture(scope="module")
def rigs(
    tmp_path_factory: pytest.TempPathFactory, s3: S3Server, own_etcd: EtcdServer
) -> Iterator[Rigs]:
    with ExitStack() as stack:
        yield Rigs(stack, tmp_path_factory.mktemp, s3, own_etcd)


def in_use(found: Rig, name: str) -> Iterator[Rig]:
    """Three nodes that reach each other before a test and after it, with an object cached."""
    found.stored = found.site.put(f"{name}.bin", size=OBJECT_BYTES)
    found.warm()
    yield found
    found.links.heal()
    found.site.cluster.wait_placed(len(NAMES), deadline_s=DEADLINE_S)


@pytest.fixture(params=[1, 2])
def rig(request: pytest.FixtureRequest, rigs: Rigs) -> Iterator[Rig]:
    """Leases end soon."""
    yield from in_use(rigs.rig(request.param, SHORT_LEASE_TTL_S), request.node.name)


@pytest.fixture(params=[1, 2])
def steady(request: pytest.FixtureRequest, rigs: Rigs) -> Iterator[Rig]:
    """No lease ends."""
    yield from in_use(rigs.rig(request.param, LONG_LEASE_S), request.node.name)


@pytest.fixture
def steady_one(request: pytest.FixtureRequest, rigs: Rigs) -> Iterator[Rig]:
    """No lease ends; one copy."""
    yield from in_use(rigs.rig(1, LONG_LEASE_S), request.node.name)


@pytest.fixture
def steady_two(request: pytest.FixtureRequest, rigs: Rigs) -> Iterator[Rig]:
    """No lease ends; two copies."""
    yield from in_use(rigs.rig(2, LONG_LEASE_S), request.node.name)


@pytest.mark.parametrize("mood", MOODS)
def test_two_nodes_that_do_not_see_each_other_cost_readers_and_the_origin_nothing(
    steady: Rig, mood: Mood
) -> None:
    rig = steady
    with rig.readers() as readers:
        rig.links.part("n1", "n2", mood)
        readers.wait_reads(3)
        rig.links.heal()
        readers.wait_reads(1)
        readers.check()

    assert rig.sent() == 0


def test_copies_that_could_not_be_made_are_made_when_nodes_see_each_other_again(
    steady_two: Rig,
) -> None:
    rig = steady_two
    rig.stored, epoch = rig.site.put("parted.bin", size=OBJECT_BYTES), rig.site.epoch
    for pair in (("n1", "n2"), ("n1", "n3"), ("n2", "n3")):
        rig.links.part(*pair)
    with rig.site.cluster.connect() as cache:
        assert cache.read(rig.stored.url) == rig.stored.data
    wait_until(
        lambda: any(rig.site.cluster.unsettled()), deadline_s=DEADLINE_S, what="a copy is owed"
    )
    assert any(len(held) < 2 for held in rig.held_by())

    rig.links.heal()
    rig.wait_copied()

    assert rig.site.epoch == epoch


def has_no_member_in_etcd(rig: Rig) -> bool:
    """Told by etcd itself: nodes do not reach it."""

    async def listed() -> Listing:
        etcd = Etcd([rig.site.etcd.endpoint], prefix=f"/penstock/v1/{rig.site.name}/")
        try:
            return await etcd.list("members/")
        finally:
            await etcd.close()

    return not asyncio.run(listed()).entries


@pytest.mark.parametrize("mood", MOODS)
def test_an_etcd_that_nobody_reaches_for_long_costs_readers_and_the_origin_nothing(
    rig: Rig, mood: Mood
) -> None:
    """etcd lives meanwhile and ends all leases, so that nodes come back one after another."""
    known: set[frozenset[str]] = set()

    def all_are_back() -> bool:
        known.update(frozenset(rig.members_of(node)) for node in NAMES)
        return all(node.metrics()["penstock_etcd_connected"] for node in rig.site.cluster.running)

    with rig.readers() as readers:
        rig.site.lose(ETCD, mood)
        wait_until(
            lambda: has_no_member_in_etcd(rig), deadline_s=DEADLINE_S, what="no lease is left"
        )
        readers.wait_reads(2)
        rig.site.lose(ETCD, "well")
        wait_until(all_are_back, deadline_s=DEADLINE_S, what="all reach etcd")
        rig.site.cluster.wait_placed(len(NAMES), deadline_s=DEADLINE_S)
        readers.wait_reads(2)
        readers.check()

    assert known == {frozenset(NAMES)}
    assert rig.sent() == 0


def test_a_node_that_starts_while_etcd_is_away_sends_readers_to_others_until_it_serves(
    rig: Rig,
) -> None:
    starting, other = (rig.site.cluster[name] for name in ("n1", "n2"))
    addresses = f"{starting.address},{other.address}"
    rig.site.lose(ETCD, "cut")
    starting.kill()
    starting.launch()

    reads = 0
    while read_node_file(starting.state_dir) is None:
        with penstock.connect(addresses) as cache:
            assert cache.read(rig.stored.url) == rig.stored.data
        reads += 1
    assert reads > 0, "it served before anybody read"
    with rig.site.cluster.connect(starting) as cache:
        assert cache.read(rig.stored.url) == rig.stored.data


@pytest.mark.parametrize("mood", MOODS)
def test_a_machine_that_is_gone_costs_no_error_and_the_origin_its_only_copies_once(
    rig: Rig, mood: Mood
) -> None:
    epoch, only_copies = rig.site.epoch, rig.bytes_of("n2") if rig.copies == 1 else 0
    with rig.readers() as readers:
        rig.site.cut_off("n2", mood)
        readers.wait_reads(1)
        rig.wait_members({"n1", "n3"}, "n1", "n3")
        readers.wait_reads(3)
        rig.site.cut_off("n2", "well")
        rig.wait_members(set(NAMES), *NAMES)
        readers.wait_reads(1)
        readers.check()

    assert rig.sent() <= only_copies
    assert rig.site.epoch == epoch


@pytest.mark.parametrize("mood", MOODS)
def test_a_node_that_alone_does_not_reach_etcd_is_away_for_others_and_serves_who_asks_it(
    rig: Rig, mood: Mood
) -> None:
    epoch = rig.site.epoch
    with rig.readers() as readers:
        rig.links.become("n2", ETCD, mood)
        rig.wait_members({"n1", "n3"}, "n1", "n3")
        for told_by in ("n1", "n2"):  # One that does not count it as a member, and itself.
            with rig.site.cluster.connect(rig.site.cluster[told_by]) as cache:
                assert cache.read(rig.stored.url) == rig.stored.data
        readers.wait_reads(2)
        rig.links.become("n2", ETCD, "well")
        rig.wait_members(set(NAMES), *NAMES)
        readers.wait_reads(1)
        readers.check()

    assert rig.sent() == 0
    assert rig.site.epoch == epoch


@pytest.mark.parametrize("mood", MOODS)
def test_while_the_origin_is_out_of_reach_what_is_cached_is_served_and_the_rest_fails_clearly(
    steady: Rig, mood: Mood
) -> None:
    rig = steady
    unread = rig.site.put(f"{rig.stored.path}.unread")
    with rig.readers() as readers, rig.site.cluster.connect() as cache:
        readers.wait_reads(1)
        rig.site.lose(ORIGIN, mood)
        assert cache.read(rig.stored.url) == rig.stored.data
        with pytest.raises(penstock.OriginUnavailable):
            cache.read(unread.url)
        rig.site.lose(ORIGIN, "well")
        readers.check()

    wait_until(
        lambda: is_readable(rig, unread), deadline_s=DEADLINE_S, what="what was not cached is read"
    )


def is_readable(rig: Rig, stored: StoredObject) -> bool:
    with rig.site.cluster.connect() as cache:
        try:
            return cache.read(stored.url) == stored.data
        except penstock.OriginUnavailable:
            return False


@pytest.mark.parametrize("mood", MOODS)
def test_readers_that_do_not_reach_one_node_get_its_chunks_from_whoever_else_holds_them(
    steady_two: Rig, mood: Mood
) -> None:
    rig = steady_two
    with rig.readers() as readers:
        rig.links.become(OUTSIDE, "n2", mood)
        readers.wait_reads(2)
        rig.links.heal()
        readers.wait_reads(1)
        readers.check()

    assert rig.sent() == 0


def test_a_drain_waits_for_an_owner_that_does_not_reach_the_node_and_ends_once_it_does(
    steady_one: Rig,
) -> None:
    rig = steady_one
    with operator.connect(rig.site.addresses) as connected, rig.readers() as readers:
        rig.links.part("n1", "n2")
        connected.cordon("n1", drain=True)
        wait_until(
            lambda: connected.drain_status("n1").handed_bytes > 0,
            deadline_s=DEADLINE_S,
            what="the third node has taken over",
        )
        readers.wait_reads(1)
        parted = connected.drain_status("n1")
        rig.links.heal()
        whole = connected.wait_drained("n1", timeout_s=DEADLINE_S)
        connected.uncordon("n1")
        readers.check()

    assert (parted.state, parted.left_bytes > 0) == ("draining", True)
    assert (whole.state, whole.left_bytes) == ("drained", 0)

"""The ring against `uhashring`, against a naive walk over its points, and against its targets."""

import bisect
import itertools
import json
import random
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from uhashring import HashRing

from penstock.placement import PLACEMENT_VERSION, PlacedNode
from penstock.ring import CIRCLE, Move, Ring, diff
from penstock.ring_points import Points, _grown, _sorted_points, _Span, point_count, replace_points

VECTORS = Path(__file__).with_name("ring_vectors.json")
VECTOR_COUNT = 8 * 12 * 3
POINTS_PER_100 = 4096


def hash_of(key: str | bytes) -> int:
    return xxhash.xxh3_64_intdigest(key.encode() if isinstance(key, str) else key)


def uhashring_of(nodes: Sequence[PlacedNode], points_per_100: int) -> HashRing:
    """The reference: each node's points set exactly, nodes added in the order of their ids."""
    placed = sorted((node for node in nodes if node.weight), key=lambda node: node.id)
    confs = {
        node.id: {"vnodes": max(1, round(points_per_100 * node.weight / 100)), "weight": 1}
        for node in placed
    }
    return HashRing(confs, hash_fn=hash_of)


class NaiveRing:
    """The same rule written plainly over `uhashring`'s own points."""

    def __init__(self, nodes: Sequence[PlacedNode], points_per_100: int) -> None:
        self.node_of = {node.id: node for node in nodes}
        self.points: list[tuple[int, str]] = uhashring_of(nodes, points_per_100).get_points()
        self.positions = [position for position, _ in self.points]
        self.member_count = len({id_ for _, id_ in self.points})

    def owners(self, position: int, n: int) -> list[str]:
        if not self.points:
            return []
        around = self.met_from(bisect.bisect_right(self.positions, position))
        chosen = around[:1]
        for label in ("zone", "host", "id"):
            for node in around:
                taken = {getattr(other, label) for other in chosen}
                if len(chosen) < n and getattr(node, label) not in taken:
                    chosen.append(node)
        return [node.id for node in chosen]

    def met_from(self, first: int) -> list[PlacedNode]:
        """Every member, in the order in which a walk meets it; `first` may be one too large."""
        met: dict[str, None] = {}
        for step in range(len(self.points)):
            met.setdefault(self.points[(first + step) % len(self.points)][1])
            if len(met) == self.member_count:
                break
        return [self.node_of[id_] for id_ in met]


WEIGHTS = st.sampled_from((0, 1, 7, 100, 100, 200, 300, 900))


@st.composite
def node_lists(draw: st.DrawFn, least: int = 0) -> list[PlacedNode]:
    """Up to 8 nodes in any order; a host lies in one zone, as hosts do."""
    ids = draw(st.lists(st.sampled_from("abcdefghijkl"), min_size=least, max_size=8, unique=True))
    nodes = []
    for id_ in ids:
        zone = draw(st.sampled_from(("", "", "east", "west")))
        host = f"{zone}/{draw(st.sampled_from('123'))}"
        nodes.append(PlacedNode(f"node-{id_}", host, zone, draw(WEIGHTS)))
    return nodes


FEWER = 40
"""Examples, where each takes the naive ring a tenth of a second."""
CHUNK_IDS = st.binary(min_size=16, max_size=16)
PER_100 = st.sampled_from((16, 33, 64))


def equal_nodes(count: int, *, prefix: str = "node") -> list[PlacedNode]:
    return [PlacedNode(f"{prefix}-{k:04d}", f"host-{k}", "", 100) for k in range(count)]


def chunk_ids(count: int, *, seed: int) -> list[bytes]:
    rng = random.Random(seed)
    return [rng.randbytes(16) for _ in range(count)]


def read_vectors() -> list[tuple[Ring, bytes, int, list[str]]]:
    data = json.loads(VECTORS.read_text())
    assert data["placement_version"] == PLACEMENT_VERSION
    return [
        (ring, bytes.fromhex(chunk["id"]), n, owners)
        for case in data["cases"]
        for ring in [Ring.build([PlacedNode(**n) for n in case["nodes"]], case["points_per_100"])]
        for chunk in case["chunks"]
        for n, owners in enumerate(chunk["owners"], start=1)
    ]


def test_the_committed_vectors_hold() -> None:
    vectors = read_vectors()

    found = [ring.owners(chunk_id, n) for ring, chunk_id, n, _ in vectors]

    assert found == [owners for *_, owners in vectors]
    assert len(vectors) == VECTOR_COUNT


@given(nodes=node_lists(), per_100=PER_100, ids=st.lists(CHUNK_IDS, min_size=1, max_size=20))
def test_the_first_owner_is_that_of_uhashring(
    nodes: list[PlacedNode], per_100: int, ids: list[bytes]
) -> None:
    ring, reference = Ring.build(nodes, per_100), uhashring_of(nodes, per_100)

    owners = [ring.owners(chunk_id, 1) for chunk_id in ids]

    assert [owner[0] if owner else None for owner in owners] == [
        reference.get_node(chunk_id) for chunk_id in ids
    ]
    assert ring.first_owners(ids) == [reference.get_node(chunk_id) or "" for chunk_id in ids]


@given(nodes=node_lists(), per_100=PER_100, ids=st.lists(CHUNK_IDS, min_size=1, max_size=10))
def test_owners_are_those_of_a_naive_walk_one_by_one_and_many_at_once(
    nodes: list[PlacedNode], per_100: int, ids: list[bytes]
) -> None:
    ring, naive = Ring.build(nodes, per_100), NaiveRing(nodes, per_100)

    for n in range(1, len(nodes) + 2):
        expected = [naive.owners(hash_of(chunk_id), n) for chunk_id in ids]
        assert [ring.owners(chunk_id, n) for chunk_id in ids] == expected
        assert ring.owners_each(ids, n) == expected


@given(nodes=node_lists(), chunk_id=CHUNK_IDS)
def test_owners_differ_and_spread_over_zones_then_hosts_then_members(
    nodes: list[PlacedNode], chunk_id: bytes
) -> None:
    ring = Ring.build(nodes, 16)
    live = {node.id: node for node in nodes if node.weight}

    for n in range(1, len(nodes) + 2):
        owners = [live[id_] for id_ in ring.owners(chunk_id, n)]
        assert len(set(owners)) == len(owners) == min(n, len(live))
        for label in ("zone", "host"):
            there_are = {getattr(node, label) for node in live.values()}
            assert len({getattr(o, label) for o in owners}) == min(n, len(there_are))


@given(nodes=node_lists(least=1), chunk_id=CHUNK_IDS)
def test_fewer_owners_begin_the_list_of_more(nodes: list[PlacedNode], chunk_id: bytes) -> None:
    ring = Ring.build(nodes, 16)

    lists = [ring.owners(chunk_id, n) for n in range(1, len(nodes) + 1)]

    for fewer, more in itertools.pairwise(lists):
        assert more[: len(fewer)] == fewer


def assert_equal_bit_for_bit(ring: Ring, other: Ring) -> None:
    assert ring.nodes == other.nodes
    for name in ("positions", "members"):
        mine, its = getattr(ring._points, name), getattr(other._points, name)
        assert mine.dtype == its.dtype
        assert mine.tobytes() == its.tobytes()


@given(steps=st.lists(node_lists(), min_size=2, max_size=4), per_100=PER_100)
def test_a_changed_ring_equals_a_fresh_one_and_leaves_the_old_one_alone(
    steps: list[list[PlacedNode]], per_100: int
) -> None:
    ring = Ring.build(steps[0], per_100)

    for nodes in steps[1:]:
        changed = ring.changed_to(nodes)
        assert_equal_bit_for_bit(changed, Ring.build(nodes, per_100))
        assert_equal_bit_for_bit(ring, Ring.build(ring.nodes, per_100))
        ring = changed


def test_a_ring_of_more_nodes_than_16_bits_hold_widens_its_indexes_when_it_grows() -> None:
    nodes = [PlacedNode(f"n{k}", f"h{k}", "", 1) for k in range(65_537)]
    ring = Ring.build(nodes[:-1], 16)

    grown = ring.changed_to(nodes)

    assert [r._points.members.itemsize for r in (ring, grown)] == [2, 4]
    assert_equal_bit_for_bit(grown, Ring.build(nodes, 16))


def test_a_node_with_more_points_than_one_batch_of_hashes_has_those_of_uhashring() -> None:
    nodes = [PlacedNode("large", "h1", "", 250), PlacedNode("small", "h2", "", 30)]
    ring = Ring.build([PlacedNode("large", "h1", "", 90), nodes[1]], POINTS_PER_100)

    grown = ring.changed_to(nodes)

    expected = uhashring_of(nodes, POINTS_PER_100).get_points()
    assert grown._points.positions.tolist() == [position for position, _ in expected]
    assert [grown.nodes[i].id for i in grown._points.members] == [id_ for _, id_ in expected]


def test_of_two_nodes_on_one_position_the_last_id_comes_first() -> None:
    """As with `uhashring`. Two spans of one name stand for two names that collide."""
    assert [span.index for span in _grown([], equal_nodes(3), 16)] == [2, 1, 0]

    points = _sorted_points([_Span("n", 1, 0, 5), _Span("n", 0, 0, 5)], 2)

    assert points.members.tolist() == [1, 0] * 5


def points_at(*points: tuple[int, int]) -> Points:
    positions, members = zip(*points, strict=True) if points else ((), ())
    return Points(np.array(positions, np.uint64), np.array(members, np.uint16))


@pytest.mark.parametrize(
    ("removed", "added"),
    [
        pytest.param(points_at((5, 1)), points_at(), id="leaves a shared position"),
        pytest.param(points_at(), points_at((9, 3)), id="joins a taken position"),
        pytest.param(points_at(), points_at((7, 3), (7, 2)), id="two join on one position"),
    ],
)
def test_a_change_that_meets_a_shared_position_asks_for_a_fresh_build(
    removed: Points, added: Points
) -> None:
    points = points_at((5, 1), (5, 0), (9, 1))

    assert replace_points(points, removed=removed, added=added, renumbering=None) is None


def test_an_empty_ring_has_no_owners_and_no_shares() -> None:
    ring = Ring.build([], POINTS_PER_100)

    assert (ring.owners(bytes(16), 3), ring.owners_each([bytes(16)], 2)) == ([], [[]])
    assert (ring.first_owners([bytes(16)]), ring.shares(), diff(ring, ring)) == ([""], {}, [])


def test_nodes_of_weight_0_own_nothing_and_any_other_weight_has_a_point() -> None:
    nodes = [PlacedNode("a", "h1", "", 0), PlacedNode("b", "h2", "", 1)]
    ring = Ring.build(nodes, 16)

    assert [point_count(node, 16) for node in nodes] == [0, 1]
    assert (ring.owners(bytes(16), 2), ring.shares()) == (["b"], {"a": 0.0, "b": 1.0})
    assert repr(ring) == "<Ring of 2 nodes, 1 points>"


def test_a_tiny_node_in_a_zone_of_its_own_is_always_the_second_owner() -> None:
    """The walk to it passes hundreds of thousands of points."""
    nodes = equal_nodes(100)
    nodes[7] = PlacedNode("tiny", "host-7", "other", 1)
    ring = Ring.build(nodes, 2048)
    ids = chunk_ids(300, seed=1)

    many = ring.owners_each(ids, 3)

    assert [ring.owners(chunk_id, 3) for chunk_id in ids] == many
    assert all("tiny" in owners[:2] for owners in many)


@settings(max_examples=FEWER)
@given(nodes=node_lists(), per_100=PER_100)
def test_shares_are_the_arcs_between_points(nodes: list[PlacedNode], per_100: int) -> None:
    ring, naive = Ring.build(nodes, per_100), NaiveRing(nodes, per_100)
    expected = dict.fromkeys(sorted(node.id for node in nodes), 0.0)
    for start, length in arcs(naive):
        expected[naive.owners(start, 1)[0]] += length / CIRCLE

    shares = ring.shares()

    assert shares == pytest.approx(expected)
    assert sum(shares.values()) == pytest.approx(1.0 if ring.point_count else 0.0)


def arcs(*rings: NaiveRing) -> list[tuple[int, int]]:
    """Where each arc between neighbouring points begins, and its length."""
    positions = sorted({position for ring in rings for position in ring.positions})
    ends = positions[1:] + positions[:1]
    return [(a, (b - a) % CIRCLE or CIRCLE) for a, b in zip(positions, ends, strict=True)]


def naive_moves(old: NaiveRing, new: NaiveRing, replicas: int) -> dict[tuple[int, str, str], float]:
    moves: dict[tuple[int, str, str], float] = defaultdict(float)
    for start, length in arcs(old, new):
        before, after = old.owners(start, replicas), new.owners(start, replicas)
        lost = [owner for owner in before if owner not in after]
        first = before[0] if before else ""
        for rank, owner in enumerate(after):
            if owner not in before:
                moves[rank, lost.pop(0) if lost else first, owner] += length / CIRCLE
    return moves


@settings(max_examples=FEWER)
@given(old=node_lists(), new=node_lists(), replicas=st.integers(1, 3))
def test_a_diff_is_what_comparing_every_arc_gives(
    old: list[PlacedNode], new: list[PlacedNode], replicas: int
) -> None:
    expected = naive_moves(NaiveRing(old, 16), NaiveRing(new, 16), replicas)

    moves = diff(Ring.build(old, 16), Ring.build(new, 16), replicas=replicas)

    assert {(m.rank, m.source, m.target): m.share for m in moves} == pytest.approx(expected)
    assert [(m.rank, m.source, m.target) for m in moves] == sorted(expected)


def test_a_diff_in_many_batches_agrees_with_the_shares() -> None:
    """Two rings of 164,000 points each make more arcs than are compared at once."""
    old = Ring.build(equal_nodes(40), POINTS_PER_100)
    new = old.changed_to([*equal_nodes(39), PlacedNode("node-x", "host-x", "", 300)])

    moves = diff(old, new)

    before, after = old.shares(), new.shares()
    for node in {*before, *after}:
        gained = sum(move.share for move in moves if move.target == node)
        lost = sum(move.share for move in moves if move.source == node)
        assert gained - lost == pytest.approx(after.get(node, 0.0) - before.get(node, 0.0))


def test_a_diff_of_rings_without_a_common_node_moves_each_key_once() -> None:
    old, new = (Ring.build(equal_nodes(40, prefix=name), POINTS_PER_100) for name in "ab")

    assert sum(move.share for move in diff(old, new)) == pytest.approx(1.0)


def test_a_first_node_with_a_single_point_takes_all_from_nobody() -> None:
    nothing, one = (Ring.build(nodes, 16) for nodes in ([], weighted(1)))

    assert diff(nothing, one) == [Move("", "node-0", share=1.0, rank=0)]
    assert diff(one, nothing) == []


def weighted(*weights: int, prefix: str = "node") -> list[PlacedNode]:
    return [PlacedNode(f"{prefix}-{k}", f"host-{k}", "", w) for k, w in enumerate(weights)]


def fair_shares(nodes: Sequence[PlacedNode]) -> dict[str, float]:
    total = sum(node.weight for node in nodes)
    return {node.id: node.weight / total for node in nodes}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(equal_nodes(10), equal_nodes(11), id="join"),
        pytest.param(equal_nodes(10), equal_nodes(9), id="leave"),
        pytest.param(weighted(100, 100, 100), weighted(100, 200, 100), id="weight doubled"),
        pytest.param(weighted(100, 200, 300), weighted(100, 200, 100), id="weight lowered"),
        pytest.param(weighted(100, 200, 300), weighted(100, 0, 300), id="cordoned"),
    ],
)
def test_a_change_moves_at_most_5_percent_more_than_it_must(
    old: list[PlacedNode], new: list[PlacedNode]
) -> None:
    before, after = fair_shares(old), fair_shares(new)
    least = sum(max(0.0, share - before.get(id_, 0.0)) for id_, share in after.items())
    ring = Ring.build(old, POINTS_PER_100)

    moved = sum(move.share for move in diff(ring, ring.changed_to(new)))

    assert moved <= 1.05 * least


def test_the_largest_of_100_equal_nodes_has_at_most_5_percent_more_than_the_mean() -> None:
    shares = Ring.build(equal_nodes(100), POINTS_PER_100).shares()

    assert max(shares.values()) * 100 <= 1.05


def test_weights_1_2_3_give_shares_1_2_3_over_20_seeds() -> None:
    errors = []
    for seed in range(20):
        nodes = weighted(100, 200, 300, prefix=f"seed-{seed}")
        shares = Ring.build(nodes, POINTS_PER_100).shares()
        errors += [abs(shares[id_] / fair - 1) for id_, fair in fair_shares(nodes).items()]

    assert len(errors) == 60
    assert statistics.median(errors) <= 0.02
    assert max(errors) <= 0.04

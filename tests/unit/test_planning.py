"""What `penstock plan` makes of reads: the curve, and the clusters that are read from it."""

import itertools
import json
import random
from pathlib import Path
from xml.etree import ElementTree

import pytest
import xxhash

from penstock.errors import InvalidRequest
from penstock.objects import ObjectId
from penstock.sampled_reads import SampledReads, digest_of
from penstock_node.demand import Demand
from penstock_node.planning.curve import Curve, Point, curve_of, is_enough, sizes_for
from penstock_node.planning.drawing import Mark, Picture, as_svg, in_characters
from penstock_node.planning.scenarios import (
    TB,
    PlannedCluster,
    PlannedNode,
    clusters_to_compare,
    grown,
    outlook,
    steps_for,
    with_another,
    without_largest,
)
from penstock_node.planning.trace_file import sample_of
from penstock_node.store.chunk_file import PAGE_BYTES, ChunkFile
from penstock_node.store.eviction import EvictionOrder
from penstock_node.store.ranking import groups_for

CHUNK = 64 * 1024
STORED = ChunkFile(ObjectId("s3://m/0", "1", CHUNK, CHUNK), 0).allocated_bytes
STRAIGHT = Curve(
    points=tuple(Point(size, size / 1000, 1 - size / 1000, 0.0) for size in (100.0, 500.0, 1000.0)),
    read_bytes_per_day=1e6,
    reads=1000,
    rate=1.0,
    duration_s=86_400.0,
    working_set_bytes=1000.0,
    measured=None,
)
"""Of a thousand bytes each is read as often: a cache finds the part that it holds."""


def cluster(*nodes: tuple[float, float], replicas: int = 1) -> PlannedCluster:
    planned = [PlannedNode(str(at), *node) for at, node in enumerate(nodes)]
    return PlannedCluster("now", tuple(planned), replicas)


def found_by(now: PlannedCluster) -> float:
    return outlook(now, STRAIGHT).hit_ratio


# Arithmetic.


def test_a_cluster_whose_shares_follow_its_capacities_finds_what_the_curve_says() -> None:
    assert found_by(cluster((100, 0.25), (300, 0.75))) == pytest.approx(0.4)


def test_a_node_with_more_of_the_ring_than_of_the_capacity_costs_hits() -> None:
    even, uneven = cluster((200, 0.5), (200, 0.5)), cluster((200, 0.9), (200, 0.1))

    assert found_by(even) == pytest.approx(0.4)
    assert found_by(uneven) == pytest.approx(0.9 * 200 / 900 + 0.1 * 1.0)


def test_two_copies_leave_half_of_the_capacity_for_different_bytes() -> None:
    one, two = cluster((200, 0.5), (200, 0.5)), cluster((200, 0.5), (200, 0.5), replicas=2)

    assert found_by(two) == pytest.approx(found_by(one) / 2)
    assert two.distinct_bytes == 200
    assert cluster((200, 1.0), replicas=2).distinct_bytes == 200, "no node keeps two copies"


def test_more_bytes_another_node_and_a_lost_one() -> None:
    now = cluster((100, 0.2), (200, 0.4), (200, 0.4))

    assert found_by(grown(now, 500)) == pytest.approx(1.0)
    assert grown(now, 500).capacity_bytes == 1000
    assert found_by(with_another(now)) == pytest.approx(0.7)
    assert with_another(now).capacity_bytes == 700
    assert found_by(without_largest(now)) == pytest.approx(0.3)
    for each in (grown(now, 500), with_another(now), without_largest(now)):
        assert sum(node.share for node in each.nodes) == pytest.approx(1.0)


def test_what_the_origin_gives_a_day_falls_with_what_is_found() -> None:
    small, large = cluster((100, 1.0)), cluster((1000, 1.0))

    assert outlook(small, STRAIGHT).origin_bytes_per_day == pytest.approx(0.9e6)
    assert outlook(large, STRAIGHT).origin_bytes_per_day == pytest.approx(0.0)


def test_between_two_points_and_below_the_first_the_curve_is_straight() -> None:
    assert STRAIGHT.at(300).hit_ratio == pytest.approx(0.3)
    assert STRAIGHT.at(50).hit_ratio == pytest.approx(0.05)
    assert STRAIGHT.at(50).origin_ratio == pytest.approx(0.95)
    assert STRAIGHT.at(5000).hit_ratio == pytest.approx(1.0)


def test_a_large_cluster_is_told_of_terabytes_and_a_small_one_of_multiples_of_itself() -> None:
    assert steps_for(20 * TB) == [TB, 2 * TB, 4 * TB]
    assert steps_for(64e6) == [32e6, 64e6, 192e6]


def test_all_that_is_compared_has_another_name() -> None:
    names = [each.name for each in clusters_to_compare(cluster((1, 0.5), (1, 0.5)), added=[1.0])]

    assert names == [
        "now",
        "+ 1 B",
        "+ 1 node of 1 B",
        "- 1 node of 1 B",
        "replicas = 2",
    ]
    alone = clusters_to_compare(cluster((1, 1.0)), added=[])
    assert [each.name for each in alone] == ["now", "+ 1 node of 1 B"]


def test_the_sizes_go_from_a_quarter_to_eight_times_and_hold_those_that_are_asked_for() -> None:
    sizes = sizes_for(1000.0, also=[1500.0, 20_000.0])

    assert sizes == sorted(sizes)
    assert sizes[0] == pytest.approx(250.0)
    assert sizes[-1] == pytest.approx(20_000.0)
    assert {1000.0, 1500.0, 20_000.0} <= set(sizes)
    assert any(size == pytest.approx(8000.0) for size in sizes)


# The curve.


def loads(seed: int, *, models: int = 40, chunks: int = 60, count: int = 400) -> list[ObjectId]:
    rng = random.Random(seed)
    known = [
        ObjectId(f"s3://models/{at}", "1", rng.randrange(1, chunks) * CHUNK, CHUNK)
        for at in range(models)
    ]
    return rng.choices(known, [1 / (rank + 1) for rank in range(models)], k=count)


def sample_of_loads(loaded: list[ObjectId], *, reads_max: int = 1 << 17) -> SampledReads:
    now = 0.0
    demand = Demand(capacity_bytes=lambda: 1 << 40, clock=lambda: now, reads_max=reads_max)
    for obj in loaded:
        for index in range(obj.chunk_count):
            now += 0.01
            demand.read(obj, index, length=CHUNK)
    return demand.sample()


def found_by_the_order(loaded: list[ObjectId], *, room: int, nodes: int = 1) -> float:
    """Return the share of reads that the tiers of nodes find, of all but the first quarter."""
    reads = [(obj, index) for obj in loaded for index in range(obj.chunk_count)]
    orders, hits = [EvictionOrder(capacity_bytes=room // nodes) for _ in range(nodes)], 0
    for at, (obj, index) in enumerate(reads):
        chunk_id = obj.chunk_id(index)
        order = orders[xxhash.xxh3_64_intdigest(chunk_id) % nodes]
        if order.size_of(chunk_id) is not None:
            order.touch(chunk_id, of=obj)
            hits += at >= len(reads) // 4
        else:
            order.victims(order.used_bytes + STORED - room // nodes, in_use=())
            order.insert(chunk_id, STORED, reason="read", of=obj)
    return hits / (len(reads) - len(reads) // 4)


@pytest.mark.parametrize(("seed", "nodes"), [(1, 1), (2, 6), (3, 6)])
def test_a_sample_of_all_reads_tells_what_the_order_of_eviction_finds(
    seed: int, nodes: int
) -> None:
    loaded = loads(seed)
    sizes = [200.0 * STORED, 400.0 * STORED, 800.0 * STORED]

    curve = curve_of(sample_of_loads(loaded), sizes=sizes, nodes=nodes)

    assert curve.rate == pytest.approx(1.0)
    for point, size in zip(curve.points, sizes, strict=True):
        found = found_by_the_order(loaded, room=int(size), nodes=nodes)
        assert point.hit_ratio == pytest.approx(found, abs=0.02)
        assert point.error == pytest.approx(0.0, abs=1e-6)


def test_objects_that_share_a_group_share_it_in_the_miniature() -> None:
    """By chance: then the order takes them for one, and finds more or less than it would."""
    room = 100 * STORED
    groups = groups_for(room, page_bytes=PAGE_BYTES) - 1
    everything = (ObjectId(f"s3://models/{at}", "1", 25 * CHUNK, CHUNK) for at in itertools.count())
    group = digest_of(next(everything)) % groups
    sharing = (obj for obj in everything if digest_of(obj) % groups == group)
    found = []
    for known in (everything, sharing):
        models = list(itertools.islice(known, 12))
        weights = [1 / (rank + 1) for rank in range(len(models))]
        loaded = random.Random(3).choices(models, weights, k=400)
        (point,) = curve_of(sample_of_loads(loaded), sizes=[float(room)]).points
        assert point.hit_ratio == pytest.approx(found_by_the_order(loaded, room=room))
        found.append(point.hit_ratio)
    assert abs(found[1] - found[0]) > 0.02, "it does not matter here"


@pytest.mark.parametrize("seed", [1, 2])
def test_a_sample_of_some_chunks_tells_nearly_the_same(seed: int) -> None:
    # Many small objects: no single one decides. Models are for bench/capacity.py.
    loaded = loads(seed, models=2000, chunks=8, count=5000)
    sizes = [1000.0 * STORED, 2000.0 * STORED]

    sample = sample_of_loads(loaded).thinned_to(6_000)
    curve = curve_of(sample, sizes=sizes)

    assert sample.rate < 0.4
    for point, size in zip(curve.points, sizes, strict=True):
        assert point.hit_ratio == pytest.approx(
            found_by_the_order(loaded, room=int(size)), abs=0.03
        )


def test_too_few_reads_tell_nothing() -> None:
    assert not is_enough(sample_of_loads([]))
    assert not is_enough(sample_of_loads(loads(1, count=5)))
    assert is_enough(sample_of_loads(loads(1, count=100)))


def test_readers_that_want_parts_of_chunks_cost_the_origin_whole_ones() -> None:
    demand = Demand(capacity_bytes=lambda: 1 << 40)
    for obj in loads(1):
        for index in range(obj.chunk_count):
            demand.read(obj, index, length=CHUNK // 4)

    curve = curve_of(demand.sample(), sizes=[100.0 * STORED])

    (point,) = curve.points
    assert point.origin_ratio == pytest.approx(4 * (1 - point.hit_ratio))


# Traces.


def lines_of(loaded: list[ObjectId]) -> list[dict[str, object]]:
    return [
        {"time": at, "url": obj.key, "offset": 0, "length": obj.size, "size": obj.size}
        for at, obj in enumerate(loaded)
    ]


def test_a_trace_gives_the_same_sample_in_both_formats(tmp_path: Path) -> None:
    rows = lines_of(loads(1))
    (tmp_path / "t.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    titles = list(rows[0])
    csv = [",".join(titles), *(",".join(str(row[title]) for title in titles) for row in rows)]
    (tmp_path / "t.csv").write_text("\n".join(csv))

    samples = [
        sample_of(tmp_path / name, chunk_size=CHUNK, capacity_bytes=1e6)
        for name in ("t.jsonl", "t.csv")
    ]

    assert len(samples[0]) == len(sample_of_loads(loads(1)))
    for told in ("read_chunks", "read_times", "read_bytes", "chunk_indexes", "object_sizes"):
        one, other = (getattr(sample, told).tolist() for sample in samples)
        assert one == other


def test_a_read_is_cut_into_chunks_and_a_size_that_is_not_told_is_what_was_read(
    tmp_path: Path,
) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(
        '{"time": "2026-01-02T03:04:05Z", "object": "a", "offset": 10, "length": 65536}\n'
        '{"time": "2026-01-02T03:04:06", "object": "a", "chunk": 3}\n\n'
    )

    sample = sample_of(path, chunk_size=CHUNK, capacity_bytes=1e6)

    assert sample.chunk_indexes.tolist() == [0, 1, 3]
    assert sample.read_bytes.tolist() == [CHUNK - 10, 10, CHUNK]
    assert sample.object_sizes.tolist() == [4 * CHUNK]
    assert sample.duration_s == 1.0


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "line 1: want a JSON object"),
        ('{"url": "a", "chunk": 1}', "there is no time"),
        ('{"time": 1, "chunk": 1}', "there is no url"),
        ('{"time": 1, "url": "a"}', "how much is read"),
        ('{"time": "noon", "url": "a", "chunk": 1}', "noon"),
        ('{"time": 1, "url": "a", "chunk": -1}', "chunk is -1"),
        (
            '{"time": 1, "url": "a", "offset": 5, "length": 9, "size": 10}',
            "beyond the object's end",
        ),
        ("", "has no reads"),
    ],
)
def test_a_line_that_is_not_as_it_should_be_is_named(tmp_path: Path, line: str, told: str) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(line)

    with pytest.raises(InvalidRequest, match=told):
        sample_of(path, chunk_size=CHUNK, capacity_bytes=1e6)


# Pictures.


def picture() -> Picture:
    xs = [point.capacity_bytes for point in STRAIGHT.points]
    ys = [point.hit_ratio for point in STRAIGHT.points]
    return Picture("of <bytes>", xs, ys, [Mark("now", 500.0, 0.5)])


def test_the_picture_in_characters_has_its_axes_a_mark_and_no_line_too_long() -> None:
    lines = in_characters(picture())

    assert all(len(line) <= 80 for line in lines)
    (marked,) = (at for at, line in enumerate(lines[:-1]) if "●" in line)
    assert " 50 %" in lines[marked] or " 50 %" in lines[marked - 1]
    assert lines[-1] == "● now: 500 B"
    assert "100 B" in lines[-2]
    assert "1.0 kB" in lines[-2]


def test_the_picture_as_svg_is_whole_and_its_line_rises() -> None:
    root = ElementTree.fromstring(as_svg(picture()))  # noqa: S314 - our own

    (line,) = root.iter("{http://www.w3.org/2000/svg}polyline")
    heights = [float(point.split(",")[1]) for point in line.attrib["points"].split()]
    assert heights == sorted(heights, reverse=True)
    texts = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"of <bytes>", "now", "100 %", "100 B"} <= texts

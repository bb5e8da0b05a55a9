"""The sample of reads that a node keeps: bounded, fair, and the same chunks on every node."""

import random
import threading
from collections.abc import Mapping

import numpy as np
import pytest

from penstock.objects import ObjectId
from penstock.reuse import cluster_sample, sample_from_proto, sample_to_proto
from penstock.sampled_reads import FOUND, MISSED, WARMED, WHOLE, SampledReads, joined
from penstock_node.demand import OWNED_S, SAMPLED_MIN, SETTLED_AT, TOGETHER_READS, Demand

CHUNK = 64 * 1024
MANY = 1 << 40
"""More capacity than anything here takes: half of the chunks are always enough."""


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def model(name: str, *, chunks: int = 100) -> ObjectId:
    return ObjectId(f"s3://models/{name}", "1", chunks * CHUNK, CHUNK)


def demand_of(
    *,
    capacity_bytes: int = MANY,
    clock: Clock | None = None,
    reads_max: int = 1 << 17,
    chunks_max: int = 1 << 16,
) -> Demand:
    return Demand(
        capacity_bytes=lambda: capacity_bytes,
        clock=clock or Clock(),
        reads_max=reads_max,
        chunks_max=chunks_max,
    )


def read_all(demand: Demand, obj: ObjectId) -> None:
    for index in range(obj.chunk_count):
        demand.read(obj, index, length=CHUNK)


def chunks_of(sample: SampledReads) -> set[tuple[int, int]]:
    objects = sample.object_digests[sample.chunk_objects].tolist()
    return set(zip(objects, sample.chunk_indexes.tolist(), strict=True))


def test_a_few_reads_are_noted_one_by_one_with_what_they_are_of() -> None:
    clock = Clock()
    demand, small = demand_of(clock=clock), ObjectId("s3://models/small", "1", 3 * CHUNK - 5, CHUNK)

    for index in (0, 1, 2):
        clock.now += 1.0
        demand.read(small, index, length=100 + index)
    sample = demand.sample()

    assert sample.threshold == WHOLE
    assert sample.read_times.tolist() == [1001.0, 1002.0, 1003.0]
    assert sample.read_bytes.tolist() == [100, 101, 102]
    assert sample.chunk_bytes.tolist() == [CHUNK, CHUNK, CHUNK - 5]
    assert sample.read_kinds.tolist() == [FOUND] * 3
    assert (sample.begins_at, sample.ends_at) == (1000.0, 1003.0)


def test_the_parts_of_a_chunk_that_are_read_one_after_another_stand_in_one_line() -> None:
    demand, obj = demand_of(), model("a")

    for _ in range(3):
        demand.read(obj, 7, length=1000)
    for index in range(10, 10 + TOGETHER_READS):
        demand.read(obj, index, length=CHUNK)
    demand.read(obj, 7, length=1000)
    sample = demand.sample()

    assert sample.read_counts.tolist() == [3, *[1] * TOGETHER_READS, 1]
    assert sample.read_bytes.tolist()[0] == 3000


def test_what_came_from_the_origin_is_missed_by_one_read_and_found_by_those_that_waited() -> None:
    demand, obj = demand_of(), model("a")

    demand.came(obj, 3, is_asked_for=True)
    demand.read(obj, 3, length=CHUNK)
    read_all(demand, model("b"))
    demand.read(obj, 3, length=CHUNK)
    demand.came(obj, 4, is_asked_for=False)
    sample = demand.sample()

    kinds = sample.read_kinds.tolist()
    assert (kinds[0], kinds[-2], kinds[-1]) == (MISSED, FOUND, WARMED)
    assert (sample.read_counts[-1], sample.read_bytes[-1]) == (0, 0)


@pytest.mark.parametrize("seed", range(5))
def test_it_never_has_more_reads_nor_chunks_than_it_may(seed: int) -> None:
    rng = random.Random(seed)
    reads_max, chunks_max = rng.randrange(200, 2000), rng.randrange(100, 1000)
    demand = demand_of(
        capacity_bytes=rng.choice((1, MANY)), reads_max=reads_max, chunks_max=chunks_max
    )
    models = [model(str(number), chunks=rng.randrange(1, 300)) for number in range(60)]

    for _ in range(40):
        read_all(demand, rng.choice(models))
        sample = demand.sample()
        assert len(sample) <= reads_max
        assert len(sample.chunk_indexes) <= chunks_max


class Owning:
    """What a node owns of an object, in a placement."""

    def __init__(self, *chunk_ids: bytes) -> None:
        self.ids, self.epoch, self.asked = {*chunk_ids}, 1, 0

    def owned(self, chunks: Mapping[bytes, str]) -> set[bytes]:
        self.asked += len(chunks)
        return self.ids & chunks.keys()


def test_what_readers_of_this_machine_read_counts_where_it_is_owned() -> None:
    obj, clock = model("a"), Clock()
    owning = Owning(obj.chunk_id(1), obj.chunk_id(2))
    demand = Demand(capacity_bytes=lambda: MANY, ownership=owning, clock=clock)

    def indexes_when_read(*indexes: int) -> list[int]:
        for index in indexes:
            demand.read(obj, index, length=CHUNK, if_owned=True)
        return list(demand.sample().chunk_indexes)

    demand.read(obj, 9, length=CHUNK)
    assert indexes_when_read(1, 2, 3) == [9, 1, 2]
    assert (indexes_when_read(1, 2, 3), owning.asked) == ([9, 1, 2], 3)
    owning.ids.add(obj.chunk_id(3))
    owning.epoch = 2
    assert indexes_when_read(3) == [9, 1, 2, 3]
    owning.ids.add(obj.chunk_id(4))
    assert indexes_when_read(4) == [9, 1, 2, 3, 4]
    assert indexes_when_read(5) == [9, 1, 2, 3, 4]
    owning.ids.add(obj.chunk_id(5))
    assert indexes_when_read(5) == [9, 1, 2, 3, 4]
    clock.now += 2 * OWNED_S
    assert indexes_when_read(5) == [9, 1, 2, 3, 4, 5]


def test_reads_wait_to_be_noted_together_and_are_in_every_sample() -> None:
    clock = Clock()
    demand = demand_of(clock=clock)

    for count in (1, SETTLED_AT - 2, SETTLED_AT, 3 * SETTLED_AT + 1):
        before = len(demand.sample())
        for index in range(count):
            clock.now += 1.0
            demand.read(model(str(count), chunks=count), index, length=CHUNK)
        assert len(demand.sample()) - before == count
    assert np.all(np.diff(demand.sample().read_times) == 1.0)


def test_what_waits_is_noted_though_nobody_asks_for_a_sample() -> None:
    demand, last = demand_of(reads_max=4000), model("last", chunks=1000)

    for number in range(200):
        read_all(demand, model(str(number)))

    assert not all(demand.samples(last, index) for index in range(1000)), "the threshold fell"


def test_one_model_that_is_read_over_and_over_is_no_more_lines_than_there_may_be() -> None:
    demand = demand_of(capacity_bytes=1, reads_max=1000)

    for _ in range(50):
        read_all(demand, model("a"))

    assert 500 <= len(demand.sample()) <= 1000


def test_the_threshold_falls_while_the_sample_is_denser_than_it_has_to_be() -> None:
    clock = Clock()
    demand = demand_of(reads_max=4000, clock=clock)

    for number in range(200):
        clock.now += 1.0
        read_all(demand, model(str(number)))
    sample = demand.sample()

    assert sample.threshold < WHOLE // 4
    assert sample.begins_at == 1000.0  # Nothing was forgotten of the chunks that are left.
    assert 20_000 * sample.rate == pytest.approx(len(sample), rel=0.05)


def test_a_small_node_keeps_all_its_chunks_in_the_sample_and_forgets_the_oldest_reads() -> None:
    clock = Clock()
    demand = demand_of(capacity_bytes=SAMPLED_MIN * CHUNK, reads_max=4000, clock=clock)

    for number in range(200):
        clock.now += 1.0
        read_all(demand, model(str(number)))
    sample = demand.sample()

    assert sample.threshold == WHOLE
    assert sample.begins_at > 1100.0
    assert sample.read_times.min() >= sample.begins_at
    assert len(sample) >= 100 * (clock.now - sample.begins_at)


def test_of_a_model_that_is_read_whole_as_many_chunks_are_in_the_sample_as_the_rate_says() -> None:
    demand = demand_of(reads_max=1000)
    for number in range(400):
        read_all(demand, model(str(number), chunks=500))
    sample = demand.sample()

    counts = np.bincount(sample.chunk_objects)

    # By chance alone they would differ by the square root of it.
    expected = 500 * sample.rate
    assert np.all(np.abs(counts - expected) <= 2)


def test_nodes_that_see_different_chunks_of_an_object_agree_on_which_are_sampled() -> None:
    whole = demand_of(reads_max=500)
    halves = [demand_of(reads_max=500), demand_of(reads_max=500)]
    for number in range(50):
        obj = model(str(number))
        read_all(whole, obj)
        for index in range(obj.chunk_count):
            halves[index % 2].read(obj, index, length=CHUNK)

    both = joined([each.sample() for each in halves]).thinned(whole.sample().threshold)

    assert both.threshold <= whole.sample().threshold
    assert chunks_of(both) == chunks_of(whole.sample().thinned(both.threshold))
    assert len(both) == len(whole.sample().thinned(both.threshold))


def test_a_chunk_that_two_nodes_answered_for_is_one_chunk_of_their_cluster() -> None:
    clock = Clock()
    one, other = demand_of(clock=clock), demand_of(clock=clock)
    for turn in range(3):
        clock.now += 1.0
        read_all(one if turn % 2 else other, model("a"))

    both = joined([one.sample(), other.sample()])

    assert len(both.chunk_indexes) == 100
    assert len(both.object_digests) == 1
    assert np.all(np.diff(both.read_times) >= 0.0)
    assert len(both) == 300


def test_thinning_to_a_number_of_reads_keeps_whole_chunks() -> None:
    demand = demand_of()
    for _ in range(3):
        for number in range(10):
            read_all(demand, model(str(number)))

    sample = demand.sample(reads_max=300)

    assert 0 < len(sample) <= 300
    assert set(np.bincount(sample.read_chunks).tolist()) == {3}
    assert np.all(sample.positions < np.uint64(sample.threshold))


def test_a_node_that_was_started_lately_does_not_shorten_what_the_cluster_tells() -> None:
    clock = Clock()
    old = [demand_of(clock=clock), demand_of(clock=clock)]
    clock.now += 1000.0
    new = demand_of(clock=clock)
    for demand in (*old, new):
        read_all(demand, model("a"))
    samples = {str(at): each.sample() for at, each in enumerate((*old, new))}

    found = cluster_sample(samples, shares=dict.fromkeys(samples, 1 / 3))

    assert found is not None
    sample, share = found
    assert share == pytest.approx(2 / 3)
    assert sample.begins_at == 1000.0


def test_less_than_half_of_the_ring_tells_nothing() -> None:
    assert cluster_sample({"a": demand_of().sample()}, shares={"a": 0.4, "b": 0.6}) is None


def test_a_sample_is_the_same_after_it_went_over_the_wire() -> None:
    clock = Clock()
    demand = demand_of(clock=clock)
    for number in range(3):
        clock.now += 0.25
        read_all(demand, model(str(number)))
    demand.came(model("b"), 1, is_asked_for=False)
    told = demand.sample()

    message = sample_to_proto(told, node="a")
    heard = sample_from_proto(type(message).FromString(message.SerializeToString()))

    assert chunks_of(heard) == chunks_of(told)
    assert heard.read_times == pytest.approx(told.read_times, abs=1e-6)
    assert heard.read_kinds.tolist() == told.read_kinds.tolist()
    assert (heard.threshold, heard.begins_at) == (told.threshold, told.begins_at)


def test_many_threads_note_all_their_reads() -> None:
    demand = demand_of()

    def work(number: int) -> None:
        for _ in range(20):
            read_all(demand, model(str(number)))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert int(demand.sample().read_counts.astype(int).sum()) == 4 * 20 * 100

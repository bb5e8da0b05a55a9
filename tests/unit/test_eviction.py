"""What a tier keeps of the objects that are read, and what it gives up."""

import math
import random
from collections import OrderedDict
from itertools import islice

import pytest

from penstock.objects import ObjectId
from penstock_node.store.eviction import EvictionOrder, Reason
from penstock_node.store.listed import Listed, split_ids
from penstock_node.testbed.model_traces import NAMES, trace
from tests.commit import seeds_of_commit

CAPACITY_CHUNKS = 1000
CHUNK_BYTES = 65536 + 4096
CAPACITY_BYTES = CAPACITY_CHUNKS * CHUNK_BYTES
NOBODY: frozenset[bytes] = frozenset()
Chunk = tuple[ObjectId, int]


def model(name: str, chunks: int) -> ObjectId:
    return ObjectId(f"s3://models/{name}", "1", chunks * 65536, 65536)


def chunks_of(subject: ObjectId) -> list[Chunk]:
    return [(subject, index) for index in range(subject.chunk_count)]


class Cache:
    """Chunks of one size that are read through an order of eviction."""

    def __init__(self) -> None:
        self.order = EvictionOrder(capacity_bytes=CAPACITY_BYTES)

    def read(self, chunk: Chunk) -> bool:
        """Read a chunk; whether it was there."""
        subject, index = chunk
        chunk_id = subject.chunk_id(index)
        if self.order.size_of(chunk_id) is not None:
            self.order.touch(chunk_id, of=subject)
            return True
        self.keep(chunk, reason="read")
        return False

    def keep(self, chunk: Chunk, *, reason: Reason) -> None:
        subject, index = chunk
        self.order.victims(self.order.used_bytes + CHUNK_BYTES - CAPACITY_BYTES, in_use=NOBODY)
        self.order.insert(subject.chunk_id(index), CHUNK_BYTES, reason=reason, of=subject)

    def read_whole(self, *subjects: ObjectId) -> int:
        """Read objects one after the other; return how many chunks were there."""
        return sum(self.read(chunk) for subject in subjects for chunk in chunks_of(subject))

    def holds(self, subject: ObjectId) -> float:
        """The share of an object that is here."""
        ids = [subject.chunk_id(index) for index in range(subject.chunk_count)]
        return sum(self.order.size_of(chunk_id) is not None for chunk_id in ids) / len(ids)


def test_models_that_are_read_often_outlive_data_that_is_read_once() -> None:
    cache = Cache()
    popular = [model(f"popular-{number}", 150) for number in range(4)]
    for _ in range(4):
        cache.read_whole(*popular)

    cache.read_whole(*(model(f"data-{number}", 800) for number in range(4)))

    assert min(cache.holds(subject) for subject in popular) > 0.9


@pytest.mark.parametrize("reason", ["warmup", "repair"])
def test_what_was_asked_for_outlives_data_that_is_read_once(reason: Reason) -> None:
    cache = Cache()
    warmed = model("warmed", 500)
    for chunk in chunks_of(warmed):
        cache.keep(chunk, reason=reason)

    cache.read_whole(*(model(f"data-{number}", 600) for number in range(4)))

    assert cache.holds(warmed) > 0.9


def test_what_is_pinned_outlives_whatever_is_read_how_often() -> None:
    cache = Cache()
    pinned, popular = model("pinned", 400), [model(f"popular-{number}", 300) for number in range(3)]
    cache.read_whole(pinned)
    cache.order.pin([pinned])

    for _ in range(6):
        cache.read_whole(*popular)

    assert cache.holds(pinned) == 1.0
    cache.order.pin([])
    for _ in range(6):
        cache.read_whole(*popular)
    assert cache.holds(pinned) < 0.3  # What is read takes 900 of 1,000.


def test_what_is_pinned_before_it_comes_outlives_what_comes_with_it() -> None:
    cache = Cache()
    pinned, others = model("pinned", 1), [model(f"other-{number}", 1) for number in range(20)]
    cache.order.pin([pinned])

    cache.read_whole(*others[:10], pinned, *others[10:])
    gone = {victim.chunk_id for victim in cache.order.victims(20 * CHUNK_BYTES, in_use=NOBODY)}

    assert gone == {other.chunk_id(0) for other in others}


def test_what_is_pinned_goes_when_there_is_nothing_else() -> None:
    cache = Cache()
    pinned, other = model("pinned", 100), model("other", 50)
    cache.read_whole(pinned, other)
    cache.order.pin([pinned])

    assert cache.order.least_readings() < math.inf
    assert len(cache.order.victims(50 * CHUNK_BYTES, in_use=NOBODY)) == 50
    assert (cache.holds(pinned), cache.holds(other)) == (1.0, 0.0)
    assert cache.order.least_readings() == math.inf
    assert len(cache.order.victims(30 * CHUNK_BYTES, in_use=NOBODY)) == 30
    assert cache.holds(pinned) == 0.7


def test_what_was_found_on_disk_is_kept_once_it_is_known_to_be_pinned() -> None:
    cache = Cache()
    pinned, other = model("pinned", 300), model("other", 700)
    for subject in (pinned, other):
        for index in range(subject.chunk_count):
            cache.order.insert(subject.chunk_id(index), CHUNK_BYTES, reason="restart")
    cache.order.pin([pinned])

    known = [
        cache.order.attribute(pinned.chunk_id(index), of=pinned)
        for index in range(pinned.chunk_count)
    ]

    assert all(known)
    assert not cache.order.attribute(model("absent", 1).chunk_id(0), of=pinned)
    for number in range(4):
        cache.read_whole(model(f"data-{number}", 600))
    assert cache.holds(pinned) == 1.0


def test_what_is_pinned_is_offered_to_new_owners_first() -> None:
    cache = Cache()
    pinned, popular = model("pinned", 10), model("popular", 10)
    cache.read_whole(pinned, *[popular] * 5)
    cache.order.pin([pinned])

    chunks, worths = cache.order.worths()
    best = set(split_ids(chunks.at(worths.argsort()[::-1][:10]).ids))

    assert best == {pinned.chunk_id(index) for index in range(10)}


def test_what_is_handed_over_is_worth_what_it_was_to_its_former_owner() -> None:
    cache = Cache()
    cold, hot = model("cold", 250), model("hot", 250)
    for readings, subject in ((0.5, cold), (4.0, hot)):
        for chunk in chunks_of(subject):
            cache.keep(chunk, reason="handoff")
            cache.order.raise_readings(subject.chunk_id(chunk[1]), readings)
        assert cache.order.readings_of(subject.chunk_id(0)) == pytest.approx(readings)

    cache.read_whole(*(model(f"data-{number}", 600) for number in range(4)))

    assert cache.holds(hot) > 0.9
    assert cache.holds(cold) < 0.1


def test_what_was_asked_for_is_kept_longer_than_what_was_read_once() -> None:
    cache = Cache()
    warmed, read, popular = model("warmed", 400), model("read", 400), model("popular", 400)
    for chunk in chunks_of(warmed):
        cache.keep(chunk, reason="warmup")
    cache.read_whole(read)

    cache.read_whole(*[popular] * 3)

    assert cache.holds(warmed) > cache.holds(read)


def test_what_was_found_on_disk_outlives_data_that_is_read_once() -> None:
    cache = Cache()
    found = [(number.to_bytes(16, "big"), CHUNK_BYTES) for number in range(CAPACITY_CHUNKS)]
    cache.order.insert_found(Listed.of(found))

    cache.read_whole(*(model(f"data-{number}", 400) for number in range(4)))

    here = sum(cache.order.size_of(chunk_id) is not None for chunk_id, _ in found)
    assert here > 0.5 * CAPACITY_CHUNKS


def test_an_object_larger_than_the_cache_keeps_a_part_that_its_next_reader_finds() -> None:
    cache = Cache()
    large = model("large", 2 * CAPACITY_CHUNKS)
    cache.read_whole(large)

    hits = cache.read_whole(large)

    assert hits > 0.4 * CAPACITY_CHUNKS, "in the order of last use it finds none"


def test_a_version_that_is_read_no_more_makes_room_for_the_one_that_is() -> None:
    cache = Cache()
    old, new = model("old", 600), model("new", 600)
    for _ in range(5):
        cache.read_whole(old)

    for _ in range(12):
        cache.read_whole(new)

    assert cache.holds(new) > 0.9


def test_a_small_object_that_is_new_stays_until_it_is_compared() -> None:
    cache = Cache()
    cache.read_whole(*[model("popular", CAPACITY_CHUNKS)] * 4)
    small = model("small", 5)

    cache.read_whole(small)

    assert cache.read_whole(small) == 5


def test_chunks_found_on_disk_are_unverified_until_they_are_verified() -> None:
    order = EvictionOrder(capacity_bytes=CAPACITY_BYTES)
    first, second, third = (bytes([number]) * 16 for number in range(3))
    order.insert_found(Listed.of([(first, 10)]))
    order.insert(second, 10, reason="restart")
    order.insert(third, 10, reason="read")

    order.verified(first)

    assert [order.is_unverified(chunk_id) for chunk_id in (first, second, third)] == [0, 1, 0]
    order.remove(second)
    assert not order.is_unverified(second)


def test_victims_cover_what_was_wanted_and_no_chunk_more() -> None:
    cache = Cache()
    cache.read_whole(model("any", 20))
    order = cache.order

    assert len(order.victims(2 * CHUNK_BYTES + 1, in_use=NOBODY)) == 3
    assert order.victims(0, in_use=NOBODY) == []
    assert len(order.victims(10 * CAPACITY_BYTES, in_use=NOBODY)) == 17
    assert (len(order), order.used_bytes) == (0, 0)


def test_chunks_in_use_are_passed_over_and_go_once_they_are_free() -> None:
    cache = Cache()
    subject = model("any", 20)
    cache.read_whole(subject)
    in_use = {subject.chunk_id(index) for index in range(5)}

    doomed = cache.order.victims(10 * CAPACITY_BYTES, in_use=in_use)

    assert len(doomed) == 15
    assert {victim.chunk_id for victim in cache.order.chunks()} == in_use
    freed = cache.order.victims(10 * CAPACITY_BYTES, in_use=NOBODY)
    assert {victim.chunk_id for victim in freed} == in_use


@pytest.mark.parametrize("name", NAMES)
def test_more_is_found_than_in_the_order_of_last_use(name: str) -> None:
    """Each tenth chunk of the trace, as a node among ten sees it."""
    cache, last_used, hits, hits_by_last_use = Cache(), OrderedDict[bytes, bool](), 0, 0
    subjects: dict[int, ObjectId] = {}
    for number, index in islice(trace(name, seed=7), 400_000):
        if hash((number, index)) % 10:
            continue
        subject = subjects.setdefault(number, model(str(number), 4000))
        chunk_id = subject.chunk_id(index)
        hits += cache.read((subject, index))
        hits_by_last_use += last_used.pop(chunk_id, False)
        last_used[chunk_id] = True
        if len(last_used) > CAPACITY_CHUNKS:
            last_used.popitem(last=False)

    assert hits > 1.05 * hits_by_last_use > 0


@pytest.mark.parametrize("seed", seeds_of_commit(15))
def test_any_history_accounts_for_every_byte(seed: int) -> None:
    rng = random.Random(seed)
    order, kept, in_use = EvictionOrder(capacity_bytes=1000), dict[bytes, int](), set[bytes]()
    subjects = [model(f"{number}", 6) for number in range(10)]
    ids = {subject.chunk_id(index): subject for subject in subjects for index in range(6)}
    reasons: list[Reason] = ["read", "read", "read", "warmup", "handoff", "repair", "restart"]
    for _ in range(600):
        chunk_id = rng.choice(list(ids))
        of = rng.choice((ids[chunk_id], ids[chunk_id], None))
        match rng.choice(("insert", "insert", "found", "touch", "remove", "victims", "use")):
            case "insert" if chunk_id not in kept:
                kept[chunk_id] = rng.randint(1, 60)
                order.insert(chunk_id, kept[chunk_id], reason=rng.choice(reasons), of=of)
            case "found":
                new = [each for each in rng.sample(list(ids), 5) if each not in kept]
                kept |= {each: rng.randint(1, 60) for each in new}
                order.insert_found(Listed.of((each, kept[each]) for each in new))
            case "touch" if chunk_id in kept:
                order.touch(chunk_id, of=of)
            case "remove" if chunk_id in kept:
                assert order.remove(chunk_id) == kept.pop(chunk_id)
            case "use":
                in_use = set(rng.sample(list(ids), 5))
            case "victims":
                wanted = rng.randint(0, 200)
                doomed = order.victims(wanted, in_use=in_use)
                sizes = [kept.pop(victim.chunk_id) for victim in doomed]
                assert [victim.size_bytes for victim in doomed] == sizes
                assert not in_use & {victim.chunk_id for victim in doomed}
                assert sum(sizes) >= wanted or set(kept) <= in_use
                assert sum(sizes[:-1]) < max(1, wanted)
        assert dict(order.chunks()) == kept, f"replay with seed {seed}"
        assert (len(order), order.used_bytes) == (len(kept), sum(kept.values()))

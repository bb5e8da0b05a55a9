"""The order of a stream, and positions within it. Shards are files: no process is needed."""

import itertools
import json
import pickle
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from penstock.data import ShardStream
from penstock.data.formats import Found
from penstock.data.shuffle_buffer import ShuffleBuffer
from penstock.data.tar import WINDOW_BYTES
from penstock.errors import InvalidRequest, ObjectChanged
from penstock_node.testbed.shards import write_row_shards, write_tar_shards

SHARDS = 5
SAMPLES = 20
ALL = list(range(SHARDS * SAMPLES))
GOLDEN = [29, 79, 30, 67, 31, 68, 78, 28]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    write_tar_shards(folder / "tar", shards=SHARDS, samples=SAMPLES, sample_bytes=200)
    write_row_shards(folder / "rows", shards=SHARDS, rows=SAMPLES, row_bytes=64)
    return folder


def number_of(sample: dict[str, Any]) -> int:
    return int(sample["cls"] if "cls" in sample else sample["y"])


def stream(folder: Path, kind: str = "tar", **options: Any) -> ShardStream:
    return ShardStream(folder / kind, transform=number_of, **options)


def shuffled(folder: Path, kind: str = "tar", **options: Any) -> ShardStream:
    return stream(folder, kind, shuffle=True, **{"buffer_samples": 30, "seed": 7, **options})


@pytest.mark.parametrize("kind", ["tar", "rows"])
def test_without_shuffling_samples_come_as_they_lie(folder: Path, kind: str) -> None:
    assert list(stream(folder, kind)) == ALL
    assert list(stream(folder, kind)) == ALL


@pytest.mark.parametrize("kind", ["tar", "rows"])
def test_a_shuffled_epoch_has_every_sample_once_in_the_same_order_each_time(
    folder: Path, kind: str
) -> None:
    samples = shuffled(folder, kind)

    first, second = list(samples), list(samples)

    assert sorted(first) == ALL
    assert first == second == list(shuffled(folder, kind))
    assert first != ALL


def test_epochs_seeds_and_buffers_make_other_orders(folder: Path) -> None:
    later = shuffled(folder)
    later.set_epoch(1)
    streams = [
        shuffled(folder),
        later,
        shuffled(folder, seed=8),
        shuffled(folder, buffer_samples=10),
        shuffled(folder, buffer_bytes=2_000),
    ]

    orders = [tuple(each) for each in streams]

    assert len(set(orders)) == len(orders)
    assert all(sorted(order) == ALL for order in orders)


def test_the_order_is_the_one_that_positions_of_older_trainings_mean(folder: Path) -> None:
    assert list(shuffled(folder))[:8] == GOLDEN


def test_shards_come_in_another_order_and_mix_within_the_buffer(folder: Path) -> None:
    in_turn = [number // SAMPLES for number in shuffled(folder, buffer_samples=1)]
    mixed = [number // SAMPLES for number in shuffled(folder, buffer_samples=30)]

    assert [shard for at, shard in enumerate(in_turn) if at % SAMPLES == 0] != list(range(SHARDS))
    assert sum(a != b for a, b in itertools.pairwise(in_turn)) == SHARDS - 1
    assert sum(a != b for a, b in itertools.pairwise(mixed)) > SHARDS * 2


@pytest.mark.parametrize("world_size", [1, 2, 3, 5, 8])
def test_ranks_have_every_sample_once_together(folder: Path, world_size: int) -> None:
    for epoch in range(3):
        parts = []
        for rank in range(world_size):
            samples = shuffled(folder, rank=rank, world_size=world_size)
            samples.set_epoch(epoch)
            parts.append(list(samples))

        assert Counter(number for part in parts for number in part) == Counter(ALL)
        sizes = [len(part) // SAMPLES for part in parts]
        assert max(sizes) - min(sizes) <= 1, "a shard more, at most"


def test_one_rank_that_has_none_says_so(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert list(stream(folder, rank=7, world_size=8)) == []
    list(stream(folder, rank=0, world_size=8))

    assert "5 shards for 8 readers: some have none to read" in caplog.text


@pytest.mark.parametrize(
    "options",
    [{"rank": 2, "world_size": 2}, {"rank": -1, "world_size": 2}, {"rank": 0}, {"world_size": 2}],
)
def test_ranks_that_cannot_be_are_refused(folder: Path, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="rank"):
        stream(folder, **options)


def test_a_buffer_without_room_is_refused(folder: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"buffer_samples=0.*leave shuffle=False"):
        shuffled(folder, buffer_samples=0)


# Positions ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tar", "rows"])
@pytest.mark.parametrize("buffer", [None, 1, 30, 1_000])
@pytest.mark.parametrize("taken", [0, 1, 19, 20, 21, 57, 99, 100])
def test_what_is_left_comes_in_the_order_of_an_undisturbed_epoch(
    folder: Path, kind: str, buffer: int | None, taken: int
) -> None:
    options = {} if buffer is None else {"shuffle": True, "buffer_samples": buffer}
    wanted = list(stream(folder, kind, **options))
    samples = stream(folder, kind, **options)
    iterator = iter(samples)
    begun = [next(iterator) for _ in range(taken)]
    state = json.loads(json.dumps(samples.state_dict()))

    again = stream(folder, kind, **options)
    again.load_state_dict(state)

    assert begun + list(again) == wanted
    assert list(again) == wanted, "the epoch after begins at its beginning"


def test_a_position_can_be_taken_again_and_again(folder: Path) -> None:
    wanted = list(shuffled(folder))
    found: list[int] = []
    state = shuffled(folder).state_dict()
    for _ in range(25):
        samples = shuffled(folder)
        samples.load_state_dict(state)
        iterator = iter(samples)
        found += [next(iterator) for _ in range(4)]
        state = samples.state_dict()

    assert found == wanted


def test_a_position_that_was_loaded_and_not_used_is_the_position(folder: Path) -> None:
    samples = shuffled(folder)
    iterator = iter(samples)
    next(iterator)
    state = samples.state_dict()

    again = shuffled(folder)
    again.load_state_dict(state)

    assert again.state_dict() == state
    iter(again)
    assert again.state_dict() == state


def test_a_position_has_its_epoch(folder: Path) -> None:
    samples = shuffled(folder)
    samples.set_epoch(3)
    wanted = list(samples)
    iterator = iter(samples)
    begun = [next(iterator) for _ in range(33)]

    again = shuffled(folder)
    again.load_state_dict(samples.state_dict())

    assert begun + list(again) == wanted


def test_another_epoch_gives_a_position_up(folder: Path) -> None:
    samples = shuffled(folder)
    next(iter(samples))
    again = shuffled(folder)
    again.load_state_dict(samples.state_dict())

    again.set_epoch(1)
    fresh = shuffled(folder)
    fresh.set_epoch(1)

    assert list(again) == list(fresh)


def test_a_position_of_another_epoch_than_the_one_that_was_set_is_refused(folder: Path) -> None:
    state = shuffled(folder).state_dict()
    samples = shuffled(folder)
    samples.set_epoch(2)

    with pytest.raises(InvalidRequest, match=r"epoch 0, and set_epoch\(2\) was called"):
        samples.load_state_dict(state)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"seed": 8}, "seed=7"),
        ({"buffer_samples": 31}, "buffer_samples=30"),
        ({"rank": 0, "world_size": 2}, "world_size=1"),
        ({"shuffle": False}, "shuffle=True"),
    ],
)
def test_a_position_of_another_stream_is_refused_with_what_differs(
    folder: Path, options: dict[str, Any], name: str
) -> None:
    state = shuffled(folder).state_dict()

    with pytest.raises(InvalidRequest, match=f"saved with {name}"):
        ShardStream(
            folder / "tar", **{"shuffle": True, "buffer_samples": 30, "seed": 7, **options}
        ).load_state_dict(state)


def test_a_position_of_other_shards_is_refused(folder: Path) -> None:
    state = shuffled(folder).state_dict()

    with pytest.raises(InvalidRequest, match="saved with shards="):
        shuffled(folder, "rows").load_state_dict(state)


def test_a_shard_overwritten_since_the_position_was_saved_is_noticed(tmp_path: Path) -> None:
    paths = write_tar_shards(tmp_path, shards=2, samples=8, sample_bytes=100)
    samples = ShardStream(paths, shuffle=True, buffer_samples=4)
    next(iter(samples))
    state = samples.state_dict()
    for path in paths:  # As large as before.
        path.write_bytes(path.read_bytes())

    again = ShardStream(paths, shuffle=True, buffer_samples=4)
    again.load_state_dict(state)

    with pytest.raises(ObjectChanged, match=rf"shard {tmp_path}/000.\.tar was overwritten"):
        next(iter(again))


def test_a_stream_pickles_small_whatever_it_has_open(folder: Path) -> None:
    samples = ShardStream(folder / "tar", shuffle=True)
    wanted = [each["__key__"] for each in samples]
    next(iter(samples))

    data = pickle.dumps(samples)

    assert len(data) < 2000
    assert [each["__key__"] for each in pickle.loads(data)] == wanted  # noqa: S301 - our own


# Memory -------------------------------------------------------------------------------------


@pytest.mark.parametrize("buffer_samples", [None, 20])
def test_a_shard_is_never_whole_in_memory(tmp_path: Path, buffer_samples: int | None) -> None:
    sample_bytes = 100_000
    write_tar_shards(tmp_path, shards=1, samples=400, sample_bytes=sample_bytes)
    options = {"shuffle": True, "buffer_samples": buffer_samples} if buffer_samples else {}
    samples = ShardStream(tmp_path, transform=number_of, **options)  # type: ignore[arg-type]
    next(iter(samples))  # What is imported then is no sample.

    tracemalloc.start()
    try:
        assert len(list(samples)) == 400
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    held = (buffer_samples or 0) + 5  # And those on their way.
    assert peak < WINDOW_BYTES + held * sample_bytes + 2**20


# The buffer ---------------------------------------------------------------------------------


def sample(size_bytes: int) -> Found:
    return Found({}, 0, 1, size_bytes)


def test_a_buffer_has_room_for_so_many_samples_and_so_many_bytes() -> None:
    buffer = ShuffleBuffer(1, samples_max=3, bytes_max=100)

    assert buffer.has_room(sample(1000)), "one in any case"
    buffer.push(0, sample(60))
    assert buffer.has_room(sample(40))
    assert not buffer.has_room(sample(41))
    buffer.push(0, sample(1))
    buffer.push(0, sample(1))
    assert not buffer.has_room(sample(1))
    buffer.pop()
    assert buffer.has_room(sample(1))


def test_the_bytes_of_who_has_left_are_free_again() -> None:
    buffer = ShuffleBuffer(1, samples_max=1000, bytes_max=100)

    for _ in range(50):
        while buffer.has_room(sample(30)):
            buffer.push(0, sample(30))
        assert len(buffer) == 3
        buffer.pop()


def test_a_buffer_of_a_number_of_draws_goes_on_like_one_that_made_them() -> None:
    one = ShuffleBuffer(9, samples_max=10, bytes_max=10**9)
    for at in range(10):
        one.push(at, Found({"at": at}, at, at + 1, 1))
    for _ in range(4):
        one.pop()
    other = ShuffleBuffer(9, samples_max=10, bytes_max=10**9, drawn=one.drawn)
    for number, found in one.entries:
        other.push(number, found)

    assert [one.pop() for _ in range(6)] == [other.pop() for _ in range(6)]

"""Samples by number, and the order of a sampler. Shards are files: no process is needed."""

import itertools
import json
import pickle
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.data import Shards, ShardSampler
from penstock.data import shards as shards_module
from penstock.errors import InvalidRequest, ObjectChanged
from penstock_node.testbed.shards import write_row_shards, write_tar, write_tar_shards

SIZES = (20, 1, 0, 35, 20)
"""Samples of each shard."""
GROUPS = [10, 10, 1, 0, 10, 10, 10, 5, 10, 10]
"""Of the same as row groups."""
COUNT = sum(SIZES)
ALL = list(range(COUNT))
KINDS = ("tar", "rows", "parquet")
GOLDEN = [58, 7, 64, 15, 60, 66, 1, 73]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    for at, numbers in enumerate(numbers_of_shards()):
        members = [(f"{number}.cls", b"%d" % number) for number in numbers]
        write_tar(folder / f"tar/{at}.tar", members, tar_format=tarfile.PAX_FORMAT)
        write_row_shards(folder / f"rows/{at}", shards=1, rows=len(numbers), row_bytes=8)
        table = pa.table({"cls": pa.array(list(numbers), pa.int64())})
        (folder / "parquet").mkdir(exist_ok=True)
        pq.write_table(table, folder / f"parquet/{at}.parquet", row_group_size=10)
    return folder


def numbers_of_shards() -> list[range]:
    ends = list(itertools.accumulate(SIZES))
    return [range(end - size, end) for end, size in zip(ends, SIZES, strict=True)]


def number_of(sample: dict[str, Any]) -> int:
    return int(sample["cls"] if "cls" in sample else sample["y"])


def shards(folder: Path, kind: str = "tar") -> Shards:
    return Shards(folder / kind, transform=number_of)


def expected(kind: str) -> list[int]:
    """Rows are numbered within their shard."""
    if kind != "rows":
        return ALL
    return [number for size in SIZES for number in range(size)]


# Samples by number --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_samples_are_numbered_shard_by_shard(folder: Path, kind: str) -> None:
    samples = shards(folder, kind)

    assert len(samples) == COUNT
    assert [samples[at] for at in range(COUNT)] == expected(kind)
    assert list(samples) == expected(kind)
    assert samples[-1] == expected(kind)[-1]


@pytest.mark.parametrize("kind", KINDS)
def test_many_are_had_at_once_in_any_order(folder: Path, kind: str) -> None:
    wanted = [70, 0, 20, 21, 3, 0, -1]

    assert shards(folder, kind).__getitems__(wanted) == [expected(kind)[at] for at in wanted]


@pytest.mark.parametrize("index", [COUNT, -COUNT - 1])
def test_a_number_beyond_the_last_is_an_index_error(folder: Path, index: int) -> None:
    with pytest.raises(IndexError, match=f"there are {COUNT}"):
        shards(folder)[index]


def test_samples_are_counted_once_and_taken_along(folder: Path, tmp_path: Path) -> None:
    samples = Shards(write_tar_shards(tmp_path, shards=3, samples=4, sample_bytes=10))
    assert len(samples) == 12

    again = pickle.loads(pickle.dumps(samples))  # noqa: S301 - our own
    for path in tmp_path.iterdir():
        path.unlink()

    assert len(again) == 12
    assert len(pickle.dumps(samples)) < 2000


def test_more_shards_than_may_be_open_are_read_all_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards_module, "OPEN_MAX", 2)
    monkeypatch.setattr(shards_module, "INDEX_BYTES_MAX", 100)
    samples = shards(folder)

    order = [*range(0, COUNT, 7), *ALL, *range(COUNT - 1, 0, -9)]

    assert [samples[at] for at in order] == order
    assert len(samples._opened._open) == 2
    assert samples._opened._kept_bytes() <= 300, "the last one in any case"


def test_row_groups_are_kept_of_the_shards_that_were_read_last_alone(tmp_path: Path) -> None:
    for at in range(9):
        pq.write_table(pa.table({"cls": [at]}), tmp_path / f"{at}.parquet")
    samples = Shards(tmp_path)

    for at in (0, 1, 2, 3, 4, 5, 6, 7, 8, 3):
        assert samples[at] == {"cls": at}

    kept = {at for at, shard in samples._opened._open.items() if shard._kept}  # type: ignore[attr-defined]
    assert kept == {3, 6, 7, 8}


def test_a_shard_overwritten_since_it_was_counted_is_noticed(tmp_path: Path) -> None:
    (path,) = write_tar_shards(tmp_path, shards=1, samples=4, sample_bytes=10)
    samples = Shards(path)
    assert len(samples) == 4
    path.write_bytes(path.read_bytes())

    with pytest.raises(ObjectChanged, match=f"shard {path} was overwritten since"):
        samples[0]


# The sampler --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("window", [1, 2, 100])
def test_an_epoch_has_every_number_once_in_the_same_order_each_time(
    folder: Path, kind: str, window: int
) -> None:
    samples = shards(folder, kind)
    sampler = ShardSampler(samples, window=window, seed=7)

    order = list(sampler)

    assert len(sampler) == COUNT
    assert sorted(order) == ALL
    assert order == list(sampler) == list(ShardSampler(samples, window=window, seed=7))
    assert order != ALL


def test_the_order_is_the_one_that_positions_of_older_trainings_mean(folder: Path) -> None:
    assert list(ShardSampler(shards(folder), window=2, seed=7))[:8] == GOLDEN


def test_without_shuffling_numbers_come_as_they_are(folder: Path) -> None:
    assert list(ShardSampler(shards(folder), shuffle=False)) == ALL


def pieces_in_turn(order: list[int], sizes: list[int]) -> list[int]:
    """Return which piece each number is of, once for all that follow each other."""
    ends = list(itertools.accumulate(sizes))
    of = [next(piece for piece, end in enumerate(ends) if number < end) for number in order]
    return [piece for piece, _ in itertools.groupby(of)]


@pytest.mark.parametrize("kind", KINDS)
def test_each_shard_or_row_group_is_read_in_one_go(folder: Path, kind: str) -> None:
    samples = shards(folder, kind)
    sizes = list(samples.pieces)

    turns = pieces_in_turn(list(ShardSampler(samples, seed=3)), sizes)

    assert sizes == (GROUPS if kind == "parquet" else list(SIZES))
    assert len(turns) == len(set(turns)) == sum(size > 0 for size in sizes)


def test_a_window_mixes_so_many_shards_and_no_more(tmp_path: Path) -> None:
    samples = Shards(write_tar_shards(tmp_path, shards=6, samples=10, sample_bytes=1))
    order = list(ShardSampler(samples, window=2, seed=3))

    together = [{number // 10 for number in order[at : at + 20]} for at in (0, 20, 40)]

    assert [len(each) for each in together] == [2, 2, 2]
    assert set().union(*together) == set(range(6))


def test_epochs_seeds_and_windows_make_other_orders(folder: Path) -> None:
    samples = shards(folder)
    later = ShardSampler(samples, seed=7)
    later.set_epoch(1)
    samplers = [
        ShardSampler(samples, seed=7),
        later,
        ShardSampler(samples, seed=8),
        ShardSampler(samples, seed=7, window=2),
    ]

    orders = [tuple(each) for each in samplers]

    assert len(set(orders)) == 4


@pytest.mark.parametrize("world_size", [1, 2, 3, 7, 100])
def test_ranks_have_every_number_once_together_and_as_many_as_others(
    folder: Path, world_size: int
) -> None:
    samples = shards(folder)
    samplers = [
        ShardSampler(samples, window=2, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]

    parts = [list(each) for each in samplers]

    assert [len(each) for each in samplers] == [len(part) for part in parts]
    assert Counter(number for part in parts for number in part) == Counter(ALL)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_what_does_not_divide_can_be_left_out(folder: Path) -> None:
    samples = shards(folder)
    parts = [
        list(ShardSampler(samples, rank=rank, world_size=7, drop_last=True)) for rank in range(7)
    ]

    assert [len(part) for part in parts] == [COUNT // 7] * 7
    assert max(Counter(number for part in parts for number in part).values()) == 1


@pytest.mark.parametrize("taken", [0, 1, 19, 20, 40, 75, 76])
def test_what_is_left_comes_in_the_order_of_an_undisturbed_epoch(folder: Path, taken: int) -> None:
    samples = shards(folder)
    sampler = ShardSampler(samples, window=2)
    sampler.set_epoch(4)
    wanted = list(sampler)
    begun = list(itertools.islice(sampler, taken))
    state = json.loads(json.dumps(sampler.state_dict()))

    again = ShardSampler(samples, window=2)
    again.load_state_dict(state)

    assert begun + list(again) == wanted
    assert list(again) == wanted, "the epoch after begins at its beginning"


def test_an_iteration_that_is_never_used_takes_no_position_away(folder: Path) -> None:
    sampler = ShardSampler(shards(folder))
    wanted = list(sampler)
    sampler.load_state_dict({**sampler.state_dict(), "taken": 30})

    iter(sampler)

    assert sampler.state_dict()["taken"] == 30
    assert list(sampler) == wanted[30:]


def test_another_epoch_gives_a_position_up(folder: Path) -> None:
    sampler = ShardSampler(shards(folder))
    sampler.load_state_dict({**sampler.state_dict(), "taken": 30})

    sampler.set_epoch(1)

    assert len(list(sampler)) == COUNT


@pytest.mark.parametrize("options", [{"seed": 1}, {"window": 2}, {"rank": 0, "world_size": 2}])
def test_a_position_of_another_sampler_is_refused(folder: Path, options: dict[str, int]) -> None:
    samples = shards(folder)
    state = ShardSampler(samples).state_dict()

    with pytest.raises(InvalidRequest, match=r"saved with (seed|window|world_size)="):
        ShardSampler(samples, **options).load_state_dict(state)  # type: ignore[arg-type]


def test_a_window_of_no_shards_is_refused(folder: Path) -> None:
    with pytest.raises(InvalidRequest, match="window=0"):
        ShardSampler(shards(folder), window=0)

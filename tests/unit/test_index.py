"""Rows found by id, in whatever order chunks come and go; names read many at once."""

import random

import numpy as np
import pytest

from penstock_node.store.index import CELLS, SIZE_MASK, Index
from penstock_node.store.listed import Listed
from penstock_node.store.queues import Queues


def some_ids(seed: int, count: int) -> list[bytes]:
    rng = random.Random(seed)
    return [rng.randbytes(16) for _ in range(count)]


def ids_at_one_home(count: int) -> list[bytes]:
    """Ids of one segment whose places in the table are all the same."""
    return [bytes(7) + bytes([number]) + bytes(8) for number in range(count)]


def sizes_in(index: Index) -> dict[bytes, int]:
    return {index.id_of(row): index.size_of(row) for row in index.rows()}


def index_of(sizes: dict[bytes, int]) -> Index:
    index = Index()
    for chunk_id, size_bytes in sizes.items():
        index.add(chunk_id, size_bytes)
    return index


@pytest.mark.parametrize("seed", range(20))
def test_any_history_finds_what_a_dictionary_does(seed: int) -> None:
    rng = random.Random(seed)
    index, model = Index(), dict[bytes, int]()
    ids = [*some_ids(seed, 150), *ids_at_one_home(50)]
    for _ in range(1500):
        chunk_id = rng.choice(ids)
        row = index.find(chunk_id)
        assert (row > 0) == (chunk_id in model), f"replay with seed {seed}"
        if row:
            assert (index.id_of(row), index.size_of(row)) == (chunk_id, model[chunk_id])
        if row and rng.random() < 0.4:
            index.remove(row)
            del model[chunk_id]
        elif not row:
            model[chunk_id] = rng.randrange(SIZE_MASK)
            assert index.id_of(index.add(chunk_id, model[chunk_id])) == chunk_id
        assert len(index) == len(model)

    assert sizes_in(index) == model
    assert all(bool(index.find(chunk_id)) == (chunk_id in model) for chunk_id in ids)


def test_taking_one_out_leaves_those_that_had_to_go_past_it() -> None:
    ids = ids_at_one_home(40)
    index = index_of(dict.fromkeys(ids, 1))

    for chunk_id in ids[::2]:
        index.remove(index.find(chunk_id))

    assert [chunk_id for chunk_id in ids if index.find(chunk_id)] == ids[1::2]


def test_what_comes_at_once_is_found_beside_what_was_there() -> None:
    before, added = some_ids(1, 500), [*some_ids(2, 3000), *ids_at_one_home(30)]
    index = index_of(dict.fromkeys(before, 7))
    listed = Listed.of((chunk_id, 4096) for chunk_id in added)

    rows = index.add_many(listed.high, listed.low, listed.sizes, is_marked=True)

    assert [index.id_of(int(row)) for row in rows] == added
    assert [index.find(chunk_id) for chunk_id in added] == rows.tolist()
    assert all(index.is_marked(index.find(chunk_id)) for chunk_id in added)
    assert not any(index.is_marked(index.find(chunk_id)) for chunk_id in before)
    assert sizes_in(index) == dict.fromkeys(before, 7) | dict.fromkeys(added, 4096)


def test_rows_of_chunks_that_left_are_used_again() -> None:
    index = index_of(dict.fromkeys(some_ids(1, 1000), 1))
    memory_bytes = index.memory_bytes

    for old, new in zip(some_ids(1, 1000), some_ids(2, 1000), strict=True):
        index.remove(index.find(old))
        index.add(new, 2)

    assert len(index.cells) == CELLS * 1001
    assert index.memory_bytes <= 1.1 * memory_bytes


def test_a_mark_is_no_part_of_the_size_and_leaves_with_the_chunk() -> None:
    index = Index()
    row = index.add(b"a" * 16, SIZE_MASK)

    index.mark(row)
    assert (index.is_marked(row), index.size_of(row)) == (True, SIZE_MASK)
    index.unmark(row)
    assert not index.is_marked(row)
    index.mark(row)
    index.remove(row)

    assert not index.is_marked(index.add(b"b" * 16, 1))


def test_a_chunk_is_not_taken_in_twice() -> None:
    index = index_of({b"a" * 16: 1})

    with pytest.raises(AssertionError, match="inserted twice"):
        index.add(b"a" * 16, 1)


@pytest.mark.parametrize("seed", range(10))
def test_queues_keep_their_order_whoever_leaves(seed: int) -> None:
    rng = random.Random(seed)
    index = Index()
    queues = Queues(index, count=3)
    model: list[list[int]] = [[], [], []]
    for chunk_id in some_ids(seed, 300):
        number = rng.randrange(3)
        match rng.choice(("push", "push", "ahead", "many", "leave")):
            case "push":
                row = index.add(chunk_id, 5)
                queues.push(number, row)
                model[number].append(row)
            case "ahead":
                row = index.add(chunk_id, 5)
                queues.push_ahead(number, [row])
                model[number].insert(0, row)
            case "many":
                found = Listed.of((chunk_id[:-1] + bytes([k]), 5) for k in range(4))
                rows = index.add_many(found.high, found.low, found.sizes, is_marked=False)
                queues.push_many(number, rows)
                model[number] += rows.tolist()
            case "leave" if model[number]:
                row = rng.choice(model[number])
                assert queues.queue_of(row) == number
                queues.leave(row)
                index.remove(row)
                model[number].remove(row)
        ends = [(queues.oldest(k), queues.newest(k)) for k in range(3)]
        assert ends == [(rows[0], rows[-1]) if rows else (0, 0) for rows in model]
        assert queues.used_bytes.tolist() == [5 * len(rows) for rows in model]

    for number, left in enumerate(model):
        for row in left:  # Oldest first.
            assert queues.oldest(number) == row
            queues.leave(row)


def test_names_of_one_chunk_are_told_from_others() -> None:
    listed = Listed.of([(b"a" * 16, 1), (b"b" * 16, 2), (b"a" * 16, 3)])

    assert listed.repeats().tolist() == [True, False, True]
    assert not Listed.of([(b"a" * 16, 1), (b"b" * 16, 2)]).repeats().any()
    assert listed.total_bytes == 6
    assert np.array_equal(listed.where(listed.repeats()).sizes, [1, 3])

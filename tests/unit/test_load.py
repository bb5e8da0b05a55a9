"""How a read is shared out: each piece to one worker, in batches that one node can answer."""

import random
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import Cancelled, NodeUnavailable
from penstock.load import AHEAD_MAX, BATCH_MAX, Load, cut
from penstock.membership.nodes import Endpoint, Nodes
from penstock.object_info import OpenedObject
from penstock.objects import ObjectId
from penstock.opens import Handle
from penstock.planes.plane import PieceRequest
from penstock.routing import Routing
from penstock.rpc import Channels

CHUNK_BYTES = 64 * 1024
NODES = Nodes(
    [Endpoint(Channels(), "127.0.0.1:1")], channels=Channels(), bulk=None, routing=Routing()
)
"""Nobody is asked."""


def handle(size: int) -> Handle:
    opened = OpenedObject(
        url="penstock://v/o",
        volume="v",
        id=ObjectId("file:///o", "1", size=size, chunk_size=CHUNK_BYTES),
        modified=None,
        ticket="",
        ticket_expires_at=0.0,
        fresh_for_s=0.0,
    )
    return Handle(opened, NODES)


def load_of(
    count: int,
    *,
    workers: int = 1,
    group_of: Callable[[PieceRequest], int] = lambda _: 0,
    batch_max: int = BATCH_MAX,
) -> Load[int]:
    requests = [PieceRequest(at, 0, 1, memoryview(bytearray(1))) for at in range(count)]
    return Load(
        handle(count * CHUNK_BYTES),
        requests,
        workers=workers,
        stop=threading.Event(),
        group_of=group_of,
        batch_max=batch_max,
    )


def batches(load: Load[int]) -> list[list[int]]:
    """Take everything; return the pieces' indexes, batch by batch."""
    taken = []
    while batch := load.take()[1]:
        taken.append([request.index for request in batch])
    return taken


@given(st.integers(0, 300), st.integers(1, 16), st.integers(1, 20), st.integers(1, 64))
def test_every_piece_is_taken_once_and_batches_are_of_one_group(
    count: int, workers: int, groups: int, batch_max: int
) -> None:
    load = load_of(
        count,
        workers=workers,
        group_of=lambda request: random.Random(request.index).randrange(groups),
        batch_max=batch_max,
    )

    taken = batches(load)

    assert Counter(at for batch in taken for at in batch) == Counter(range(count))
    for batch in taken:
        assert len(batch) <= batch_max
        assert len({random.Random(at).randrange(groups) for at in batch}) == 1


@pytest.fixture
def hasty() -> Iterator[None]:
    """Let threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hasty")
def test_several_threads_take_every_piece_once() -> None:
    count, workers = 5_000, 8
    load = load_of(count, workers=workers, group_of=lambda request: request.index % 7)
    together = threading.Barrier(workers)

    def work(_worker: int) -> list[int]:
        together.wait(10)
        taken = []
        while batch := load.take()[1]:
            assert len({request.index % 7 for request in batch}) == 1
            for request in batch:
                taken.append(request.index)
                load.landed()
        return taken

    with ThreadPoolExecutor(workers) as threads:
        by_worker = list(threads.map(work, range(workers)))

    assert sorted(at for taken in by_worker for at in taken) == list(range(count))
    load.check()


def test_batches_are_full_at_first_and_smaller_towards_the_end() -> None:
    workers = 4
    sizes = [len(batch) for batch in batches(load_of(200, workers=workers))]

    assert sizes[0] == BATCH_MAX
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-workers:] == [1] * workers


def test_a_few_pieces_are_for_all_workers() -> None:
    assert [len(batch) for batch in batches(load_of(8, workers=8))] == [1] * 8


def test_a_piece_alone_needs_no_group() -> None:
    def never(_request: PieceRequest) -> int:
        raise AssertionError("who owns it is asked when it is read")

    assert batches(load_of(5, workers=5, group_of=never)) == [[0], [1], [2], [3], [4]]


def test_it_looks_ahead_for_pieces_of_one_group_but_not_without_end() -> None:
    looked: list[int] = []

    def look(request: PieceRequest) -> int:
        looked.append(request.index)
        return request.index  # Nobody owns two.

    load = load_of(1_000, group_of=look)

    assert len(load.take()[1]) == 1
    assert looked == list(range(AHEAD_MAX))


def test_after_a_failure_nothing_more_is_taken_and_the_first_error_is_told() -> None:
    load = load_of(100)
    assert load.take()[1]

    load.fail(NodeUnavailable("first"))
    load.fail(NodeUnavailable("second"))

    assert load.take() == (None, [])
    assert load.is_over()
    with pytest.raises(NodeUnavailable, match="first"):
        load.check()


def test_a_read_that_is_stopped_says_so() -> None:
    load = load_of(100)

    load.stop.set()

    assert load.take() == (None, [])
    with pytest.raises(Cancelled):
        load.check()


def test_a_piece_that_was_taken_and_not_read_is_our_own_bug() -> None:
    load = load_of(2)
    batches(load)
    load.landed()

    with pytest.raises(AssertionError, match="1 pieces"):
        load.check()


# Cutting ------------------------------------------------------------------------------------


@given(st.integers(1, 10 * CHUNK_BYTES), st.data(), st.integers(0, 9))
def test_pieces_cover_the_buffer_once(size: int, data: st.DataObject, seed: int) -> None:
    offset = data.draw(st.integers(0, size - 1))
    length = data.draw(st.integers(1, size - offset))
    content = random.Random(1).randbytes(size)
    buffer = bytearray(length)

    requests = cut(handle(size), [(memoryview(buffer), offset)], rng=random.Random(seed))
    for request in requests:
        at = request.index * CHUNK_BYTES
        request.into[:] = content[at + request.start : at + request.stop]

    assert buffer == content[offset : offset + length]
    assert sum(request.stop - request.start for request in requests) == length


def test_readers_of_a_whole_object_begin_at_different_chunks_and_go_round() -> None:
    size = 50 * CHUNK_BYTES
    whole = [
        [piece.index for piece in cut(handle(size), [(memoryview(bytearray(size)), 0)], rng=rng)]
        for rng in (random.Random(seed) for seed in range(20))
    ]

    assert len({order[0] for order in whole}) > 10
    for order in whole:
        assert order == [(order[0] + at) % 50 for at in range(50)]


def test_a_part_of_an_object_is_read_from_its_beginning() -> None:
    size = 50 * CHUNK_BYTES
    part = cut(handle(size), [(memoryview(bytearray(size - 1)), 0)], rng=random.Random(1))

    assert [piece.index for piece in part] == list(range(50))


def test_spans_of_one_object_are_cut_together_in_their_order() -> None:
    size = 4 * CHUNK_BYTES
    spans = [(memoryview(bytearray(20)), 2 * CHUNK_BYTES - 10), (memoryview(bytearray(5)), 3)]

    found = cut(handle(size), spans, rng=random.Random(1))

    told = [(piece.index, piece.start, piece.stop) for piece in found]
    assert told == [(1, CHUNK_BYTES - 10, CHUNK_BYTES), (2, 0, 10), (0, 3, 8)]

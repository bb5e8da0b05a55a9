"""How many nodes should have a chunk: more while it is asked for much, fewer when it is not."""

import random

import pytest

from penstock.hot_chunks import BELIEVED_S, REMEMBERED_MAX, HotChunks
from penstock_node.heat import (
    COPIES_MAX,
    COPY_BYTES_PER_S,
    COUNTED_MAX,
    FORGET_S,
    GROWTH,
    SHARE,
    WINDOW_S,
    Heat,
)
from penstock_node.testbed.hand_clock import HandClock

CHUNK_BYTES = 4 * 1024 * 1024
HOT, COLD = b"hot", b"cold"


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def heat(clock: HandClock) -> Heat:
    return Heat(clock=clock)


def ask(heat: Heat, chunk_id: bytes, size_bytes: float) -> int:
    """Ask for a chunk until so many bytes are asked for; return how many copies are wanted."""
    copies = 1
    for _ in range(round(size_bytes / CHUNK_BYTES)):
        copies = heat.note(chunk_id, CHUNK_BYTES)
    return copies


def pass_window(heat: Heat, clock: HandClock, chunk_id: bytes) -> int:
    clock.now += WINDOW_S
    return heat.note(chunk_id, 0)


def test_what_is_asked_for_now_and_then_is_not_hot(heat: Heat, clock: HandClock) -> None:
    for _ in range(20):
        assert ask(heat, HOT, 0.8 * COPY_BYTES_PER_S) == 1
        clock.now += WINDOW_S


def test_copies_grow_while_each_is_asked_for_much_up_to_a_bound(heat: Heat) -> None:
    seen = dict.fromkeys(heat.note(HOT, CHUNK_BYTES) for _ in range(200))

    assert list(seen) == [1, GROWTH, GROWTH**2, COPIES_MAX]


def test_small_requests_count_too(heat: Heat) -> None:
    assert max(heat.note(HOT, 10) for _ in range(900)) == 1
    assert max(heat.note(HOT, 10) for _ in range(200)) == GROWTH


def test_copies_halve_when_they_are_asked_for_little_and_then_there_are_as_many_as_usual(
    heat: Heat, clock: HandClock
) -> None:
    while ask(heat, HOT, COPY_BYTES_PER_S) < COPIES_MAX:
        pass
    pass_window(heat, clock, HOT)

    assert [pass_window(heat, clock, HOT) for _ in range(6)] == [16, 8, 4, 2, 1, 1]


def test_copies_stay_while_each_has_enough_to_do(heat: Heat, clock: HandClock) -> None:
    while ask(heat, HOT, COPY_BYTES_PER_S) < 4:
        pass
    for _ in range(10):
        clock.now += WINDOW_S
        assert ask(heat, HOT, 0.5 * COPY_BYTES_PER_S) == 4


def test_after_a_quiet_time_nothing_is_hot(heat: Heat, clock: HandClock) -> None:
    while ask(heat, HOT, COPY_BYTES_PER_S) < COPIES_MAX:
        pass
    clock.now += FORGET_S

    assert heat.note(HOT, 0) == 1


def test_nothing_is_hot_where_all_chunks_are_asked_for_alike(heat: Heat) -> None:
    """A thousand load a whole model: each node has as much to do, and copies help nobody."""
    chunks = [bytes([at]) for at in range(4 * SHARE)]
    rng = random.Random(3)

    for _ in range(4_000):
        assert heat.note(rng.choice(chunks), CHUNK_BYTES) == 1


def test_what_is_counted_is_bounded(heat: Heat) -> None:
    for at in range(2 * COUNTED_MAX):
        heat.note(at.to_bytes(16), 0)

    assert len(heat._asked) == COUNTED_MAX


# What a reader remembers ---------------------------------------------------------------------


def test_a_reader_believes_for_a_moment_what_it_was_told(clock: HandClock) -> None:
    hot = HotChunks(clock=clock)
    assert hot.copies(HOT) == 0

    hot.tell(HOT, 4)
    assert (hot.copies(HOT), hot.copies(COLD)) == (4, 0)
    hot.forget(HOT)
    assert hot.copies(HOT) == 0
    hot.tell(HOT, 4)
    clock.now += BELIEVED_S
    assert hot.copies(HOT) == 0


def test_what_a_reader_remembers_is_bounded(clock: HandClock) -> None:
    hot = HotChunks(clock=clock)
    for at in range(2 * REMEMBERED_MAX):
        hot.tell(at.to_bytes(4), 2)

    assert len(hot._known) == REMEMBERED_MAX
    assert hot.copies((2 * REMEMBERED_MAX - 1).to_bytes(4)) == 2

"""A few threads at one thing: all of it is done, and nobody works any more afterwards."""

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from penstock.together import taken, work_together


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as made:
        yield made


def test_each_thing_is_done_once(pool: ThreadPoolExecutor) -> None:
    left, done = deque(range(1_000)), deque[int]()

    work_together(pool, lambda: done.extend(taken(left)), threads=4, give_up=lambda _: None)

    assert sorted(done) == list(range(1_000))


def test_several_threads_work_at_the_same_time(pool: ThreadPoolExecutor) -> None:
    meeting = threading.Barrier(3, timeout=20)

    def meet() -> None:
        meeting.wait()

    work_together(pool, meet, threads=3, give_up=lambda _: meeting.abort())

    assert not meeting.broken


def test_where_the_pool_is_busy_the_callers_thread_does_it_all() -> None:
    with ThreadPoolExecutor(1) as pool:
        is_over = threading.Event()
        busy = pool.submit(is_over.wait, 20)
        left, done = deque(range(10)), deque[int]()

        work_together(pool, lambda: done.extend(taken(left)), threads=4, give_up=lambda _: None)
        assert not busy.done()
        is_over.set()

    assert list(done) == list(range(10))


def test_what_another_thread_raises_is_raised(pool: ThreadPoolExecutor) -> None:
    own, begun = threading.get_ident(), threading.Event()

    def work() -> None:
        if threading.get_ident() == own:
            begun.wait(20)
            return
        begun.set()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work_together(pool, work, threads=2, give_up=lambda _: None)


def test_after_an_interrupt_nobody_works_any_more(pool: ThreadPoolExecutor) -> None:
    own, begun, is_over = threading.get_ident(), threading.Event(), threading.Event()
    ended = deque[bool]()

    def work() -> None:
        if threading.get_ident() == own:
            begun.wait(20)
            raise KeyboardInterrupt
        begun.set()
        ended.append(is_over.wait(20))

    with pytest.raises(KeyboardInterrupt):
        work_together(pool, work, threads=2, give_up=lambda _: is_over.set())

    assert list(ended) == [True], "it was told, and waited for"


def test_a_pool_that_was_shut_down_leaves_nobody_at_work() -> None:
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    gave_up = threading.Event()

    def wait() -> None:
        gave_up.wait(20)

    with pytest.raises(RuntimeError, match="shutdown"):
        work_together(pool, wait, threads=2, give_up=lambda _: gave_up.set())

    assert gave_up.is_set()

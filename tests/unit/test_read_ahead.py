"""Things made ahead of their use: in order, no more than one, and no thread left behind."""

import threading
from collections.abc import Iterator

import pytest

from penstock_node.store.read_ahead import read_ahead
from penstock_node.testbed.processes import wait_until

DEADLINE_S = 30.0


def threads() -> int:
    return sum(thread.name == "penstock-read-ahead" for thread in threading.enumerate())


def wait_none_left() -> None:
    wait_until(lambda: threads() == 0, deadline_s=DEADLINE_S, what="the thread has ended")


def test_all_come_in_their_order() -> None:
    assert list(read_ahead(iter(range(100)))) == list(range(100))
    assert list(read_ahead(iter(()))) == []
    wait_none_left()


def test_one_is_made_while_another_is_used_and_no_more() -> None:
    made: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(10):
            made.append(number)
            yield number

    used = read_ahead(numbers())
    assert next(used) == 0
    wait_until(lambda: made == [0, 1], deadline_s=DEADLINE_S, what="the next is made")
    assert next(used) == 1
    wait_until(lambda: made == [0, 1, 2], deadline_s=DEADLINE_S, what="the next is made")

    assert list(used) == list(range(2, 10))


def test_who_has_enough_leaves_no_thread() -> None:
    used = read_ahead(iter(range(100)))
    assert next(used) == 0

    used.close()  # type: ignore[attr-defined]

    wait_none_left()


def test_what_fails_fails_where_it_is_used() -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise OSError("the disk")

    used = read_ahead(failing())
    assert next(used) == 1

    with pytest.raises(OSError, match="the disk"):
        next(used)
    wait_none_left()

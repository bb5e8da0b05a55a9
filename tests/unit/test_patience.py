"""How long a wait for a node lasts: looks are counted, not seconds."""

import threading

import pytest

from penstock.deadline import Deadline
from penstock.errors import NodeUnavailable
from penstock.patience import SILENT_LOOKS, SLOW_LOOKS, Patience, Slow

FAR = Deadline.after(3600)


def test_a_node_that_is_silent_for_so_many_looks_does_not_answer() -> None:
    patience = Patience("n1", FAR)
    for _ in range(SILENT_LOOKS - 1):
        patience.look()

    with pytest.raises(NodeUnavailable, match="n1 has been silent") as raised:
        patience.look()
    assert not isinstance(raised.value, Slow)


def test_whoever_has_another_to_ask_is_asked_once_and_may_wait_on() -> None:
    asked: list[str] = []

    def gives_up() -> bool:
        asked.append("once")
        return False

    patience = Patience("n1", FAR, gives_up=gives_up)

    for _ in range(SILENT_LOOKS - 1):
        patience.look()

    assert asked == ["once"]


def test_whoever_gives_up_does_so_before_the_node_counts_as_silent() -> None:
    assert SLOW_LOOKS < SILENT_LOOKS
    patience = Patience("n1", FAR, gives_up=lambda: True)
    for _ in range(SLOW_LOOKS - 1):
        patience.look()

    with pytest.raises(Slow):
        patience.look()


def test_the_deadline_comes_first() -> None:
    over = threading.Event()
    patience = Patience("n1", Deadline.after(3600, is_over=over.is_set), gives_up=lambda: True)
    over.set()

    with pytest.raises(NodeUnavailable, match="deadline"):
        patience.look()
    with pytest.raises(NodeUnavailable, match="deadline"):
        Patience("n1", Deadline.after(0))

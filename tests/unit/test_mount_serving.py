"""Answering: numbers of errors, and requests whose program got a signal."""

import errno
import threading

import pytest

from penstock.errors import (
    Cancelled,
    ClusterUnavailable,
    CorruptData,
    InvalidRequest,
    NotPermitted,
    ObjectChanged,
    ObjectNotFound,
    OriginUnavailable,
    Overloaded,
    Uncacheable,
)
from penstock.mount import device
from penstock.mount.interrupts import Interrupts
from penstock.mount.serving import errno_of
from penstock_node.testbed.processes import wait_until

DEADLINE_S = 20.0


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (ObjectNotFound("x"), errno.ENOENT),
        (ObjectChanged("x"), errno.ESTALE),
        (NotPermitted("x"), errno.EACCES),
        (InvalidRequest("x"), errno.EINVAL),
        (Cancelled(), errno.EINTR),
        (ClusterUnavailable("x"), errno.EIO),
        (OriginUnavailable("x"), errno.EIO),
        (Overloaded("x"), errno.EIO),
        (CorruptData("x"), errno.EIO),
        (Uncacheable("x"), errno.EIO),
        (OSError(errno.ENODATA, "x"), errno.ENODATA),
        (KeyError("ours"), errno.EIO),
    ],
)
def test_each_error_is_the_number_that_programs_know(error: Exception, number: int) -> None:
    assert errno_of(error) == number


def test_a_request_that_takes_long_is_given_up_once_its_program_has_a_signal() -> None:
    given_up: list[int] = []
    interrupts = Interrupts(given_up.append)
    slow, other = interrupts.begin(1), interrupts.begin(2)

    assert interrupts.interrupt(1)
    assert interrupts.interrupt(1)

    wait_until(lambda: given_up == [1], deadline_s=DEADLINE_S, what="it is given up")
    assert slow.stop.is_set()
    assert not interrupts.end(slow), "it is answered already"
    assert not other.stop.is_set()
    assert interrupts.end(other)
    interrupts.close()


def test_a_request_that_ends_soon_is_answered_whatever_signals_come() -> None:
    given_up: list[int] = []
    interrupts = Interrupts(given_up.append)
    quick = interrupts.begin(1)

    interrupts.interrupt(1)

    assert interrupts.end(quick), "it is still to be answered"
    assert not quick.stop.is_set()
    assert not interrupts.interrupt(1), "it does not run any more"
    interrupts.close()
    assert given_up == []


def test_at_the_end_whatever_runs_is_told_to_stop_and_no_thread_is_left() -> None:
    interrupts = Interrupts(lambda unique: None)
    running = interrupts.begin(1)
    interrupts.interrupt(1)

    interrupts.close()

    assert running.stop.is_set()
    assert not [each for each in threading.enumerate() if each.name == "penstock-interrupts"]


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("penstock://", "penstock://"),
        ("penstock://models/llama-3.1_8B", "penstock://models/llama-3.1_8B"),
        ("penstock://models/a,allow_other", "penstock"),
        ("penstock://models/two words", "penstock"),
        ("penstock://models/日本", "penstock"),
    ],
)
def test_a_source_is_shown_where_it_cannot_be_taken_for_an_option(source: str, shown: str) -> None:
    assert device.DeviceOptions(source=source).shown_source == shown

"""Chunks in lines: which are asked for next, how many, and what becomes of those that fail."""

from datetime import UTC, datetime
from typing import cast

import pytest

from penstock.errors import (
    NodeUnavailable,
    NotCached,
    NotOwner,
    ObjectChanged,
    OriginUnavailable,
    Overloaded,
    PenstockError,
    TicketExpired,
)
from penstock.membership.nodes import Nodes
from penstock.object_info import OpenedObject
from penstock.objects import ObjectId
from penstock.opens import Handle
from penstock.warm_lines import FAILURES_MAX, Lines, Tally, WarmChunk, WarmObject
from penstock.warm_trouble import (
    BACKOFF_MAX_S,
    BACKOFF_S,
    HOME_PATIENCE_S,
    ORIGIN_TRIES,
    PATIENCE_S,
    delay_s,
    is_hopeless,
)
from penstock.warmup import WarmupFailure, WarmupProgress

CHUNK = 64 * 1024
SIZE = 9 * CHUNK + 5
URL = "penstock://models/x"
LATER = (NodeUnavailable("x"), NotOwner("x", epoch=1), Overloaded("x"), TicketExpired("x"))


def made(url: str = URL) -> WarmObject:
    identity = ObjectId("s3://b/x", "v1", SIZE, CHUNK)
    opened = OpenedObject(url, "models", identity, datetime.now(UTC), "ticket", 0.0, 0.0)
    return WarmObject(Handle(opened, cast("Nodes", None)))


def chunks(count: int, *, home: str = "") -> list[WarmChunk]:
    of = made()
    return [WarmChunk(of, index, home) for index in range(count)]


def test_a_node_is_asked_for_so_many_at_once_and_the_rest_when_some_are_there() -> None:
    lines, all_of_it = Lines(in_flight_max=3), chunks(5)
    for chunk in all_of_it:
        lines.push("a", chunk)

    assert lines.take() == ("a", all_of_it[:3])
    assert lines.take() is None, "a node is asked once at a time"
    lines.give_back("a", [all_of_it[1]])
    assert lines.take() == ("a", [all_of_it[1], all_of_it[3], all_of_it[4]])
    lines.give_back("a", [])
    assert lines.take() is None


def test_nodes_take_turns() -> None:
    lines, (one, two, three) = Lines(in_flight_max=1), chunks(3)
    lines.push("a", one)
    lines.push("b", two)
    lines.push("a", three)

    assert lines.take() == ("a", [one])
    lines.give_back("a", [one])
    assert lines.take() == ("b", [two])
    assert lines.take() == ("a", [one])
    assert len(lines) == 2


def test_what_is_put_off_is_due_at_its_time_and_once() -> None:
    lines, (early, late) = Lines(in_flight_max=1), chunks(2)
    lines.put_off(late, until=20.0)
    lines.put_off(early, until=10.0)

    assert lines.due(9.9) == []
    assert lines.due(10.0) == [early]
    assert lines.due(25.0) == [late]
    assert lines.due(99.0) == []


def test_the_tally_adds_up() -> None:
    tally, all_of_it = Tally(pending=10), chunks(10)
    tally.found(SIZE, chunks=10)
    tally.settle(all_of_it[0], was_here=True)
    for chunk in all_of_it[1:8]:
        tally.settle(chunk, was_here=False)
    tally.fail(all_of_it[8], ObjectChanged("another version"))
    assert all_of_it[9].is_passed_over
    tally.fail(all_of_it[9], ObjectChanged("another version"))

    assert tally.progress() == WarmupProgress(
        objects=1,
        chunks=10,
        total_bytes=SIZE,
        cold_bytes=7 * CHUNK,
        warm_bytes=CHUNK,
        failed_bytes=CHUNK + 5,
        total_chunks=10,
    )
    assert tally.progress().done_bytes == SIZE
    assert tally.pending == 0
    assert tally.failures == [WarmupFailure(URL, "ObjectChanged", "another version")]
    assert tally.failed_objects == 1


def test_an_object_fails_for_each_home_by_itself() -> None:
    tally, of = Tally(pending=2), made()
    at_a, at_b = WarmChunk(of, 0, "a"), WarmChunk(of, 0, "b")

    tally.fail(at_a, NotCached("full"))

    assert (at_a.is_passed_over, at_b.is_passed_over) == (True, False)
    assert tally.failures == [WarmupFailure(URL, "NotCached", "full", node="a")]


def test_failures_beyond_a_thousand_are_counted_alone() -> None:
    tally = Tally()
    for number in range(FAILURES_MAX + 5):
        tally.fail_object(f"penstock://models/{number}", NotCached("full"))

    assert len(tally.failures) == FAILURES_MAX
    assert tally.failed_objects == FAILURES_MAX + 5


@pytest.mark.parametrize("error", LATER, ids=lambda error: error.name)
def test_what_passes_is_waited_for_a_while(error: PenstockError) -> None:
    (chunk,) = chunks(1)

    assert not is_hopeless(chunk, error, now=100.0)
    assert not is_hopeless(chunk, error, now=100.0 + PATIENCE_S)
    assert is_hopeless(chunk, error, now=100.1 + PATIENCE_S)


def test_patience_begins_anew_when_a_chunk_was_on_its_way() -> None:
    (chunk,) = chunks(1)
    is_hopeless(chunk, Overloaded("busy"), now=0.0)
    chunk.tries = 0  # As for one that is filling.

    assert not is_hopeless(chunk, Overloaded("busy"), now=PATIENCE_S + 1)


def test_a_host_that_is_away_is_given_up_sooner_than_an_owner() -> None:
    (chunk,) = chunks(1, home="a")
    is_hopeless(chunk, NodeUnavailable("away"), now=0.0)

    assert is_hopeless(chunk, NodeUnavailable("away"), now=HOME_PATIENCE_S + 1)


def test_an_origin_that_fails_is_asked_a_few_times() -> None:
    (chunk,) = chunks(1)

    told = [
        is_hopeless(chunk, OriginUnavailable("down"), now=float(at)) for at in range(ORIGIN_TRIES)
    ]

    assert told == [False] * (ORIGIN_TRIES - 1) + [True]


@pytest.mark.parametrize("error", [ObjectChanged("x"), NotCached("x"), PenstockError("x")])
def test_what_does_not_pass_is_not_tried_again(error: PenstockError) -> None:
    assert is_hopeless(chunks(1)[0], error, now=0.0)


def test_pauses_grow_up_to_a_bound_and_are_as_long_as_a_node_asks() -> None:
    (chunk,) = chunks(1)
    pauses = []
    for _ in range(8):
        is_hopeless(chunk, NodeUnavailable("away"), now=0.0)
        pauses.append(delay_s(chunk, NodeUnavailable("away")))

    assert pauses[:3] == pytest.approx([BACKOFF_S, 2 * BACKOFF_S, 4 * BACKOFF_S])
    assert pauses[-1] == BACKOFF_MAX_S
    assert delay_s(chunk, Overloaded("busy", retry_after_s=9.0)) == 9.0


def test_a_ticket_is_renewed_without_a_pause_the_first_time() -> None:
    (chunk,) = chunks(1)
    is_hopeless(chunk, TicketExpired("old"), now=0.0)

    assert delay_s(chunk, TicketExpired("old")) == 0.0

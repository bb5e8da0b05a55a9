"""Where a trace's time went: its critical path, by place."""

import random

import pytest

from penstock.cli import trace_output
from penstock.trace_path import (
    WAITS_FOR,
    Spent,
    critical_path,
    place_of,
    time_by_place,
    tree,
    weights,
)
from penstock.tracing import Span


def one(
    name: str, start: float, stop: float, parent: str = "", *, node: str = "", **notes: str
) -> Span:
    return Span(name, node, name, parent, start, stop - start, notes=notes)


def path_of(*spans: Span) -> dict[str, float]:
    (top,) = tree(spans)
    return {span.name: round(seconds, 9) for span, seconds in critical_path(top)}


def test_time_is_the_innermost_spans() -> None:
    read, ask, origin = (
        one("read", 0, 10),
        one("ask", 1, 9, "read"),
        one("origin", 2, 8, "ask"),
    )

    assert path_of(read, ask, origin) == {"read": 2, "ask": 2, "origin": 6}


def test_of_what_went_on_at_once_the_last_was_waited_for() -> None:
    spans = one("read", 0, 10), one("quick", 0, 4, "read"), one("slow", 0, 9, "read")

    assert path_of(*spans) == {"read": 1, "slow": 9}


def test_of_what_went_on_one_after_another_each_counts() -> None:
    spans = one("read", 0, 10), one("first", 0, 4, "read"), one("then", 5, 10, "read")

    assert path_of(*spans) == {"read": 1, "first": 4, "then": 5}


def test_what_is_still_at_work_when_its_part_is_done_counts_until_then() -> None:
    """A fill that writes to a disk after its reader was answered."""
    spans = one("ask", 0, 5), one("fill", 1, 9, "ask"), one("receive", 4, 5, "ask")

    assert path_of(*spans) == {"ask": 1, "fill": 3, "receive": 1}


def test_who_waits_is_as_slow_as_what_is_waited_for() -> None:
    read, serve = one("read", 0, 10), one("serve", 0, 10, "read")
    wait = one("wait", 2, 9.5, "serve", **{WAITS_FOR: "fill"})
    other = one("other", 0, 9, "read")
    fill, origin = one("fill", 1, 9, "other"), one("origin", 1, 8, "fill")

    told = path_of(read, serve, wait, other, fill, origin)

    assert told == {"serve": 2.5, "fill": 1.5, "origin": 6}


@pytest.mark.parametrize("seed", range(50))
def test_whatever_the_spans_their_times_add_up_to_the_whole(seed: int) -> None:
    rng = random.Random(seed)
    spans = [one("0", 0, 100)]
    for at in range(1, 40):
        above = rng.choice(spans)
        end = above.started_at + above.duration_s
        start = rng.uniform(above.started_at - 2, end)
        spans.append(one(str(at), start, rng.uniform(start, end + 2), above.id))
    rng.shuffle(spans)

    (top,) = tree(spans)

    assert sum(seconds for _, seconds in critical_path(top)) == pytest.approx(100)
    assert sum(spent.seconds for spent in time_by_place(top)) == pytest.approx(100)
    assert weights(top)["0"] == pytest.approx(100)


def test_spans_whose_own_is_not_known_stand_by_themselves() -> None:
    lost, read = one("lost", 0, 1, "nowhere"), one("read", 0, 2)

    assert {branch.span.name for branch in tree([lost, read])} == {"lost", "read"}


@pytest.mark.parametrize(
    ("span", "place"),
    [
        (one("origin", 0, 1, volume="models", host="s3"), "origin of volume models at s3"),
        (one("disk", 0, 1, node="gpu-1", disk="/mnt/a"), "disk /mnt/a of gpu-1"),
        (one("store", 0, 1, node="gpu-1"), "disks of gpu-1"),
        (one("receive", 0, 1), "link to this program"),
        (one("send", 0, 1, node="gpu-1"), "link from gpu-1"),
        (one("ask", 0, 1, asks="gpu-1"), "gpu-1, or the link to it"),
        (one("read", 0, 1), "this program"),
        (one("serve", 0, 1, node="gpu-1"), "gpu-1"),
        (one("pause", 0, 1), "this program, between attempts"),
        (one("read file", 0, 1), "files of this machine's node"),
    ],
)
def test_each_span_is_somewhere(span: Span, place: str) -> None:
    assert place_of(span) == place


def test_what_the_other_side_did_not_do_was_the_links() -> None:
    ask, serve = one("ask", 0, 10, asks="10.0.0.1:7401"), one("serve", 4, 6, "ask", node="gpu-1")

    (top,) = tree([ask, serve])

    assert [(spent.place, spent.seconds) for spent in time_by_place(top)] == [
        ("link between this program and gpu-1", 8),
        ("gpu-1", 2),
    ]


@pytest.mark.parametrize(("places", "told"), [(20, []), (23, ["3 others"])])
def test_places_beyond_the_most_are_told_of_together(places: int, told: list[str]) -> None:
    spent = [Spent(f"place {at}", 1.0, 0.5) for at in range(places)]

    named = trace_output._told(spent)

    assert [each.place for each in named[20:]] == told
    assert sum(each.seconds for each in named) == places
    assert sum(each.queued_s for each in named) == places / 2

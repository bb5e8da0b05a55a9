"""Warm-ups of programs: shown while they are told of, and no more than fit."""

from penstock.overview import WarmupLine
from penstock.warm_telling import line_of
from penstock.warmup import WarmupProgress
from penstock_node.overview.told_warmups import KEPT_S, NAME_MAX, WARMUPS_MAX, ToldWarmups
from penstock_node.testbed.hand_clock import HandClock


def line(name: str, done: int = 0) -> WarmupLine:
    return WarmupLine("", name, 10, done, 100, done * 10, 1.0)


def test_of_one_warm_up_the_latest_line_counts() -> None:
    told = ToldWarmups(monotonic=HandClock())
    told.note("a", line("x", 1))
    told.note("b", line("y"))
    told.note("a", line("x", 2))

    assert told.lines() == (line("x", 2), line("y"))


def test_one_that_is_told_of_no_more_is_forgotten() -> None:
    clock = HandClock()
    told = ToldWarmups(monotonic=clock)
    told.note("a", line("x"))
    clock.now += KEPT_S - 1
    told.note("b", line("y"))
    clock.now += 1

    assert told.lines() == (line("y"),)


def test_no_program_can_fill_the_memory_of_a_node_or_speak_for_another() -> None:
    told = ToldWarmups(monotonic=HandClock())
    for at in range(2 * WARMUPS_MAX):
        told.note(str(at), WarmupLine("n1", "x" * 10_000, 1, 1, 1, 1, 1.0))
    told.note("0", line("x", 9))

    lines = told.lines()

    assert len(lines) == WARMUPS_MAX
    assert lines[0] == line("x", 9)
    assert {len(each.name) for each in lines[1:]} == {NAME_MAX}
    assert {each.node for each in lines} == {""}


def test_a_warm_up_is_named_by_the_first_url_and_how_many_more_there_are() -> None:
    progress = WarmupProgress(1, 3, 100, 20, 5, 1, total_chunks=10)

    told = line_of(progress, node="n1", urls=("penstock://m/x/", 1_501), started_at=7.0)

    assert told == WarmupLine("n1", "penstock://m/x/ and 1,500 more", 10, 3, 100, 26, 7.0)
    assert line_of(progress, node="", urls=("u", 1), started_at=7.0).name == "u"

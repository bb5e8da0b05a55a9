"""Which lines of a log are kept, and which are said when they repeat."""

from penstock_node.log_limits import ALIKE_MAX, KINDS_MAX, WINDOW_S, RepeatLimit
from penstock_node.log_lines import LINE_CHARACTERS_MAX, LogLines


def test_the_newest_lines_are_kept_and_no_more_than_fit() -> None:
    lines = LogLines(lines_max=3, bytes_max=10)

    for line in ("aaaa", "bbbb", "cccc", "dddd"):
        lines.add(line, is_trouble=False)

    assert lines.newest(10) == ["cccc", "dddd"]
    assert lines.newest(1) == ["dddd"]
    assert lines.newest(0) == []


def test_a_long_line_is_cut() -> None:
    lines = LogLines()

    lines.add("x" * (LINE_CHARACTERS_MAX + 1), is_trouble=False)

    assert [len(line) for line in lines.newest(1)] == [LINE_CHARACTERS_MAX]


def test_troubles_outlive_what_is_said_after_them() -> None:
    lines = LogLines(lines_max=2)

    lines.add("trouble", is_trouble=True)
    for number in range(5):
        lines.add(str(number), is_trouble=False)

    assert lines.newest(10) == ["3", "4"]
    assert lines.troubles() == ["trouble"]


class HandClock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_what_repeats_is_left_out_and_counted_until_the_window_is_over() -> None:
    clock = HandClock()
    limit = RepeatLimit(clock=clock)

    said = [limit.judge("part", "warning", "it fails").is_said for _ in range(ALIKE_MAX + 7)]
    other = limit.judge("part", "warning", "something else")
    clock.now = WINDOW_S
    after = limit.judge("part", "warning", "it fails")

    assert said == [True] * ALIKE_MAX + [False] * 7
    assert other.is_said
    assert after.is_said
    assert after.left_out == 7


def test_the_last_line_that_is_said_tells_that_more_are_left_out() -> None:
    limit = RepeatLimit()

    verdicts = [limit.judge("it fails") for _ in range(ALIKE_MAX)]

    assert [verdict.is_last for verdict in verdicts] == [False] * (ALIKE_MAX - 1) + [True]


def test_kinds_are_forgotten_so_that_memory_is_bounded() -> None:
    limit = RepeatLimit()

    for number in range(KINDS_MAX + 10):
        limit.judge(str(number))

    assert len(limit._kinds) == KINDS_MAX

"""A trace drawn as a waterfall: a line a span, a bar from its begin to its end.

Responsible for: which spans are shown, the rest being told together, and the width of things.
Not responsible for: the tree of spans (`penstock.trace_path`).
"""

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import median

from penstock.cli.output import say
from penstock.trace_path import READER, WAITS_FOR, Branch, weights
from penstock.tracing import Span
from penstock.units import format_size

ALIKE_MAX = 2
"""Of spans that are alike in one place, the slowest are shown; of those that hold others, one."""
BRIEF_PART = 0.002
"""Of the whole: what is shorter, holds nothing and failed in nothing is left out."""
WIDTH_MAX, WIDTH_OF_FILES = 160, 120
BAR_MIN = 16
_TOLD = (
    "error",
    "again",
    "attempts",
    "silent",
    "because",
    "only_if_cached",
    "copies",
    "passed_over",
)
_PARTS = " ▏▎▍▌▋▊▉█"


def say_waterfall(top: Branch, *, shows_all: bool = False) -> None:
    """Print it, as wide as the terminal; with ``shows_all`` every span."""
    lines = list(_Choice(top, shows_all=shows_all).lines())
    width = _width()
    left = min(width * 3 // 7, max(len(_label(line)) for line in lines))
    bar = max(BAR_MIN, width - left - 23)
    begun, took_s = top.span.started_at, top.span.duration_s or 1e-9
    end = f"{took_s * 1000:,.1f} ms"
    say(f"{'':{left}} {'ms':>9} {'bytes':>9}  0{end:>{bar - 1}}")
    for line in lines:
        if isinstance(line.what, str):
            say(_label(line))
            continue
        span = line.what
        drawn = _bar((span.started_at - begun) / took_s, span.duration_s / took_s, bar)
        size = format_size(span.bytes) if span.bytes else ""
        label = _label(line)
        label = label if len(label) <= left else f"{label[: left - 1]}…"
        say(f"{label:{left}} {span.duration_s * 1000:9,.1f} {size:>9}  {drawn}".rstrip())
        for text in _remarks(span):
            say(f"{'':{2 * line.depth + 2}}{text}")


@dataclass(frozen=True, slots=True)
class _Line:
    depth: int
    what: Span | str
    """A span, or what is told of those that are not shown."""


class _Choice:
    """Which spans are drawn: of those that are alike, the ones that were waited for most."""

    def __init__(self, top: Branch, *, shows_all: bool) -> None:
        self._top, self._shows_all = top, shows_all
        self._brief_s = top.span.duration_s * BRIEF_PART
        self._weights = weights(top)

    def lines(self) -> Iterator[_Line]:
        """Tell them from the top."""
        return self._lines(self._top, 0)

    def _lines(self, branch: Branch, depth: int) -> Iterator[_Line]:
        yield _Line(depth, branch.span)
        shown, hidden = (branch.inner, []) if self._shows_all else self._chosen(branch.inner)
        for inner in shown:
            yield from self._lines(inner, depth + 1)
        for alike in hidden:
            yield _Line(depth + 1, _together(alike))

    def _chosen(self, branches: Sequence[Branch]) -> tuple[Sequence[Branch], list[list[Branch]]]:
        """Return those to show, by their begin, and the others, those that are alike together."""
        shown: list[Branch] = []
        hidden: list[list[Branch]] = []
        told = [each for each in branches if self._is_worth_a_line(each)]
        for _, some in groupby(sorted(told, key=_kind), key=_kind):
            first = sorted(some, key=self._rank, reverse=True)
            count = 1 if first[0].inner else ALIKE_MAX
            shown += first[:count]
            if len(first) > count:
                hidden.append(first[count:])
        return sorted(shown, key=lambda each: each.span.started_at), hidden

    def _rank(self, branch: Branch) -> tuple[float, float]:
        return self._weights[branch.span.id], branch.span.duration_s

    def _is_worth_a_line(self, branch: Branch) -> bool:
        if branch.inner or "error" in branch.span.notes:
            return True
        is_seen = WAITS_FOR not in branch.span.notes
        return is_seen and branch.span.duration_s >= self._brief_s


def _together(alike: Sequence[Branch]) -> str:
    times = [each.span.duration_s * 1000 for each in alike]
    size = sum(each.span.bytes for each in alike)
    name = f"{alike[0].span.name} {_where(alike[0].span)}".strip()
    told = f", {format_size(size)}" if size else ""
    return f"{len(alike)} more: {name}, median {median(times):,.1f} ms{told}"


def _kind(branch: Branch) -> tuple[str, str]:
    return branch.span.name, _where(branch.span)


def _label(line: _Line) -> str:
    indent = "  " * line.depth
    if isinstance(line.what, str):
        return f"{indent}… {line.what}"
    return f"{indent}{line.what.name} {_where(line.what)}".rstrip()


def _where(span: Span) -> str:
    """Return what tells a span from others of its name: whom it asks, which disk, which node."""
    notes = span.notes
    if span.name == "serve":
        return span.node
    if span.name == "fill":
        return f"chunk {notes.get('chunk', '')}"
    for name in ("asks", "disk", "place", "volume"):
        if name in notes:
            return notes[name]
    return "" if span.node else (READER if span.name == "read" else "")


def _remarks(span: Span) -> Iterator[str]:
    for name in _TOLD:
        value = span.notes.get(name)
        if value and value != "False":
            yield f"! {name}: {value}" if name in ("error", "again") else f"  {name}: {value}"
    if span.queued_s > 0.1 * span.duration_s and span.queued_s > 1e-3:
        yield f"  waited for its turn: {span.queued_s * 1000:,.1f} ms"


def _bar(start: float, part: float, width: int) -> str:
    start = min(max(start, 0.0), 1.0)
    eighths = max(1, round(min(part, 1.0 - start) * width * 8))
    full, rest = divmod(eighths, 8)
    drawn = _PARTS[8] * full + (_PARTS[rest] if rest else "")
    return " " * min(int(start * width), width - 1) + drawn


def _width() -> int:
    if not sys.stdout.isatty() and "COLUMNS" not in os.environ:
        return WIDTH_OF_FILES
    return min(WIDTH_MAX, shutil.get_terminal_size().columns)

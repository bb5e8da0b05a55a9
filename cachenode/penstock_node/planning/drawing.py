"""The curve as a picture: in characters for a terminal, and as SVG.

Responsible for: axes that fit, the line, and marks on it.
Not responsible for: what is drawn (`curve`, `scenarios`).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from penstock.units import format_size

COLUMNS, ROWS = 60, 14
"""Of the picture in characters, without its axes."""
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Of a Braille character, by row and column."""
_EMPTY = 0x2800
_MARKED = "●"
_TICKS = 5
WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 48, 56
_INK, _PALE, _LINE, _MARK = "#1f2933", "#d5dbe1", "#1769aa", "#c2410c"


@dataclass(frozen=True, slots=True)
class Mark:
    """A place on the curve that is named."""

    name: str
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Picture:
    """Shares of 1 by capacities in bytes, on a scale of doublings."""

    title: str
    xs: Sequence[float]
    ys: Sequence[float]
    marks: Sequence[Mark]

    def across(self, x: float) -> float:
        """Return where a capacity stands, from 0 on the left to 1."""
        low, high = math.log(self.xs[0]), math.log(self.xs[-1])
        return min(1.0, max(0.0, (math.log(x) - low) / (high - low)))

    def height_at(self, across: float) -> float:
        """Return the line's height at a place."""
        places = [self.across(x) for x in self.xs]
        for at in range(1, len(places)):
            if across <= places[at]:
                part = (across - places[at - 1]) / max(1e-9, places[at] - places[at - 1])
                return self.ys[at - 1] + part * (self.ys[at] - self.ys[at - 1])
        return self.ys[-1]

    def ticks(self) -> list[float]:
        """Return capacities to write below it, evenly apart."""
        low, high = math.log(self.xs[0]), math.log(self.xs[-1])
        return [math.exp(low + (high - low) * k / (_TICKS - 1)) for k in range(_TICKS)]


def in_characters(picture: Picture) -> list[str]:
    """Return the picture's lines."""
    cells = [[_EMPTY] * COLUMNS for _ in range(ROWS)]
    before: int | None = None
    for column in range(2 * COLUMNS):
        y = picture.height_at(column / (2 * COLUMNS - 1))
        row = round((1.0 - y) * (4 * ROWS - 1))
        for each in range(min(row, before or row), max(row, before or row) + 1):
            cells[each // 4][column // 2] |= _DOTS[each % 4][column % 2]
        before = row
    lines = [[chr(cell) if cell != _EMPTY else " " for cell in row] for row in cells]
    for mark in picture.marks:
        column = round(picture.across(mark.x) * (COLUMNS - 1))
        lines[min(ROWS - 1, int((1.0 - mark.y) * ROWS))][column] = _MARKED
    every = {0: "100 %", ROWS // 2: " 50 %", ROWS - 1: "  0 %"}
    drawn = [
        f"{every.get(number, ''):>5} {'┤' if number in every else '│'}{''.join(row).rstrip()}"
        for number, row in enumerate(lines)
    ]
    drawn += [f"      └{'─' * COLUMNS}", _below(picture)]
    named = [f"{_MARKED} {mark.name}: {format_size(mark.x)}" for mark in picture.marks]
    return [picture.title, "", *drawn, *named]


def _below(picture: Picture) -> str:
    line = [" "] * (COLUMNS + 16)
    for tick in picture.ticks():
        text = format_size(round(tick))
        centre = 7 + round(picture.across(tick) * (COLUMNS - 1))
        start = max(0, centre - len(text) // 2)
        line[start : start + len(text)] = text
    return "".join(line).rstrip()


def as_svg(picture: Picture) -> str:
    """Return the picture as a whole SVG document."""
    body = "\n".join(f"  {part}" for part in _parts(picture))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="12" '
        f'fill="{_INK}">\n  <rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n'
    )


def _parts(picture: Picture) -> Iterator[str]:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def x_of(size: float) -> float:
        return LEFT + picture.across(size) * (right - LEFT)

    def y_of(share: float) -> float:
        return bottom - share * (bottom - TOP)

    yield f'<text x="{LEFT}" y="24" font-size="15">{escape(picture.title)}</text>'
    for percent in range(0, 101, 25):
        y = y_of(percent / 100)
        yield f'<line x1="{LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" stroke="{_PALE}"/>'
        yield f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{percent} %</text>'
    for tick in picture.ticks():
        x, text = x_of(tick), format_size(round(tick))
        yield f'<line x1="{x:.1f}" y1="{bottom}" x2="{x:.1f}" y2="{bottom + 5}" stroke="{_INK}"/>'
        yield f'<text x="{x:.1f}" y="{bottom + 20}" text-anchor="middle">{text}</text>'
    yield f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 12}" text-anchor="middle">capacity</text>'
    points = " ".join(
        f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in zip(picture.xs, picture.ys, strict=True)
    )
    yield f'<polyline points="{points}" fill="none" stroke="{_LINE}" stroke-width="2.5"/>'
    for mark in picture.marks:
        x, y = x_of(mark.x), y_of(mark.y)
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{_MARK}"/>'
        yield f'<text x="{x + 8:.1f}" y="{y + 16:.1f}">{escape(mark.name)}</text>'

"""A soak's outcome for people and for machines: a table, JSON, a picture.

Responsible for: what stands in each.
Not responsible for: what is judged (`judgement`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any
from xml.sax.saxutils import escape

from rich.table import Table

from penstock_node.testbed.soak.judgement import FOREIGN, Line, Verdict
from penstock_node.testbed.soak.vitals import Vitals
from penstock_node.testbed.soak.watch import Seen

SHOWN_MAX = 10
WIDTH, HEIGHT, MARGIN = 800, 360, 48
COLOURS = ("#1769aa", "#c2410c", "#15803d", "#7e22ce", "#b45309", "#0e7490", "#be185d", "#4d7c0f")
MEASURES = ("resident", "private", "descriptors", "sockets", "threads", "pooled", "disk")
SHORT = {"descriptors": "files", "pooled": "in pools"}
_MB = ("resident", "private", "disk")


def table(verdict: Verdict) -> Table:
    """Return what each process held at the window's beginning and its end."""
    made = Table(title=f"From the first to the last of {verdict.window_s:.0f} s, by a fitted line")
    made.add_column("process")
    for heading in (*MEASURES, ""):
        made.add_column(
            f"{SHORT.get(heading, heading)}{' MB' * (heading in _MB)}",
            justify="right",
            no_wrap=True,
        )
    rows: dict[str, list[Line]] = {}
    for line in verdict.lines:
        rows.setdefault(line.process, []).append(line)
    for process, lines in rows.items():
        found = {line.measure: line for line in lines}
        cells = [_cell(found.get(measure)) for measure in MEASURES]
        grown = [line.measure for line in lines if line in verdict.grown]
        judged = any(line.limit for line in lines) and verdict.is_judged
        mark = "[red]grew[/]" if grown else "flat" if judged else ""
        made.add_row(process, *cells, mark)
    return made


def _cell(line: Line | None) -> str:
    if line is None:
        return ""
    went = line.growth
    if line.measure not in _MB:
        return f"{went.first:.0f} → {went.last:.0f}"
    share = f" ({went.share:+.1%})" if line.measure == "resident" else ""
    return f"{went.first / 1e6:.1f} → {went.last / 1e6:.1f}{share}"


def sentences(verdict: Verdict) -> Iterator[str]:
    """Yield what else is to be said, one line each; troubles first."""
    named = {
        "wrong bytes": list(verdict.wrong),
        "errors that go with no fault": [
            f"{each.work}: {each.text}" for each in verdict.unexpected
        ],
        "troubles in logs": list(verdict.log_troubles),
        "budgets of disks that were not kept": list(verdict.over_budget),
        "grew beyond the limit": [
            f"{line.process}: {line.measure} {_cell(line)}, limit {line.limit}"
            for line in verdict.grown
        ],
    }
    for name, found in named.items():
        yield f"{name}: {len(found)}"
        yield from (f"  {each[:400]}" for each in found[:SHOWN_MAX])
    if verdict.failure:
        yield f"ended early: {verdict.failure}"
    expected = ", ".join(f"{name} {count}" for name, count in verdict.expected.items())
    yield f"errors that went with faults: {expected or 'none'}"
    if not verdict.is_judged:
        yield "too short for growth to be judged: that takes 5 minutes"


def as_json(verdict: Verdict, seen: Seen, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return all of it, samples included."""
    return {
        **inputs,
        "is_well": verdict.is_well,
        "is_judged": verdict.is_judged,
        **asdict(verdict),
        "lines": [
            {**asdict(line), "share": line.growth.share, "added": line.growth.added}
            for line in verdict.lines
        ],
        "samples": {
            f"{name} {pid}": [[round(at, 1), *asdict(vitals).values()] for at, vitals in samples]
            for (name, pid), samples in seen.vitals.items()
        },
        "disks": seen.disks,
    }


def as_svg(seen: Seen, verdict: Verdict, *, began: float, ended: float) -> str:
    """Return resident memory over time, each process's as a share of what it was at the end."""
    longest = [
        (key[0], samples)
        for key, samples in seen.vitals.items()
        if samples[-1][0] - samples[0][0] > (ended - began) / 2 and key[0] not in FOREIGN
    ]
    body = "\n".join(f"  {part}" for part in _parts(longest, verdict, began, ended))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="12">\n'
        f'  <rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n'
    )


def _parts(
    series: Sequence[tuple[str, Sequence[tuple[float, Vitals]]]],
    verdict: Verdict,
    began: float,
    ended: float,
) -> Iterator[str]:
    most = max((v.resident for _, samples in series for _, v in samples), default=1)

    def x_of(at: float) -> float:
        return MARGIN + (at - began) / (ended - began) * (WIDTH - MARGIN - 140)

    def y_of(size: float) -> float:
        return HEIGHT - MARGIN - size / most * (HEIGHT - 2 * MARGIN)

    yield f'<text x="{MARGIN}" y="24" font-size="15">Resident memory of what lasts</text>'
    judged = x_of(ended - verdict.window_s)
    yield (
        f'<rect x="{judged:.1f}" y="{MARGIN}" width="{x_of(ended) - judged:.1f}" '
        f'height="{HEIGHT - 2 * MARGIN}" fill="#f1f5f9"/>'
    )
    for share in (0.0, 0.5, 1.0):
        y = y_of(share * most)
        yield f'<text x="4" y="{y + 4:.1f}">{share * most / 1e6:.0f} MB</text>'
    yield f'<text x="{judged:.1f}" y="{HEIGHT - 16}">judged from here on</text>'
    for number, (name, samples) in enumerate(series):
        colour = COLOURS[number % len(COLOURS)]
        points = " ".join(f"{x_of(at):.1f},{y_of(v.resident):.1f}" for at, v in samples)
        yield f'<polyline points="{points}" fill="none" stroke="{colour}"/>'
        y = MARGIN + 16 * number
        yield f'<text x="{WIDTH - 130}" y="{y}" fill="{colour}">{escape(name)}</text>'


def progress(seen: Seen, counts: tuple[int, int, int], *, elapsed_s: float, now: str) -> str:
    """Return how far it is, in a line: works, bytes, wrong bytes."""
    works, read, wrong = counts
    held = {key[0]: samples[-1][1].resident for key, samples in seen.vitals.items()}
    return (
        f"{elapsed_s:4.0f} s  {works:,} works, {read / 1e9:.2f} GB compared, {wrong} wrong  "
        f"n1 {held.get('n1', 0) / 1e6:.0f} MB  {now}"
    )

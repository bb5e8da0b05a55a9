"""The figures of all benchmarks as one page of Markdown.

Responsible for: the page, from the reports that the benchmarks wrote as JSON.
Not responsible for: running them, and for judging: a target that was missed stands there as such.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from penstock_node.testbed.benchmark import Measure, listed

Report = Mapping[str, Any]
"""As `run_benchmark` writes it."""

_HEAD = """\
# What was measured

Written by `{command}`; run it again rather than edit. Each script of `bench/` says in its first
lines what it does, and runs alone as well.
"""
_COLUMNS = ("measure", "median", "unit", "range (runs)", "target", "")


def page(
    reports: Sequence[Report],
    *,
    command: str,
    date: str,
    versions: Mapping[str, str],
    failed: Sequence[str] = (),
) -> str:
    """Return the page.

    Args:
        reports: One of each benchmark that ran to its end.
        command: What has run them.
        date: When.
        versions: Of all parts, by name.
        failed: Benchmarks that did not run to their end.
    """
    lines = [_HEAD.format(command=command)]
    machine = dict(reports[0]["machine"]) if reports else {}
    machine.pop("load_1min", None)  # Each section has its own.
    lines += [f"- Date: {date}", f"- Machine: {listed(machine)}", f"- Versions: {listed(versions)}"]
    lines += [f"- Targets: {_targets(reports)}"]
    lines += [f"- **Did not finish: {name}**" for name in failed]
    for report in reports:
        lines += ["", *_section(report)]
    return "\n".join(lines) + "\n"


def measures_of(report: Report) -> list[Measure]:
    """Return a report's figures as they were measured."""
    rows = (dict(row) for row in report["measures"])
    return [Measure(**{name: row[name] for name in row if name != "is_met"}) for row in rows]


def _targets(reports: Sequence[Report]) -> str:
    judged = [row for report in reports for row in measures_of(report) if row.bound]
    verdicts = Counter(row.is_met for row in judged)
    missed = f"{verdicts[False]} missed, {verdicts[None]} not measured"
    return f"{verdicts[True]} met, {missed}"


def _section(report: Report) -> Iterator[str]:
    load = report["machine"]["load_1min"]
    yield f"## {report['title']}"
    yield ""
    yield f"`{report['command']}`, {listed(report['inputs'])}; load before {load}."
    yield ""
    yield _row(_COLUMNS)
    yield _row(["---"] * len(_COLUMNS))
    group = ""
    for measure in measures_of(report):
        if measure.group != group:
            group = measure.group
            yield _row([f"**{group}**", *[""] * (len(_COLUMNS) - 1)])
        yield _row([measure.name, *measure.shown])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"

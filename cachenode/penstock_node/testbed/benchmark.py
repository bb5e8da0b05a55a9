"""How benchmarks tell what they measured: figures beside their targets, inputs and machine.

Responsible for: medians over runs, the table on the terminal, the same as JSON, progress on
standard error, and the flags that every benchmark has.
Not responsible for: measuring (`testbed.contest` and the scripts of ``bench/``). Nothing here
fails because a target was missed: machines differ.
"""

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.progress import track
from rich.table import Table

from penstock_node.testbed.template import fork_commands

Bound = Literal["", "≤", "≥", "="]
Inputs = Mapping[str, Any]

_CPU_INFO = Path("/proc/cpuinfo")
_PROGRESS = Console(stderr=True)


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure: the median of its runs, and what it should be if anything says so."""

    name: str
    value: float | None
    """None where it could not be measured; ``note`` says why."""
    unit: str = ""
    runs: int = 1
    lowest: float | None = None
    """Of all runs; None for one that is no median. ``highest`` likewise."""
    highest: float | None = None
    bound: Bound = ""
    """How ``value`` should stand to ``target``; empty where there is no target."""
    target: float = 0.0
    group: str = ""
    """What it was measured on, where a benchmark measures on several."""
    note: str = ""
    """Stands in the place of a value that is None."""

    @classmethod
    def of(
        cls,
        name: str,
        samples: Sequence[float],
        unit: str = "",
        *,
        bound: Bound = "",
        target: float = 0.0,
        group: str = "",
    ) -> "Measure":
        """Return the median of ``samples``, with their range."""
        return cls(
            name,
            statistics.median(samples),
            unit,
            runs=len(samples),
            lowest=min(samples),
            highest=max(samples),
            bound=bound,
            target=target,
            group=group,
        )

    @property
    def is_met(self) -> bool | None:
        """Whether the figure is as it should be; None without a target or without a value.

        What should be equal must be so in every run: there is no chance in it.
        """
        if self.value is None:
            return None
        match self.bound:
            case "≤":
                return self.value <= self.target
            case "≥":
                return self.value >= self.target
            case "=":
                return {self.value, self.lowest, self.highest} <= {self.target, None}
        return None

    @property
    def shown(self) -> tuple[str, str, str, str, str]:
        """The figure as cells of a table: median, unit, range, target, verdict."""
        value = self.note if self.value is None else _number(self.value)
        target = f"{self.bound} {_number(self.target)}" if self.bound else ""
        verdict = {None: "", True: "met", False: "missed"}[self.is_met]
        return value, self.unit, self._range(), target, verdict

    def _range(self) -> str:
        if self.lowest is None or self.highest is None or self.runs == 1:
            return ""
        return f"{_number(self.lowest)} … {_number(self.highest)} ({self.runs})"


def percentile(samples: Sequence[float], percent: int) -> float:
    """Return the sample that ``percent`` of them do not exceed."""
    assert samples, "no samples, no percentile"
    assert 0 < percent <= 100, f"percent={percent}"
    return sorted(samples)[-(-len(samples) * percent // 100) - 1]


def machine() -> dict[str, Any]:
    """Return what the figures depend on and nobody chose."""
    return {
        "cpus": os.cpu_count() or 0,
        "cpu": _cpu_model(),
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
        "load_1min": round(os.getloadavg()[0], 1),
    }


def _cpu_model() -> str:
    if not _CPU_INFO.exists():
        return platform.processor()
    lines = _CPU_INFO.read_text(encoding="ascii", errors="replace").splitlines()
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.machine())


def rounds(count: int, what: str) -> Iterator[int]:
    """Yield the numbers of ``count`` rounds, and show on standard error how far they are."""
    yield from track(range(count), what, console=_PROGRESS, transient=True)


def run_benchmark(
    title: str,
    measure: Callable[[bool], tuple[Inputs, Sequence[Measure]]],
    arguments: Sequence[str] | None = None,
    *,
    starts_are_measured: bool = False,
) -> None:
    """Run one benchmark as a command: measure, print a table, write JSON where asked.

    Args:
        title: What is measured, in a line.
        measure: Called with whether to be quick; returns the inputs and the figures.
        arguments: Of the command; by default the process's.
        starts_are_measured: Start nodes as anybody does, also when quick.
    """
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--quick", action="store_true", help="small and short: shows that it runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    options = parser.parse_args(arguments)
    if options.quick and not starts_are_measured:
        fork_commands()
    on = machine()  # Before the load that this makes itself.
    inputs, measures = measure(options.quick)
    console = Console()
    console.print(_table(title, measures, with_verdicts=not options.quick))
    console.print(f"{listed(inputs)}\n{listed(on)}", highlight=False)
    if options.json:
        report = {
            "title": title,
            "command": f"python bench/{Path(sys.argv[0]).name}{' --quick' * options.quick}",
            "inputs": dict(inputs),
            "machine": on,
            "measures": [asdict(row) | {"is_met": row.is_met} for row in measures],
        }
        options.json.write_text(json.dumps(report, indent=1) + "\n")


def _table(title: str, measures: Sequence[Measure], *, with_verdicts: bool) -> Table:
    """Return the figures; verdicts are left out where targets are not meant."""
    table = Table(title=title)
    table.add_column("measure")
    for name in ("median", "unit", "range", "target", ""):
        table.add_column(name, justify="left" if name == "unit" else "right")
    group = ""
    for row in measures:
        if row.group != group:
            group = row.group
            table.add_section()
            table.add_row(group, style="bold")
        *cells, verdict = row.shown
        table.add_row(row.name, *cells, verdict if with_verdicts else "")
    return table


def listed(values: Mapping[str, Any]) -> str:
    """Return names and values in a line, for people."""
    return ", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in values.items())


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) and abs(value) >= 10 else f"{value:,.4g}"

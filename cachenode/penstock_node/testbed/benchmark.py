"""How benchmarks tell what they measured: figures beside their targets, inputs and machine.

Responsible for: medians over runs, the table on the terminal, the same as JSON, and the flags
that every benchmark has.
Not responsible for: measuring. Nothing here fails because a target was missed: machines differ.
"""

import argparse
import json
import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

Bound = Literal["", "≤", "≥", "="]
Inputs = Mapping[str, Any]

_CPU_INFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure: the median of its runs, and what it should be if anything says so."""

    name: str
    value: float
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
        """Whether the figure is as it should be; None without a target.

        What should be equal must be so in every run: there is no chance in it.
        """
        match self.bound:
            case "≤":
                return self.value <= self.target
            case "≥":
                return self.value >= self.target
            case "=":
                return {self.value, self.lowest, self.highest} <= {self.target, None}
        return None


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
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_1min": round(os.getloadavg()[0], 1),
    }


def _cpu_model() -> str:
    if not _CPU_INFO.exists():
        return platform.processor()
    lines = _CPU_INFO.read_text(encoding="ascii", errors="replace").splitlines()
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.machine())


def run_benchmark(
    title: str,
    measure: Callable[[bool], tuple[Inputs, Sequence[Measure]]],
    arguments: Sequence[str] | None = None,
) -> None:
    """Run one benchmark as a command: measure, print a table, write JSON where asked.

    Args:
        title: What is measured, in a line.
        measure: Called with whether to be quick; returns the inputs and the figures.
        arguments: Of the command; by default the process's.
    """
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--quick", action="store_true", help="small and short: shows that it runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    options = parser.parse_args(arguments)
    on = machine()  # Before the load that this makes itself.
    inputs, measures = measure(options.quick)
    console = Console()
    console.print(_table(title, measures, with_verdicts=not options.quick))
    console.print(f"{_listed(inputs)}\n{_listed(on)}", highlight=False)
    if options.json:
        rows = [asdict(row) | {"is_met": row.is_met} for row in measures]
        report = {"inputs": dict(inputs), "machine": on, "measures": rows}
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
        table.add_row(
            row.name,
            _number(row.value),
            row.unit,
            _range(row),
            f"{row.bound} {_number(row.target)}" if row.bound else "",
            _verdict(row) if with_verdicts else "",
        )
    return table


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in values.items())


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) and abs(value) >= 10 else f"{value:,.4g}"


def _range(row: Measure) -> str:
    if row.lowest is None or row.highest is None or row.runs == 1:
        return ""
    return f"{_number(row.lowest)} … {_number(row.highest)} ({row.runs})"


def _verdict(row: Measure) -> str:
    return {None: "", True: "met", False: "missed"}[row.is_met]

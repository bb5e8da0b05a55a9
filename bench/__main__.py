"""Run the benchmarks, one after another, and write what they measured to ``RESULTS.md``.

    python bench [NAME …] [--quick] [--results FILE]

Each is a script of this folder and a process of its own; `NAME` chooses some, by default all
run. The page is written when all have run, or where ``--results`` says so.
"""

import argparse
import contextlib
import datetime
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from penstock_node.testbed.results import Report, page
from penstock_node.testbed.versions import versions

BENCH = Path(__file__).parent
NAMES = tuple(sorted(path.stem for path in BENCH.glob("*.py") if path != Path(__file__)))
RUN_TIMEOUT_S = 3600.0
"""Of one benchmark at full size, on a slow machine."""


@dataclass(slots=True)
class Outcome:
    """What came of the benchmarks so far."""

    reports: list[Report] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def run(names: Sequence[str], *, is_quick: bool, progress: Console) -> Outcome:
    """Run benchmarks one after another; one that fails does not end the others."""
    outcome = Outcome()
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as directory:
        for number, name in enumerate(names, start=1):
            progress.rule(escape(f"{number} of {len(names)}: {name}"))
            report = Path(directory) / f"{name}.json"
            if run_one(name, report, is_quick=is_quick):
                outcome.reports.append(json.loads(report.read_text()))
            else:
                progress.print(f"[red]{name} failed[/]")
                outcome.failed.append(name)
    return outcome


def run_one(name: str, report: Path, *, is_quick: bool) -> bool:
    """Run one benchmark, which prints its own table; tell whether it wrote its report."""
    script, quick = str(BENCH / f"{name}.py"), ["--quick"] if is_quick else []
    command = [sys.executable, script, "--json", str(report), *quick]
    with contextlib.suppress(subprocess.TimeoutExpired):  # It failed, as others do.
        return subprocess.run(command, check=False, timeout=RUN_TIMEOUT_S).returncode == 0
    return False


def main() -> None:
    """Run what was asked for; fails when a benchmark did, and not for missed targets."""
    parser = argparse.ArgumentParser(prog="python bench", description="Run the benchmarks.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--quick", action="store_true", help="small and short: shows that they run")
    parser.add_argument("--results", type=Path, metavar="FILE", help="write the page there")
    options = parser.parse_args()
    if unknown := sorted(set(options.names) - set(NAMES)):
        parser.error(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(NAMES)}")
    names = options.names or NAMES
    progress = Console(stderr=True)
    outcome = run(names, is_quick=options.quick, progress=progress)
    whole = None if options.quick or options.names else BENCH / "RESULTS.md"
    asked = ["python bench", *options.names, *(["--quick"] if options.quick else [])]
    if target := options.results or whole:
        target.write_text(
            page(
                outcome.reports,
                command="make bench" if target == whole else " ".join(asked),
                date=datetime.datetime.now(datetime.UTC).date().isoformat(),
                versions=versions(),
                failed=outcome.failed,
            )
        )
        progress.print(f"wrote {target}")
    sys.exit(bool(outcome.failed))


if __name__ == "__main__":
    main()

"""Measure what loading Penstock costs: the library in a program, and the command line.

    python bench/import_time.py [--quick] [--json FILE]

Every run is a new process on a warm page cache. The interpreter's own start is measured beside
the rest and taken off where a figure says so.
"""

import subprocess
import sys
import time
from collections.abc import Sequence

from penstock_node.testbed.benchmark import Inputs, Measure, rounds, run_benchmark

RUNS, RUNS_QUICK = 20, 2
HEAVY = ("grpc", "numpy", "google.protobuf", "obstore", "typer", "asyncio")
"""What a program must not load by importing the library."""

NOTHING = ("-c", "pass")
IMPORT = ("-c", "import penstock")
CONNECT = ("-c", "import penstock; penstock.connect('127.0.0.1:1').close()")
HELP = ("-m", "penstock", "--help")
PROBE = ("-c", f"import sys, penstock; print(sum(name in sys.modules for name in {HEAVY!r}))")


def milliseconds(arguments: Sequence[str]) -> float:
    """Return how long one new interpreter takes."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - begun) * 1e3


def heavy_modules_loaded() -> int:
    """Return how many of `HEAVY` are loaded by importing the library."""
    done = subprocess.run([sys.executable, *PROBE], check=True, capture_output=True, text=True)
    return int(done.stdout)


def measure(is_quick: bool) -> tuple[Inputs, list[Measure]]:
    """Time all commands in turn, so that a busy moment of the machine hits all alike."""
    runs = RUNS_QUICK if is_quick else RUNS
    commands = (NOTHING, IMPORT, CONNECT, HELP)
    for command in commands:
        milliseconds(command)  # Compiles what is not compiled yet.
    times = [[milliseconds(c) for c in commands] for _ in rounds(runs, "imports")]
    nothing, imported, connected, helped = (list(column) for column in zip(*times, strict=True))
    added = [max(0.0, after - before) for before, after in zip(nothing, imported, strict=True)]
    return {"runs": runs}, [
        Measure.of("interpreter alone", nothing, "ms"),
        Measure.of("import penstock, interpreter taken off", added, "ms", bound="≤", target=150.0),
        Measure.of("import penstock, whole process", imported, "ms"),
        Measure.of("import and first connect, whole process", connected, "ms"),
        Measure.of("penstock --help, whole process", helped, "ms"),
        Measure(
            f"loaded by import, of {', '.join(HEAVY)}",
            heavy_modules_loaded(),
            "modules",
            bound="=",
        ),
    ]


if __name__ == "__main__":
    run_benchmark("What importing Penstock costs", measure)

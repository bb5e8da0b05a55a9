"""Run benchmarks of ``bench/`` quickly, as standard input names them, one after another.

    python tests/integration/quick_benchmarks.py DIRECTORY

All in this one process: they have the same imports, and the same template of nodes. Each has its
arguments, its output and its report as if it ran by itself: ``NAME.txt`` and ``NAME.json`` of the
directory, and ``NAME.err`` if it failed. Its name is written to standard output when it is over.
"""

import os
import runpy
import sys
import traceback
from pathlib import Path

BENCH = Path(__file__).parents[2] / "bench"


def run(name: str, directory: Path) -> None:
    """Run one as ``python bench/NAME.py --quick --json NAME.json > NAME.txt`` does."""
    script = str(BENCH / f"{name}.py")
    sys.argv = [script, "--quick", "--json", str(directory / f"{name}.json")]
    with (directory / f"{name}.txt").open("wb") as shown:
        os.dup2(shown.fileno(), sys.stdout.fileno())  # Also for what it starts.
    try:
        runpy.run_path(script, run_name="__main__")
    except BaseException:  # noqa: BLE001 - `SystemExit` too: the others run on
        (directory / f"{name}.err").write_text(traceback.format_exc())
    sys.stdout.flush()


def main() -> None:
    """Run what is named, until an empty line."""
    directory = Path(sys.argv[1])
    with os.fdopen(os.dup(sys.stdout.fileno()), "w") as answers:
        while name := sys.stdin.readline().strip():
            run(name, directory)
            print(name, file=answers, flush=True)


if __name__ == "__main__":
    main()

"""Runs a page's Python blocks in one process, as told on standard input.

Responsible for: one namespace for all blocks of a page, the environment and directory that its
shell has, and errors that name the page's own lines.
Not responsible for: which blocks. `sessions` starts it on a machine, as a program.
"""

import json
import linecache
import os
import sys
import traceback
import types
from pathlib import Path
from typing import Any


def main() -> None:
    """Run blocks until standard input ends; after each, tell its exit status and the line."""
    answers = os.fdopen(os.dup(1), "w")
    program = types.ModuleType("__main__")  # What a block pickles is looked for there.
    sys.modules["__main__"] = program
    for line in sys.stdin:
        job = json.loads(line)
        _print_to(Path(job["output"]))
        _follow_shell(job)
        status, at = _run(job, vars(program))
        sys.stdout.flush()
        answers.write(f"{status} {at}\n")
        answers.flush()


def _print_to(output: Path) -> None:
    """Have all that is printed go to a file, by this process and those that it starts."""
    with output.open("ab") as target:
        os.dup2(target.fileno(), 1)
        os.dup2(target.fileno(), 2)


def _follow_shell(job: dict[str, Any]) -> None:
    os.environ.clear()
    os.environ.update(job["environment"])
    os.chdir(job["directory"])
    # As with `python`, what lies in the current directory can be imported.
    sys.path[:1] = [job["directory"]]


def _run(job: dict[str, Any], namespace: dict[str, Any]) -> tuple[int, int]:
    """Return the exit status, and the page's line that failed or 0."""
    page, text = job["page"], "\n" * (job["line"] - 1) + job["text"]
    linecache.cache[page] = (len(text), None, text.splitlines(keepends=True), page)
    try:
        exec(compile(text, page, "exec"), namespace)  # noqa: S102 - that is what it is for
    except SystemExit as ended:
        return (ended.code if isinstance(ended.code, int) else int(ended.code is not None)), 0
    except BaseException as error:  # noqa: BLE001 - who reads the page's output reads it
        trace = error.__traceback__
        while trace and trace.tb_frame.f_code.co_filename != page:
            trace = trace.tb_next
        sys.stdout.flush()
        traceback.print_exception(type(error), error, trace or error.__traceback__)
        return 1, trace.tb_lineno if trace else 0
    return 0, 0


if __name__ == "__main__":
    main()

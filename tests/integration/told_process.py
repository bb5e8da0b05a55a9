"""A process that is told what to do by lines, and answers each with a line.

For programs that load for seconds and do little: one does the work of many. A new one is started
where the last has ended, so that one failure is one test's. An empty line tells it to end.
"""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Self

END_TIMEOUT_S = 10.0
LOG_TAIL_CHARS = 4096


class ToldProcess:
    """The process. It starts when first told; as a context manager it has ended at the end."""

    def __init__(self, command: Sequence[str], *, log: Path) -> None:
        """Describe it; what it says on standard error goes to ``log``."""
        self._command, self._log = command, log
        self._process: subprocess.Popen[str] | None = None

    def tell(self, line: str) -> str:
        """Return what it answers to a line; an `AssertionError` if it ends instead."""
        if self._process is None:
            self._process = self._started()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            self._kill()
            raise AssertionError(f"ended by {line}: {self._log.read_text()[-LOG_TAIL_CHARS:]}")
        return answer.removesuffix("\n")

    def _started(self) -> "subprocess.Popen[str]":
        with self._log.open("a") as log:
            return subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=os.environ | {"COLUMNS": "200"},
                text=True,
            )

    def _kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with process:
                process.kill()

    def _end(self) -> None:
        """Have it end by itself, as nobody tells it anything more; kill it if it does not."""
        process, self._process = self._process, None
        if process is not None:
            with process:
                assert process.stdin is not None
                try:
                    # An end of the pipe would not do: whatever this process has forked has it too.
                    process.stdin.write("\n")
                    process.stdin.flush()
                    process.wait(END_TIMEOUT_S)
                except subprocess.TimeoutExpired:
                    process.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._end()
